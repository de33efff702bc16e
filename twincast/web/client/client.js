/**
 * One connection to a twincast server that keeps itself alive, and the newest state of every device.
 *
 * For a page of your own, a worker, or Node; it consists of the modules beside it, and loads nothing else:
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
 * After a lost connection it reconnects, resumes at its cursor, and sends again what was not acknowledged; where events
 * may be missing, it says so. docs/delivery.md describes the wire, docs/client.md the rules of reconnecting.
 */

import { backoffMs } from "./backoff.js";
import { call, report } from "./callbacks.js";
import { credentialFrom } from "./credential.js";
import { Deferred } from "./deferred.js";
import { encode, encodeTime } from "./encoding.js";
import { RequestError } from "./errors.js";
import { explain as explainByStatus } from "./explain.js";
import { codeOf, codeOfClose, isAboutLogin, isFinal, plain, sayClose } from "./failures.js";
import { Heartbeat } from "./heartbeat.js";
import { get, historyPath, statePath } from "./history.js";
import { Inbox } from "./inbox.js";
import { Mirror, isWhole } from "./mirror.js";
import { Pin } from "./pin.js";
import { positionOf } from "./position.js";
import { Requests } from "./requests.js";
import { Sender } from "./sender.js";
import { Socket } from "./socket.js";
import { Subscription } from "./subscription.js";
import { Timers } from "./timers.js";
import { Updates } from "./updates.js";

export { RequestError, backoffMs, encode, isFinal };
export { matcherOf } from "./pattern.js";

const TOKEN_TIMEOUT_MS = 30_000;
const HELLO_TIMEOUT_MS = 10_000;
const STEADY_AFTER_MS = 10_000; // a connection that lasted less does not count as a success
const BUFFER_MAX_BYTES = 8 << 20;
const CLOSE_TOO_LARGE = 1009;
const CLOSES_BY_A_MESSAGE = new Set([1002, 1003, 1007]);
const UPDATE_TYPES = new Set(["telemetry", "control", "delete"]);
const ANSWERED_BY_ID = new Set([...UPDATE_TYPES, "subscribe", "unsubscribe", "auth", "restart"]);

/** @typedef {import("./messages.js").Message} Message */
/** @typedef {import("./messages.js").DataUpdate} DataUpdate */
/** @typedef {import("./messages.js").Control} Control */
/** @typedef {import("./messages.js").Deleted} Deleted */
/** @typedef {import("./messages.js").Late} Late */
/** @typedef {import("./messages.js").Ack} Ack */
/** @typedef {import("./messages.js").Twin} Twin */
/** @typedef {import("./messages.js").Position} Position */
/** @typedef {import("./messages.js").Gap} Gap */
/** @typedef {import("./messages.js").Link} Link */
/** @typedef {import("./messages.js").Limits} Limits */
/** @typedef {import("./history.js").HistoryQuestion} HistoryQuestion */
/** @typedef {import("./history.js").History} History */
/** @typedef {import("./history.js").HistoryOfMany} HistoryOfMany */

