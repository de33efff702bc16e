/** What the page knows of every device, and which of them it shows in which order. */

import { brief, numberAt, numericPaths } from "./json.js";
import { Trend } from "./trend.js";

const GONE_MAX = 1_000; // beside as many as there are devices
const REORDER_INTERVAL_MS = 400; // rows that change places faster than this cannot be read, let alone clicked

const collate = new Intl.Collator(undefined, { numeric: true }).compare;
const byName = (a, b) => collate(a, b) || (a < b ? -1 : Number(a > b));

/** One device as the page shows it. */
export class Device {
  /** @param {string} id */
  constructor(id) {
    this.id = id;
    this.search = id.toLowerCase();
    /** The place in the order of names. */
    this.rank = 0;
    this.value = null;
    this.updatedMs = 0;
    this.source = "";
    this.seq = 0;
    this.changes = 0;
    /** When the page last saw a change, by `performance.now()`. */
    this.seenAtMs = -Infinity;
    /** Where in the value the number is that the trend follows. @type {string[]|null} */
    this.path = null;
    this.number = NaN;
    /** @type {Trend|null} */
    this.trend = null;
    /** Whether the trend has what was before the page was opened, or there is no such thing to be had. */
    this.isTrendWhole = false;
    this.text = null;
    /** Whether it was deleted. A device that comes again by the same name is another one. */
    this.isGone = false;
  }

  /** The value in one line; made when somebody looks. */
  get brief() {
    return (this.text ??= brief(this.value));
  }

  /**
   * Takes a newer value.
   * @param {any} value
   * @param {string} updatedAtUtc ISO 8601
   * @param {string} source
   * @param {number} seq
   * @param {string} [measuredAtUtc] when it was measured, if that is said and believed
   */
  take(value, updatedAtUtc, source, seq, measuredAtUtc) {
    const updatedMs = Date.parse(updatedAtUtc);
    this.value = value;
    this.text = null;
    this.updatedMs = updatedMs;
    this.source = source;
    this.seq = seq;
    let number = this.path && numberAt(value, this.path);
    if (number === null) {
      this.path = numericPaths(value, 1)[0] ?? null;
      number = this.path && numberAt(value, this.path);
      this.trend = null; // another number's past would be a lie
      this.isTrendWhole = false;
    }
    this.number = number ?? NaN;
    if (number !== null) (this.trend ??= new Trend()).push(measuredAtUtc ? Date.parse(measuredAtUtc) : updatedMs, number, seq);
  }

  /**
   * Puts what was before in front of the trend.
   * @param {{atMs: number, value: number, seq: number}[]} points
   * @param {number} seq up to where they are all
   */
  join(points, seq) {
    this.trend = this.trend?.joined(points, seq) ?? null;
    this.isTrendWhole = true;
  }
}

/** How each column orders devices; `sign` is -1 for the largest first. Equal ones stay in the order of names. */
const ORDERS = {
  device: (a, b, sign) => sign * (a.rank - b.rank),
  value: (a, b, sign) => byNumber(a.number, b.number, sign) || sign * byText(a, b) || a.rank - b.rank,
  trend: (a, b, sign) => byNumber(rise(a), rise(b), sign) || a.rank - b.rank,
  changes: (a, b, sign) => sign * (a.changes - b.changes) || a.rank - b.rank,
  updated: (a, b, sign) => sign * (a.seq - b.seq),
};

/** @typedef {keyof typeof ORDERS} Column */

/** What filters select, as long as nobody has asked. */
const NONE_LIKED = { of: null, key: "", rows: [] };

export class Store {
  #ordered = [];
  #newcomers = [];
  #rows = [];
  #liked = NONE_LIKED;
  #gone = 0; // how many of the ordered ones and the newcomers
  #isStale = true;
  #reorderedAtMs = -Infinity;

  constructor() {
    /** @type {Map<string, Device>} */
    this.devices = new Map();
    this.filter = "";
    /** @type {Column} */
    this.column = "device";
    this.isDescending = false;
  }

  /**
   * Replaces the state with a snapshot. Devices that are in it keep what the page has seen of them.
   * @param {Map<string, import("./client.js").Twin>} twins
   * @param {boolean} isSameLog whether positions compare with those seen before
   */
  replace(twins, isSameLog) {
    const known = isSameLog ? this.devices : new Map();
    this.devices = new Map();
    this.#newcomers = [];
    for (const [id, twin] of twins) {
      const device = known.get(id) ?? new Device(id);
      if (device.seq !== twin.seq) {
        device.take(twin.value, twin.updated_at_utc, twin.source ?? "", twin.seq, believed(twin));
        device.isTrendWhole = false; // what was between did not come
      }
      this.devices.set(id, device);
      this.#newcomers.push(device);
    }
    this.#ordered = [];
    this.#liked = NONE_LIKED;
    this.#gone = 0;
    this.#isStale = true;
  }

