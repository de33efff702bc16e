const NORMAL_CLOSE = 1000;
const BROKEN = 1006;

/** One WebSocket at a time, of the class that this runtime has. After `hangUp` no callback is called. */
export class Socket {
  #socket = null;

  /**
   * Dials.
   * @param {string} address
   * @param {{onOpen: () => void, onText: (text: any) => void, onEnd: (code: number, reason: string) => void}} told
   * @param {import("./pin.js").Pin|null} pin which server is trusted; null for those that the runtime trusts
   * @throws {Error} this runtime opens no such socket
   */
  dial(address, { onOpen, onText, onEnd }, pin = null) {
    /** @type {WebSocket & {on?: (event: string, listener: () => void) => void}} */
    const socket = pin ? new (/** @type {any} */ (WebSocket))(address, [], pin.begin()) : new WebSocket(address);
    const isCurrent = () => socket === this.#socket;
    let wasOpen = false;
    const end = (code, reason) => {
      if (isCurrent()) onEnd(code, reason);
    };
    this.#socket = socket;
    socket.onopen = () => {
      wasOpen = true;
      if (pin && !pin.isChecked) socket.close(); // some WebSocket that took no notice: it is told nothing
      else if (isCurrent()) onOpen();
    };
    socket.onmessage = ({ data }) => {
      if (isCurrent()) onText(data);
    };
    socket.onclose = ({ code, reason }) => end(code, String(reason ?? ""));
    // `close` tells the rest, but some runtimes have none for a connection that never was.
    const fail = () => {
      if (!wasOpen) setTimeout(() => end(BROKEN, ""), 0);
    };
    socket.onerror = fail;
    socket.on?.("error", fail); // an EventEmitter to whose errors nobody listens ends the process
  }

  /** Sends a text. If the connection is not open any more, `onEnd` tells, and what was not acknowledged is sent again then. */
  say(text) {
    try {
      this.#socket?.send(text);
    } catch {
      // as said above
    }
  }

  hangUp() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(NORMAL_CLOSE);
  }
}
