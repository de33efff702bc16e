/** Why a connection ended, and whether that is for good. */

const CLOSE_UNAUTHENTICATED = 4501;
const CLOSE_EXPIRED = 4502;
const CODES_OF_CLOSES = { 4500: "bad_message", 4501: "unauthenticated", 4502: "credential_expired", 4503: "not_permitted" };
const TRANSIENT_STATUSES = new Set([408, 421, 425, 426, 429]);

/**
 * Whether a refusal is final: only the server's own is, if no later attempt can change it. Everything else is tried again. See docs/client.md.
 * @param {object} end how a connection ended, or was refused
 * @param {number} [end.closeCode]
 * @param {number} [end.httpStatus]
 * @param {string} [end.code] of the problem that came with the status; without one it is not the server's answer
 * @param {boolean} [end.isRenewed] the credential comes from a function, which may return a better one for the next attempt
 * @returns {boolean}
 */
export function isFinal({ closeCode = 0, httpStatus = 0, code, isRenewed = false }) {
  if (isRenewed && (isAboutLogin(closeCode) || httpStatus === 401)) return false;
  if (closeCode >= 4500 && closeCode <= 4999) return true;
  return Boolean(code) && httpStatus >= 400 && httpStatus <= 499 && !TRANSIENT_STATUSES.has(httpStatus);
}

/** Whether a close code says that the credential is not good. @param {number} closeCode */
export function isAboutLogin(closeCode) {
  return closeCode === CLOSE_UNAUTHENTICATED || closeCode === CLOSE_EXPIRED;
}

/** @returns {string} a close reason without the word for programs before it */
export function plain(reason) {
  return reason.replace(/^[a-z_]+: /, "");
}

/** @returns {string|undefined} the word for programs before a close reason */
export function codeOf(reason) {
  return /^([a-z_]+): /.exec(reason)?.[1];
}

/** Describes a close code that came without a reason. */
export function sayClose(code) {
  if (code === 1012) return "the server restarts";
  if (code === 1006) return "the connection broke";
  return `the server closed the connection (${code})`;
}

/** @returns {string|undefined} the word for programs that a close code stands for */
export function codeOfClose(code) {
  return CODES_OF_CLOSES[code];
}
