/** Asks the server for the past of some devices: every reading if they are few, else buckets. Does not use the document. */

import { parse } from "./json.js";
import { countsAtMs, timeMs } from "./moments.js";
import { writePointer } from "./pointer.js";
import { Buckets, Readings } from "./series.js";

const READINGS_MAX = 2_000; // as many as a wide chart can tell apart
const READINGS_FEW = 200;
const MARKS_MAX = 500;
const DEVICES_FEW = 4;

/** @typedef {(path: string, signal?: AbortSignal) => Promise<Response>} Ask a GET with this page's credential */
/** @typedef {{id: string, path: string[], kind: "number"|"state"}} Trace what one line, or one band, shows */
/** @typedef {{atMs: number, seq: number, id: string, type: "control"|"deleted", command?: string, args?: any, scope?: "history"}} Mark */

/** The server has an answer, and it is no. */
export class PastRefused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    /** Whether it may be another one later. */
    this.isForNow = status === 429 || status >= 500;
  }
}

/**
 * @param {Ask} ask
 * @param {object} question
 * @param {Trace[]} question.traces
 * @param {number|null} question.fromMs null for the beginning
 * @param {number|null} question.toMs null for now
 * @param {number} question.points how many buckets a chart can show
 * @param {AbortSignal} question.signal
 * @returns {Promise<{at: {epoch: string, seq: number}, series: (Readings|Buckets)[], readingsSeq: number, marks: Mark[], marksSeq: number}>}
 *   a series for each trace; `at` is the position from which to go on: what is not behind `readingsSeq`, or `marksSeq`, is in already
 * @throws {PastRefused}
 */
export async function askPast(ask, { traces, fromMs, toMs, points, signal }) {
  const { devices, paths, common, beginning, ofPaths } = namesOf({ traces, fromMs, toMs });
  const get = (parameters) => read(ask, "api/history", [...common, ...parameters], signal);
  const getEvery = (limit) => get([...beginning, ...ofPaths, ["kinds", "data_update,late,control,deleted"], ["limit", limit]]);
  const getAdded = (from) => get([["from", isoOf(from)], ...ofPaths, ["points", points], ["agg", aggregatesOf(traces)]]);
  const getMarks = () => get([...beginning, ["kinds", "control,deleted"], ["limit", MARKS_MAX]]);
  // Buckets say how many readings they have: so many are not sent in vain. A few are asked for beside them, and may be all.
  const isCounted = fromMs !== null && traces.some(({ kind }) => kind === "number");
  const asFew = isCounted && devices.length <= DEVICES_FEW ? getEvery(READINGS_FEW) : null;
  const marksBeside = async () => ((await asFew) && isAll(await asFew) ? null : getMarks().catch(() => null));
  const [few, counted, markedBeside] = await Promise.all(isCounted ? [asFew, getAdded(fromMs), marksBeside()] : []);
  if (few && isAll(few)) return everyReading(few, traces, paths);
  if (!counted || areFew(counted.series)) {
    const all = await getEvery(READINGS_MAX);
    if (isAll(all)) return everyReading(all, traces, paths);
  }
  const added = counted ?? (await getAdded(fromMs ?? (await askFirst(ask, devices, signal)).atMs));
  const marked = markedBeside ?? (await getMarks());
  const series = traces.map(({ id, path, kind }) => {
    const columns = added.series.find((each) => each.device_id === id && each.path === writePointer(path));
    return new Buckets(kind, added.every, columns ?? { time_ms: [] });
  });
  const at = { epoch: added.epoch, seq: Math.min(added.seq, marked.seq) };
  return { at, series, readingsSeq: added.seq, marks: marksOf(marked.devices), marksSeq: marked.seq };
}

/**
 * Asks for what a chart shows as CSV: its readings, the oldest first, or its buckets.
 * @param {Ask} ask
 * @param {object} question as above
 * @param {Trace[]} question.traces
 * @param {number} question.fromMs
 * @param {number} question.toMs
 * @param {string|null} question.every the width of the buckets; null for readings
 * @returns {Promise<Blob>}
 * @throws {PastRefused}
 */
