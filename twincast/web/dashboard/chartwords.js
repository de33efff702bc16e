/** What is said of a chart. Does not use the document. */

import { serverNowMs } from "./clock.js";
import { count, dateTime, measure, preciseTime } from "./format.js";
import { brief } from "./json.js";
import { MANY } from "./series.js";

/** @param {string[]} path @returns {string} */
export function labelOf(path) {
  return path.join(" › ") || "Value";
}

/** @param {any} value a number, a state, nothing, or what cannot be drawn @returns {string} */
export function sayValue(value) {
  if (value === undefined || value === null) return "–";
  if (value === MANY) return "changing";
  if (typeof value === "object") return brief(value, 40);
  return typeof value === "number" ? measure(value) : String(value).slice(0, 40);
}

/** @param {import("./past.js").Mark} mark @returns {string} */
export function sayMark({ atMs, type, command, args, scope }) {
  if (type === "deleted") return `Deleted${scope === "history" ? " with its history" : ""} at ${exactTime(atMs)}`;
  const text = args && Object.keys(args).length ? ` ${brief(args, 60)}` : "";
  return `Command ${command}${text} at ${exactTime(atMs)}`;
}

/** @param {{atMs: number, endMs?: number, min?: number, max?: number, count?: number}} found a reading, or a bucket @returns {string} */
export function sayWhen({ atMs, endMs, min, max, count: readings }) {
  if (endMs === undefined) return `at ${exactTime(atMs)}`;
  const range = min === undefined ? "" : `average of ${count(readings)}, ${measure(min)} to ${measure(max)}, `;
  return `${range}${exactTime(atMs)} to ${exactTime(endMs)}`;
}

/**
 * @param {import("./series.js").Readings|import("./series.js").Buckets} series
 * @param {boolean} isAll whether nothing was left out
 * @returns {string}
 */
export function saySeries(series, isAll) {
  if (!series.length) return isAll ? "Nothing was ever here." : "Nothing in this range.";
  if (!series.every && series.length === 1) return `One point, at ${exactTime(series.firstMs)}`;
  const { min, max } = series.extent();
  const span = Number.isFinite(min) ? `, ${measure(min)} to ${measure(max)}` : "";
  if (!series.every) return `${count(series.length)} points${span}`;
  const readings = Number.isNaN(series.readingsCount) ? "Readings" : `${count(series.readingsCount)} readings`;
  return `${readings} in steps of ${series.every}${span}`;
}

/** Today the time alone, else the day with it. @param {number} atMs @returns {string} */
export function exactTime(atMs) {
  const isToday = new Date(atMs).toDateString() === new Date(serverNowMs()).toDateString();
  return isToday ? preciseTime(atMs) : dateTime(atMs);
}
