/** Begins the trends of the devices in sight with what was before, asked for many of them at once. Does not use the document. */

import { numberAt } from "./json.js";
import { countsAtMs } from "./moments.js";
import { exactly, read } from "./past.js";
import { writePointer } from "./pointer.js";

const REST_MS = 120; // a table that is scrolled passes devices that nobody looks at
const AGAIN_MS = 5_000;
const POINTS = 40; // as many as a sparkline can show
const DEVICES_MAX = 50;
const PATHS_MAX = 16; // the server's limit
const NAMES_MAX_BYTES = 4_000; // all of them stand in the address of a request

export class TrendPast {
  #ask;
  #onNeed;
  #seen = [];
  #timer = 0;
  #isAsking = false;
  #waitUntilMs = 0;

  /**
   * @param {object} means
   * @param {import("./past.js").Ask} means.ask
   * @param {() => void} means.onNeed trends have become longer
   */
  constructor({ ask, onNeed }) {
    this.#ask = ask;
    this.#onNeed = onNeed;
  }

  /** Takes note of which devices in sight lack their past. @param {import("./store.js").Device[]} devices with a trend */
  see(devices) {
    const isSame = devices.length === this.#seen.length && devices.every((device, index) => device === this.#seen[index]);
    this.#seen = devices;
    if (this.#isAsking || (isSame && this.#timer)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), Math.max(REST_MS, this.#waitUntilMs - performance.now()));
  }

  async #load() {
    this.#timer = 0;
    const { devices, paths } = batchOf(this.#seen.filter(({ isTrendWhole, isGone, trend }) => trend && !isTrendWhole && !isGone));
    this.#seen = []; // a device that goes is not kept here
    if (!devices.length) return;
    this.#isAsking = true;
    const asked = new Map(devices.map((device) => [device, writePointer(device.path)]));
    try {
      this.#take(asked, paths, await read(this.#ask, "api/history", [
        ...devices.map(({ id }) => ["devices", exactly(id)]), ...paths.map((path) => ["path", path]), ["limit", POINTS],
      ]));
    } catch (error) {
      if (error.isForNow ?? true) this.#waitUntilMs = performance.now() + AGAIN_MS;
      else for (const device of devices) device.isTrendWhole = true; // nothing is to be had
    }
    this.#isAsking = false;
    this.#seen = [];
    this.#onNeed(); // what still lacks its past is seen again
  }

  #take(asked, paths, { seq, devices: found }) {
    const byId = new Map(found.map((each) => [each.device_id, each.entries]));
    for (const [device, pointer] of asked) {
      if (device.isGone || !device.path || writePointer(device.path) !== pointer) continue;
      const points = (byId.get(device.id) ?? []).map((entry) => ({
        atMs: Math.floor(countsAtMs(entry)), seq: entry.seq, value: numberAt(paths.length === 1 ? entry.value : entry.value[pointer], []),
      }));
      device.join(points.filter(({ value }) => value !== null), seq);
    }
  }
}

/** As many of them as go into one request. */
function batchOf(devices) {
  const batch = [];
  const paths = new Set();
  let bytes = 0;
  for (const device of devices) {
    const path = writePointer(device.path);
    bytes += encodeURIComponent(device.id).length + 9;
    if (batch.length && (batch.length === DEVICES_MAX || bytes > NAMES_MAX_BYTES)) break;
    if (!paths.has(path) && paths.size === PATHS_MAX) continue;
    paths.add(path);
    batch.push(device);
  }
  return { devices: batch, paths: [...paths] };
}
