import { bytesOf } from "./encoding.js";
import { RequestError, tooLarge } from "./errors.js";
import { Deferred } from "./deferred.js";

const UPDATES_MAX = 1_000;

/** Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once. */
export class Updates {
  #waiting = new Map();
  #unsent = new Set();
  #prefix = Math.random().toString(36).slice(2, 12) + Date.now().toString(36);
  #next = 1;
  #bytes = 0;
  #maxBytes;
  #barrier = null; // under way, and nothing may pass it
  #isCareful = false; // one at a time, to see which of them it is that ends connections
  /** @type {import("./messages.js").Limits|null} */
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
    const update = Object.assign(new Deferred(), { text, isBarrier, bytes: bytesOf(text), valueBytes: bytesOf(value) });
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
