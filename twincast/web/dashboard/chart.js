/** Numbers and states over time, on a canvas, with axes: drawn by uPlot. What is drawn is given to it; it asks for nothing. */

import { axisTimes, measure } from "./format.js";
import { MANY } from "./series.js";
import uPlot from "./vendor/uPlot.esm.js";

const FONT = "11px 'Plex Mono', ui-monospace, monospace";
const GLYPH_PX = 6.7;
const LANE_PX = 26;
const STATES_MAX_COLORS = 6;
const GAP_PX = 3;
const DOT_ROOM_PX = 9; // where points are further apart each one is a dot

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {string} color
 * @property {"number"|"state"} kind
 * @property {import("./series.js").Drawn} drawn
 *
 * @typedef {object} Picture
 * @property {Line[]} lines
 * @property {import("./past.js").Mark[]} marks
 * @property {number} fromMs the left edge
 * @property {number} toMs the right edge
 * @property {number} nowMs up to where states hold
 */

/** What is shown of a chart that was cleared, whoever still draws it. @type {Picture} */
const NOTHING = { lines: [], marks: [], fromMs: 0, toMs: 0, nowMs: 0 };

export class Chart {
  #host;
  #onSpan;
  #onPoint;
  #onDrawn;
  #plot = null;
  #make = "";
  #size = { width: 0, height: 0 };
  #picture = NOTHING;
  #colors = null;

  /**
   * @param {HTMLElement} host
   * @param {object} callbacks
   * @param {(fromMs: number, toMs: number) => void} callbacks.onSpan somebody drew a span
   * @param {(atMs: number|null, withinMs: number) => void} callbacks.onPoint somebody points at a time, and how exactly
   * @param {(canvas: HTMLCanvasElement) => void} [callbacks.onDrawn] it was drawn
   */
  constructor(host, { onSpan, onPoint, onDrawn }) {
    this.#onDrawn = onDrawn ?? (() => {});
    this.#host = host;
    this.#onSpan = onSpan;
    this.#onPoint = onPoint;
    letFingersDraw(host);
  }

  /** The canvas, to be kept as a picture; null before anything was drawn. @returns {HTMLCanvasElement|null} */
  get canvas() {
    return this.#plot?.ctx.canvas ?? null;
  }

  /**
   * @param {Picture} picture
   * @param {{width: number, height: number}} size CSS pixels
   * @param {import("./palette.js").Palette} colors
   */
  draw(picture, size, colors) {
    const make = JSON.stringify(picture.lines.map(({ label, color, kind, drawn }) => [label, color, kind, drawn.min !== null]));
    const data = dataOf(picture.lines);
    const edges = { min: picture.fromMs, max: picture.toMs };
    if (make !== this.#make || colors !== this.#colors) this.clear();
    this.#picture = picture;
    if (this.#plot) {
      this.#plot.batch((plot) => {
        if (size.width !== this.#size.width || size.height !== this.#size.height) plot.setSize(size);
        plot.setData(data, false);
        plot.setScale("x", edges);
      });
    } else this.#build(data, edges, size, colors);
    this.#size = size;
    this.#make = make;
    this.#colors = colors;
  }

  /** Points at a time, as a mouse does. @param {number|null} atMs */
  point(atMs) {
    if (!this.#plot) return;
    const left = atMs === null ? -10 : this.#plot.valToPos(atMs, "x");
    this.#plot.setCursor({ left, top: atMs === null ? -10 : 10 });
  }

  clear() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#make = "";
    this.#picture = NOTHING;
  }

