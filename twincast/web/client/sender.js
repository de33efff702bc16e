import { backoffMs } from "./backoff.js";
import { encode } from "./encoding.js";

const HOLD_MIN_MS = 100; // the shortest pause for a server that cannot store anything at the moment

/**
 * Sends updates in order, while the server can store them. Three states:
 *
 * - sending;
 * - held: the server refused an update for now, and refuses all behind it too, until it is asked to restart; a back-off ends this;
 * - restarting: the restart was sent. Its answer comes behind all refusals; then everything is sent again. A server that keeps no
 *   order is not asked.
 */
export class Sender {
  /** Whether the server keeps the order too: then it has to be asked to restart. */
  isKept = false;
  #updates;
  #timers;
  #say;
  #newId;
  #isLive;
  #isHeld = false; // new updates wait behind the refused one
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

  /** Notes that the server cannot store at the moment. */
  hold() {
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#timers.after("again", HOLD_MIN_MS + backoffMs(this.#refusals), () => this.#restart());
    this.#refusals += 1;
  }

  /** Whether a message answers the restart. It comes behind all refusals, so no answer is outstanding then. */
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
