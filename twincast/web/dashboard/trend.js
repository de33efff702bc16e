/** The recent values of one number, each with its time and position: a ring. */
export class Trend {
  #at;
  #values;
  #seqs;
  #next = 0;
  #untilSeq = -1; // up to here everything that it shows is in

  /** @param {number} [capacity] how many points are kept; a sparkline can show 40 */
  constructor(capacity = 40) {
    this.#at = new Float64Array(capacity);
    this.#values = new Float64Array(capacity);
    this.#seqs = new Float64Array(capacity);
    this.length = 0;
  }

  /**
   * Adds a point; the oldest one is dropped if there is no room. One that is in already changes nothing.
   * @param {number} atMs
   * @param {number} value
   * @param {number} seq
   */
  push(atMs, value, seq) {
    if (seq <= this.#untilSeq) return;
    this.#untilSeq = seq;
    this.#put({ atMs, value, seq });
  }

  /**
   * Returns a trend that has further points, each where its time says.
   * @param {{atMs: number, value: number, seq: number}[]} points what was, as far back as there is room; some may be in already
   * @param {number} seq up to where they are all
   * @returns {Trend}
   */
  joined(points, seq) {
    const all = new Map(points.map((point) => [point.seq, point]));
    for (let index = 0; index < this.length; index += 1) {
      const slot = this.#slot(index);
      all.set(this.#seqs[slot], { atMs: this.#at[slot], value: this.#values[slot], seq: this.#seqs[slot] });
    }
    const trend = new Trend(this.#at.length);
    for (const point of [...all.values()].sort((a, b) => a.atMs - b.atMs || a.seq - b.seq)) trend.#put(point);
    trend.#untilSeq = Math.max(this.#untilSeq, seq);
    return trend;
  }

  #put({ atMs, value, seq }) {
    this.#at[this.#next] = atMs;
    this.#values[this.#next] = value;
    this.#seqs[this.#next] = seq;
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