  /** Draws at once: by itself the plot would do so a step later, when this may have been cleared, and then a second time. */
  #build(data, edges, size, colors) {
    new uPlot(this.#options(size, colors), data, (plot, begin) => {
      this.#plot = plot;
      this.#host.append(plot.root);
      plot.batch(() => {
        begin();
        plot.setScale("x", edges);
      });
    });
  }

  #options({ width, height }, colors) {
    const { lines } = this.#picture;
    const numbers = lines.filter(({ kind }) => kind === "number");
    const lanes = lines.length - numbers.length;
    const axis = { font: FONT, stroke: colors.soft, grid: { stroke: colors.rule, width: 1 }, ticks: { stroke: colors.rule, width: 1, size: 5 } };
    return {
      width,
      height,
      ms: 1,
      pxAlign: 1,
      legend: { show: false },
      padding: [10, 24, 0, numbers.length ? 0 : 14],
      cursor: { y: false, drag: { x: true, y: false, setScale: false, dist: 6 }, points: { size: 7 } },
      scales: {
        x: { time: true, range: (_plot, min, max) => [min, max] },
        y: { range: (plot, min, max) => rangeOf(min, max, (lanes * LANE_PX + (lanes && 6)) / Math.max(1, plot.bbox.height / devicePixelRatio)) },
      },
      axes: [
        { ...axis, space: 74, size: 40, values: (_plot, splits, _axis, _space, incr) => axisTimes(splits, incr) },
        {
          ...axis, show: numbers.length > 0, space: 34,
          values: (_plot, splits) => {
            const lowest = this.#lowest();
            return splits.map((split) => (split < lowest ? "" : measure(split)));
          },
          size: (_plot, labels) => Math.ceil(Math.max(0, ...(labels ?? []).map(({ length }) => length)) * GLYPH_PX) + 16,
        },
      ],
      series: [{}, ...this.#seriesOf(lines)],
      bands: bandsOf(numbers),
      hooks: {
        drawClear: [(plot) => this.#drawGaps(plot, colors)],
        draw: [(plot) => { this.#drawLanes(plot, colors); this.#drawMarks(plot, colors); this.#onDrawn(plot.ctx.canvas); }],
        setSelect: [(plot) => this.#takeSpan(plot)],
        setCursor: [(plot) => this.#takePoint(plot)],
      },
    };
  }

  /** One series for each number; three where readings are added up: the extremes, which make a band, and the averages. */
  #seriesOf(lines) {
    const series = [];
    for (const { kind, color, drawn } of lines) {
      if (kind !== "number") continue;
      if (drawn.min) {
        const edge = () => ({ stroke: translucent(color, 0.35), width: 1, points: { show: false } });
        series.push(edge(), edge(), { stroke: color, width: 1.5, points: dots(color) });
      } else series.push({ stroke: color, width: 1.5, paths: inSteps, gaps: widened, points: dots(color) });
    }
    return series.length ? series : [{ points: { show: false } }];
  }

  /** Below it is no number: there the bands of states are. */
  #lowest() {
    if (!this.#picture.lines.some(({ kind }) => kind === "state")) return -Infinity;
    let lowest = Infinity;
    for (const { kind, drawn } of this.#picture.lines) {
      if (kind === "number") for (const value of drawn.min ?? drawn.y) if (value !== null && value < lowest) lowest = value;
    }
    const { min, max } = this.#plot?.scales.y ?? { min: 0, max: 0 };
    return lowest - (max - min) * 0.08;
  }

  #takeSpan(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#onSpan(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
  }

  #takePoint(plot) {
    const { left } = plot.cursor;
    const withinMs = plot.posToVal(6, "x") - plot.posToVal(0, "x");
    this.#onPoint(left === undefined || left < 0 ? null : plot.posToVal(left, "x"), withinMs);
  }

  #drawGaps(plot, colors) {
    const { ctx, bbox } = plot;
    const size = GAP_PX * devicePixelRatio;
    ctx.save();
    clipTo(ctx, bbox);
    ctx.fillStyle = colors.amber;
    for (const { drawn } of this.#picture.lines) {
      for (const [fromMs, toMs] of drawn.gaps) {
        const left = plot.valToPos(fromMs, "x", true);
        ctx.fillRect(left, bbox.top + bbox.height - size, plot.valToPos(toMs, "x", true) - left, size);
      }
    }
    ctx.restore();
  }

  #drawLanes(plot, colors) {
    const lanes = this.#picture.lines.filter(({ kind }) => kind === "state");
    const { bbox } = plot;
    const scale = devicePixelRatio;
    const isAlone = lanes.length === this.#picture.lines.length;
    const height = isAlone ? Math.min(64 * scale, (bbox.height - 8 * scale) / lanes.length) : LANE_PX * scale;
    lanes.forEach((lane, index) => {
      const top = isAlone
        ? bbox.top + (bbox.height - height * lanes.length) / 2 + index * height
        : bbox.top + bbox.height - (lanes.length - index) * height - GAP_PX * scale;
      this.#drawLane(plot, lane, { top: top + 3 * scale, height: height - 6 * scale }, colors);
    });
  }

  /** Each state as a band, from its reading to the next one; with its name, where there is room. */
  #drawLane(plot, { drawn }, { top, height }, colors) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    const { x, y, usualMs } = drawn;
    const known = new Map();
    ctx.save();
    clipTo(ctx, bbox);
    ctx.font = FONT.replace("11px", `${11 * scale}px`);
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (let index = 0, after; index < x.length; index = after) {
      after = index + 1;
      const state = y[index];
      if (state === null) continue;
      while (after < x.length && y[after] === state) after += 1;
      const isOpen = after === x.length;
      const endMs = isOpen ? this.#heldUntil(x[after - 1], usualMs) : y[after] === null ? x[after - 1] + usualMs : x[after];
      const left = plot.valToPos(x[index], "x", true);
      const width = Math.max(scale, plot.valToPos(endMs, "x", true) - left);
      ctx.fillStyle = colorOf(state, known, colors);
      ctx.globalAlpha = state === MANY ? 0.25 : 0.85;
      ctx.fillRect(left, top, width - (width > 4 * scale ? scale : 0), height);
      ctx.globalAlpha = 1;
      if (state === MANY) continue;
      const from = Math.max(left, bbox.left) + 6 * scale;
      const text = state.length > 40 ? `${state.slice(0, 40)}…` : state;
      if (ctx.measureText(text).width + 6 * scale < left + width - from) {
        ctx.fillStyle = colors.onMark;
        ctx.fillText(text, from, top + height / 2 + scale / 2);
      }
    }
    ctx.restore();
  }

  /** The last state holds until now, unless the device has been silent for long. */
  #heldUntil(lastMs, usualMs) {
    const { nowMs } = this.#picture;
    const isSilent = usualMs > 0 && nowMs - lastMs > Math.max(10_000, 5 * usualMs);
    return isSilent ? lastMs + usualMs : Math.max(lastMs, nowMs);
  }

  /** Commands and deletions: a line from top to bottom, and a handle at the axis. */
  #drawMarks(plot, colors) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    ctx.save();
    clipTo(ctx, bbox);
    for (const { atMs, type } of this.#picture.marks) {
      const left = Math.round(plot.valToPos(atMs, "x", true));
      if (left < bbox.left || left > bbox.left + bbox.width) continue;
      ctx.strokeStyle = ctx.fillStyle = type === "control" ? colors.violet : colors.red;
      ctx.lineWidth = scale;
      ctx.setLineDash([3 * scale, 3 * scale]);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(left - 4 * scale, bbox.top);
      ctx.lineTo(left + 4 * scale, bbox.top);
      ctx.lineTo(left, bbox.top + 7 * scale);
      ctx.fill();
    }
    ctx.restore();
  }
}

