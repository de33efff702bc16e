import { bytesOf, encode } from "./encoding.js";
import { RequestError, tooLarge } from "./errors.js";
import { Deferred } from "./deferred.js";
import { matcherOf } from "./pattern.js";

const ADDRESS_MAX_CHARS = 4_000; // longer ones do not pass every proxy
const MESSAGE_FRAME_BYTES = 512; // what a message has besides its patterns, at most

/**
 * What a client is told of: as the server has confirmed it, and what is still to be asked. Only what is confirmed stands in the next
 * address, so a wish that is refused ends no connection, and one whose answer was lost is asked again.
 */
export class Subscription {
  #patterns; // undefined until somebody names any: everything
  #kinds;
  #mode;
  #maxHz;
  #wishes = [];
  #asked = null;
  #isWide = false; // the address was too short for the patterns, and named all
  #matches = null;

  constructor({ devices, kinds, mode, maxHz }) {
    this.#patterns = devices && new Set(listed(devices));
    this.#kinds = listed(kinds ?? []);
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

  /**
   * @param {"subscribe"|"unsubscribe"} type
   * @param {string|string[]} devices
   * @param {{mode?: string, maxHz?: number}} [how]
   * @returns {Promise<import("./messages.js").Ack>} the acknowledgement
   */
  ask(type, devices, how = {}) {
    this.#wishes.push(wish(type, devices, how));
    return this.#wishes.at(-1).deferred.promise;
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
    if (!first.devices.length) this.#wishes.shift().deferred.resolve(message);
    return !first.isInner;
  }

  fail(error) {
    for (const { deferred } of this.#wishes.splice(0)) deferred.abandon(error);
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
    refused.deferred.reject(error);
  }
}

/** As many patterns as one message takes, and at least one. */
function partOf(patterns, maxBytes) {
  let bytes = 0;
  const end = patterns.findIndex((pattern) => (bytes += bytesOf(encode(pattern)) + 1) > maxBytes);
  return end < 0 ? patterns.slice() : patterns.slice(0, Math.max(1, end));
}

/**
 * Returns patterns or kinds as a list; a text alone is one of them.
 * @param {string|Iterable<string>} given
 */
function listed(given) {
  return typeof given === "string" ? [given] : [...given];
}

/**
 * @param {"subscribe"|"unsubscribe"} type
 * @param {string|Iterable<string>} devices
 * @param {{mode?: string, maxHz?: number, isInner?: boolean}} how
 */
function wish(type, devices, { mode, maxHz, isInner = false }) {
  const deferred = new Deferred();
  if (isInner) deferred.promise.catch(() => {});
  return { type, devices: listed(devices), mode, maxHz, isInner, deferred };
}
