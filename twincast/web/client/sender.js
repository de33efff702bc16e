import { backoffMs } from "./backoff.js";
import { encode } from "./encoding.js";

const HOLD_MIN_MS = 100; // a server that cannot store anything at the moment is left alone at least so long

/**
 * When updates go: in order, and while the server can store. What is behind an update that it refused for now it refuses too,
 * until it is told that all begins again.
 */
export class Order {
  /** Whether the server keeps it too. */
  isKept = false;
  #updates;
  #timers;
  #say;
  #newId;
  #isLive;
  #isHeld = false; // what is new waits behind what was refused
  #restartId = null;
  #refusals = 0;

  /**
   * @param {import("./updates.js").Updates} updates
   * @param {{timers: import("./timers.js").Timers, say: (text: string) => void, newId: () => string, isLive: () => boolean}} way
   */
  constructor(updates, { timers, say, newId, isLive }) {
    this.#updates = updates;
    this.#timers = timers;
    this.#say = say;
    this.#newId = newId;
    this.#isLive = isLive;
  }

  /** Begins a connection. */
  begin() {
    this.#isHeld = false;
    this.#restartId = null;
    this.#updates.rewind();
  }

  send() {
    if (this.#isLive() && !this.#isHeld) this.#updates.send(this.#say);
  }

  /** Takes the answer to an update. */
  take(message) {
    if (this.#updates.settle(message)) this.hold();
    else if (message.type === "ack") this.#refusals = 0;
    this.send();
  }

  /** Takes note that the server cannot store at the moment. */
  hold() {
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#timers.after("again", HOLD_MIN_MS + backoffMs(this.#refusals), () => this.#restart());
    this.#refusals += 1;
  }

  /** Whether a message answers this order's own question, behind all refusals, so that nothing is on the way any more. */
  isAnswered(id) {
    return id === this.#restartId;
  }

  /** Takes that answer. */
  goOn(message) {
    this.#restartId = null;
    this.#isHeld = false;
    if (message.type === "error" && message.retryable) this.hold();
    else this.#again();
  }

  #restart() {
    if (!this.isKept) return this.#again();
    this.#restartId = this.#newId();
    this.#say(encode({ type: "restart", id: this.#restartId }));
  }

  #again() {
    this.#isHeld = false;
    this.#updates.rewind();
    this.send();
  }
}
