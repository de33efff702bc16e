/**
 * Many charts, one below and beside the other, that all show the same span of time. Those in sight are drawn, and of these the
 * ones that are others than before, in turns, as many as go into a part of a frame: so scrolling stays smooth.
 */

import { Chart } from "./chart.js";
import { ChartSheets } from "./chartsheets.js";
import { labelOf, sayValue } from "./chartwords.js";
import { make, say } from "./dom.js";
import { deletionsIn } from "./moments.js";
import { palette } from "./palette.js";

const TURN_MS = 5; // of the 16.7 that a frame has; a chart that has begun is finished
const MARGIN = "160px 0px"; // those that come into sight next are drawn before they do
const SERIES_MAX_PX = 0.5; // half a pixel is not seen

/**
 * @typedef {object} Card
 * @property {string} id of a device
 * @property {string[]} path
 * @property {"number"|"state"} kind
 * @property {() => any} newest the part's value now
 * @property {() => import("./series.js").Readings|import("./series.js").Buckets|null} series null as long as there is none
 * @property {() => import("./past.js").Mark[]} marks
 */

export class ChartGrid {
  #host;
  #hrefOf;
  #onSpan;
  #onNeed;
  #tiles = [];
  #next = 0;
  #pointed = null;
  #room = "";
  #size = { width: 0, height: 0 };
  #sight = null;
  #inner = make("div", "tiles");
  #sheets;

  /**
   * @param {HTMLElement} host it scrolls
   * @param {object} callbacks
   * @param {(id: string) => string} callbacks.hrefOf the address of a device
   * @param {(fromMs: number, toMs: number) => void} callbacks.onSpan somebody drew a span
   * @param {() => void} callbacks.onNeed a further drawing is needed, in the next frame
   */
  constructor(host, { hrefOf, onSpan, onNeed }) {
    this.#host = host;
    this.#hrefOf = hrefOf;
    this.#onSpan = onSpan;
    this.#onNeed = onNeed;
    host.replaceChildren(this.#inner);
    this.#sheets = new ChartSheets(this.#inner, host);
    new ResizeObserver(() => this.#measure()).observe(this.#inner);
  }

  /** How wide a chart is. @returns {number} CSS pixels; 0 if there is none */
  get width() {
    return this.#size.width;
  }

  /** @param {Card[]} cards instead of those that there are */
  show(cards) {
    this.clear();
    this.#sight = new IntersectionObserver((seen) => this.#see(seen), { root: this.#host, rootMargin: MARGIN });
    this.#tiles = cards.map((card) => this.#tileOf(card));
    this.#inner.replaceChildren(...this.#tiles.map(({ element }) => element));
    for (const { element } of this.#tiles) this.#sight.observe(element);
    this.#measure();
  }

  /** Leads each name to the address of its device as that is now. */
  link() {
    for (const { card, name } of this.#tiles) name.href = this.#hrefOf(card.id);
  }

  clear() {
    this.#sight?.disconnect();
    for (const { chart } of this.#tiles) chart.clear();
    this.#tiles = [];
    this.#pointed = null;
    this.#sheets.clear();
    this.#inner.replaceChildren();
    this.#room = "";
  }

  /**
   * Draws what is in sight and another than before, as much as goes into a turn; the rest in the next frame.
   * @param {{fromMs: number, toMs: number}} edges
   * @param {number} nowMs up to where states hold
   */
  draw(edges, nowMs) {
    if (!this.#size.width) return;
    const colors = palette();
    const untilMs = performance.now() + TURN_MS;
    const { length } = this.#tiles;
    for (let step = 0; step < length; step += 1) {
      const tile = this.#tiles[(this.#next + step) % length];
      if (!tile.isInSight) continue;
      this.#caption(tile);
      if (!this.#isOther(tile, edges, colors)) continue;
      if (performance.now() >= untilMs) {
        this.#next = (this.#next + step) % length;
        this.#onNeed();
        return;
      }
      this.#drawOne(tile, edges, nowMs, colors);
    }
  }

  #isOther({ card, drawn }, edges, colors) {
    const stepMs = ((edges.toMs - edges.fromMs) / this.#size.width) * SERIES_MAX_PX;
    return drawn === null || drawn.colors !== colors || drawn.size !== this.#size || drawn.series !== card.series()
      || drawn.version !== card.series()?.version || drawn.marks !== card.marks().length
      || Math.abs(edges.toMs - drawn.toMs) >= stepMs || Math.abs(edges.fromMs - drawn.fromMs) >= stepMs;
  }

  #drawOne(tile, edges, nowMs, colors) {
    const { card, chart } = tile;
    const series = card.series();
    const marks = card.marks();
    series?.dropBefore(edges.fromMs - (edges.toMs - edges.fromMs)); // it need not be done at every drawing
    tile.drawn = { colors, size: this.#size, series, version: series?.version, marks: marks.length, ...edges };
    tile.plot.dataset.blank = String(!series?.length);
    if (!series) return;
    const line = { label: labelOf(card.path), color: colors.states[0], kind: card.kind, drawn: series.drawn(deletionsIn(marks)) };
    chart.draw({ ...edges, nowMs, lines: [line], marks }, this.#size, colors);
  }

  #caption({ card, value }) {
    const found = this.#pointed === null ? null : card.series()?.at(this.#pointed);
    say(value, sayValue(found ? found.value : card.newest()));
  }

  #tileOf(card) {
    const plot = make("div", "tile-plot");
    const value = make("b");
    const name = make("a", "", card.id);
    name.href = this.#hrefOf(card.id);
    name.title = card.id;
    const element = make("article", "tile", [make("header", "", [name, make("span", "", card.path.length ? labelOf(card.path) : ""), value]), plot]);
    const place = { left: 0, top: 0, width: 0, height: 0 };
    const chart = new Chart(plot, {
      onSpan: this.#onSpan,
      onDrawn: (canvas) => this.#sheets.show(place, canvas),
      onPoint: (atMs) => {
        this.#pointed = atMs;
        this.#onNeed();
      },
    });
    return { card, element, name, plot, place, value, chart, isInSight: false, drawn: null };
  }

  #see(seen) {
    for (const { target, isIntersecting } of seen) {
      const tile = this.#tiles.find(({ element }) => element === target);
      if (tile) tile.isInSight = isIntersecting;
    }
    this.#onNeed();
  }

  #measure() {
    const { offsetWidth: width, offsetHeight: height } = this.#inner;
    const room = `${width} ${height} ${devicePixelRatio}`;
    if (!this.#tiles.length || room === this.#room) return;
    this.#room = room;
    for (const { element, plot, place } of this.#tiles) {
      Object.assign(place, { left: element.offsetLeft + plot.offsetLeft, top: element.offsetTop + plot.offsetTop });
      Object.assign(place, { width: plot.clientWidth, height: plot.clientHeight });
    }
    const { width: plotWidth, height: plotHeight } = this.#tiles[0].place;
    this.#size = { width: plotWidth, height: plotHeight };
    this.#sheets.resize(width, height);
    this.#onNeed();
  }
}
