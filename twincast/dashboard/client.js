/**
 * The wire: one connection to a twincast server that keeps itself alive, and the newest state of every device.
 *
 * One module without imports and without a document, for a page of your own (or a worker):
 *
 *     import { Client } from "http://127.0.0.1:8000/dashboard/client.js";
 *
 *     const client = new Client({
 *       url: "ws://127.0.0.1:8000/ws",
 *       devices: ["lab/*"],
 *       onMessages: (batch) => console.log(batch, client.twins),
 *     });
 *     client.open();
 *     await client.publish("lab/lamp", "on"); // the server has it on disk
 *
 * A server with a login takes a credential as `token`; it is sent as the first message, never in an address.
 *
 * After a lost connection it comes back, goes on at its cursor, and sends again what was not acknowledged; where changes
 * may be missing it says so. The wire is described in docs/delivery.md.
 */

const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const HELLO_TIMEOUT_MS = 10_000;
const FIRST_PING_AFTER_MS = 1_000; // a page that just started measures itself, not the way to the server
const PING_INTERVAL_MS = 5_000;
const PONG_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
const RETRY_AFTER_MS = 1_000; // for what the server cannot store at the moment
const STEADY_AFTER_MS = 5_000; // a connection that lasted less does not count as a success
const PENDING_MAX_CHARS = 1 << 20; // a page in the background draws no frames, and must not hoard what comes in
const UPDATES_MAX = 1_000;
const PAGE = 1_000;
const NORMAL_CLOSE = 1000;
const CLOSE_UNAUTHENTICATED = 4501;
const CLOSE_EXPIRED = 4502;

/**
 * Full-jitter back-off: any wait from none up to a bound that doubles, so that a fleet does not come back as one.
 * @param {number} attempt 0 for the first retry
 * @param {() => number} [random]
 * @returns {number} milliseconds
 */
export function backoffMs(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** attempt);
}

/**
 * A request that was not done. `code` is the server's word for it, or the client's own: `not_connected`,
 * `connection_lost`, `no_answer`, `buffer_full`, `closed`.
 */
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

/** Updates that are not acknowledged yet. Each has an `update_id`, so that the server stores it once. */
class Updates {
  #waiting = new Map();
  #prefix = Math.random().toString(36).slice(2, 12) + Date.now().toString(36);
  #next = 1;

