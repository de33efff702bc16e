const TEXT = /^(.+):(\d{1,16})$/s;
const EPOCH_MAX_CHARS = 100;

/**
 * Reads a position that somebody kept, as an object or as the text `EPOCH:SEQ`.
 * @param {any} since
 * @returns {import("./messages.js").Position|"unreadable"|null} null if none was given
 */
export function positionOf(since) {
  if (since === undefined || since === null) return null;
  const [, before, digits] = typeof since === "string" ? TEXT.exec(since) ?? [] : [];
  const { epoch, seq } = typeof since === "string" ? { epoch: before, seq: Number(digits) } : since;
  const isEpoch = typeof epoch === "string" && epoch.length > 0 && epoch.length <= EPOCH_MAX_CHARS;
  return isEpoch && Number.isSafeInteger(seq) && seq >= 0 ? { epoch, seq } : "unreadable";
}
