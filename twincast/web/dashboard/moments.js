/** When entries were. Does not use the document. */

/**
 * @param {string} text ISO 8601, as the server writes it
 * @returns {number} milliseconds since 1970, with the microseconds behind the point
 */
export function timeMs(text) {
  const micros = /\.\d{3}(\d{3})/.exec(text);
  return Date.parse(text) + (micros ? Number(micros[1]) / 1000 : 0);
}

/**
 * The time of an entry that counts: when it was measured, where that is said and believed, else when it was stored.
 * @param {{timestamp_utc: string, measured_at_utc?: string, clock?: string}} entry
 * @returns {number} milliseconds since 1970
 */
export function countsAtMs({ timestamp_utc: stored, measured_at_utc: measured, clock }) {
  return timeMs(measured && clock !== "off" ? measured : stored);
}

const FIXED_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
const MONDAY_MS = -3 * FIXED_MS.d; // 29 December 1969

/**
 * The bucket that has a time, aligned as the server aligns those of UTC.
 * @param {string} every a width: `500ms`, `5m`, `1d`, `3mo`
 * @param {number} atMs
 * @returns {{startMs: number, endMs: number}}
 */
export function bucketAt(every, atMs) {
  const [, digits, unit] = /^(\d+)(ms|s|m|h|d|w|mo|y)$/.exec(every);
  const many = Number(digits);
  if (unit === "mo" || unit === "y") {
    const months = unit === "y" ? 12 * many : many;
    const day = new Date(atMs);
    const first = Math.floor((day.getUTCFullYear() * 12 + day.getUTCMonth()) / months) * months;
    return { startMs: monthMs(first), endMs: monthMs(first + months) };
  }
  const widthMs = many * FIXED_MS[unit];
  const offsetMs = unit === "w" ? MONDAY_MS : 0;
  const startMs = Math.floor((atMs - offsetMs) / widthMs) * widthMs + offsetMs;
  return { startMs, endMs: startMs + widthMs };
}

/** When a month begins, counted from the year 0. `Date.UTC` would take the years below 100 for others. */
function monthMs(months) {
  return new Date(0).setUTCFullYear(Math.floor(months / 12), months % 12, 1);
}

/**
 * @param {import("./past.js").Mark[]} marks
 * @returns {number[]} when the device was deleted
 */
export function deletionsIn(marks) {
  return marks.filter(({ type }) => type === "deleted").map(({ atMs }) => atMs);
}
