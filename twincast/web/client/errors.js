/** What a request ends with that was not done. */

/**
 * A request that was not done. `code` is the server's word for it, or the client's own: `validation_failed` and `too_large`
 * before anything was sent, `buffer_full`, `not_connected`, `connection_lost`, `no_answer`, `closed`.
 */
export class RequestError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** @returns {RequestError} what of how many bytes is refused before it is sent */
export function tooLarge(what, maxBytes, bytes) {
  return new RequestError("too_large", `${what} takes up to ${maxBytes} bytes here; this one has ${bytes}.`);
}
