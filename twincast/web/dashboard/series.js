/** What a chart knows of one number or state over time: every reading, or readings added up by buckets. Knows no document. */

import { bucketAt } from "./moments.js";
import { drawnAs } from "./pointer.js";

const GAP_INTERVALS = 5; // a device that missed so many of its usual intervals was away
const GAP_MIN_MS = 10_000;
const INTERVALS_MIN = 5; // fewer do not say what is usual

/** What stands in a band where a state changed too often to be drawn. */
export const MANY = Symbol("many states");

/**
 * What is drawn. `x` rises; a null in a column ends the line before it.
 * @typedef {object} Drawn
 * @property {number[]} x milliseconds since 1970
 * @property {any[]} y numbers, or states
 * @property {any[]|null} min of each bucket; null if every reading is there
 * @property {any[]|null} max
 * @property {[number, number][]} gaps from and to, where nothing was for long
 * @property {number} usualMs how far readings are apart as a rule
 */

/**
 * @param {"number"|"state"} kind
 * @param {any} value
 * @returns {number|string|null} null if it is not of that kind
 */
export function valueAs(kind, value) {
  const found = drawnAs(value);
  if (kind === "number") return found === "number" ? Number(value) : null;
  return found ? String(value) : null;
}

/** Every reading, by the time that counts and then by position. */
export class Readings {
  #at = [];
  #seqs = [];
  #values = [];
  #usual = new UsualInterval();

  /** @param {"number"|"state"} kind */
  constructor(kind) {
    this.kind = kind;
    this.every = null;
    /** How often it was changed. */
    this.version = 0;
  }

  get length() {
    return this.#at.length;
  }

  get readingsCount() {
    return this.#at.length;
  }

  /** When the first one was; null if there is none. */
  get firstMs() {
    return this.#at[0] ?? null;
  }

  /** The last one's value; null if there is none. */
  get last() {
    return this.#values.at(-1) ?? null;
  }

