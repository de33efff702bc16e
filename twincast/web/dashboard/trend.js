/** The recent values of one number, each with its time: a ring. */
export class Trend {
  #at;
  #values;
  #next = 0;

  /** @param {number} [capacity] how many points are kept; a sparkline can show 40 */
  constructor(capacity = 40) {
    this.#at = new Float64Array(capacity);
    this.#values = new Float64Array(capacity);
    this.length = 0;
  }

  /**
   * Adds a point; the oldest one is dropped if there is no room.
   * @param {number} atMs
   * @param {number} value
   */
  push(atMs, value) {
    this.#at[this.#next] = atMs;
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % this.#at.length;
    if (this.length < this.#at.length) this.length += 1;
  }

  /** @param {number} index 0 for the oldest */
  at(index) {
    return this.#at[this.#slot(index)];
  }

  /** @param {number} index 0 for the oldest */
  value(index) {
    return this.#values[this.#slot(index)];
  }

  get first() {
    return this.value(0);
  }

  get last() {
    return this.value(this.length - 1);
  }

  /** @returns {{min: number, max: number}} of all points; both infinite if there are none */
  bounds() {
    let min = Infinity;
    let max = -Infinity;
    for (let index = 0; index < this.length; index += 1) {
      const value = this.#values[index];
      if (value < min) min = value;
      if (value > max) max = value;
    }
    return { min, max };
  }

  #slot(index) {
    return (this.#next - this.length + index + this.#at.length) % this.#at.length;
  }
}
