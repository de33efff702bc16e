/** What is to happen later, each by its name; one of a name at a time. */
export class Timers {
  #timers = new Map();

  after(name, delayMs, callback) {
    this.stop(name);
    this.#timers.set(name, setTimeout(callback, delayMs));
  }

  has(name) {
    return this.#timers.has(name);
  }

  stop(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  stopAll() {
    for (const name of [...this.#timers.keys()]) this.stop(name);
  }
}