  /** Takes a reading, where it belongs; one that is there already changes nothing. */
  add(atMs, seq, value) {
    let index = this.#at.length;
    while (index && (this.#at[index - 1] > atMs || (this.#at[index - 1] === atMs && this.#seqs[index - 1] > seq))) index -= 1;
    if (index && this.#seqs[index - 1] === seq) return;
    this.version += 1;
    this.#at.splice(index, 0, atMs);
    this.#seqs.splice(index, 0, seq);
    this.#values.splice(index, 0, valueAs(this.kind, value));
  }

  /** @returns {{min: number, max: number}} both infinite if there is no number */
  extent() {
    return extentOf(this.#values, this.#values);
  }

  /** Lets go of what was before a time. */
  dropBefore(fromMs) {
    const count = this.#at.findIndex((atMs) => atMs >= fromMs);
    if (count > 0) for (const column of [this.#at, this.#seqs, this.#values]) column.splice(0, count);
  }

  /** @param {number} atMs @returns {{atMs: number, value: any}|null} the last one up to a time */
  at(atMs) {
    const index = lastUpTo(this.#at, atMs);
    return index < 0 ? null : { atMs: this.#at[index], value: this.#values[index] };
  }

  /** @param {number[]} breaks times at which the device was deleted @returns {Drawn} */
  drawn(breaks) {
    const usualMs = this.#usual.of(this.#at);
    const lines = withGaps(this.#at, [this.#values], limitOf(usualMs), breaks);
    return { x: lines.x, y: lines.columns[0], min: null, max: null, gaps: lines.gaps, usualMs };
  }
}

/** Readings added up by buckets as the server does it, so that one that comes later can be added. */
export class Buckets {
  #starts;
  #values; // averages, or the last state
  #mins;
  #maxs;
  #counts;
  #usual = new UsualInterval();

  /**
   * @param {"number"|"state"} kind
   * @param {string} every their width
   * @param {object} columns as the server answers: `time_ms` and `avg min max count`, or `first last`
   */
  constructor(kind, every, { time_ms: starts, avg = [], min = [], max = [], count = [], first = [], last = [] }) {
    this.kind = kind;
    this.every = every;
    this.version = 0;
    const isNumber = kind === "number";
    const some = starts.map((_, index) => index).filter((index) => (isNumber ? avg[index] !== null : valueAs(kind, last[index]) !== null));
    const column = (values, take) => some.map((index) => take(values[index]));
    this.#starts = column(starts, Number);
    this.#values = isNumber ? column(avg, Number) : some.map((index) => stateOf(first[index], last[index]));
    this.#mins = isNumber ? column(min, Number) : null;
    this.#maxs = isNumber ? column(max, Number) : null;
    this.#counts = isNumber ? column(count, Number) : null;
  }

  get length() {
    return this.#starts.length;
  }

  get firstMs() {
    return this.#starts[0] ?? null;
  }

  get last() {
    return this.#values.at(-1) ?? null;
  }

  /** How many readings are in them. */
  get readingsCount() {
    return this.#counts ? this.#counts.reduce((sum, count) => sum + count, 0) : NaN;
  }

  /** Adds a reading to its bucket; the caller takes each one once. */
  add(atMs, _seq, part) {
    const value = valueAs(this.kind, part);
    if (value === null) return;
    this.version += 1;
    const { startMs } = bucketAt(this.every, atMs);
    let index = lastUpTo(this.#starts, startMs);
    if (index < 0 || this.#starts[index] !== startMs) {
      index += 1;
      this.#starts.splice(index, 0, startMs);
      this.#values.splice(index, 0, value);
      for (const column of [this.#mins, this.#maxs]) column?.splice(index, 0, value);
      this.#counts?.splice(index, 0, 1);
    } else if (this.kind === "number") {
      const count = (this.#counts[index] += 1);
      this.#values[index] += (value - this.#values[index]) / count;
      this.#mins[index] = Math.min(this.#mins[index], value);
      this.#maxs[index] = Math.max(this.#maxs[index], value);
    } else if (this.#values[index] !== value) this.#values[index] = MANY;
  }

  extent() {
    return extentOf(this.#mins ?? [], this.#maxs ?? []);
  }

  dropBefore(fromMs) {
    const count = this.#starts.findIndex((startMs) => bucketAt(this.every, startMs).endMs > fromMs);
    if (count <= 0) return;
    for (const column of [this.#starts, this.#values, this.#mins, this.#maxs, this.#counts]) column?.splice(0, count);
  }

  at(atMs) {
    const index = lastUpTo(this.#starts, atMs);
    if (index < 0) return null;
    const { startMs, endMs } = bucketAt(this.every, this.#starts[index]);
    const [min, max, count] = [this.#mins, this.#maxs, this.#counts].map((column) => column?.[index]);
    return { atMs: startMs, endMs, value: this.#values[index], min, max, count };
  }

  drawn(breaks) {
    const usualMs = this.#usual.of(this.#starts);
    const columns = [this.#values, ...(this.#mins ? [this.#mins, this.#maxs] : [])];
    const { endMs } = bucketAt(this.every, this.#starts[0] ?? 0);
    const widthMs = endMs - bucketAt(this.every, this.#starts[0] ?? 0).startMs;
    const lines = withGaps(this.#starts, columns, limitOf(Math.max(usualMs, widthMs)), breaks);
    const half = this.kind === "number" ? widthMs / 2 : 0; // an average stands in the middle of what it is of
    const [y, min = null, max = null] = lines.columns;
    return { x: lines.x.map((atMs) => atMs + half), y, min, max, gaps: lines.gaps, usualMs: Math.max(usualMs, widthMs) };
  }
}

function extentOf(lows, highs) {
  let [min, max] = [Infinity, -Infinity];
  for (const low of lows) if (low !== null && low < min) min = low;
  for (const high of highs) if (high !== null && high > max) max = high;
  return { min, max };
}

function stateOf(first, last) {
  return valueAs("state", first) === valueAs("state", last) ? valueAs("state", last) : MANY;
}

function limitOf(usualMs) {
  return Math.max(GAP_MIN_MS, GAP_INTERVALS * usualMs);
}

/** @returns {number} the index of the last one that is not larger; -1 if all are */
function lastUpTo(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** How far times are apart as a rule: nine of ten are no further. Found anew once they are a tenth more or fewer. */
class UsualInterval {
  #length = -1;
  #ms = 0;

  of(times) {
    if (Math.abs(times.length - this.#length) <= this.#length / 10) return this.#ms;
    this.#length = times.length;
    const intervals = new Float64Array(Math.max(0, times.length - 1));
    for (let index = 1; index < times.length; index += 1) intervals[index - 1] = times[index] - times[index - 1];
    intervals.sort();
    this.#ms = intervals.length < INTERVALS_MIN ? intervals.at(-1) ?? 0 : intervals[Math.floor((intervals.length - 1) * 0.9)];
    return this.#ms;
  }
}

/** Copies columns, with a row of nulls where nothing was for long, or where the device was deleted. */
function withGaps(times, columns, limitMs, breaks) {
  const x = [];
  const copies = columns.map(() => []);
  const gaps = [];
  let next = 0;
  for (let index = 0; index < times.length; index += 1) {
    const atMs = times[index];
    const beforeMs = times[index - 1];
    while (index > 0 && next < breaks.length && breaks[next] <= beforeMs) next += 1;
    const isBroken = index > 0 && next < breaks.length && breaks[next] <= atMs;
    if (index > 0 && (isBroken || atMs - beforeMs > limitMs)) {
      const from = isBroken ? breaks[next] : beforeMs;
      x.push((from + atMs) / 2);
      for (const copy of copies) copy.push(null);
      gaps.push([from, atMs]);
    }
    x.push(atMs);
    copies.forEach((copy, column) => copy.push(columns[column][index]));
  }
  return { x, columns: copies, gaps };
}
