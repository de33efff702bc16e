/** The server's clock: ages must not depend on the accuracy of this machine's. */

let aheadMs = 0;

/** @param {string} timestampUtc the server's time now */
export function setServerTime(timestampUtc) {
  const serverMs = Date.parse(timestampUtc);
  if (!Number.isNaN(serverMs)) aheadMs = serverMs - Date.now();
}

/** @returns {number} the server's time in milliseconds since 1970 */
export function serverNowMs() {
  return Date.now() + aheadMs;
}
