/** What is said of a device in figures: since when there are readings, how often they come, how large they are. */

import { byId, say } from "./dom.js";
import { bytes, count, dateTime, duration, rate } from "./format.js";
import { stringify } from "./json.js";
import { countsAtMs } from "./moments.js";
import { read } from "./past.js";
import { drawablePaths, drawnAs, partAt, writePointer } from "./pointer.js";

const NEWEST = 50; // so many say how often they come
const encoder = new TextEncoder();

export class Facts {
  #ask;
  #onNeed;
  #turn = null;
  #device = null;
  #seq = -1;
  #firstMs = null;
  #times = []; // of the newest readings, the oldest first
  #kept = null;
  #keptSeq = Infinity;

  /** @param {{ask: import("./past.js").Ask, onNeed: () => void}} means */
  constructor({ ask, onNeed }) {
    this.#ask = ask;
    this.#onNeed = onNeed;
  }

  /** @param {import("./store.js").Device} device */
  open(device) {
    this.close();
    this.#device = device;
    this.#turn = new AbortController();
    this.#load(device, this.#turn.signal);
  }

  close() {
    this.#turn?.abort();
    this.#turn = this.#device = this.#firstMs = this.#kept = null;
    this.#times = [];
    this.#seq = -1;
    this.#keptSeq = Infinity;
    for (const id of ["detail-first", "detail-rate", "detail-size"]) say(byId(id), "");
  }

  /** Takes what happens to the device from now on. @param {object[]} messages */
  take(messages) {
    for (const message of messages) {
      if (message.type !== "data_update") continue;
      this.#times.push(countsAtMs(message));
      if (message.seq > this.#keptSeq) this.#kept += message.merged ?? 1;
    }
    this.#times.splice(0, this.#times.length - NEWEST);
  }

  async #load(device, signal) {
    const get = (parameters) => read(this.#ask, "api/history", [["device_id", device.id], ...parameters], signal);
    try {
      const [first, newest] = await Promise.all([get([["order", "asc"], ["limit", 1]]), get([["kinds", "data_update"], ["limit", NEWEST]])]);
      if (signal.aborted || !first.entries.length) return;
      this.#firstMs = countsAtMs(first.entries[0]);
      const known = newest.entries.map(countsAtMs).reverse();
      this.#times = [...known, ...this.#times.filter((atMs) => atMs > (known.at(-1) ?? -Infinity))].slice(-NEWEST);
      this.#seq = -1;
      this.#onNeed();
      const counted = drawablePaths(device.value).find((path) => drawnAs(partAt(device.value, path)) === "number");
      if (counted) await this.#count(get, writePointer(counted), signal);
    } catch {
      // the chart and the timeline say why there is no past
    }
  }

  async #count(get, pointer, signal) {
    const from = new Date(Math.floor(this.#firstMs)).toISOString();
    const added = await get([["from", from], ["points", 2], ["agg", "count"], ["path", pointer]]);
    if (signal.aborted) return;
    this.#kept = (added.count ?? []).reduce((sum, some) => sum + Number(some ?? 0), 0);
    this.#keptSeq = added.seq;
    this.#seq = -1;
    this.#onNeed();
  }

  draw() {
    const device = this.#device;
    if (!device || device.seq === this.#seq) return;
    this.#seq = device.seq;
    say(byId("detail-first"), this.#firstMs === null ? "" : dateTime(this.#firstMs));
    say(byId("detail-rate"), sayRate(this.#times));
    const size = bytes(encoder.encode(stringify(device.value)).length);
    say(byId("detail-size"), this.#kept ? `${size}; ${count(this.#kept)} ${this.#kept === 1 ? "reading" : "readings"}` : size);
  }
}

/** @param {number[]} times rising @returns {string} how often, by the interval in the middle; empty if one reading says nothing of it */
export function sayRate(times) {
  const intervals = times.slice(1).map((atMs, index) => atMs - times[index]).sort((a, b) => a - b);
  if (!intervals.length) return "";
  const middleMs = intervals[Math.floor(intervals.length / 2)];
  if (middleMs <= 1_000) return middleMs > 0 ? `${rate(1_000 / middleMs)} a second` : "";
  return `every ${middleMs < 9_950 ? `${(middleMs / 1_000).toFixed(1)} s` : duration(middleMs / 1_000)}`;
}
