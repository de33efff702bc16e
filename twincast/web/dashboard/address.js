/** What stands in the page's address after the `#`: `DEVICE?key=value&…`, percent-encoded. Does not use the document. */

/**
 * @typedef {object} Address
 * @property {string} hash as it stands, with its `#`; empty if there is none
 * @property {string|null} id the device that it names; null if there is none, or it cannot be read
 * @property {string} text the name as it stands
 * @property {boolean} isWall whether it names no device but has `devices`: the charts of those
 * @property {URLSearchParams} parameters what stands behind the name; unknown ones are kept
 */

/**
 * Reads an address. A mistyped or truncated one is an address too, which names no device.
 * @param {string} hash with its `#`, or empty
 * @returns {Address}
 */
export function readAddress(hash) {
  const whole = hash.replace(/^#/, "");
  const mark = whole.indexOf("?");
  const text = mark < 0 ? whole : whole.slice(0, mark);
  const parameters = new URLSearchParams(mark < 0 ? "" : whole.slice(mark + 1));
  return { hash: whole && `#${whole}`, id: whole ? decoded(text) : null, text, isWall: text === "" && parameters.has("devices"), parameters };
}

/**
 * Writes the address of a device.
 * @param {string} id
 * @param {URLSearchParams} [parameters]
 * @returns {string} with its `#`
 */
export function writeAddress(id, parameters = new URLSearchParams()) {
  const query = parameters.toString();
  return `#${encodeURIComponent(id)}${query && `?${query}`}`;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
