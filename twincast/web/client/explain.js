import { isFinal } from "./failures.js";

const TIMEOUT_MS = 5_000;

/** @typedef {(address: URL, how: any) => Promise<{ok: boolean, status: number, json: () => Promise<any>}>} Fetch */

/**
 * Asks plain HTTP why a WebSocket handshake failed, of which runtimes say nothing.
 * @param {string} url of the WebSocket; the status is beside it
 * @param {Fetch} [ask] asks it; by itself `fetch`
 * @returns {Promise<{isFinal: boolean, reason: string, code?: string}>}
 */
export async function explain(url, ask = fetch) {
  const address = new URL("api/status", url.replace(/^ws/, "http"));
  let response;
  try {
    response = await ask(address, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    const origin = globalThis.location?.origin;
    const isElsewhere = origin && origin !== address.origin;
    return { isFinal: false, reason: `nobody answers at ${address.origin}${isElsewhere ? `, or it does not let in ${origin} (--allow-origin)` : ""}` };
  }
  if (response.ok) return { isFinal: false, reason: "the server is up, but the WebSocket does not open (a proxy between?)" };
  const { code, detail } = await response.json().catch(() => ({}));
  // Who this client is it says over the WebSocket, not here.
  return { isFinal: isFinal({ httpStatus: response.status, code, isRenewed: true }), reason: detail ?? `the server answers ${response.status}`, code };
}