export class Client {
  #socket = new Socket();
  #turn = 0; // counts the attempts, so that what arrives late for an earlier one is ignored
  #timers = new Timers();
  #inbox = new Inbox();
  #requests = new Requests((text) => this.#socket.say(text));
  #prefix = `ask-${Math.random().toString(36).slice(2, 8)}`;
  #nextId = 1;
  #attempt = 0;
  #heartbeat = new Heartbeat({
    timers: this.#timers,
    ask: (text) => this.#send(text, { isHeartbeat: true }),
    onSilence: () => this.#lose("the server fell silent", true),
  });
  #updates;
  #subscription;
  #mirror;
  #since; // where an earlier client stopped, until this one has resumed there
  #sender;
  #complaint; // the code of the server's last error without an id
  #isBlamed = false; // the server has named the message for which it may end this connection
  #end = null; // why nothing more is accepted
  #token;
  #pin; // the one server that is trusted; null for those that the runtime trusts
  #online = () => this.retry();

  /**
   * @param {object} options
   * @param {string} options.url ws://… or wss://…
   * @param {string|string[]} [options.devices] the pattern or patterns of the devices to receive; everything if not given
   * @param {string|string[]} [options.kinds] "data_update", "control", "deleted", "late", or some of them; all but "late" if not given
   * @param {"latest"|"every"} [options.mode] whether events are merged when this page does not keep up
   * @param {number} [options.maxHz] in mode "latest": how often a second at most
   * @param {Position|string|null} [options.since] where an earlier client stopped: its `position`, or "EPOCH:SEQ"; what came after that is delivered.
   *   `twins` is the state of now all the same. From now on, if not given
   * @param {string|(() => string|Promise<string>)} [options.token] an API key or a JWT, or a function that returns one for each connection
   * @param {string} [options.fingerprint] of the one server that is trusted, as `twincast serve --self-signed` prints it; in Node, with the package
   *   `ws`. A browser cannot do that
   * @param {number} [options.bufferMaxBytes] how much may wait to be stored; beyond it `publish` is `buffer_full`
   * @param {(text: string) => any} [options.parse] reads JSON; one that keeps large numbers, for example
   * @param {(drain: () => void) => void} [options.schedule] runs `drain` soon; messages are decoded together then
   * @param {(link: Link) => any} [options.onLink] the phase of the connection changed
   * @param {(at: Position, twins: Map<string, Twin>, gap: Gap|null) => any} [options.onSnapshot]
   *   the state was replaced; with a `gap`, events may be missing
   * @param {(messages: Message[], at: Position) => any} [options.onMessages] new events, in order, already folded into `twins`; once they are
   *   handled, a program may keep `at`, to resume there by `since`
   * @param {() => Promise<{isFinal: boolean, reason: string, code?: string}|null>} [options.explain] finds out why a handshake failed; by default it asks
   *   the server's status
   *
   * What a callback throws is reported, as the runtime reports errors, and does not end the client.
   * @throws {TypeError} `url` is not an address, or `fingerprint` is not a fingerprint
   * @throws {Error} `fingerprint` is given in a runtime that cannot pin a server
   */
  constructor({ url, devices, kinds, mode, maxHz, since, token, fingerprint, bufferMaxBytes = BUFFER_MAX_BYTES, parse, schedule, onLink, onSnapshot, onMessages, explain }) {
    const address = new URL(url);
    if (!/^(ws|http)s?:$/.test(address.protocol)) throw new TypeError(`expected an address such as ws://127.0.0.1:8000/ws, not ${url}`);
    address.protocol = address.protocol.replace("http", "ws");
    address.hash = "";
    this.url = address.href;
    this.#since = positionOf(since);
    this.#mirror = new Mirror(this.#since);
    this.#token = token;
    this.#pin = fingerprint ? new Pin(fingerprint, this.url) : null;
    this.#updates = new Updates(bufferMaxBytes);
    this.#sender = new Sender(this.#updates, {
      timers: this.#timers,
      say: (text) => this.#socket.say(text),
      newId: () => this.#newId(),
      isLive: () => this.link.phase === "live",
    });
    this.#subscription = new Subscription({ devices, kinds, mode, maxHz });
    this.parse = parse ?? JSON.parse;
    this.schedule = schedule ?? ((drain) => setTimeout(drain, 0));
    this.onLink = onLink ?? (() => {});
    this.onSnapshot = onSnapshot ?? (() => {});
    this.onMessages = onMessages ?? (() => {});
    this.explain = explain ?? (() => explainByStatus(this.url, this.#pin ? (...how) => this.#pin.fetch(...how) : undefined));
    /** @type {Link} */
    this.link = { phase: "closed", retryAtMs: 0, attempt: 0, reason: "", resumed: false, gap: null, needsLogin: false };
    /** How many messages arrived, without answers to heartbeats. */
    this.messagesCount = 0;
    this.undecodedCount = 0;
  }

  /** The newest state of every device. @returns {Map<string, Twin>} */
  get twins() {
    return this.#mirror.twins;
  }

  /** Up to where events were delivered; a later client resumes there by `since`. @returns {Position} */
  get position() {
    return this.#mirror.position;
  }

  /** How long a message takes to the server and back, in milliseconds; NaN before it is known. */
  get roundTripMs() {
    return this.#heartbeat.roundTripMs;
  }

  /** How large what is sent may be, as the server said; null before that. @returns {Limits|null} */
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
   * Continues with another credential, which may read other devices: with a new connection and the whole state.
   * @param {string|(() => string|Promise<string>)} [token] none, if not given
   */
  logIn(token) {
    this.#drop();
    this.#token = token;
    this.#attempt = 0;
    this.#updates.fail(new RequestError("closed", "The client was logged in anew; the update may have been stored."));
    this.#mirror = new Mirror(this.#since);
    const turn = this.#turn;
    call(this.onSnapshot, this.position, this.twins, null);
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
   * Sends a reading. After a lost connection it is sent again, and stored once.
   * @param {string} deviceId
   * @param {any} value see `encode`
   * @param {object} [how]
   * @param {Date|string} [how.measuredAt] when it was measured: a Date, or ISO 8601 with a zone. A reading from before the newest one of its
   *   device is kept as `late`, and does not become the device's state
   * @returns {Promise<Ack>} the acknowledgement, once the server has it on disk
   * @throws {RequestError} refused, here (`validation_failed`, `bad_time`, `too_large`, `buffer_full`) or by the server in its own words
   */
  publish(deviceId, value, { measuredAt } = {}) {
    return this.#update(value, (text) => `"type":"telemetry","device_id":${encode(deviceId)},"value":${text}${measured(measuredAt)}`);
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
   * Deletes a device with its history, for good: all that the log has of it. It needs the right `admin`, and is asked by a request of its own.
   * @param {string} deviceId
   * @returns {Promise<any>} the answer: `event`, and under `pending` what still has something of it
   * @throws {RequestError} refused by the server in its own words, or `no_answer`
   */
  async deleteHistory(deviceId) {
    return this.#ask(historyPath(deviceId, {}), { method: "DELETE" });
  }

  /**
   * Returns the past of a device, or of several: entries, or with `every` or `points` buckets by columns. It is asked by a request of its own;
   * a client that begins with its position as `since` goes on behind it, without gap or overlap.
   * @template {string|string[]} T
   * @param {T} devices the name of one; or a list of patterns, such as `["lab/*"]`: then the answer is by device
   * @param {HistoryQuestion} [question] what is asked, by the names of docs/history.md; and a `signal` that ends the request
   * @returns {Promise<T extends string ? History : HistoryOfMany>} the answer, as it is described there
   * @throws {RequestError} refused by the server in its own words, or `no_answer`
   * @throws {any} the reason of `signal`, once it is aborted
   */
  async history(devices, question = {}) {
    return this.#ask(historyPath(devices, question), { signal: question.signal });
  }

  /**
   * Returns the state as it was at a time or position: `epoch`, `seq`, and under `data` each device's twin.
   * @param {string|Date|Position} at
   * @param {string|string[]} [devices] a pattern, or several; everything if not given
   * @param {{signal?: AbortSignal}} [how] `signal` ends the request
   * @returns {Promise<{epoch: string, seq: number, data: Record<string, Twin>}>}
   * @throws {RequestError} also `ahead`: it is in the future
   * @throws {any} the reason of `signal`, once it is aborted
   */
  async stateAt(at, devices = [], { signal } = {}) {
    return this.#ask(statePath(at, devices), { signal });
  }

  /**
   * Adds devices to the subscription, or changes its mode or rate. The devices' state arrives before the promise is fulfilled. The request
   * waits for a connection, is repeated after a lost one, and is remembered once the server has confirmed it.
   * @param {{devices?: string|string[], mode?: "latest"|"every", maxHz?: number}} request
   * @returns {Promise<Ack>} the acknowledgement
   * @throws {RequestError} the server refused it, and it is not remembered; if a list needs several messages, the ones before stay
   */
  subscribe({ devices = [], mode, maxHz }) {
    return this.#wish("subscribe", devices, { mode, maxHz });
  }

  /**
   * Removes patterns from the subscription; a device that no other pattern covers leaves `twins`. Otherwise like `subscribe`.
   * @param {string|string[]} devices
   * @returns {Promise<Ack>} the acknowledgement
   * @throws {RequestError}
   */
  unsubscribe(devices) {
    return this.#wish("unsubscribe", devices);
  }

  /**
   * Sends a message on this connection and waits for its answer: the acknowledgement of an update, after the commit, or pong,
   * echo or error. A message that is answered by `id` gets one, if it has none. It is not sent again.
   * @param {string} text JSON; apart from the added `id` it is sent unchanged
   * @returns {Promise<Message>} the answer
   * @throws {RequestError}
   * @throws {SyntaxError} the text is not JSON
   */
  send(text) {
    const message = this.parse(text);
    if (!ANSWERED_BY_ID.has(message?.type)) return this.#send(text);
    const isUpdate = UPDATE_TYPES.has(message.type);
    if (message.id !== undefined) return this.#send(text, { id: message.id, isUpdate });
    const id = this.#newId();
    return this.#send(text.replace("{", `{"id":"${id}",`), { id, isUpdate });
  }

  /** Decodes and delivers what has arrived. `schedule` calls it; a program need not. */
  drain() {
    const turn = this.#turn;
    const texts = this.#inbox.takeAll();
    let batch = [];
    const deliver = () => {
      if (batch.length) call(this.onMessages, batch, this.position);
      batch = [];
    };
    for (const text of texts) {
      const message = this.#decode(text);
      if (message && this.#isTurn(message)) deliver(); // before the state behind it
      if (turn !== this.#turn) break; // a callback ended this connection, so what came on it is dropped
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
      this.#lose("the server sent what this client cannot read", true); // it resumes before that message
      return false;
    }
  }

  async #ask(path, /** @type {{method?: "GET"|"DELETE", signal?: AbortSignal}} */ how) {
    const token = typeof this.#token === "function" ? await credentialFrom(this.#token) : this.#token;
    const ask = this.#pin ? (...how) => this.#pin.fetch(...how) : (address, how) => fetch(address, how);
    return get(this.url, path, token, ask, how);
  }

  #connect() {
    globalThis.addEventListener?.("online", this.#online); // once, however often
    this.#drop();
    this.#end = null;
    const turn = this.#turn;
    this.#enter("connecting", this.link.reason);
    if (turn !== this.#turn) return; // a callback ended it
    if (!this.#token) this.#dial();
    else if (typeof this.#token === "string") this.#dial(this.#token);
    else this.#getToken();
  }

  /** Gets a credential before the connection is opened: a server waits for it for some seconds only. */
  async #getToken() {
    const turn = this.#turn;
    const lose = (why) => turn === this.#turn && this.#lose(`there is no credential: ${why}`, true);
    this.#timers.after("token", TOKEN_TIMEOUT_MS, () => lose("the function that returns one does not answer"));
    try {
      const token = await credentialFrom(this.#token);
      if (turn === this.#turn) this.#dial(token);
    } catch (error) {
      lose(error?.message ?? error);
    }
  }

  #dial(token) {
    this.#timers.stop("token");
    const turn = this.#turn;
    let wasOpen = false;
    this.#timers.after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server sent no greeting", wasOpen));
    this.#complaint = undefined;
    this.#isBlamed = false;
    try {
      this.#socket.dial(this.#address(), {
        onOpen: () => {
          wasOpen = true;
          if (token) this.#socket.say(JSON.stringify({ type: "auth", token: token.trim() }));
        },
        onText: (text) => this.#take(text),
        onEnd: (code, reason) => {
          this.drain(); // what arrived before the end counts
          if (turn !== this.#turn) return;
          if (this.#pin?.problem) this.#refuse(this.#pin.problem, { code: "wrong_fingerprint" });
          else this.#takeClose(code, reason, wasOpen);
        },
      }, this.#pin);
    } catch (error) {
      this.#lose(error.message, true);
    }
  }

  #takeClose(code, reason, wasOpen) {
    if (code === CLOSE_TOO_LARGE && !this.#isBlamed) this.#refuseLargest();
    else if (CLOSES_BY_A_MESSAGE.has(code)) this.#updates.suspect(code);
    const isRenewed = typeof this.#token === "function";
    if (!isFinal({ closeCode: code, isRenewed })) this.#lose(plain(reason) || sayClose(code), wasOpen);
    else {
      const why = codeOf(reason) ?? this.#complaint ?? codeOfClose(code);
      this.#refuse(plain(reason) || `close code ${code}`, { needsLogin: isAboutLogin(code), code: why });
    }
  }

  /** A message was too large for the server, or for a proxy before it: if any in flight was, the largest was. */
  #refuseLargest() {
    const candidates = [this.#updates.largestInFlight(), this.#subscription.asked, ...this.#requests.inFlight()].filter(Boolean);
    if (!candidates.length) return;
    const largest = candidates.reduce((a, b) => (b.bytes > a.bytes ? b : a));
    largest.refuse(new RequestError("too_large", `A message of ${largest.bytes} bytes was too large for the server, or for a proxy before it.`));
  }

  #take(text) {
    this.#heartbeat.hear(text);
    if (typeof text !== "string") return;
    this.#inbox.put(text, { schedule: () => this.#schedule(), drain: () => this.drain() });
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
      // counted, like JSON that is not a message
    }
    this.undecodedCount += 1;
    return null;
  }

  /** The address with the subscription, and the position to resume at. */
  #address() {
    const url = new URL(this.url);
    const { epoch, seq } = this.position;
    url.searchParams.set("ordered", "1");
    if (this.#token) url.searchParams.set("auth", "message");
    if (epoch && !this.#mirror.lacksState) url.searchParams.set("since", `${epoch}:${seq}`);
    this.#subscription.begin(url);
    return url.href;
  }

  /** Takes a message with the state, whole or in parts: the cursor counts only when the state is complete. */
  #takeState(message) {
    if (message.type === "hello") this.#takeTerms(message);
    if (message.type === "hello" && message.resumed) {
      if (!this.#mirror.resume(message)) {
        this.#lose("the server started again between its state and its changes", true);
        return;
      }
      // Devices of a request whose answer was lost are dropped; they arrive again when it is repeated.
      const hasLeft = this.#mirror.keep((id) => this.#subscription.covers(id));
      this.#goLive({ resumed: true }, hasLeft || this.#since ? this.position : null);
      return;
    }
    if (message.type !== "snapshot") this.#mirror.replace(message);
    if (message.type === "gap") return;
    const whole = this.#mirror.take(message, (id) => this.#subscription.selects(id));
    if (whole && this.#mirror.lacksState) {
      this.#mirror.knowState();
      this.#connect(); // again, from the position on
    } else if (this.link.phase === "live") {
      if (whole) call(this.onSnapshot, message, this.twins, whole.gap);
    } else if (whole) this.#goLive(whole, message);
    else this.#timers.after("hello", HELLO_TIMEOUT_MS, () => this.#lose("the server stopped in the middle of its state", true));
  }

  #takeTerms({ limits, ordered }) {
    this.#sender.isKept = ordered === true;
    this.#updates.limit(limits ? { messageMaxBytes: limits.message_max_bytes, valueMaxBytes: limits.value_max_bytes } : null);
  }

  /** @param {object|null} state to be delivered, if it was replaced */
  #goLive(how, state) {
    const turn = this.#turn;
    this.#since = null;
    this.#timers.stop("hello");
    this.#sender.begin();
    this.#timers.after("steady", STEADY_AFTER_MS, () => { this.#attempt = 0; });
    this.#heartbeat.begin();
    this.#enter("live", "", 0, how, () => {
      this.#sendWish();
      this.#sender.send(); // before a callback that learns that it is live sends what is newer
    });
    if (state && turn === this.#turn) call(this.onSnapshot, state, this.twins, how.gap ?? null);
  }

  /** @returns {boolean} whether the message is for `onMessages`; the answer to a heartbeat is not */
  #fold(message) {
    const { type, id } = message;
    if (type === "data_update" || type === "control" || type === "deleted" || type === "late") {
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
      if (type === "error") this.#complaint = message.code;
      const waiter = this.#requests.settleNext(message);
      if (waiter) this.#holdAfter(waiter, message);
      else if (message.code === "too_large") this.#refuseLargest();
      return !waiter?.isHeartbeat;
    }
    return true;
  }

  #takeAnswer(message) {
    const { id } = message;
    if (this.#updates.has(id)) this.#sender.take(message);
    else if (this.#requests.has(id)) this.#holdAfter(this.#requests.settle(message), message);
    else if (id === this.#subscription.asked?.id) this.#takeWish(message);
    else if (this.#sender.isAnswered(id)) {
      this.#sender.goOn(message);
      return false;
    }
    return true;
  }

  /** An update sent with `send` and refused for now holds up those behind it, which the server refuses too. */
  #holdAfter({ isUpdate }, { retryable }) {
    if (isUpdate && retryable && this.#sender.isKept) this.#sender.hold();
  }

  #update(value, write, isBarrier = false) {
    if (this.#end) return refusedAs(this.#end);
    try {
      const text = encode(value);
      const stored = this.#updates.put(write(text), text, isBarrier);
      this.#sender.send();
      return stored;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #wish(type, devices, how) {
    if (this.#end) return refusedAs(this.#end);
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
    if (text) this.#socket.say(text);
  }

  #takeWish(message) {
    const hasLeft = this.#subscription.take(message);
    if (hasLeft instanceof Error) {
      this.#refuse(hasLeft.message);
      return;
    }
    if (hasLeft && this.#mirror.keep((id) => this.#subscription.covers(id))) call(this.onSnapshot, this.position, this.twins, null);
    this.#sendWish();
  }

  #send(text, how = {}) {
    if (this.link.phase !== "live") {
      return Promise.reject(new RequestError("not_connected", "There is no connection; nothing was sent."));
    }
    return this.#requests.ask(text, { ...how, messageMaxBytes: this.limits?.messageMaxBytes });
  }

  #lose(reason, isExplained) {
    this.#drop();
    const delayMs = backoffMs(this.#attempt);
    this.#attempt += 1;
    // A failed handshake gives no reason; until `explain` finds one, the earlier reason is the better one.
    this.#timers.after("retry", delayMs, () => this.#connect());
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
    if (why.isFinal) this.#refuse(why.reason, { code: why.code });
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
    this.#timers.stopAll();
    this.#inbox.clear(); // what was not taken arrives again, for the cursor is before it
    this.#mirror.begin();
    this.#socket.hangUp();
    this.#requests.fail("connection_lost", "The connection ended before the answer; the message may have been stored.");
  }

  #enter(phase, reason = "", retryAtMs = 0, { resumed = false, gap = null, needsLogin = false } = {}, first = () => {}) {
    this.link = { phase, reason, retryAtMs, attempt: this.#attempt, resumed, gap, needsLogin };
    first();
    call(this.onLink, this.link);
  }

  #newId() {
    return `${this.#prefix}-${this.#nextId++}`;
  }
}

/** The answer of a client that has ended. `link` has the reason, so an unhandled rejection is not reported. */
function refusedAs(error) {
  const refused = new Deferred();
  refused.abandon(error);
  return refused.promise;
}

/** What says in a message when a reading was measured. */
function measured(at) {
  return at === undefined || at === null ? "" : `,"measured_at_utc":${encode(encodeTime(at))}`;
}
