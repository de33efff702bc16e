/**
 * The wire: one connection to a twincast server that keeps itself alive, and the newest state of every device.
 *
 * One module without imports and without a document, for a page of your own, a worker, or Node:
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
 * may be missing it says so. The wire is described in docs/delivery.md, the rules of coming back in docs/client.md.
 */

const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const TOKEN_TIMEOUT_MS = 30_000;
const HELLO_TIMEOUT_MS = 10_000;
const FIRST_PING_AFTER_MS = 1_000; // a page that just started measures itself, not the way to the server
const PING_INTERVAL_MS = 5_000;
const PONG_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
const HOLD_MIN_MS = 100; // a server that cannot store anything at the moment is left alone at least so long
const STEADY_AFTER_MS = 10_000; // a connection that lasted less does not count as a success
const PENDING_MAX_CHARS = 1 << 20; // a page in the background draws no frames, and must not hoard what comes in
const UPDATES_MAX = 1_000;
const BUFFER_MAX_BYTES = 8 << 20;
const NESTING_MAX = 32;
const LARGEST_PLAIN_INTEGER = 2 ** 63;
const ADDRESS_MAX_CHARS = 4_000; // longer ones do not pass every proxy
const MESSAGE_FRAME_BYTES = 512; // what a message has besides its patterns, at most
const NORMAL_CLOSE = 1000;
const CLOSE_TOO_LARGE = 1009;
const CLOSES_BY_A_MESSAGE = new Set([1002, 1003, 1007]);
const CLOSE_UNAUTHENTICATED = 4501;
const CLOSE_EXPIRED = 4502;
const CODES_OF_CLOSES = { 4500: "bad_message", 4501: "unauthenticated", 4502: "credential_expired", 4503: "not_permitted" };
const TRANSIENT_STATUSES = new Set([408, 421, 425, 426, 429]);
const CREDENTIAL = /^[\x21-\x7e]+$/;
const UPDATE_TYPES = new Set(["telemetry", "control", "delete"]);
const ANSWERED_BY_ID = new Set([...UPDATE_TYPES, "subscribe", "unsubscribe", "auth", "restart"]);
const LONE_SURROGATE = /\p{Surrogate}/u;
const utf8 = new TextEncoder();

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
 * Whether a no is final: only the server's own word is, that no later attempt can change. All else is tried again. See docs/client.md.
 * @param {object} end how a connection ended, or was refused
 * @param {number} [end.closeCode]
 * @param {number} [end.httpStatus]
 * @param {string} [end.code] of the problem that came with the status; who gives none is not the server
 * @param {boolean} [end.isRenewed] the credential comes from a function, which may get a better one for the next attempt
 * @returns {boolean}
 */
export function isFinal({ closeCode = 0, httpStatus = 0, code, isRenewed = false }) {
  if (isRenewed && (isAboutLogin(closeCode) || httpStatus === 401)) return false;
  if (closeCode >= 4500 && closeCode <= 4999) return true;
  return Boolean(code) && httpStatus >= 400 && httpStatus <= 499 && !TRANSIENT_STATUSES.has(httpStatus);
}

function isAboutLogin(closeCode) {
  return closeCode === CLOSE_UNAUTHENTICATED || closeCode === CLOSE_EXPIRED;
}

/**
 * A request that was not done. `code` is the server's word for it, or the client's own: `validation_failed` and `too_large`
 * before anything was sent, `buffer_full`, `not_connected`, `connection_lost`, `no_answer`, `closed`.
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

/**
 * Writes a value as JSON that says exactly what the value is, or refuses it; `JSON.stringify` makes null of what JSON lacks.
 *
 * As JSON has it: null, booleans, texts, finite numbers (-0 as 0), arrays, plain objects and those of your own classes. BigInt
 * digit by digit; what has a `toJSON`, such as a Date, as that says; a member that is undefined is left out, as it reads the same.
 * @param {any} value
 * @returns {string}
 * @throws {RequestError} `validation_failed`: NaN, Infinity, undefined, a function, a symbol, a Map, a Set, bytes, an invalid date,
 *   a text with a lone surrogate; `too_large`: nested deeper than 32, or in a circle
 */
export function encode(value) {
  return write(value, []);
}

function write(value, trail) {
  switch (typeof value) {
    case "string": return writeText(value, trail);
    case "number": return writeNumber(value, trail);
    case "boolean": case "bigint": return String(value);
    case "object": return value === null ? "null" : writeObject(value, trail);
    default: throw unfit(value === undefined ? "undefined" : `a ${typeof value}`, trail);
  }
}

function writeText(text, trail) {
  if (LONE_SURROGATE.test(text)) throw unfit("a text with a lone surrogate", trail);
  return JSON.stringify(text);
}

function writeNumber(number, trail) {
  if (!Number.isFinite(number)) throw unfit(String(number), trail);
  // Whole numbers beyond 64 bits are refused by the server, as most readers would break them: as a power they are floats.
  return Math.abs(number) < LARGEST_PLAIN_INTEGER ? JSON.stringify(number) : number.toExponential();
}

function writeObject(value, trail) {
  if (kindOf(value) === "Date" && Number.isNaN(Number(value))) throw unfit("an invalid date", trail);
  if (typeof value.toJSON !== "function") return writeMembers(value, trail);
  const said = value.toJSON();
  return said !== null && typeof said === "object" ? writeMembers(said, trail) : write(said, trail);
}

function writeMembers(value, trail) {
  if (trail.length >= NESTING_MAX) throw new RequestError("too_large", `A value may be nested ${NESTING_MAX} deep; this one is deeper, or goes in a circle.`);
  if (Array.isArray(value)) return `[${Array.from(value, (item, index) => within(trail, `[${index}]`, () => write(item, trail))).join()}]`;
  if (kindOf(value) !== "Object") throw unfit(`a ${kindOf(value)}`, trail);
  const names = Object.keys(value).filter((name) => value[name] !== undefined);
  return `{${names.map((name) => within(trail, `.${name}`, () => `${writeText(name, trail)}:${write(value[name], trail)}`)).join()}}`;
}

