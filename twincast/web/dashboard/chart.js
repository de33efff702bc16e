/** One number over time, with axes, on a canvas. */

import { measure, time } from "./format.js";
import { clear } from "./sparkline.js";

const INSET = { top: 10, right: 12, bottom: 22, left: 8 };
const FONT = "11px 'Plex Mono', ui-monospace, monospace";
const MIN_SPAN_MS = 5_000;

/**
 * Draws a trend.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./trend.js").Trend} trend
 * @param {{width: number, height: number, nowMs: number, pointerX: number|null,
 *   colors: {line: string, soft: string, rule: string}}} look `nowMs` is the right edge, by the server's clock;
 *   `pointerX` is where somebody points, in CSS pixels
 * @returns {{atMs: number, value: number}|null} the point pointed at
 */
export function drawChart(canvas, trend, { width, height, nowMs, pointerX, colors }) {
  const context = clear(canvas, width, height);
  if (!trend.length) return null;
  context.font = FONT;
  const { min, max, ticks } = scaleOf(trend.bounds());
  const labels = ticks.map(measure);
  const left = INSET.left + Math.max(...labels.map((label) => context.measureText(label).width)) + 8;
  const right = width - INSET.right;
  const bottom = height - INSET.bottom;
  const endMs = Math.max(nowMs, trend.at(trend.length - 1));
  const startMs = Math.min(trend.at(0), endMs - MIN_SPAN_MS);
  const x = (atMs) => left + ((atMs - startMs) / (endMs - startMs)) * (right - left);
  const y = (value) => INSET.top + ((max - value) / (max - min)) * (bottom - INSET.top);
  drawAxes(context, { ticks, labels, left, right, bottom, y, colors, startMs, endMs });
  drawLine(context, trend, { x, y, bottom, right, color: colors.line });
  const pointed = pointerX === null ? null : nearest(trend, x, pointerX);
  if (pointed !== null) drawPoint(context, x(trend.at(pointed)), y(trend.value(pointed)), { top: INSET.top, bottom, colors });
  return pointed === null ? null : { atMs: trend.at(pointed), value: trend.value(pointed) };
}

/** Bounds and ticks at round numbers, three to six of them. */
function scaleOf({ min, max }) {
  const margin = min === max ? Math.abs(min) * 0.05 || 1 : 0;
  const low = min - margin;
  const high = max + margin;
  const rough = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => power * factor >= rough) ?? 10);
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step);
  const ticks = [];
  for (let tick = first; tick <= last; tick += 1) ticks.push(tick * step);
  return { min: first * step, max: last * step, ticks };
}

function drawAxes(context, { ticks, labels, left, right, bottom, y, colors, startMs, endMs }) {
  context.strokeStyle = colors.rule;
  context.fillStyle = colors.soft;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  ticks.forEach((tick, index) => {
    const level = Math.round(y(tick)) + 0.5;
    context.beginPath();
    context.moveTo(left, level);
    context.lineTo(right, level);
    context.stroke();
    context.fillText(labels[index], left - 8, level);
  });
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText(time(startMs), left, bottom + 8);
  context.textAlign = "right";
  context.fillText(time(endMs), right, bottom + 8);
}

/** A value holds until the next one comes, so the line goes in steps. */
function drawLine(context, trend, { x, y, bottom, right, color }) {
  const trace = () => {
    for (let index = 0; index < trend.length; index += 1) {
      const level = y(trend.value(index));
      const from = x(trend.at(index));
      context.lineTo(from, level);
      context.lineTo(index + 1 < trend.length ? x(trend.at(index + 1)) : right, level);
    }
  };
  context.fillStyle = context.strokeStyle = color;
  context.globalAlpha = 0.1;
  context.beginPath();
  context.moveTo(x(trend.at(0)), bottom);
  trace();
  context.lineTo(right, bottom);
  context.fill();
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  trace();
  context.stroke();
}

function drawPoint(context, left, top, { top: from, bottom, colors }) {
  context.strokeStyle = colors.soft;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(left, from);
  context.lineTo(left, bottom);
  context.stroke();
  context.fillStyle = colors.line;
  context.beginPath();
  context.arc(left, top, 3.5, 0, 2 * Math.PI);
  context.fill();
}

/** The newest point at or left of a place, as the line is drawn in steps. */
function nearest(trend, x, pointerX) {
  for (let index = trend.length - 1; index > 0; index -= 1) if (x(trend.at(index)) <= pointerX) return index;
  return 0;
}
