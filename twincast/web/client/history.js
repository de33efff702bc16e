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
 */

/** @typedef {(address: URL, how: any) => Promise<{ok: boolean, status: number, json: () => Promise<any>}>} Fetch */

/**
 * Returns the path of a question about the past of a device.
 * @param {string} deviceId
 * @param {HistoryQuestion} question
 */
export function historyPath(deviceId, question) {
  return `api/history?${queryOf({ device_id: deviceId, ...question })}`;
}

/**
 * Returns the path of the state at a time or position.
 * @param {string|Date|import("./messages.js").Position} at
 * @param {string[]} devices
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
 * @param {"GET"|"DELETE"} [method]
 * @returns {Promise<any>} the answer
 * @throws {RequestError} refused by the server in its own words, or `no_answer`
 */
export async function get(url, path, token, ask, method = "GET") {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  let answer;
  try {
    response = await ask(new URL(path, url.replace(/^ws/, "http")), { method, cache: "no-store", headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
    answer = await response.json();
  } catch (error) {
    throw new RequestError("no_answer", `The server does not answer what was asked of its history: ${error.message}`);
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
  return typeof given === "object" ? `${given.epoch}:${given.seq}` : String(given);
}
