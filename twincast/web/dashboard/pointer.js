/** Places in a value as JSON Pointers (RFC 6901), and what can be drawn there. Does not use the document. */

/** @param {string[]} path names from the top down @returns {string} */
export function writePointer(path) {
  return path.map((name) => `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

/** @param {string} text @returns {string[]} the names; none for the whole value */
export function readPointer(text) {
  return text.split("/").slice(1).map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/**
 * @param {any} value
 * @param {string[]} path
 * @returns {any} what is there; undefined if nothing is
 */
export function partAt(value, path) {
  for (const name of path) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, name)) return undefined;
    value = value[name];
  }
  return value;
}

/**
 * How a value is drawn over time.
 * @param {any} value
 * @returns {"number"|"state"|null} null if it is not
 */
export function drawnAs(value) {
  const type = typeof value;
  if (type === "number" || type === "bigint") return "number";
  return type === "string" || type === "boolean" ? "state" : null;
}

/**
 * Lists the parts of a value that can be drawn.
 * @param {any} value
 * @param {number} [max] how many at most
 * @returns {string[][]} `[[]]` for a value that is one itself
 */
export function drawablePaths(value, max = 100) {
  const paths = [];
  const walk = (part, path) => {
    if (paths.length >= max) return;
    if (drawnAs(part)) paths.push(path);
    else if (part !== null && typeof part === "object" && path.length < 8) {
      for (const name of Object.keys(part)) walk(part[name], [...path, name]);
    }
  };
  walk(value, []);
  return paths;
}