  /**
   * Takes one change.
   * @param {{device_id: string, value: any, timestamp_utc: string, seq: number, merged?: number}} event
   * @param {number} nowMs by `performance.now()`
   * @returns {Device} whose change it is
   */
  apply(event, nowMs) {
    let device = this.devices.get(event.device_id);
    if (!device) {
      device = new Device(event.device_id);
      this.devices.set(device.id, device);
      this.#newcomers.push(device);
      this.#isStale = true;
    }
    device.take(event.value, event.timestamp_utc, event.source, event.seq, believed(event));
    device.changes += event.merged ?? 1;
    device.seenAtMs = nowMs;
    return device;
  }

  /**
   * Forgets a device that was deleted, and what the page has seen of it.
   * @param {string} id
   * @returns {Device|null} null if it is not known
   */
  remove(id) {
    const device = this.devices.get(id);
    if (!device) return null;
    this.devices.delete(id);
    device.isGone = this.#isStale = true;
    this.#gone += 1;
    if (this.#gone > this.devices.size + GONE_MAX) this.#leaveOutGone(); // nobody may look for long
    return device;
  }

  /**
   * Chooses what is shown.
   * @param {{filter?: string, column?: Column, isDescending?: boolean}} choice
   */
  show(choice) {
    Object.assign(this, choice);
    this.#isStale = true;
  }

  /**
   * Returns the devices to show, in order. The same array comes back until the order changes.
   * @param {number} nowMs by `performance.now()`
   * @param {boolean} isHeld keep the order for now, because somebody points at a row
   * @returns {Device[]}
   */
  rows(nowMs, isHeld) {
    const isLive = this.column !== "device";
    const isDue = isLive && !isHeld && nowMs - this.#reorderedAtMs >= REORDER_INTERVAL_MS;
    if (this.#isStale || isDue) {
      this.#leaveOutGone();
      this.#rankNewcomers();
      const matches = matcher(this.filter);
      const rows = matches ? this.#ordered.filter((device) => matches(device.search)) : this.#ordered.slice();
      const order = ORDERS[this.column];
      const sign = this.isDescending ? -1 : 1;
      if (isLive || this.isDescending) rows.sort((a, b) => order(a, b, sign));
      this.#rows = rows;
      this.#isStale = false;
      this.#reorderedAtMs = nowMs;
    }
    return this.#rows;
  }

  /**
   * @param {string[]} filters as `show` takes them; none for all
   * @returns {Device[]} those that one of them selects, by name: the same array as long as no device comes or goes
   */
  like(filters) {
    this.#leaveOutGone();
    this.#rankNewcomers();
    const key = JSON.stringify(filters);
    if (this.#liked.of !== this.#ordered || this.#liked.key !== key) {
      const matches = filters.map(matcher).filter(Boolean);
      const rows = matches.length ? this.#ordered.filter(({ search }) => matches.some((matchesOne) => matchesOne(search))) : this.#ordered;
      this.#liked = { of: this.#ordered, key, rows };
    }
    return this.#liked.rows;
  }

  /** All that went since the last time leave together; each by itself would cost a walk through all others. */
  #leaveOutGone() {
    if (!this.#gone) return;
    this.#gone = 0;
    this.#ordered = this.#ordered.filter((device) => !device.isGone);
    this.#newcomers = this.#newcomers.filter((device) => !device.isGone);
    this.#liked = NONE_LIKED;
  }

  /** Merges new devices into the order of names; sorting all of them again for each newcomer would cost a frame. */
  #rankNewcomers() {
    if (!this.#newcomers.length) return;
    const added = this.#newcomers.sort((a, b) => byName(a.id, b.id));
    const merged = [];
    let next = 0;
    for (const device of this.#ordered) {
      while (next < added.length && byName(added[next].id, device.id) < 0) merged.push(added[next++]);
      merged.push(device);
    }
    while (next < added.length) merged.push(added[next++]);
    merged.forEach((device, rank) => { device.rank = rank; });
    this.#ordered = merged;
    this.#newcomers = [];
  }
}

function believed({ measured_at_utc: measured, clock }) {
  return clock === "off" ? undefined : measured;
}

/** By size; what is no number comes last, whichever way. */
function byNumber(a, b, sign) {
  if (isNaN(a) || isNaN(b)) return Number(isNaN(a)) - Number(isNaN(b));
  return sign * (a - b);
}

function byText(a, b) {
  return isNaN(a.number) ? byName(a.brief, b.brief) : 0;
}

function rise(device) {
  return device.trend && device.trend.length > 1 ? device.trend.last - device.trend.first : NaN;
}

/** A filter is a part of the id, or a pattern for all of it if it has a `*`. Letter case does not matter. */
function matcher(filter) {
  const text = filter.trim().toLowerCase();
  if (!text) return null;
  if (!text.includes("*")) return (id) => id.includes(text);
  const [head, ...parts] = text.split("*");
  const tail = parts.pop();
  return (id) => {
    if (!id.startsWith(head) || id.length < head.length + tail.length || !id.endsWith(tail)) return false;
    let from = head.length;
    for (const part of parts) {
      const found = id.indexOf(part, from);
      if (found < 0) return false;
      from = found + part.length;
    }
    return from <= id.length - tail.length;
  };
}
