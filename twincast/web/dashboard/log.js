/** What happened: the newest events, of which those that match a filter are kept apart. Knows no document. */

/** How many events are kept; more than anybody reads, and few enough for any memory. */
export const CAPACITY = 2000;

/**
 * @typedef {"telemetry"|"control"|"deleted"|"answer"|"error"|"link"} Kind
 * @typedef {{kind: Kind, subject: string, message: object, atMs: number, text: string|null}} Event
 */

const KINDS = { data_update: "telemetry", control: "control", deleted: "deleted", error: "error" };

/**
 * @param {object} message
 * @param {number} nowMs when it came, by `Date.now()`
 * @returns {Event}
 */
export function eventOf(message, nowMs) {
  const kind = KINDS[message.type] ?? (message.type === "connection" ? "link" : "answer");
  const subject = message.device_id ?? message.target ?? message.code ?? message.state ?? message.type;
  return { kind, subject: String(subject), message, atMs: nowMs, text: null };
}

/** A list that forgets its oldest items. */
class Ring {
  #items = [];
  #next = 0;

  get length() {
    return this.#items.length;
  }

  push(item) {
    this.#items[this.#next] = item;
    this.#next = (this.#next + 1) % CAPACITY;
  }

  /** @param {number} index 0 for the newest */
  at(index) {
    return this.#items[(this.#next - 1 - index + CAPACITY) % CAPACITY];
  }

  /** @returns {any[]} newest first */
  list() {
    return Array.from({ length: this.length }, (_, index) => this.at(index));
  }
}

export class Log {
  #all = new Ring();
  #matching = new Ring();
  #filter = { text: "", kind: "" };
  /** What is shown while paused. @type {Event[]|null} */
  #held = null;
  /** How many matching events came since the pause. */
  newerCount = 0;
  #pushedCount = 0;

  get isPaused() {
    return this.#held !== null;
  }

  /** How many events are shown. */
  get length() {
    return this.#held?.length ?? this.#matching.length;
  }

  /** How many events came before the newest that is shown: it tells rows apart that move down as others come. */
  get shownCount() {
    return this.#pushedCount - this.newerCount;
  }

  /** @param {number} index 0 for the newest @returns {Event} */
  at(index) {
    return this.#held ? this.#held[index] : this.#matching.at(index);
  }

  /** @param {Event} event */
  push(event) {
    this.#all.push(event);
    if (!this.#matches(event)) return;
    this.#matching.push(event);
    this.#pushedCount += 1;
    if (this.#held) this.newerCount += 1;
  }

  /** Holds what is shown; what comes is still kept. */
  pause() {
    this.#held ??= this.#matching.list();
  }

  resume() {
    this.#held = null;
    this.newerCount = 0;
  }

  clear() {
    this.#all = new Ring();
    this.#matching = new Ring();
    this.newerCount = 0;
    if (this.#held) this.#held = [];
  }

  /**
   * Chooses what is shown. From then on matching events are kept however many others come.
   * @param {{text?: string, kind?: string}} choice a part of the subject or command, and a kind; empty for all
   */
  filter(choice) {
    Object.assign(this.#filter, choice);
    this.#filter.text = this.#filter.text.trim().toLowerCase();
    this.#matching = new Ring();
    for (const event of this.#all.list().reverse()) if (this.#matches(event)) this.#matching.push(event);
    if (this.#held) this.#held = this.#matching.list();
    this.newerCount = 0;
  }

  #matches({ kind, subject, message }) {
    const { text, kind: only } = this.#filter;
    if (only && only !== kind) return false;
    return !text || subject.toLowerCase().includes(text) || String(message.command ?? "").toLowerCase().includes(text);
  }
}