export async function askTable(ask, { traces, fromMs, toMs, every }) {
  const { common, beginning, ofPaths } = namesOf({ traces, fromMs, toMs });
  const how = every ? [["every", every], ["agg", aggregatesOf(traces)]] : [["order", "asc"], ["limit", 10_000]];
  const response = await ask(`api/history?${new URLSearchParams([...common, ...beginning, ...ofPaths, ...how, ["format", "csv"]])}`);
  if (!response.ok) throw refusalOf(response.status, await response.text());
  return response.blob();
}

function namesOf({ traces, fromMs, toMs }) {
  const devices = [...new Set(traces.map(({ id }) => id))];
  const paths = [...new Set(traces.map(({ path }) => writePointer(path)))];
  return {
    devices,
    paths,
    common: [...devices.map((id) => ["devices", exactly(id)]), ["to", toMs === null ? "now" : isoOf(toMs)]],
    beginning: fromMs === null ? [] : [["from", isoOf(fromMs)]],
    ofPaths: paths.map((path) => ["path", path]),
  };
}

function isAll({ devices }) {
  return !devices.some(({ cursor }) => cursor);
}

function areFew(series) {
  return series.every(({ count = [] }) => count.reduce((sum, some) => sum + Number(some ?? 0), 0) <= READINGS_MAX);
}

function aggregatesOf(traces) {
  const names = { number: ["avg", "min", "max", "count"], state: ["first", "last"] };
  return [...new Set(traces.flatMap(({ kind }) => names[kind]))].join(",");
}

/**
 * @param {Ask} ask
 * @param {string[]} devices
 * @param {AbortSignal} [signal]
 * @returns {Promise<{atMs: number}>} when the first reading of any of them was; infinite if there is none
 */
export async function askFirst(ask, devices, signal) {
  const named = devices.map((id) => ["devices", exactly(id)]);
  const answer = await read(ask, "api/history", [...named, ["order", "asc"], ["limit", 1]], signal);
  return { atMs: Math.min(...answer.devices.flatMap(({ entries }) => entries.map(countsAtMs))) };
}

/** @param {string} id @returns {string} the pattern that selects it alone */
export function exactly(id) {
  return id.replace(/[\\*]/g, "\\$&");
}

function everyReading({ epoch, seq, devices }, traces, paths) {
  const series = traces.map(({ id, path, kind }) => {
    const readings = new Readings(kind);
    const pointer = writePointer(path);
    const entries = devices.find((device) => device.device_id === id)?.entries ?? [];
    for (const entry of entries.toReversed()) {
      if (entry.type) continue;
      const isThere = paths.length === 1 || Object.hasOwn(entry.value, pointer);
      if (isThere) readings.add(countsAtMs(entry), entry.seq, paths.length === 1 ? entry.value : entry.value[pointer]);
    }
    return readings;
  });
  return { at: { epoch, seq }, series, readingsSeq: seq, marks: marksOf(devices), marksSeq: seq };
}

function marksOf(devices) {
  const marks = devices.flatMap(({ device_id: id, entries }) => entries
    .filter(({ type }) => type)
    .map(({ seq, type, timestamp_utc: stored, command, args, scope }) => ({ atMs: timeMs(stored), seq, id, type, command, args, scope })));
  return marks.sort((a, b) => a.atMs - b.atMs);
}

/**
 * Asks the server for something of the past.
 * @param {Ask} ask
 * @param {string} path
 * @param {[string, any][]} parameters
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 * @throws {PastRefused}
 */
export async function read(ask, path, parameters, signal) {
  const response = await ask(`${path}?${new URLSearchParams(parameters)}`, signal);
  const text = await response.text();
  if (response.ok) return parse(text);
  throw refusalOf(response.status, text);
}

function refusalOf(status, text) {
  let problem = {};
  try {
    problem = parse(text);
  } catch {
    // a proxy's own words
  }
  return new PastRefused(problem.detail ?? `the server answers ${status}`, status);
}

function isoOf(atMs) {
  return new Date(atMs).toISOString();
}
