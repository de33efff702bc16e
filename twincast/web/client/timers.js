/** Timers by name; at most one of a name. */
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
