/**
 * The wire: one WebSocket to a twincast server, kept alive, decoded, and folded to the newest state of every device.
 *
 * Knows no document, so a page of its own (or a worker) can use it as it is:
 *
 *     const client = new Client({ url: "ws://127.0.0.1:8000/ws", onMessages: (batch) => … });
 *     client.open();
 *     await client.send('{"type":"telemetry","device_id":"lamp","value":"on"}');
 */

import { parse } from "./json.js";

const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const HELLO_TIMEOUT_MS = 10_000;
const FIRST_PING_AFTER_MS = 1_000; // a page that just started measures itself, not the way to the server
const PING_INTERVAL_MS = 5_000;
const PONG_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
const STEADY_AFTER_MS = 5_000; // a connection that lasted less does not count as a success
const PENDING_MAX_CHARS = 1 << 20; // a page in the background draws no frames, and must not hoard what comes in
const NORMAL_CLOSE = 1000;

/**
 * Full-jitter back-off: any wait from none up to a bound that doubles, so that a fleet does not come back as one.
 * @param {number} attempt 0 for the first retry
 * @param {() => number} [random]
 * @returns {number} milliseconds
 */
export function backoffMs(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** attempt);
}

/** A request that was not done. `code` is the server's word for it, or the client's own: `not_connected`, `connection_lost`, `no_answer`. */
export class RequestError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * @typedef {{value: any, updated_at_utc: string, source: string, seq: number}} Twin
 * @typedef {{phase: "closed"|"connecting"|"live"|"waiting"|"refused", retryAtMs: number,
 *   attempt: number, reason: string}} Link
 *   `phase` "waiting" means for the next attempt, at `retryAtMs`; "refused" means until somebody calls `retry`.
 */

export class Client {
  #socket = null;
  #timers = new Map();
  #pending = [];
  #pendingChars = 0;
  #isScheduled = false;
  #named = new Map();
  #unnamed = [];
  #nextId = 1;
  #attempt = 0;
  #pongAtMs = NaN;

  /**
   * @param {object} options
   * @param {string} options.url ws://… or wss://…
   * @param {(drain: () => void) => void} [options.schedule] runs `drain` soon; messages are decoded together then
   * @param {(link: Link) => void} [options.onLink] the connection's phase changed
   * @param {(hello: object, twins: Map<string, Twin>) => void} [options.onSnapshot] the state was replaced
   * @param {(messages: object[]) => void} [options.onMessages] what came since, in order, already folded into `twins`
   * @param {() => Promise<{isFinal: boolean, reason: string}|null>} [options.explain] asked why a handshake failed
   */
  constructor({ url, schedule, onLink, onSnapshot, onMessages, explain }) {
    this.url = url;
    this.schedule = schedule ?? ((drain) => setTimeout(drain, 0));
    this.onLink = onLink ?? (() => {});
    this.onSnapshot = onSnapshot ?? (() => {});
    this.onMessages = onMessages ?? (() => {});
    this.explain = explain ?? (async () => null);
    /** The newest state of every device. @type {Map<string, Twin>} */
    this.twins = new Map();
    /** How far into which log this client has come; what a later connection can resume from. */
    this.position = { epoch: "", seq: 0 };
    /** @type {Link} */
    this.link = { phase: "closed", retryAtMs: 0, attempt: 0, reason: "" };
    this.roundTripMs = NaN;
    /** How many messages came, answers to heartbeats aside. */
    this.messagesCount = 0;
    this.undecodedCount = 0;
    globalThis.addEventListener?.("online", () => this.retry());
  }

  /** Connects, and from then on reconnects by itself. */
  open() {
    if (this.link.phase === "closed") this.#connect();
  }

  /** Tries again at once, if the client is not connected or connecting. */
  retry() {
    if (this.link.phase === "waiting" || this.link.phase === "refused") this.#connect();
  }

  /** Ends the connection and all attempts. */
  close() {
    this.#drop();
    this.#enter("closed");
  }

  /**
   * Sends a message and waits for what answers it: the acknowledgement of telemetry and control, which comes after the
   * commit, or pong, echo or error. Telemetry and control without an `id` are given one, else nothing would answer them.
   * @param {string} text JSON; apart from the added `id` it is sent digit by digit as it is
   * @returns {Promise<object>} the answer
   * @throws {RequestError}
   * @throws {SyntaxError} the text is not JSON
   */
  send(text) {
    const message = parse(text);
    if (message?.type !== "telemetry" && message?.type !== "control") {
      return this.#send(text, (waiter) => this.#unnamed.push(waiter));
    }
    if (message.id !== undefined) return this.#send(text, (waiter) => this.#named.set(message.id, waiter));
    const id = `page-${this.#nextId++}`;
    return this.#send(text.replace("{", `{"id":"${id}",`), (waiter) => this.#named.set(id, waiter));
  }

  /** Decodes and delivers what has come in. `schedule` calls it; there is no need to. */
  drain() {
    this.#isScheduled = false;
    const texts = this.#pending;
    this.#pending = [];
    this.#pendingChars = 0;
    let batch = [];
    for (const text of texts) {
      const message = this.#decode(text);
      if (message?.type === "hello") {
        if (batch.length) this.onMessages(batch);
        batch = [];
        this.messagesCount += 1;
        this.#greet(message);
      } else if (message) {
        if (!this.#fold(message)) continue;
        this.messagesCount += 1;
        batch.push(message);
      }
    }
    if (batch.length) this.onMessages(batch);
  }

  #connect() {
    this.#drop();
    this.#enter("connecting", this.link.reason);
    const socket = new WebSocket(this.url);
    let wasOpen = false;
    this.#socket = socket;
    this.#after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server did not greet", wasOpen));
    socket.onopen = () => { wasOpen = true; };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = ({ code, reason }) => {
      this.drain(); // what came before the end counts
      if (code >= 4500 && code <= 4999) this.#refuse(reason || `close code ${code}`);
      else this.#lose(reason || sayClose(code), wasOpen);
    };
  }

