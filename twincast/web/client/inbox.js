const MAX_CHARS = 1 << 20; // a page in the background draws no frames; what arrives must not pile up

/** Texts that arrived and are not decoded yet: they are taken together, once a frame for example. */
export class Inbox {
  #texts = [];
  #chars = 0;
  #isScheduled = false;

  /**
   * Takes a text.
   * @param {string} text
   * @param {{schedule: () => void, drain: () => void}} how what is to happen: soon, or at once if this is too much
   */
  put(text, { schedule, drain }) {
    this.#texts.push(text);
    this.#chars += text.length;
    if (this.#chars > MAX_CHARS) drain();
    else if (!this.#isScheduled) {
      this.#isScheduled = true;
      schedule();
    }
  }

  /** Gives all that there is, in order. @returns {string[]} */
  takeAll() {
    const texts = this.#texts;
    this.#isScheduled = false;
    this.clear();
    return texts;
  }

  clear() {
    this.#texts = [];
    this.#chars = 0;
  }
}
