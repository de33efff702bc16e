/** What plain HTTP says about the server, where a WebSocket says only that it failed. */

import { isFinal } from "./client.js";

/**
 * Asks how the server is, and who this page is to it.
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
    // Who this page is it says over the WebSocket, not here.
    return { isFinal: isFinal({ httpStatus: response.status, code: problem.code, isRenewed: true }), reason };
  } catch {
    return { isFinal: false, reason: "nobody answers at this address" };
  }
}
