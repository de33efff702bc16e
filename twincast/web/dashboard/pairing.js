/** A pairing code in the page's address, as a phone opens it from a QR code: `#pair=CODE`. No device has such an address. */

const MARK = "#pair=";
const ADDRESS = new URL("../api/pair", import.meta.url);
const TIMEOUT_MS = 10_000;

/**
 * Removes a code from the address, and returns it.
 * @returns {string} empty if there is none
 */
export function takeCode() {
  const { hash, pathname, search } = location;
  if (!hash.startsWith(MARK)) return "";
  history.replaceState(history.state, "", pathname + search);
  return hash.slice(MARK.length);
}

/**
 * Exchanges a code for a key.
 * @param {string} code
 * @returns {Promise<string>}
 * @throws {Error} its message says why there is none
 */
export async function exchange(code) {
  let response;
  try {
    response = await fetch(ADDRESS, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code }),
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new Error("nothing answers at this address; the code may still be valid");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok && answer.token) return answer.token;
  throw new Error(answer.detail ?? `the server answers ${response.status}`);
}