  #take(text) {
    this.#stop("pong");
    if (typeof text !== "string") return;
    this.#pending.push(text);
    this.#pendingChars += text.length;
    if (text.startsWith('{"type":"pong"')) this.#pongAtMs = performance.now();
    if (this.#pendingChars > PENDING_MAX_CHARS) {
      this.drain();
    } else if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.schedule(() => this.drain());
    }
  }

  #decode(text) {
    try {
      return parse(text);
    } catch {
      this.undecodedCount += 1;
      return null;
    }
  }

  #greet(hello) {
    this.#stop("hello");
    const twins = hello.data_snapshot ?? {};
    this.twins = new Map(Object.keys(twins).map((id) => [id, twins[id]]));
    this.position = { epoch: hello.epoch ?? "", seq: hello.seq ?? 0 };
    this.#enter("live");
    this.#after("steady", STEADY_AFTER_MS, () => { this.#attempt = 0; });
    this.onSnapshot(hello, this.twins);
    this.#after("ping", FIRST_PING_AFTER_MS, () => this.#ping());
  }

  /** @returns {boolean} whether the message is anybody else's business; the answer to a heartbeat is not */
  #fold(message) {
    if (message.seq > this.position.seq) this.position.seq = message.seq;
    if (message.type === "data_update") {
      const { value, timestamp_utc: updated_at_utc, source, seq } = message;
      this.twins.set(message.device_id, { value, updated_at_utc, source, seq });
    } else if (message.id !== undefined && this.#named.has(message.id)) {
      this.#settle(this.#named.get(message.id), message);
    } else if (message.type === "pong" || message.type === "echo" || message.type === "error") {
      const waiter = message.type === "error" ? this.#oldestRefusable() : this.#unnamed[0];
      if (waiter) this.#settle(waiter, message);
      return !waiter?.isHeartbeat;
    }
    return true;
  }

  /** A server that cannot read a message cannot echo its id either; it answers in the order in which they came. */
  #oldestRefusable() {
    return this.#unnamed.find((waiter) => !waiter.isHeartbeat) ?? this.#named.values().next().value;
  }

  #send(text, remember) {
    if (this.link.phase !== "live") {
      return Promise.reject(new RequestError("not_connected", "There is no connection; nothing was sent."));
    }
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject, timer: 0 };
      const late = new RequestError("no_answer", "The server did not answer within 10 s; the message may have been stored.");
      waiter.timer = setTimeout(() => this.#fail(waiter, late), ANSWER_TIMEOUT_MS);
      remember(waiter);
      this.#socket.send(text);
    });
  }

  #settle(waiter, message) {
    this.#forget(waiter);
    if (message.type === "error") waiter.reject(new RequestError(message.code, message.message));
    else waiter.resolve(message);
  }

  #fail(waiter, error) {
    this.#forget(waiter);
    waiter.reject(error);
  }

  #forget(waiter) {
    clearTimeout(waiter.timer);
    this.#unnamed = this.#unnamed.filter((other) => other !== waiter);
    for (const [id, other] of this.#named) if (other === waiter) this.#named.delete(id);
  }

  /** Finds out how far away the server is, and whether a silent connection still is one. */
  #ping() {
    const sentAtMs = performance.now();
    const fallSilent = () => this.#lose("the server fell silent", true);
    if (!this.#timers.has("pong")) this.#after("pong", PONG_TIMEOUT_MS, fallSilent); // counts from the first ping unanswered
    const remember = (waiter) => this.#unnamed.push(Object.assign(waiter, { isHeartbeat: true }));
    this.#send('{"type":"ping"}', remember).then(
      () => { this.roundTripMs = this.#pongAtMs - sentAtMs; },
      () => {}, // the connection ended, which tells for itself
    );
    this.#after("ping", PING_INTERVAL_MS, () => this.#ping());
  }

  #lose(reason, wasOpen) {
    this.#drop();
    const delayMs = backoffMs(this.#attempt);
    this.#attempt += 1;
    // A handshake that failed says nothing; until `explain` does, the reason before it is the better one.
    this.#enter("waiting", wasOpen ? reason : this.link.reason, Date.now() + delayMs);
    this.#after("retry", delayMs, () => this.#connect());
    if (!wasOpen) this.#askWhy();
  }

  async #askWhy() {
    const why = await this.explain();
    if (!why || this.link.phase === "live" || this.link.phase === "closed") return;
    if (why.isFinal) this.#refuse(why.reason);
    else if (this.link.phase === "waiting") this.#enter("waiting", why.reason, this.link.retryAtMs);
  }

  #refuse(reason) {
    this.#drop();
    this.#enter("refused", reason);
  }

  #drop() {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(NORMAL_CLOSE);
    }
    const lost = new RequestError("connection_lost", "The connection ended before the answer; the message may have been stored.");
    for (const waiter of [...this.#named.values(), ...this.#unnamed]) this.#fail(waiter, lost);
  }

  #enter(phase, reason = "", retryAtMs = 0) {
    this.link = { phase, reason, retryAtMs, attempt: this.#attempt };
    this.onLink(this.link);
  }

  #after(name, delayMs, callback) {
    this.#stop(name);
    this.#timers.set(name, setTimeout(callback, delayMs));
  }

  #stop(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

function sayClose(code) {
  if (code === 1012) return "the server restarts";
  if (code === 1006) return "the connection broke";
  return `the server closed the connection (${code})`;
}