function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

function within(trail, step, run) {
  trail.push(step);
  const text = run();
  trail.pop();
  return text;
}

function unfit(what, trail) {
  const place = trail.join("").slice(0, 200);
  return new RequestError("validation_failed", `JSON has no way to say ${what}${place && ` (at ${place})`}; nothing was sent.`);
}

function bytesOf(text) {
  return utf8.encode(text).length;
}

/**
 * Says whether a name is covered by any of some patterns; see docs/delivery.md.
 * @param {Iterable<string>} patterns
 * @returns {(name: string) => boolean}
 */
export function matcherOf(patterns) {
  const exact = new Set();
  const starred = [];
  for (const pattern of patterns) {
    const parts = partsOf(pattern);
    if (parts.length === 1) exact.add(parts[0]);
    else starred.push(parts);
  }
  return (name) => exact.has(name) || starred.some((parts) => covers(parts, name));
}

/** What stands between the stars. */
function partsOf(pattern) {
  const parts = [""];
  for (let index = 0; index < pattern.length; index += 1) {
    if (pattern[index] === "*") parts.push("");
    else parts[parts.length - 1] += pattern[index] === "\\" ? pattern[(index += 1)] ?? "" : pattern[index];
  }
  return parts;
}

function covers([head, ...inner], name) {
  const tail = inner.pop();
  const end = name.length - tail.length;
  if (end < head.length || !name.startsWith(head) || !name.endsWith(tail)) return false;
  let from = head.length;
  for (const part of inner) {
    const found = name.indexOf(part, from); // the leftmost place leaves the most for the parts that follow
    if (found < 0) return false;
    from = found + part.length;
  }
  return from <= end;
}

/** A promise with its ends in hand. */
class Outcome {
  constructor() {
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
  }

  /** Ends it for a reason that is the client's, of which whoever did not wait for it need not hear. */
  abandon(error) {
    this.promise.catch(() => {});
    this.reject(error);
  }
}

/** @typedef {{messageMaxBytes: number, valueMaxBytes: number}} Limits */

/** Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once. */
class Updates {
  #waiting = new Map();
  #unsent = new Set();
  #prefix = Math.random().toString(36).slice(2, 12) + Date.now().toString(36);
  #next = 1;
  #bytes = 0;
  #maxBytes;
  #barrier = null; // under way, and nothing may pass it
  #isCareful = false; // one at a time, to see which of them it is that ends connections
  /** @type {Limits|null} */
  limits = null;

  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Takes an update; its promise becomes the acknowledgement.
   * @param {string} fields the message without its ends
   * @param {string} value the part of it that has a limit of its own
   * @param {boolean} isBarrier what it does depends on what is stored, so nothing newer is sent before it is answered: else it could be
   *   refused, its answer lost, and what it asks for done when it is sent again, behind what is newer
   */
  put(fields, value, isBarrier) {
    const id = `${this.#prefix}-${this.#next++}`;
    const text = `{${fields},"id":"${id}","update_id":"${id}"}`;
    const update = Object.assign(new Outcome(), { text, isBarrier, bytes: bytesOf(text), valueBytes: bytesOf(value) });
    const refusal = this.#isTooLarge(update) ?? this.#isFull(update);
    if (refusal) return Promise.reject(refusal);
    this.#bytes += update.bytes;
    this.#waiting.set(id, update);
    this.#unsent.add(id);
    return update.promise;
  }

