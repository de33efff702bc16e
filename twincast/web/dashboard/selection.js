/** What a chart shows of which devices, as an address has it: the parts of the value, and the devices it is compared with. Knows no document. */

import { drawablePaths, drawnAs, partAt, readPointer, writePointer } from "./pointer.js";

const LINES_MAX = 12; // more nobody tells apart

export class Selection {
  #valueOf;
  #id = null;
  #paths = [];
  #isChosen = false; // the part is, by somebody
  #others = [];
  #own = new Map(); // the part of each device to compare, where it is another; once known it stays, as do the lines

  /** @param {(id: string) => any} valueOf the newest value of a device; undefined if there is none */
  constructor(valueOf) {
    this.#valueOf = valueOf;
  }

  /**
   * Begins with what an address says.
   * @param {string|null} id the device; null for none
   * @param {URLSearchParams} parameters
   * @param {string[]|null|undefined} ordinary the part that is shown where nobody chose one, if there is one
   */
  read(id, parameters, ordinary) {
    this.#id = id;
    this.#own.clear();
    this.#paths = parameters.getAll("path").map(readPointer);
    this.#isChosen = this.#paths.length > 0;
    if (ordinary) this.offer(ordinary);
    this.#others = [...new Set(parameters.getAll("with"))].filter((other) => other && other !== id);
  }

  /** @param {URLSearchParams} parameters that get it; others in them stay */
  write(parameters) {
    for (const name of ["path", "with"]) parameters.delete(name);
    if (this.#isChosen) for (const path of this.#paths) parameters.append("path", writePointer(path));
    for (const other of this.#others) parameters.append("with", other);
  }

  /** The parts of the value that are drawn. @returns {string[][]} */
  get paths() {
    return this.#paths;
  }

  /** The same as JSON Pointers. @returns {Set<string>} */
  get pointers() {
    return new Set(this.#paths.map(writePointer));
  }

  /** The devices that it is compared with. @returns {string[]} */
  get others() {
    return this.#others;
  }

  /** Draws a part where none is drawn. @param {string[]} path @returns {boolean} whether it is drawn now */
  offer(path) {
    if (this.#paths.length) return false;
    this.#own.clear();
    this.#paths = [path];
    return true;
  }

  /**
   * @param {string[]} path
   * @param {boolean} isAdded whether what is drawn stays; if the part is drawn, it goes then
   */
  choose(path, isAdded) {
    const pointer = writePointer(path);
    const others = this.#paths.filter((each) => writePointer(each) !== pointer);
    const isThere = others.length < this.#paths.length;
    this.#isChosen = true;
    this.#own.clear();
    this.#paths = !isAdded ? [path] : isThere && others.length ? others : [...others, path].slice(-LINES_MAX);
  }

  /** @param {string} id of a further device */
  compare(id) {
    this.#others = [...new Set([...this.#others, id])].filter((each) => each !== this.#id).slice(0, LINES_MAX - 1);
  }

  /** Takes a line away; the last one stays. @param {number} index as `traces` has them */
  remove(index) {
    const { id, path } = this.traces()[index];
    if (id !== this.#id) this.#others = this.#others.filter((each) => each !== id);
    else if (this.#paths.length > 1) this.choose(path, true);
    else this.#others = [];
  }

  /**
   * What the lines show: of each device each part, as many as can be told apart. A plain value is compared with the first
   * part that can be drawn of a value that has parts, and the other way round.
   * @returns {import("./past.js").Trace[]}
   */
  traces() {
    const traces = [this.#id, ...this.#others].flatMap((id) => this.#pathsOf(id).map((path) => ({
      id, path, kind: drawnAs(partAt(this.#valueOf(id), path)) ?? drawnAs(partAt(this.#valueOf(this.#id), path)) ?? "number",
    })));
    return traces.slice(0, LINES_MAX);
  }

  #pathsOf(id) {
    const value = this.#valueOf(id);
    if (id === this.#id || value === undefined) return this.#paths;
    if (!this.#own.has(id)) {
      // A device may send its parts in turns, so one that is not in its newest value may have a past all the same.
      const isOther = this.#paths.every((path) => !path.length === (drawnAs(value) === null));
      this.#own.set(id, isOther ? drawablePaths(value, 1)[0] : undefined);
    }
    const own = this.#own.get(id);
    return own ? [own] : this.#paths;
  }
}
