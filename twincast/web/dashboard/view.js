/** What of the past a chart shows: the last while, which moves on, or a span that stays. Does not use the document. */

const HOUR_MS = 3_600_000;
const SPAN_MIN_MS = 100;
const FIT_MIN_MS = 60_000;
const PX_PER_BUCKET = 1.5;
const FIRST_MS = -62_135_596_800_000; // the year 1: the server knows none before
const LAST_MS = 253_402_300_799_999;
const FIT_ROOM = 0.02; // of the width, left of the first point

/** The ranges that can be chosen, each up to now. @type {Record<string, number>} */
export const RANGES = { "1h": HOUR_MS, "24h": 24 * HOUR_MS, "7d": 168 * HOUR_MS, "30d": 720 * HOUR_MS, all: Infinity };

/**
 * @typedef {object} View
 * @property {keyof typeof RANGES|null} range null if it is a span
 * @property {boolean} isChosen whether somebody chose it; else the left edge is where the device begins
 * @property {number} fromMs of a span
 * @property {number} toMs
 */

/** @type {View} */
const ORDINARY = { range: "24h", isChosen: false, fromMs: 0, toMs: 0 };

/** @param {string} range @returns {View} */
export function viewOf(range) {
  return { ...ORDINARY, range, isChosen: true };
}

/**
 * @param {number} fromMs
 * @param {number} toMs
 * @returns {View}
 */
export function viewBetween(fromMs, toMs) {
  const lackMs = Math.max(0, SPAN_MIN_MS - (toMs - fromMs)) / 2;
  const within = (atMs) => Math.min(LAST_MS, Math.max(FIRST_MS, atMs));
  return { range: null, isChosen: true, fromMs: within(Math.floor(fromMs - lackMs)), toMs: within(Math.ceil(toMs + lackMs)) };
}

/**
 * Reads a view from an address; what cannot be read there is the ordinary one.
 * @param {URLSearchParams} parameters
 * @returns {View}
 */
export function readView(parameters) {
  const [fromMs, toMs] = ["from", "to"].map((name) => Date.parse(parameters.get(name) ?? ""));
  if (fromMs < toMs) return viewBetween(fromMs, toMs);
  const range = parameters.get("range");
  return range && Object.hasOwn(RANGES, range) ? viewOf(range) : ORDINARY;
}

/**
 * What of an address is no view, in words; empty if all of it is one, or it has none.
 * @param {URLSearchParams} parameters
 */
export function viewProblem(parameters) {
  const [from, to, range] = ["from", "to", "range"].map((name) => parameters.get(name));
  if (from !== null || to !== null) {
    const [fromMs, toMs] = [from, to].map((text) => Date.parse(text ?? ""));
    if (fromMs < toMs) return "";
    const why = fromMs >= toMs ? "its end is not after its beginning" : "from and to must both be times";
    return `The address's time span is not shown: ${why}.`;
  }
  if (range === null || Object.hasOwn(RANGES, range)) return "";
  return `The address's range is not shown: it must be one of ${Object.keys(RANGES).join(", ")}.`;
}

/** @param {View} view @param {URLSearchParams} parameters that get it; others in them stay */
export function writeView({ range, isChosen, fromMs, toMs }, parameters) {
  for (const name of ["range", "from", "to"]) parameters.delete(name);
  if (!isChosen) return;
  if (range) parameters.set("range", range);
  else {
    parameters.set("from", new Date(fromMs).toISOString());
    parameters.set("to", new Date(toMs).toISOString());
  }
}

/**
 * The edges of what a view shows now.
 * @param {View} view
 * @param {number} nowMs
 * @param {number|null} firstMs when the first thing in it was, if it is known
 * @returns {{fromMs: number, toMs: number}}
 */
export function edgesOf({ range, isChosen, fromMs, toMs }, nowMs, firstMs) {
  if (!range) return { fromMs, toMs };
  const beginMs = nowMs - RANGES[range];
  const isFitted = !isChosen || beginMs === -Infinity;
  if (!isFitted) return { fromMs: beginMs, toMs: nowMs };
  const widthMs = Math.max(FIT_MIN_MS, nowMs - (firstMs ?? nowMs)) * (1 + FIT_ROOM);
  return { fromMs: Math.max(beginMs, nowMs - widthMs), toMs: nowMs };
}

/**
 * What the server is asked for: all that a view can show.
 * @param {View} view
 * @param {number} nowMs
 * @param {number} widthPx of the chart
 * @returns {{fromMs: number|null, toMs: number|null, points: number}} null for the beginning, and for now and what comes
 */
export function askedOf({ range, fromMs, toMs }, nowMs, widthPx) {
  const points = Math.min(2_000, Math.max(100, Math.round(widthPx / PX_PER_BUCKET)));
  if (!range) return { fromMs, toMs, points };
  return { fromMs: Number.isFinite(RANGES[range]) ? nowMs - RANGES[range] : null, toMs: null, points };
}

/**
 * @param {{fromMs: number, toMs: number}} edges
 * @param {number} factor below 1 to come nearer
 * @param {number} [share] which place stays where it is: 0 the left edge, 1 the right one
 * @returns {View}
 */
export function zoomed({ fromMs, toMs }, factor, share = 0.5) {
  const stayMs = fromMs + (toMs - fromMs) * share;
  return viewBetween(stayMs - (stayMs - fromMs) * factor, stayMs + (toMs - stayMs) * factor);
}

/** @param {{fromMs: number, toMs: number}} edges @param {number} share of the width; below 0 to what was before @returns {View} */
export function moved({ fromMs, toMs }, share) {
  const byMs = (toMs - fromMs) * share;
  return viewBetween(fromMs + byMs, toMs + byMs);
}
