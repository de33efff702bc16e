import { bytesOf, faultOf } from "./encoding.js";
import { RequestError, tooLarge } from "./errors.js";
import { Deferred } from "./deferred.js";

const ANSWER_TIMEOUT_MS = 10_000;

/** Requests on this connection without an answer yet, by `id`, or in the order in which they were sent. They are not sent again. */
export class Requests {
  #named = new Map();
  #unnamed = [];
  #say;

  /** @param {(text: string) => void} say */
  constructor(say) {
    this.#say = say;
  }

  /**
   * Says a text, and waits for what answers it.
   * @param {string} text
   * @param {{id?: any, isUpdate?: boolean, isHeartbeat?: boolean, messageMaxBytes?: number}} how `id`: by what it is answered; in its turn, if not given
   * @returns {Promise<import("./messages.js").Message>} the answer
   */
  ask(text, { id, isUpdate = false, isHeartbeat = false, messageMaxBytes = Infinity }) {
    const fault = faultOf(text);
    if (fault) return Promise.reject(fault);
    const bytes = bytesOf(text);
    if (bytes > messageMaxBytes) return Promise.reject(tooLarge("A message", messageMaxBytes, bytes));
    const waiter = Object.assign(new Deferred(), { bytes, isUpdate, isHeartbeat, timer: 0 });
    waiter.timer = setTimeout(() => {
      this.#fail(waiter, new RequestError("no_answer", "The server did not answer within 10 s; the message may have been stored."));
    }, ANSWER_TIMEOUT_MS);
    if (id === undefined) this.#unnamed.push(waiter);
    else this.#named.set(id, waiter);
    this.#say(text);
    return waiter.promise;
  }

  has(id) {
    return this.#named.has(id);
  }

  /** Takes the answer to what has an `id`. @returns {{isUpdate: boolean}} what was answered */
  settle(message) {
    return this.#settle(this.#named.get(message.id), message);
  }

  /** Takes an answer without an `id`. @returns {{isUpdate: boolean, isHeartbeat: boolean}|null} what was answered */
  settleNext(message) {
    const waiter = message.type === "error" ? this.#oldestRefusable() : this.#unnamed[0];
    return waiter ? this.#settle(waiter, message) : null;
  }

  /** All that waits, as what may have been too large. @returns {{bytes: number, refuse: (error: Error) => void}[]} */
  inFlight() {
    return this.#all().map((waiter) => ({ bytes: waiter.bytes, refuse: (error) => this.#fail(waiter, error) }));
  }

  /** Ends all that waits. An error is made only then, for it takes milliseconds. @param {string} code @param {string} message */
  fail(code, message) {
    for (const waiter of this.#all()) this.#fail(waiter, new RequestError(code, message));
  }

  #all() {
    return [...this.#named.values(), ...this.#unnamed];
  }

  /** A server that cannot read a message cannot echo its id either; it answers in the order in which they came. */
  #oldestRefusable() {
    return this.#unnamed.find((waiter) => !waiter.isHeartbeat) ?? this.#named.values().next().value;
  }

  #settle(waiter, message) {
    this.#forget(waiter);
    if (message.type === "error") waiter.reject(new RequestError(message.code, message.message));
    else waiter.resolve(message);
    return waiter;
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
}
