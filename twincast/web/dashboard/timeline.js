/** What happened to a device, by time: readings, commands and what followed them. Knows no document. */

import { labelOf } from "./chartwords.js";
import { brief, stringify } from "./json.js";
import { countsAtMs } from "./moments.js";
import { drawablePaths, partAt } from "./pointer.js";

const CAPACITY = 500;
const CHANGES_MAX = 3;

/**
 * @typedef {object} Happening
 * @property {number} atMs by the time that counts
 * @property {number} seq
 * @property {"data_update"|"late"|"control"|"deleted"} type
 * @property {any} [value] of a reading
 * @property {string} [command]
 * @property {any} [args]
 * @property {"history"} [scope] of a deletion: what there was of the device went as well
 */

/** @param {object} entry as history answers it, or an event @returns {Happening} */
export function happeningOf({ type, ...entry }) {
  const { seq, value, command, args, scope } = entry;
  return { atMs: countsAtMs(entry), seq, type: type ?? (entry.late ? "late" : "data_update"), value, command, args, scope };
}

export class Timeline {
  #all = []; // by time and then by position
  #seqs = new Set();

  get length() {
    return this.#all.length;
  }

  /** Takes what happened, where it belongs. @param {Happening[]} happenings those that are there already change nothing */
  add(happenings) {
    for (const one of happenings) {
      if (this.#seqs.has(one.seq)) continue;
      this.#seqs.add(one.seq);
      let index = this.#all.length;
      while (index && isBehind(this.#all[index - 1], one)) index -= 1;
      this.#all.splice(index, 0, one);
    }
  }

  /** When the oldest was; null if there is none. @returns {number|null} */
  get firstMs() {
    return this.#all[0]?.atMs ?? null;
  }

  /**
   * Lets go of what is beyond what is kept: the oldest, or readings that say nothing of a command.
   * @param {boolean} areCommandsOnly
   * @returns {boolean} whether something went
   */
  prune(areCommandsOnly) {
    if (this.#all.length <= CAPACITY) return false;
    const isBeside = (index) => [index - 1, index, index + 1].some((each) => this.#all[each] && !isReading(this.#all[each]));
    const last = this.#all.length - 1;
    this.#all = areCommandsOnly ? this.#all.filter((_, index) => index === last || isBeside(index)) : this.#all.slice(-CAPACITY);
    this.#seqs = new Set(this.#all.map(({ seq }) => seq));
    return true;
  }

  /**
   * @param {boolean} areCommandsOnly whether readings are left out
   * @returns {Happening[]} newest first
   */
  list(areCommandsOnly) {
    const some = areCommandsOnly ? this.#all.filter(({ type }) => type === "control" || type === "deleted") : this.#all;
    return some.toReversed();
  }

  /** The commands whose reading before or after is not there. @returns {Happening[]} */
  get unframed() {
    return this.#all.filter((one) => one.type === "control" && !one.isFramed);
  }

  /**
   * Says what followed a command.
   * @param {Happening} command
   * @returns {{after: Happening, text: string}|null} null if no reading followed yet
   */
  effectOf(command) {
    const index = this.#all.indexOf(command);
    const after = this.#all.slice(index + 1).find(isReading);
    if (!after) return null;
    const before = this.#all.slice(0, index).findLast(isReading);
    return { after, text: sayChange(before?.value, after.value) };
  }
}

function isReading({ type }) {
  return type === "data_update";
}

function isBehind(one, other) {
  return one.atMs > other.atMs || (one.atMs === other.atMs && one.seq > other.seq);
}

/** Which parts of a value are others: `level 4 → 1.6`. @returns {string} */
export function sayChange(before, after) {
  if (before === undefined) return brief(after, 80);
  const paths = drawablePaths(after).filter((path) => partAt(before, path) !== partAt(after, path));
  if (!paths.length) return stringify(before) === stringify(after) ? "as before" : brief(after, 80);
  const said = paths.slice(0, CHANGES_MAX).map((path) => {
    const name = path.length ? `${labelOf(path)} ` : "";
    return `${name}${brief(partAt(before, path) ?? null, 24)} → ${brief(partAt(after, path), 24)}`;
  });
  return said.join(", ") + (paths.length > CHANGES_MAX ? `, and ${paths.length - CHANGES_MAX} more` : "");
}
