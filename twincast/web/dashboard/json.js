/**
 * JSON without loss: integers beyond 2^53 come out as BigInt, and go back to text digit by digit.
 *
 * A browser's own `JSON.parse` would show 9007199254740993 as …992; a device's counter must not change on the way
 * to the screen.
 */

const LONG_INTEGER = /(?<![.\d])\d{16,}(?![.\deE])/;

/**
 * Parses JSON text.
 * @param {string} text
 * @returns {any} as `JSON.parse`, but integers that a double cannot hold are BigInt where the browser allows it
 * @throws {SyntaxError} the text is not JSON
 */
export function parse(text) {
  return LONG_INTEGER.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
}

function keepDigits(_name, value, context) {
  const isRounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
  return isRounded && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
}

/**
 * Writes a value as JSON text.
 * @param {any} value what `parse` returned
 * @param {number} [indent] spaces a level; 0 for one line
 * @returns {string}
 */
export function stringify(value, indent = 0) {
  return write(value, indent, "");
}

function write(value, indent, margin) {
  if (typeof value === "bigint") return value.toString();
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = margin + " ".repeat(indent);
  const parts = Array.isArray(value)
    ? value.map((item) => write(item, indent, inner))
    : Object.keys(value).map((key) => `${JSON.stringify(key)}:${indent ? " " : ""}${write(value[key], indent, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!parts.length) return open + close;
  return indent ? `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}` : open + parts.join(",") + close;
}

/**
 * Says a value in one line for people: `temperature 21.4, humidity 40`. Stops early on large values.
 * @param {any} value
 * @param {number} [maxChars]
 * @returns {string}
 */
export function brief(value, maxChars = 160) {
  const text = briefly(value, maxChars, true);
  return text.length > maxChars ? `${text.slice(0, maxChars)}…` : text;
}

function briefly(value, budget, isTop) {
  if (typeof value === "string") {
    const isPlain = isTop && value !== "" && !/^(-?\d|true$|false$|null$|[{["\s])/.test(value);
    return isPlain ? value.slice(0, budget + 1) : JSON.stringify(value.slice(0, budget + 1));
  }
  if (value === null || typeof value !== "object") return String(value);
  const isList = Array.isArray(value);
  let text = "";
  for (const key of isList ? value.keys() : Object.keys(value)) {
    if (text.length > budget) break;
    if (text) text += ", ";
    text += (isList ? "" : `${key} `) + briefly(value[key], budget - text.length, false);
  }
  if (isList) return `[${text}]`;
  return isTop && text ? text : `{${text}}`;
}

/**
 * Names the kind of a value, for styling.
 * @param {any} value
 * @returns {"number"|"text"|"truth"|"nothing"|"object"}
 */
export function kindOf(value) {
  if (value === null) return "nothing";
  const type = typeof value;
  if (type === "number" || type === "bigint") return "number";
  if (type === "string") return "text";
  return type === "boolean" ? "truth" : "object";
}

/**
 * Lists the numbers inside a value, as paths from its top.
 * @param {any} value
 * @param {number} [max] how many at most
 * @returns {string[][]} `[[]]` for a plain number; empty if there is nothing to plot
 */
export function numericPaths(value, max = 12) {
  const paths = [];
  const walk = (part, path) => {
    if (paths.length >= max) return;
    if (toNumber(part) !== null) paths.push(path);
    else if (part !== null && typeof part === "object" && path.length < 4) {
      for (const key of Object.keys(part)) walk(part[key], [...path, key]);
    }
  };
  walk(value, []);
  return paths;
}

/**
 * Follows a path into a value.
 * @param {any} value
 * @param {string[]} path
 * @returns {number|null} null if there is no number
 */
export function numberAt(value, path) {
  for (const key of path) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, key)) return null;
    value = value[key];
  }
  return toNumber(value);
}

function toNumber(value) {
  if (typeof value === "number") return value;
  if (typeof value === "bigint" || typeof value === "boolean") return Number(value);
  return null;
}