  /** @returns {Promise<object>} the acknowledgement */
  put(message, send) {
    if (this.#waiting.size >= UPDATES_MAX) {
      return Promise.reject(new RequestError("buffer_full", `${UPDATES_MAX} updates wait to be stored already.`));
    }
    const id = `update-${this.#next++}`;
    const text = JSON.stringify({ ...message, id, update_id: `${this.#prefix}-${id}` });
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { text, resolve, reject });
      send(text);
    });
  }

  /** Says all of them again, in order; the server knows which it has. */
  resend(send) {
    for (const { text } of this.#waiting.values()) send(text);
  }

  has(id) {
    return this.#waiting.has(id);
  }

  /** @returns {boolean} whether the update is to be said again later */
  settle(message) {
    if (message.type === "error" && message.retryable) return true;
    const { resolve, reject } = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.type === "error") reject(new RequestError(message.code, message.message));
    else resolve(message);
    return false;
  }

  fail(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/**
 * @typedef {{value: any, updated_at_utc: string, source: string, seq: number}} Twin
 * @typedef {{from: number, to: number}} Gap the first and the last seq that may be missing; from 1: the log is another one,
 *   and what came before does not count either; 0 to 0: it is empty
 * @typedef {{phase: "closed"|"connecting"|"live"|"waiting"|"refused", retryAtMs: number,
 *   attempt: number, reason: string, resumed: boolean, gap: Gap|null, needsLogin: boolean}} Link
 *   `phase` "waiting" means for the next attempt, at `retryAtMs`; "refused" means until somebody calls `retry`, or
 *   `logIn` if `needsLogin`.
 *   When "live": whether it went on where it was, or what may be missing.
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
  #updates = new Updates();
  #fresh = null; // the pages of a state that is not whole yet
  #gap = null;
  #token;

  /**
   * @param {object} options
   * @param {string} options.url ws://… or wss://…
   * @param {string[]} [options.devices] patterns of what to be told; everything if not given
   * @param {string[]} [options.kinds] "data_update", "control", or both
   * @param {"latest"|"every"} [options.mode] whether changes merge when this page does not keep up
   * @param {number} [options.maxHz] in mode "latest": how often a second at most
   * @param {string|(() => string|Promise<string>)} [options.token] an API key or a JWT, or what gets one for each connection
   * @param {(text: string) => any} [options.parse] reads JSON; one that keeps large numbers, for example
   * @param {(drain: () => void) => void} [options.schedule] runs `drain` soon; messages are decoded together then
   * @param {(link: Link) => void} [options.onLink] the connection's phase changed
   * @param {(at: {epoch: string, seq: number}, twins: Map<string, Twin>, gap: Gap|null) => void} [options.onSnapshot]
   *   the state was replaced; after `gap`, changes may be missing
   * @param {(messages: object[]) => void} [options.onMessages] what came since, in order, already folded into `twins`
   * @param {() => Promise<{isFinal: boolean, reason: string}|null>} [options.explain] asked why a handshake failed
   */
  constructor({ url, devices, kinds, mode, maxHz, token, parse, schedule, onLink, onSnapshot, onMessages, explain }) {
    this.url = url;
    this.#token = token;
    this.devices = devices && new Set(devices);
    this.kinds = kinds ?? [];
    this.mode = mode;
    this.maxHz = maxHz;
    this.parse = parse ?? JSON.parse;
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
    this.link = { phase: "closed", retryAtMs: 0, attempt: 0, reason: "", resumed: false, gap: null, needsLogin: false };
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

  /** Whether this client has a credential. */
  get isLoggedIn() {
    return Boolean(this.#token);
  }

  /**
   * Goes on as somebody else, who may see other devices: with a new connection and the whole state.
   * @param {string|(() => string|Promise<string>)} [token] nobody, if not given
   */
  logIn(token) {
    this.#token = token;
    this.#updates.fail(new RequestError("closed", "Somebody else goes on; the update may have been stored."));
    this.twins = new Map();
    this.position = { epoch: "", seq: 0 };
    this.onSnapshot(this.position, this.twins, null);
    this.#connect();
  }

  /** Ends the connection and all attempts. */
  close() {
    this.#drop();
    this.#updates.fail(new RequestError("closed", "The client was closed; the update may have been stored."));
    this.#enter("closed");
  }

  /**
   * Sends a reading; after a lost connection it is sent again, and stored once.
   * @param {string} deviceId
   * @param {any} value
   * @returns {Promise<{seq: number}>} the acknowledgement, once the server has it on disk
   * @throws {RequestError} refused, or `buffer_full`
   */
  publish(deviceId, value) {
    return this.#update({ type: "telemetry", device_id: deviceId, value });
  }

  /**
   * Sends a command to everyone who watches; see `publish`.
   * @param {string} target
   * @param {string} command
   * @param {object} [args]
   */
  control(target, command, args = {}) {
    return this.#update({ type: "control", target, command, args });
  }

  /**
   * Asks to be told of more devices, or otherwise. Their state comes first, then the promise is fulfilled.
   * @param {{devices?: string[], mode?: "latest"|"every", maxHz?: number}} wish
   * @returns {Promise<object>} the acknowledgement
   * @throws {RequestError}
   */
  subscribe({ devices = [], mode, maxHz }) {
    this.devices = new Set([...(this.devices ?? []), ...devices]);
    this.mode = mode ?? this.mode;
    this.maxHz = maxHz ?? (mode === "every" ? undefined : this.maxHz);
    const kinds = this.kinds.length ? this.kinds : undefined;
    return this.#ask({ type: "subscribe", devices, kinds, mode, max_hz: maxHz });
  }

  /**
   * Asks to be told of these patterns no longer.
   * @param {string[]} devices
   * @returns {Promise<object>} the acknowledgement
   * @throws {RequestError}
   */
  unsubscribe(devices) {
    this.devices = new Set([...(this.devices ?? ["*"])].filter((pattern) => !devices.includes(pattern)));
    return this.#ask({ type: "unsubscribe", devices });
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
    const message = this.parse(text);
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
      if (message?.type === "hello" || message?.type === "snapshot" || message?.type === "gap") {
        if (batch.length) this.onMessages(batch);
        batch = [];
        this.messagesCount += 1;
        this.#takeState(message);
      } else if (message?.type === "auth_required") {
        if (!this.#token) this.#refuse("this server asks for a login", true);
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
    const socket = new WebSocket(this.#address());
    let wasOpen = false;
    this.#socket = socket;
    this.#after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server did not greet", wasOpen));
    socket.onopen = () => {
      wasOpen = true;
      if (this.#token) this.#present(socket);
    };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = ({ code, reason }) => {
      this.drain(); // what came before the end counts
      const isLogin = code === CLOSE_UNAUTHENTICATED || code === CLOSE_EXPIRED;
      if (code === CLOSE_EXPIRED && typeof this.#token === "function") this.#lose(reason, wasOpen);
      else if (code >= 4500 && code <= 4999) this.#refuse(plain(reason) || `close code ${code}`, isLogin);
      else this.#lose(reason || sayClose(code), wasOpen);
    };
  }

  async #present(socket) {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    if (socket === this.#socket) socket.send(JSON.stringify({ type: "auth", token }));
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
      return this.parse(text);
    } catch {
      this.undecodedCount += 1;
      return null;
    }
  }

  /** The address with what this client wants, and from where on. */
  #address() {
    const url = new URL(this.url);
    url.searchParams.set("page", PAGE);
    if (this.#token) url.searchParams.set("auth", "message");
    if (this.position.epoch) url.searchParams.set("since", `${this.position.epoch}:${this.position.seq}`);
    if (this.devices?.size === 0) url.searchParams.set("devices", "");
    for (const pattern of this.devices ?? []) url.searchParams.append("devices", pattern);
    for (const kind of this.kinds) url.searchParams.append("kinds", kind);
    if (this.mode) url.searchParams.set("mode", this.mode);
    if (this.maxHz) url.searchParams.set("max_hz", this.maxHz);
    return url;
  }

  /** Takes what brings the state, whole or in pages: the cursor counts only when it is whole. */
  #takeState(message) {
    if (message.type === "gap") {
      this.#fresh = new Map();
      this.#gap = { from: message.from, to: message.to };
      return;
    }
    if (message.type === "hello") {
      this.#stop("hello");
      this.#gap = null;
      if (message.resumed) { // the epoch is that of the server's run; the log behind the cursor is the same
        this.position = { epoch: message.epoch, seq: message.seq };
        this.#goLive({ resumed: true });
        return;
      }
      if (this.position.epoch) {
        const isSameLog = message.reason === "too_old";
        this.#gap = { from: isSameLog ? this.position.seq + 1 : Math.min(1, message.seq), to: message.seq };
      }
      this.#fresh = new Map();
    }
    const twins = message.data_snapshot ?? {};
    const into = this.#fresh ?? this.twins; // without either before it, it is of devices that a subscription has added
    for (const id of Object.keys(twins)) into.set(id, twins[id]);
    if (message.more) return;
    if (this.#fresh) this.twins = this.#fresh;
    this.#fresh = null;
    this.position = { epoch: message.epoch ?? "", seq: message.seq ?? 0 };
    const gap = this.#gap;
    this.#gap = null;
    if (this.link.phase !== "live") this.#goLive({ gap });
    this.onSnapshot(message, this.twins, gap);
  }

  #goLive(how) {
    this.#enter("live", "", 0, how);
    this.#after("steady", STEADY_AFTER_MS, () => { this.#attempt = 0; });
    this.#after("ping", FIRST_PING_AFTER_MS, () => this.#ping());
    this.#updates.resend((text) => this.#socket.send(text));
  }

  /** @returns {boolean} whether the message is anybody else's business; the answer to a heartbeat is not */
  #fold(message) {
    if (message.seq > this.position.seq) this.position.seq = message.seq;
    if (message.type === "data_update") {
      const { value, timestamp_utc: updated_at_utc, source, seq } = message;
      this.twins.set(message.device_id, { value, updated_at_utc, source, seq });
    } else if (this.#updates.has(message.id)) {
      const isAgain = this.#updates.settle(message);
      if (isAgain) this.#after("again", RETRY_AFTER_MS, () => this.#updates.resend((text) => this.#socket.send(text)));
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

  #update(message) {
    return this.#updates.put(message, (text) => {
      if (this.link.phase === "live") this.#socket.send(text);
    });
  }

  #ask(message) {
    const id = `page-${this.#nextId++}`;
    return this.#send(JSON.stringify({ ...message, id }), (waiter) => this.#named.set(id, waiter));
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

  #refuse(reason, needsLogin = false) {
    this.#drop();
    this.#enter("refused", reason, 0, { needsLogin });
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

  #enter(phase, reason = "", retryAtMs = 0, { resumed = false, gap = null, needsLogin = false } = {}) {
    this.link = { phase, reason, retryAtMs, attempt: this.#attempt, resumed, gap, needsLogin };
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

/** A close reason without the word for programs before it. */
function plain(reason) {
  return reason.replace(/^[a-z_]+: /, "");
}

function sayClose(code) {
  if (code === 1012) return "the server restarts";
  if (code === 1006) return "the connection broke";
  return `the server closed the connection (${code})`;
}
