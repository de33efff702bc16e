/** What a client asks of a server's past, by requests of its own. docs/history.md says what each parameter means. */

import { RequestError } from "./errors.js";

const TIMEOUT_MS = 60_000;

/**
 * @typedef {object} HistoryQuestion
 * @property {string|Date} [from] a time, `now`, `-1h`, or a position
 * @property {string|Date} [to]
 * @property {string|string[]} [path] JSON Pointers
 * @property {"measured"|"stored"} [time]
 * @property {"desc"|"asc"} [order]
 * @property {number} [limit]
 * @property {string} [cursor] of the page before
 * @property {string|string[]} [kinds]
 * @property {string} [every] the width of buckets
 * @property {number} [points] or at most so many
 * @property {string|string[]} [agg]
 * @property {"none"|"null"|"previous"|"linear"} [fill]
 * @property {string} [tz]
 * @property {AbortSignal} [signal] ends the request; the promise is then rejected with the signal's reason
 */

/**
 * An entry of the past: a reading, unless it has a `type`. Of one path `value` is what is there, of several an object by path.
 * @typedef {{seq: number, timestamp_utc: string, source: string, value?: any, measured_at_utc?: string, late?: true, clock?: "off",
 *   type?: "control"|"deleted", command?: string, args?: Record<string, any>, scope?: "history"}} PastEntry
 *
 * A page of a device, and what leads to the next one.
 * @typedef {{device_id: string, cursor?: string, entries: PastEntry[]}} DeviceEntries
 *
 * Buckets of a device and path, by columns: beside `time_ms` one for each aggregate.
 * @typedef {{device_id: string, path: string, time_ms: number[], [aggregate: string]: any}} Columns
 *
 * Up to where everything is in an answer: a client with `since` from there goes on without gap or overlap.
 * @typedef {{epoch: string, seq: number, reaches_back_to: string|null}} Found
 *
 * How wide buckets are, and which range they cover; of answers with buckets.
 * @typedef {{every?: string, tz?: string, from_utc?: string, to_utc?: string, is_open?: boolean}} Range
 *
 * The past of one device: entries, or buckets of a path by columns, or of several paths under `series`.
 * @typedef {Found & Range & {device_id?: string, cursor?: string, entries?: PastEntry[], path?: string, time_ms?: number[], series?: Columns[],
 *   [aggregate: string]: any}} History
 *
 * The past of several devices: entries under `devices`, or buckets under `series`.
 * @typedef {Found & Range & {devices?: DeviceEntries[], series?: Columns[]}} HistoryOfMany
 */

/** @typedef {(address: URL, how: any) => Promise<{ok: boolean, status: number, json: () => Promise<any>}>} Fetch */

/**
 * Returns the path of a question about the past of a device, or of those that patterns select.
 * @param {string|string[]} devices
 * @param {HistoryQuestion} question
 */
export function historyPath(devices, { signal: _, ...question }) {
  return `api/history?${queryOf(Array.isArray(devices) ? { devices, ...question } : { device_id: devices, ...question })}`;
}

/**
 * Returns the path of the state at a time or position.
 * @param {string|Date|import("./messages.js").Position} at
 * @param {string|string[]} devices
 */
export function statePath(at, devices) {
  return `api/data?${queryOf({ at, devices })}`;
}

/**
 * Asks a server for something.
 * @param {string} url of the WebSocket; the path is beside it
 * @param {string} path
 * @param {string|undefined} token
 * @param {Fetch} ask as `fetch` does
 * @param {object} [how]
 * @param {"GET"|"DELETE"} [how.method]
 * @param {AbortSignal} [how.signal] ends it
 * @returns {Promise<any>} the answer
 * @throws {RequestError} refused by the server in its own words, or `no_answer`
 * @throws {any} the reason of `signal`
 */
export async function get(url, path, token, ask, { method = "GET", signal } = {}) {
  signal?.throwIfAborted();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(new Error(`nothing came for ${TIMEOUT_MS / 1_000} s`)), TIMEOUT_MS);
  const end = () => ending.abort(signal?.reason);
  signal?.addEventListener("abort", end);
  let response;
  let answer;
  try {
    response = await ask(new URL(path, url.replace(/^ws/, "http")), { method, cache: "no-store", headers, signal: ending.signal });
    answer = await response.json();
  } catch (error) {
    signal?.throwIfAborted();
    throw new RequestError("no_answer", `The server does not answer what was asked of its history: ${error.message}`);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
  if (response.ok) return answer;
  throw new RequestError(answer?.code ?? "no_answer", answer?.detail ?? `The server answers ${response.status}.`);
}

function queryOf(parameters) {
  const query = new URLSearchParams();
  for (const [name, given] of Object.entries(parameters)) {
    for (const each of Array.isArray(given) ? given : [given]) if (each !== undefined && each !== null) query.append(name, textOf(each));
  }
  return query;
}

function textOf(given) {
  if (given instanceof Date) return given.toISOString();
  if (typeof given !== "object") return String(given);
  if (given.epoch === undefined) throw new TypeError("a time is a Date, a text such as `now` or `-1h`, or a position");
  return `${given.epoch}:${given.seq}`;
}
