const FIRST_PING_AFTER_MS = 1_000; // a page that just started would measure itself, not the way to the server
const PING_INTERVAL_MS = 5_000;
const PONG_TIMEOUT_MS = 10_000;

/** Measures how far away the server is, and finds out whether a silent connection is still alive. */
export class Heartbeat {
  /** How long a message takes to the server and back; NaN before the first answer. */
  roundTripMs = NaN;
  #timers;
  #ask;
  #onSilence;
  #pongAtMs = NaN;

  /** @param {{timers: import("./timers.js").Timers, ask: (text: string) => Promise<any>, onSilence: () => void}} way */
  constructor({ timers, ask, onSilence }) {
    this.#timers = timers;
    this.#ask = ask;
    this.#onSilence = onSilence;
  }

  /** Begins on a connection that is live; ends with the connection's timers. */
  begin() {
    this.#timers.after("ping", FIRST_PING_AFTER_MS, () => this.#ping());
  }

  /** Notes that the server sent something; a pong is timed here, before it waits to be decoded. @param {any} text */
  hear(text) {
    this.#timers.stop("pong");
    if (typeof text === "string" && text.startsWith('{"type":"pong"')) this.#pongAtMs = performance.now();
  }

  #ping() {
    const sentAtMs = performance.now();
    if (!this.#timers.has("pong")) this.#timers.after("pong", PONG_TIMEOUT_MS, this.#onSilence); // from the first unanswered ping on
    this.#ask('{"type":"ping"}').then(
      () => { this.roundTripMs = this.#pongAtMs - sentAtMs; },
      () => {}, // the connection ended, which `link` reports
    );
    this.#timers.after("ping", PING_INTERVAL_MS, () => this.#ping());
  }
}