  /** Sends what was not sent yet, in order. */
  send(say) {
    for (const id of this.#unsent) {
      if (this.#barrier || (this.#isCareful && this.#waiting.size > this.#unsent.size)) return;
      const { text, isBarrier } = this.#waiting.get(id);
      if (isBarrier) this.#barrier = id;
      this.#unsent.delete(id);
      say(text);
    }
  }

  /** Begins anew with the oldest that is not acknowledged; the server knows which it has. */
  rewind() {
    this.#barrier = null;
    this.#unsent = new Set(this.#waiting.keys());
  }

  /** Takes a server's limits; what waits and is larger now is refused. */
  limit(limits) {
    this.limits = limits;
    for (const [id, update] of this.#waiting) {
      const error = this.#isTooLarge(update);
      if (error) this.#end(id).reject(error);
    }
  }

  has(id) {
    return this.#waiting.has(id);
  }

  /** @returns {boolean} whether the update is to be said again later */
  settle(message) {
    const isRefused = message.type === "error";
    if (isRefused && message.retryable) return true;
    const update = this.#end(message.id);
    if (isRefused) update.reject(new RequestError(message.code, message.message));
    else update.resolve(message);
    return false;
  }

  /** The largest that was sent and not answered. @returns {{bytes: number, refuse: (error: Error) => void}|null} */
  largestInFlight() {
    const ids = this.#inFlight();
    if (!ids.length) return null;
    const id = ids.reduce((a, b) => (this.#waiting.get(b).bytes > this.#waiting.get(a).bytes ? b : a));
    return { bytes: this.#waiting.get(id).bytes, refuse: (error) => this.#end(id).reject(error) };
  }

  /** A connection ended as one message can end it: which one shows when they go one at a time, and that one goes no more. */
  suspect(closeCode) {
    const [id, ...others] = this.#inFlight();
    if (this.#isCareful && id !== undefined && !others.length) {
      this.#end(id).reject(new RequestError("bad_message", `The connection ended each time that this was sent (${closeCode}).`));
    } else if (id !== undefined) this.#isCareful = true;
  }

  fail(error) {
    for (const id of [...this.#waiting.keys()]) this.#end(id).abandon(error);
  }

  #inFlight() {
    return [...this.#waiting.keys()].filter((id) => !this.#unsent.has(id));
  }

  #end(id) {
    const update = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#unsent.delete(id);
    this.#bytes -= update.bytes;
    if (id === this.#barrier) this.#barrier = null;
    if (!this.#waiting.size) this.#isCareful = false;
    return update;
  }

  #isTooLarge({ bytes, valueBytes }) {
    const { messageMaxBytes = Infinity, valueMaxBytes = Infinity } = this.limits ?? {};
    if (valueBytes > valueMaxBytes) return tooLarge("A value", valueMaxBytes, valueBytes);
    return bytes > messageMaxBytes ? tooLarge("A message", messageMaxBytes, bytes) : null;
  }

  #isFull({ bytes }) {
    const { size } = this.#waiting;
    if (size < UPDATES_MAX && (!size || this.#bytes + bytes <= this.#maxBytes)) return null;
    return new RequestError("buffer_full", `${size} updates of ${this.#bytes} bytes wait to be stored already.`);
  }
}

function tooLarge(what, maxBytes, bytes) {
  return new RequestError("too_large", `${what} takes up to ${maxBytes} bytes here; this one has ${bytes}.`);
}

/**
 * What a client is told of: as the server has confirmed it, and what is still to be asked. Only what is confirmed stands in the next
 * address, so a wish that is refused ends no connection, and one whose answer was lost is asked again.
 */
class Subscription {
  #patterns; // undefined until somebody names any: everything
  #kinds;
  #mode;
  #maxHz;
  #wishes = [];
  #asked = null;
  #isWide = false; // the address was too short for the patterns, and named all
  #matches = null;

  constructor({ devices, kinds, mode, maxHz }) {
    this.#patterns = devices && new Set([devices].flat());
    this.#kinds = kinds ?? [];
    this.#mode = mode;
    this.#maxHz = maxHz;
  }

  /** The kinds to ask for: whoever follows readings has to hear of deletions, else what is gone would stay in `twins`. */
  get #askedKinds() {
    return this.#kinds.includes("data_update") ? [...new Set([...this.#kinds, "deleted"])] : this.#kinds;
  }

  /** Whether what comes of a device or for a target was asked for; the server selects, unless the address was too short. */
  selects(name) {
    return !this.#isWide || this.covers(name);
  }

  /** Whether somebody wants to hear of a kind. */
  wants(kind) {
    return kind !== "deleted" || !this.#kinds.length || this.#kinds.includes(kind);
  }

  /** Whether a device is one of those asked for. */
  covers(name) {
    this.#matches ??= matcherOf(this.#patterns ?? ["*"]);
    return this.#matches(name) || Boolean(this.#asked?.adds?.(name));
  }

  /** Begins a connection: writes what is confirmed into its address. */
  begin(url) {
    this.#asked = null;
    this.#wishes = this.#wishes.filter((wish) => !wish.isInner);
    const patterns = this.#patterns?.size === 0 ? [""] : [...(this.#patterns ?? [])];
    for (const pattern of patterns) url.searchParams.append("devices", pattern);
    this.#isWide = url.href.length > ADDRESS_MAX_CHARS;
    if (this.#isWide) this.#narrow(url);
    for (const kind of this.#askedKinds) url.searchParams.append("kinds", kind);
    if (this.#mode) url.searchParams.set("mode", this.#mode);
    if (this.#maxHz) url.searchParams.set("max_hz", this.#maxHz);
  }

  /** Takes everything at first, and selects here until the server does. */
  #narrow(url) {
    url.searchParams.set("devices", "*");
    if (!this.#patterns.has("*")) this.#wishes.unshift(wish("unsubscribe", ["*"], { isInner: true }));
    this.#wishes.unshift(wish("subscribe", this.#patterns, { isInner: true }));
  }

  /** @returns {Promise<object>} the acknowledgement */
  ask(type, devices, how = {}) {
    this.#wishes.push(wish(type, devices, how));
    return this.#wishes.at(-1).outcome.promise;
  }

  /** @returns {string|null} the next message to send; null while one is under way, or if there is none */
  next(id, messageMaxBytes = Infinity) {
    while (this.#wishes.length && !this.#asked) {
      const [first] = this.#wishes;
      const devices = partOf(first.devices, messageMaxBytes - MESSAGE_FRAME_BYTES);
      const text = this.#messageOf(first, devices, id);
      const bytes = bytesOf(text);
      if (bytes <= messageMaxBytes) {
        const adds = first.type === "subscribe" ? matcherOf(devices) : null; // its state comes before its answer
        this.#asked = { id, bytes, devices, adds, refuse: (error) => this.#refuse(first, error) };
        return text;
      }
      this.#refuse(first, tooLarge("A message", messageMaxBytes, bytes));
    }
    return null;
  }

  #messageOf({ type, mode, maxHz }, devices, id) {
    const kinds = this.#askedKinds.length ? this.#askedKinds : undefined;
    return encode({ type, devices, ...(type === "subscribe" ? { kinds, mode, max_hz: maxHz } : {}), id });
  }

  /** What is under way. @type {{id: string, bytes: number, refuse: (error: Error) => void}|null} */
  get asked() {
    return this.#asked;
  }

  /**
   * Takes the answer to what is under way.
   * @returns {boolean|Error} whether devices may have been left; an error if this client cannot be told what it wants
   */
  take(message) {
    const [first] = this.#wishes;
    const { devices, refuse } = this.#asked;
    if (message.type === "error") {
      const error = new RequestError(message.code, message.message);
      refuse(error);
      return first.isInner ? error : false;
    }
    this.#asked = null;
    first.devices.splice(0, devices.length);
    if (!first.isInner) this.#confirm(first, devices);
    else if (first.type === "unsubscribe") this.#isWide = false;
    if (!first.devices.length) this.#wishes.shift().outcome.resolve(message);
    return !first.isInner;
  }

  fail(error) {
    for (const { outcome } of this.#wishes.splice(0)) outcome.abandon(error);
    this.#asked = null;
  }

  #confirm({ type, mode, maxHz }, devices) {
    const before = this.#patterns ?? []; // the server's `*` for those who named none gives way
    const gone = new Set(type === "unsubscribe" ? devices : []);
    this.#patterns = new Set([...before, ...(gone.size ? [] : devices)].filter((pattern) => !gone.has(pattern)));
    this.#matches = null;
    if (type === "unsubscribe") return;
    this.#mode = mode ?? this.#mode;
    this.#maxHz = maxHz ?? (mode === "every" ? undefined : this.#maxHz);
  }

  #refuse(refused, error) {
    this.#asked = null;
    this.#wishes = this.#wishes.filter((other) => other !== refused);
    refused.outcome.reject(error);
  }
}

/** As many patterns as one message takes, and at least one. */
function partOf(patterns, maxBytes) {
  let bytes = 0;
  const end = patterns.findIndex((pattern) => (bytes += bytesOf(encode(pattern)) + 1) > maxBytes);
  return end < 0 ? patterns.slice() : patterns.slice(0, Math.max(1, end));
}

function wish(type, devices, { mode, maxHz, isInner = false }) {
  const outcome = new Outcome();
  if (isInner) outcome.promise.catch(() => {});
  return { type, devices: [...devices], mode, maxHz, isInner, outcome };
}

/**
 * What a client has been told: the newest state of every device, and the cursor, which moves only with what was delivered in order.
 *
 * An acknowledgement does not move it: it says where the sender's own update is, not what the sender has received.
 */
class Mirror {
  #fresh = null; // the parts of a state that is not whole yet
  #added = null; // the same, of devices that a subscription has added
  #gap = null;

  constructor() {
    /** @type {Map<string, Twin>} */
    this.twins = new Map();
    this.position = { epoch: "", seq: 0 };
  }

  /** Begins a connection: what came in part on the one before counts for nothing. */
  begin() {
    this.#fresh = this.#added = this.#gap = null;
  }

  /** Goes on where it was; a server that has started again says so by another epoch. */
  resume({ epoch }) {
    this.position = { epoch, seq: this.position.seq };
  }

  /** Begins anew with what a `hello` or a `gap` announces. */
  replace(message) {
    if (message.type === "gap") this.#gap = { from: message.from, to: message.to, reason: "too_old" };
    else if (this.position.epoch) this.#gap = gapOf(message, this.position.seq);
    this.#fresh = new Map();
    this.#added = null;
  }

  /**
   * Takes a part of the state.
   * @returns {{gap: Gap|null}|null} null as long as it is not whole
   */
  take({ data_snapshot: twins, more, epoch, seq }, selects) {
    const into = this.#fresh ?? (this.#added ??= new Map());
    for (const [id, twin] of Object.entries(twins)) if (selects(id)) into.set(id, twin);
    if (more) return null;
    if (this.#fresh) this.twins = this.#fresh;
    else for (const [id, twin] of this.#added) this.twins.set(id, twin);
    this.position = { epoch, seq: this.#fresh ? seq : Math.max(seq, this.position.seq) };
    const gap = this.#gap;
    this.begin();
    return { gap };
  }

  /** Takes one change. */
  fold({ type, device_id: deviceId, value, timestamp_utc, source, seq }) {
    const twins = this.#fresh ?? this.twins;
    if (type === "data_update") twins.set(deviceId, { value, updated_at_utc: timestamp_utc, source, seq });
    else if (type === "deleted") twins.delete(deviceId);
  }

  /** Moves the cursor to where a change or a `pong` says that everything before has come. */
  reach({ epoch = this.position.epoch, seq }) {
    if (this.#fresh || this.#added || epoch !== this.position.epoch) return;
    if (seq > this.position.seq) this.position = { epoch, seq };
  }

  /** Forgets the devices that are followed no longer. @returns {boolean} whether there were any */
  keep(covers) {
    const before = this.twins.size;
    for (const id of this.twins.keys()) if (!covers(id)) this.twins.delete(id);
    return this.twins.size < before;
  }
}

/** What may be missing where a client could not go on. Numbers of another log are no numbers of the one that it knew. */
function gapOf({ reason = "epoch", seq = 0 }, since) {
  const isSameLog = reason === "too_old";
  return { from: isSameLog ? since + 1 : Math.min(1, seq), to: seq, reason };
}

/**
 * @typedef {{value: any, updated_at_utc: string, source: string, seq: number}} Twin
 * @typedef {{from: number, to: number, reason: "too_old"|"epoch"|"ahead"}} Gap the first and the last seq that may be missing. With
 *   `epoch` and `ahead` the log is another than the one before, and these are its numbers: 0 to 0 if there is nothing in it
 * @typedef {{phase: "closed"|"connecting"|"live"|"waiting"|"refused", retryAtMs: number,
 *   attempt: number, reason: string, resumed: boolean, gap: Gap|null, needsLogin: boolean}} Link
 *   `phase` "waiting" means for the next attempt, at `retryAtMs`; "refused" means until somebody calls `retry`, or
 *   `logIn` if `needsLogin`.
 *   When "live": whether it went on where it was, or what may be missing.
 */

export class Client {
  #socket = null;
  #turn = 0; // counts the attempts, so that what comes late for one of them is known
  #timers = new Map();
  #pending = [];
  #pendingChars = 0;
  #isScheduled = false;
  #named = new Map();
  #unnamed = [];
  #prefix = `ask-${Math.random().toString(36).slice(2, 8)}`;
  #nextId = 1;
  #attempt = 0;
  #pongAtMs = NaN;
  #updates;
  #subscription;
  #mirror = new Mirror();
  #isOrdered = false;
  #isHeld = false; // the server cannot store at the moment; what is new waits behind what was refused
  #restartId = null;
  #refusals = 0;
  #complaint; // the server's last word about what it cannot name
  #isBlamed = false; // the server has named the message for which it may end this connection
  #end = null; // why nothing is taken any more
  #token;
  #online = () => this.retry();

  /**
   * @param {object} options
   * @param {string} options.url ws://… or wss://…
   * @param {string[]} [options.devices] patterns of what to be told; everything if not given
   * @param {string[]} [options.kinds] "data_update", "control", "deleted", or some of them; all if not given
   * @param {"latest"|"every"} [options.mode] whether changes merge when this page does not keep up
   * @param {number} [options.maxHz] in mode "latest": how often a second at most
   * @param {string|(() => string|Promise<string>)} [options.token] an API key or a JWT, or what gets one for each connection
   * @param {number} [options.bufferMaxBytes] how much may wait to be stored; beyond it `publish` is `buffer_full`
   * @param {(text: string) => any} [options.parse] reads JSON; one that keeps large numbers, for example
   * @param {(drain: () => void) => void} [options.schedule] runs `drain` soon; messages are decoded together then
   * @param {(link: Link) => void} [options.onLink] the connection's phase changed
   * @param {(at: {epoch: string, seq: number}, twins: Map<string, Twin>, gap: Gap|null) => void} [options.onSnapshot]
   *   the state was replaced; after `gap`, changes may be missing
   * @param {(messages: object[]) => void} [options.onMessages] what came since, in order, already folded into `twins`
   * @param {() => Promise<{isFinal: boolean, reason: string}|null>} [options.explain] asked why a handshake failed
   *
   * What a callback throws is reported, as the runtime reports errors, and ends nothing.
   * @throws {TypeError} `url` is no address
   */
  constructor({ url, devices, kinds, mode, maxHz, token, bufferMaxBytes = BUFFER_MAX_BYTES, parse, schedule, onLink, onSnapshot, onMessages, explain }) {
    const address = new URL(url);
    if (!/^(ws|http)s?:$/.test(address.protocol)) throw new TypeError(`expected an address such as ws://127.0.0.1:8000/ws, not ${url}`);
    address.protocol = address.protocol.replace("http", "ws");
    address.hash = "";
    this.url = address.href;
    this.#token = token;
    this.#updates = new Updates(bufferMaxBytes);
    this.#subscription = new Subscription({ devices, kinds, mode, maxHz });
    this.parse = parse ?? JSON.parse;
    this.schedule = schedule ?? ((drain) => setTimeout(drain, 0));
    this.onLink = onLink ?? (() => {});
    this.onSnapshot = onSnapshot ?? (() => {});
    this.onMessages = onMessages ?? (() => {});
    this.explain = explain ?? (async () => null);
    /** @type {Link} */
    this.link = { phase: "closed", retryAtMs: 0, attempt: 0, reason: "", resumed: false, gap: null, needsLogin: false };
    this.roundTripMs = NaN;
    /** How many messages came, answers to heartbeats aside. */
    this.messagesCount = 0;
    this.undecodedCount = 0;
  }

  /** The newest state of every device. @returns {Map<string, Twin>} */
  get twins() {
    return this.#mirror.twins;
  }

  /** How far into which log this client has come; what a later connection can resume from. @returns {{epoch: string, seq: number}} */
  get position() {
    return this.#mirror.position;
  }

  /** How large what is sent may be, as the server said; null before it did. @returns {Limits|null} */
  get limits() {
    return this.#updates.limits;
  }

  /**
   * Connects, and from then on reconnects by itself.
   * @throws {Error} this runtime has no WebSocket
   */
  open() {
    if (this.link.phase !== "closed") return;
    if (typeof WebSocket === "undefined") throw new Error("this runtime has no WebSocket; Node has one from version 22 on, before it the package `ws` does");
    globalThis.addEventListener?.("online", this.#online);
    this.#connect();
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
    this.#drop();
    this.#token = token;
    this.#attempt = 0;
    this.#updates.fail(new RequestError("closed", "Somebody else goes on; the update may have been stored."));
    this.#mirror = new Mirror();
    const turn = this.#turn;
    this.#tell(this.onSnapshot, this.position, this.twins, null);
    if (turn === this.#turn) this.#connect();
  }

  /** Ends the connection and all attempts. */
  close() {
    globalThis.removeEventListener?.("online", this.#online);
    this.#drop();
    this.#giveUp(new RequestError("closed", "The client was closed; the update may have been stored."));
    this.#enter("closed");
  }

  /**
   * Sends a reading; after a lost connection it is sent again, and stored once.
   * @param {string} deviceId
   * @param {any} value see `encode`
   * @returns {Promise<{seq: number}>} the acknowledgement, once the server has it on disk
   * @throws {RequestError} refused, here (`validation_failed`, `too_large`, `buffer_full`) or by the server in its own words
   */
  publish(deviceId, value) {
    return this.#update(value, (text) => `"type":"telemetry","device_id":${encode(deviceId)},"value":${text}`);
  }

  /**
   * Sends a command to everyone who watches; see `publish`.
   * @param {string} target
   * @param {string} command
   * @param {object} [args]
   */
  control(target, command, args = {}) {
    return this.#update(args, (text) => `"type":"control","target":${encode(target)},"command":${encode(command)},"args":${text}`);
  }

  /**
   * Deletes a device: its newest state, for everyone. A later reading makes it anew. See `publish`.
   * @param {string} deviceId
   * @throws {RequestError} also `not_found`: the server knows no such device
   */
  delete(deviceId) {
    return this.#update(null, () => `"type":"delete","device_id":${encode(deviceId)}`, true);
  }

  /**
   * Asks to be told of more devices, or otherwise. Their state comes first, then the promise is fulfilled. It waits for a connection,
   * is asked again after a lost one, and is remembered once the server has confirmed it.
   * @param {{devices?: string[], mode?: "latest"|"every", maxHz?: number}} wish
   * @returns {Promise<object>} the acknowledgement
   * @throws {RequestError} the server refused it, and it is not remembered; of a list that takes several messages, what came before stays
   */
  subscribe({ devices = [], mode, maxHz }) {
    return this.#wish("subscribe", devices, { mode, maxHz });
  }

  /**
   * Asks to be told of these patterns no longer; what none of the others covers leaves `twins`. Otherwise like `subscribe`.
   * @param {string[]} devices
   * @returns {Promise<object>} the acknowledgement
   * @throws {RequestError}
   */
  unsubscribe(devices) {
    return this.#wish("unsubscribe", devices);
  }

  /**
   * Sends a message on this connection and waits for what answers it: the acknowledgement of an update, which comes after the
   * commit, or pong, echo or error. What is answered by `id` and has none is given one. It is not sent again.
   * @param {string} text JSON; apart from the added `id` it is sent digit by digit as it is
   * @returns {Promise<object>} the answer
   * @throws {RequestError}
   * @throws {SyntaxError} the text is not JSON
   */
  send(text) {
    const message = this.parse(text);
    if (!ANSWERED_BY_ID.has(message?.type)) return this.#send(text, (waiter) => this.#unnamed.push(waiter));
    const isUpdate = UPDATE_TYPES.has(message.type);
    const remember = (id) => (waiter) => this.#named.set(id, Object.assign(waiter, { isUpdate }));
    if (message.id !== undefined) return this.#send(text, remember(message.id));
    const id = this.#newId();
    return this.#send(text.replace("{", `{"id":"${id}",`), remember(id));
  }

  /** Decodes and delivers what has come in. `schedule` calls it; there is no need to. */
  drain() {
    this.#isScheduled = false;
    const socket = this.#socket;
    const texts = this.#pending;
    this.#pending = [];
    this.#pendingChars = 0;
    let batch = [];
    const deliver = () => {
      if (batch.length) this.#tell(this.onMessages, batch);
      batch = [];
    };
    for (const text of texts) {
      const message = this.#decode(text);
      if (message && this.#isTurn(message)) deliver(); // before the state that comes behind it
      if (socket !== this.#socket) break; // a callback ended this connection, and with it what came on it
      if (message && this.#handle(message)) batch.push(message);
    }
    deliver();
  }

  /** Whether a message replaces the state, or may. */
  #isTurn({ type, id }) {
    return type === "hello" || type === "snapshot" || type === "gap" || (id !== undefined && id === this.#subscription.asked?.id);
  }

  /** @returns {boolean} whether the message is one for `onMessages` */
  #handle(message) {
    try {
      const isState = message.type === "hello" || message.type === "snapshot" || message.type === "gap";
      const isForAll = !isState && this.#fold(message);
      if (isState || isForAll) this.messagesCount += 1;
      if (isState && isWhole(message)) this.#takeState(message);
      else if (isState) this.#lose("what answers is not a twincast server", true);
      return isForAll;
    } catch (error) {
      report(error);
      this.#lose("the server said what this client cannot take", true); // and goes on before it
      return false;
    }
  }

  #connect() {
    this.#drop();
    this.#end = null;
    const turn = this.#turn;
    this.#enter("connecting", this.link.reason);
    if (turn !== this.#turn) return; // whoever was told ended it
    if (!this.#token) this.#dial();
    else if (typeof this.#token === "string") this.#dial(this.#token);
    else this.#getToken();
  }

  /** Gets a credential before anything is opened: a server waits for it only some seconds. */
  async #getToken() {
    const turn = this.#turn;
    const lose = (why) => turn === this.#turn && this.#lose(`there is no credential: ${why}`, true);
    this.#after("token", TOKEN_TIMEOUT_MS, () => lose("what should get one does not answer"));
    try {
      const token = await this.#token();
      if (typeof token !== "string" || !CREDENTIAL.test(token.trim())) lose("what should get one gave something else");
      else if (turn === this.#turn) this.#dial(token);
    } catch (error) {
      lose(error?.message ?? error);
    }
  }

  #dial(token) {
    this.#stop("token");
    let wasOpen = false;
    this.#after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server did not greet", wasOpen));
    let socket;
    try {
      socket = new WebSocket(this.#address());
    } catch (error) {
      this.#lose(error.message, true);
      return;
    }
    this.#socket = socket;
    this.#complaint = undefined;
    this.#isBlamed = false;
    socket.onopen = () => {
      wasOpen = true;
      if (token) this.#say(JSON.stringify({ type: "auth", token: token.trim() }));
    };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onerror = () => {}; // `close` tells; without a listener some implementations raise
    socket.onclose = ({ code, reason }) => {
      this.drain(); // what came before the end counts
      if (socket === this.#socket) this.#takeClose(code, reason, wasOpen);
    };
  }

  #takeClose(code, reason, wasOpen) {
    if (code === CLOSE_TOO_LARGE && !this.#isBlamed) this.#refuseLargest();
    else if (CLOSES_BY_A_MESSAGE.has(code)) this.#updates.suspect(code);
    const isRenewed = typeof this.#token === "function";
    if (!isFinal({ closeCode: code, isRenewed })) this.#lose(plain(reason) || sayClose(code), wasOpen);
    else {
      const why = codeOf(reason) ?? this.#complaint ?? CODES_OF_CLOSES[code];
      this.#refuse(plain(reason) || `close code ${code}`, { needsLogin: isAboutLogin(code), code: why });
    }
  }

  /** Something on the way takes less than this client sends: if any of what is under way was too large, the largest was. */
  #refuseLargest() {
    const requests = [...this.#named.values(), ...this.#unnamed].map((waiter) => ({ bytes: waiter.bytes, refuse: (error) => this.#fail(waiter, error) }));
    const candidates = [this.#updates.largestInFlight(), this.#subscription.asked, ...requests].filter(Boolean);
    if (!candidates.length) return;
    const largest = candidates.reduce((a, b) => (b.bytes > a.bytes ? b : a));
    largest.refuse(new RequestError("too_large", `A message of ${largest.bytes} bytes was too large for the server, or for something before it.`));
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
      this.#schedule();
    }
  }

  #schedule() {
    try {
      this.schedule(() => this.drain());
    } catch (error) {
      report(error);
      setTimeout(() => this.drain(), 0);
    }
  }

  #decode(text) {
    try {
      const message = this.parse(text);
      if (typeof message?.type === "string") return message;
    } catch {
      // counted like what is JSON, but no message
    }
    this.undecodedCount += 1;
    return null;
  }

  /** The address with what this client wants, and from where on. */
  #address() {
    const url = new URL(this.url);
    const { epoch, seq } = this.position;
    url.searchParams.set("ordered", "1");
    if (this.#token) url.searchParams.set("auth", "message");
    if (epoch) url.searchParams.set("since", `${epoch}:${seq}`);
    this.#subscription.begin(url);
    return url.href;
  }

  /** Takes what brings the state, whole or in parts: the cursor counts only when it is whole. */
  #takeState(message) {
    if (message.type === "hello") this.#takeTerms(message);
    if (message.type === "hello" && message.resumed) {
      this.#mirror.resume(message);
      // What came of a wish whose answer was lost goes, and comes again when it is asked again.
      const hasLeft = this.#mirror.keep((id) => this.#subscription.covers(id));
      this.#goLive({ resumed: true }, hasLeft ? this.position : null);
      return;
    }
    if (message.type !== "snapshot") this.#mirror.replace(message);
    if (message.type === "gap") return;
    const whole = this.#mirror.take(message, (id) => this.#subscription.selects(id));
    if (this.link.phase === "live") {
      if (whole) this.#tell(this.onSnapshot, message, this.twins, whole.gap);
    } else if (whole) this.#goLive(whole, message);
    else this.#after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server stopped in the middle of its greeting", true));
  }

  #takeTerms({ limits, ordered }) {
    this.#isOrdered = ordered === true;
    this.#updates.limit(limits ? { messageMaxBytes: limits.message_max_bytes, valueMaxBytes: limits.value_max_bytes } : null);
  }

  /** @param {object|null} state to be told of, if it was replaced */
  #goLive(how, state) {
    const turn = this.#turn;
    this.#stop("hello");
    this.#isHeld = false;
    this.#restartId = null;
    this.#updates.rewind();
    this.#after("steady", STEADY_AFTER_MS, () => { this.#attempt = 0; });
    this.#after("ping", FIRST_PING_AFTER_MS, () => this.#ping());
    this.#enter("live", "", 0, how, () => {
      this.#sendWish();
      this.#sendUpdates(); // before anybody who is told that it is live sends what is newer
    });
    if (state && turn === this.#turn) this.#tell(this.onSnapshot, state, this.twins, how.gap ?? null);
  }

  /** @returns {boolean} whether the message is anybody else's business; the answer to a heartbeat is not */
  #fold(message) {
    const { type, id } = message;
    if (type === "data_update" || type === "control" || type === "deleted") {
      this.#mirror.reach(message);
      if (!this.#subscription.selects(message.device_id ?? message.target)) return false;
      this.#mirror.fold(message);
      return this.#subscription.wants(type);
    }
    if (type === "auth_required") {
      if (!this.#token) this.#refuse("this server asks for a login", { needsLogin: true, code: "unauthenticated" });
      return false;
    }
    if (type === "pong" && message.seq !== undefined) this.#mirror.reach(message);
    if (type === "error" && message.code === "too_large") this.#isBlamed = true;
    if (id !== undefined && id !== null) return this.#takeAnswer(message);
    if (type === "pong" || type === "echo" || type === "error") {
      const waiter = type === "error" ? this.#oldestRefusable() : this.#unnamed[0];
      if (type === "error") this.#complaint = message.code;
      if (waiter) this.#settle(waiter, message);
      else if (message.code === "too_large") this.#refuseLargest();
      return !waiter?.isHeartbeat;
    }
    return true;
  }

  #takeAnswer(message) {
    const { id } = message;
    if (this.#updates.has(id)) {
      if (this.#updates.settle(message)) this.#hold();
      else if (message.type === "ack") this.#refusals = 0;
      this.#sendUpdates();
    } else if (this.#named.has(id)) this.#settle(this.#named.get(id), message);
    else if (id === this.#subscription.asked?.id) this.#takeWish(message);
    else if (id === this.#restartId) {
      this.#takeRestart(message);
      return false;
    }
    return true;
  }

  /** A server that cannot read a message cannot echo its id either; it answers in the order in which they came. */
  #oldestRefusable() {
    return this.#unnamed.find((waiter) => !waiter.isHeartbeat) ?? this.#named.values().next().value;
  }

  #update(value, write, isBarrier = false) {
    if (this.#end) return Promise.reject(this.#end);
    try {
      const text = encode(value);
      const stored = this.#updates.put(write(text), text, isBarrier);
      this.#sendUpdates();
      return stored;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #sendUpdates() {
    if (this.link.phase === "live" && !this.#isHeld) this.#updates.send((text) => this.#say(text));
  }

  /** The server cannot store at the moment. What is behind the refused update it refuses too, until it is told that all begins again. */
  #hold() {
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#after("again", HOLD_MIN_MS + backoffMs(this.#refusals), () => this.#restart());
    this.#refusals += 1;
  }

  #restart() {
    if (!this.#isOrdered) return this.#goOn();
    this.#restartId = this.#newId();
    this.#say(encode({ type: "restart", id: this.#restartId }));
  }

  /** The answer comes behind all refusals, so that nothing is on the way any more. */
  #takeRestart(message) {
    this.#restartId = null;
    this.#isHeld = false;
    if (message.type === "error" && message.retryable) this.#hold();
    else this.#goOn();
  }

  #goOn() {
    this.#isHeld = false;
    this.#updates.rewind();
    this.#sendUpdates();
  }

  #wish(type, devices, how) {
    if (this.#end) return Promise.reject(this.#end);
    try {
      const patterns = [devices].flat();
      encode({ patterns, ...how });
      const done = this.#subscription.ask(type, patterns, how);
      this.#sendWish();
      return done;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #sendWish() {
    if (this.link.phase !== "live") return;
    const text = this.#subscription.next(this.#newId(), this.limits?.messageMaxBytes);
    if (text) this.#say(text);
  }

  #takeWish(message) {
    const hasLeft = this.#subscription.take(message);
    if (hasLeft instanceof Error) {
      this.#refuse(hasLeft.message);
      return;
    }
    if (hasLeft && this.#mirror.keep((id) => this.#subscription.covers(id))) this.#tell(this.onSnapshot, this.position, this.twins, null);
    this.#sendWish();
  }

  #send(text, remember) {
    if (this.link.phase !== "live") {
      return Promise.reject(new RequestError("not_connected", "There is no connection; nothing was sent."));
    }
    if (LONE_SURROGATE.test(text)) return Promise.reject(unfit("a text with a lone surrogate", []));
    const bytes = bytesOf(text);
    const { messageMaxBytes = Infinity } = this.limits ?? {};
    if (bytes > messageMaxBytes) return Promise.reject(tooLarge("A message", messageMaxBytes, bytes));
    const waiter = Object.assign(new Outcome(), { bytes, timer: 0 });
    const late = new RequestError("no_answer", "The server did not answer within 10 s; the message may have been stored.");
    waiter.timer = setTimeout(() => this.#fail(waiter, late), ANSWER_TIMEOUT_MS);
    remember(waiter);
    this.#say(text);
    return waiter.promise;
  }

  #say(text) {
    try {
      this.#socket?.send(text);
    } catch {
      // It is not open any more, which `close` tells; what was not acknowledged is sent again then.
    }
  }

  #settle(waiter, message) {
    this.#forget(waiter);
    if (message.type === "error") waiter.reject(new RequestError(message.code, message.message));
    else waiter.resolve(message);
    if (waiter.isUpdate && message.retryable && this.#isOrdered) this.#hold();
  }

  #fail(waiter, error) {
    this.#forget(waiter);
    waiter.abandon(error);
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

  #lose(reason, isExplained) {
    this.#drop();
    const delayMs = backoffMs(this.#attempt);
    this.#attempt += 1;
    // A handshake that failed says nothing; until `explain` does, the reason before it is the better one.
    this.#after("retry", delayMs, () => this.#connect());
    if (!isExplained) this.#askWhy();
    this.#enter("waiting", isExplained ? reason : this.link.reason, Date.now() + delayMs);
  }

  async #askWhy() {
    let why = null;
    try {
      why = await this.explain();
    } catch (error) {
      report(error);
    }
    if (!why || (this.link.phase !== "waiting" && this.link.phase !== "connecting")) return;
    if (why.isFinal) this.#refuse(why.reason);
    else if (this.link.phase === "waiting") this.#enter("waiting", why.reason, this.link.retryAtMs);
  }

  #refuse(reason, { needsLogin = false, code = "refused" } = {}) {
    this.#drop();
    this.#giveUp(new RequestError(code, `The server refuses this client: ${reason}`));
    this.#enter("refused", reason, 0, { needsLogin });
  }

  #giveUp(error) {
    this.#end = error;
    this.#updates.fail(error);
    this.#subscription.fail(error);
  }

  #drop() {
    this.#turn += 1;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#pending = []; // what was not taken comes again, for the cursor is before it
    this.#pendingChars = 0;
    this.#mirror.begin();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(NORMAL_CLOSE);
    }
    const lost = new RequestError("connection_lost", "The connection ended before the answer; the message may have been stored.");
    for (const waiter of [...this.#named.values(), ...this.#unnamed]) this.#fail(waiter, lost);
  }

  #enter(phase, reason = "", retryAtMs = 0, { resumed = false, gap = null, needsLogin = false } = {}, first = () => {}) {
    this.link = { phase, reason, retryAtMs, attempt: this.#attempt, resumed, gap, needsLogin };
    first();
    this.#tell(this.onLink, this.link);
  }

  /** Calls what the user gave. What it throws is the user's to see, and not this client's end. */
  #tell(callback, ...what) {
    try {
      callback(...what)?.catch?.(report);
    } catch (error) {
      report(error);
    }
  }

  #newId() {
    return `${this.#prefix}-${this.#nextId++}`;
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

function report(error) {
  if (globalThis.reportError) globalThis.reportError(error);
  else console.error(error);
}

/** Whether what brings the state has what it takes. */
function isWhole({ type, epoch, seq, data_snapshot: twins }) {
  if (type === "gap") return true;
  return typeof epoch === "string" && Number.isInteger(seq) && typeof twins === "object" && twins !== null && !Array.isArray(twins);
}

/** A close reason without the word for programs before it. */
function plain(reason) {
  return reason.replace(/^[a-z_]+: /, "");
}

function codeOf(reason) {
  return /^([a-z_]+): /.exec(reason)?.[1];
}

function sayClose(code) {
  if (code === 1012) return "the server restarts";
  if (code === 1006) return "the connection broke";
  return `the server closed the connection (${code})`;
}