function clipTo(ctx, { left, top, width, height }) {
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
}

function bandsOf(numbers) {
  const bands = [];
  let next = 1;
  for (const { drawn, color } of numbers) {
    if (drawn.min) bands.push({ series: [next, next + 1], fill: translucent(color, 0.16) });
    next += drawn.min ? 3 : 1;
  }
  return bands;
}

/** The columns that uPlot takes: one for the times of all lines, and theirs. */
function dataOf(lines) {
  const tables = lines.filter(({ kind }) => kind === "number")
    .map(({ drawn: { x, y, min, max } }) => (min ? [x, max, min, y] : [x, y]));
  if (!tables.length) return [[0], [null]];
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

/** Room above and below, also around a number that does not change; `share` of the height is left free below. */
function rangeOf(min, max, share) {
  if (min === null || max === null) return [0, 1];
  const margin = (max - min) * 0.08 || Math.abs(max) * 0.05 || 1;
  const [low, high] = [min - margin, max + margin];
  return [low - ((high - low) * share) / Math.max(0.1, 1 - share), high];
}

/** Dots: at each point where there is room, else at those that stand alone, which no line would show. */
function dots(color) {
  return {
    size: 5, width: 1, stroke: color, fill: color,
    show: (plot, _series, from, to) => to - from < plot.bbox.width / devicePixelRatio / DOT_ROOM_PX,
    filter: (plot, series, isShown) => (isShown ? null : aloneIn(plot.data[series])),
  };
}

const steps = uPlot.paths.stepped({ align: 1 });
const straight = uPlot.paths.linear();

/** A value holds until the next one comes. Where several share a pixel that is not seen, and the smallest and the largest of each do. */
function inSteps(plot, series, from, to) {
  return (to - from > plot.bbox.width / devicePixelRatio ? straight : steps)(plot, series, from, to);
}

/** Behind a gap a line in steps begins at its first point, and not with the way up or down to it. */
function widened(_plot, _series, _from, _to, gaps) {
  return gaps.map(([from, to]) => [from, to + 1]);
}

/** Which values have none beside them; what is undefined is another line's time, over which a line goes on. */
function aloneIn(values) {
  const alone = [];
  let isAfterOne = false;
  let first = -1; // of a line, as long as it is the only one
  const end = () => first >= 0 && alone.push(first);
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index];
    if (value === undefined) continue;
    if (value === null) end();
    first = value === null || isAfterOne ? -1 : index;
    isAfterOne = value !== null;
  }
  end();
  return alone;
}

function translucent(color, alpha) {
  return color.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

/** The same state has the same colour in all of a band; true and false those of on and off. */
function colorOf(state, known, { line, edge, states }) {
  if (state === MANY) return edge;
  if (state === "true") return line;
  if (state === "false") return edge;
  if (!known.has(state)) known.set(state, states[known.size % Math.min(states.length, STATES_MAX_COLORS)]);
  return known.get(state);
}

/** Lets a finger draw a span: it moves sideways, up and down still scrolls the page. uPlot listens to mice alone. */
function letFingersDraw(host) {
  const types = { pointerdown: "mousedown", pointermove: "mousemove", pointerup: "mouseup", pointercancel: "mouseleave" };
  for (const [type, mouseType] of Object.entries(types)) {
    host.addEventListener(type, (event) => {
      if (event.pointerType === "mouse") return;
      const over = host.querySelector(".u-over");
      if (!over?.contains(event.target)) return;
      const { clientX, clientY } = event;
      const target = mouseType === "mouseup" ? document : over;
      if (type === "pointerdown") over.dispatchEvent(new MouseEvent("mouseenter", { clientX, clientY }));
      target.dispatchEvent(new MouseEvent(mouseType, { clientX, clientY, bubbles: true, button: 0, buttons: 1 }));
    });
  }
}
