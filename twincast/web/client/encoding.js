/** Values and texts as they are sent: exactly, or not at all. */

import { RequestError } from "./errors.js";

const NESTING_MAX = 32;
const LARGEST_PLAIN_INTEGER = 2 ** 63;
const LONE_SURROGATE = /\p{Surrogate}/u;
const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:[Zz]|[+-]\d\d:?\d\d)$/;
const utf8 = new TextEncoder();

/**
 * Writes a value as JSON that says exactly what the value is, or refuses it; `JSON.stringify` makes null of what JSON lacks.
 *
 * As JSON has it: null, booleans, texts, finite numbers (-0 as 0), arrays, plain objects and those of your own classes. BigInt
 * digit by digit; what has a `toJSON`, such as a Date, as that says; a member that is undefined is left out, as it reads the same.
 * @param {any} value
 * @returns {string}
 * @throws {RequestError} `validation_failed`: NaN, Infinity, undefined, a function, a symbol, a Map, a Set, bytes, an invalid date,
 *   a text with a lone surrogate; `too_large`: nested deeper than 32, or in a circle
 */
export function encode(value) {
  return write(value, []);
}

/**
 * Writes when something was measured. A Date is an instant whatever the zone; a text says its own.
 * @param {Date|string} at
 * @returns {string} ISO 8601
 * @throws {RequestError} `bad_time`: an invalid date, a text that is no time or has no zone
 */
export function encodeTime(at) {
  const isDate = kindOf(at) === "Date";
  const text = isDate && !Number.isNaN(Number(at)) ? /** @type {Date} */ (at).toISOString() : at;
  if (typeof text === "string" && TIME.test(text)) return text;
  const what = isDate ? "this Date" : JSON.stringify(at)?.slice(0, 64) ?? `a ${typeof at}`;
  throw new RequestError("bad_time", `measuredAt must be a Date, or a text such as 2026-11-27T04:16:10.25Z, with its zone; not ${what}. Nothing was sent.`);
}

function write(value, trail) {
  switch (typeof value) {
    case "string": return writeText(value, trail);
    case "number": return writeNumber(value, trail);
    case "boolean": case "bigint": return String(value);
    case "object": return value === null ? "null" : writeObject(value, trail);
    default: throw unfit(value === undefined ? "undefined" : `a ${typeof value}`, trail);
  }
}

function writeText(text, trail) {
  if (LONE_SURROGATE.test(text)) throw unfit("a text with a lone surrogate", trail);
  return JSON.stringify(text);
}

function writeNumber(number, trail) {
  if (!Number.isFinite(number)) throw unfit(String(number), trail);
  // Whole numbers beyond 64 bits are refused by the server, as most readers would break them: as a power they are floats.
  return Math.abs(number) < LARGEST_PLAIN_INTEGER ? JSON.stringify(number) : number.toExponential();
}

function writeObject(value, trail) {
  if (kindOf(value) === "Date" && Number.isNaN(Number(value))) throw unfit("an invalid date", trail);
  if (typeof value.toJSON !== "function") return writeMembers(value, trail);
  const said = value.toJSON();
  return said !== null && typeof said === "object" ? writeMembers(said, trail) : write(said, trail);
}

function writeMembers(value, trail) {
  if (trail.length >= NESTING_MAX) throw new RequestError("too_large", `A value may be nested ${NESTING_MAX} deep; this one is deeper, or goes in a circle.`);
  if (Array.isArray(value)) return `[${Array.from(value, (item, index) => within(trail, `[${index}]`, () => write(item, trail))).join()}]`;
  if (kindOf(value) !== "Object") throw unfit(`a ${kindOf(value)}`, trail);
  const names = Object.keys(value).filter((name) => value[name] !== undefined);
  return `{${names.map((name) => within(trail, `.${name}`, () => `${writeText(name, trail)}:${write(value[name], trail)}`)).join()}}`;
}

function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

function within(trail, step, run) {
  trail.push(step);
  const text = run();
  trail.pop();
  return text;
}

function unfit(what, trail) {
  const place = trail.join("").slice(0, 200);
  return new RequestError("validation_failed", `JSON has no way to say ${what}${place && ` (at ${place})`}; nothing was sent.`);
}

/** @returns {RequestError|null} why a text that is sent as it is cannot be */
export function faultOf(text) {
  return LONE_SURROGATE.test(text) ? unfit("a text with a lone surrogate", []) : null;
}

/** How long a text is on the wire. @param {string} text */
export function bytesOf(text) {
  return utf8.encode(text).length;
}
