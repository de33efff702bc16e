/** Asks the server by plain HTTP, where a WebSocket says only that it failed. */

import { isFinal } from "./client.js";

/**
 * Asks for the server's status, which also says what this page may do.
 * @param {string|null} [token]
 * @returns {Promise<Response>}
 */
export function askStatus(token = null) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch("api/status", { cache: "no-store", headers, signal: AbortSignal.timeout(5_000) });
}

/**
 * Finds out why a WebSocket handshake failed.
 * @returns {Promise<{isFinal: boolean, reason: string}>} `isFinal` if trying again will not help
 */
export async function explainFailure() {
  try {
    const response = await askStatus();
    if (response.ok) return { isFinal: false, reason: "the server is up, but the WebSocket does not open (a proxy between?)" };
    const problem = await response.json().catch(() => ({}));
    const reason = problem.detail ?? `the server answers ${response.status}`;
    // This page's credential goes over the WebSocket, not in this request.
    return { isFinal: isFinal({ httpStatus: response.status, code: problem.code, isRenewed: true }), reason };
  } catch {
    return { isFinal: false, reason: "nothing answers at this address" };
  }
}
