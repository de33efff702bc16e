/**
 * Small drawings: a number's recent past in a table cell, the message rate in the head of the page. They are vectors, which
 * are painted with what is around them; each canvas would be one more layer to be put together at every drawing.
 */

const INSET = 3;
const PULSE_SLOTS = 60;
const LINE = { fill: "none", stroke: "currentColor", "stroke-width": "1.25", "stroke-linejoin": "round" };

/** A trend as a line with a dot at its newest point. */
export class Sparkline {
  #svg = shape("svg");
  #line = shape("polyline");
  #dot = shape("circle");

  /** @param {HTMLElement} host is given a tree of its own for it: what can be found in a row is what a device said */
  constructor(host) {
    this.#svg.setAttribute("aria-hidden", "true");
    for (const [name, value] of Object.entries(LINE)) this.#line.setAttribute(name, value);
    this.#dot.setAttribute("r", "2");
    this.#dot.setAttribute("fill", "currentColor");
    this.#svg.append(this.#line, this.#dot);
    this.#svg.style.display = "block";
    this.#svg.style.overflow = "visible"; // nothing leaves it, and a clip costs
    host.attachShadow({ mode: "open" }).append(this.#svg);
  }

  /**
   * @param {import("./trend.js").Trend|null} trend nothing is shown of one that is no line yet
   * @param {{width: number, height: number}} size CSS pixels
   */
  draw(trend, { width, height }) {
    const isLine = trend !== null && trend.length > 1;
    this.#svg.style.visibility = isLine ? "" : "hidden";
    if (!isLine) return;
    this.#svg.setAttribute("width", String(width));
    this.#svg.setAttribute("height", String(height));
    const { min, max } = trend.bounds();
    const flat = !(max > min);
    const step = (width - 2 * INSET) / (trend.length - 1);
    const y = (value) => (flat ? height / 2 : INSET + ((max - value) / (max - min)) * (height - 2 * INSET)).toFixed(1);
    let points = "";
    for (let index = 0; index < trend.length; index += 1) points += `${(INSET + step * index).toFixed(1)},${y(trend.value(index))} `;
    this.#line.setAttribute("points", points);
    this.#dot.setAttribute("cx", String(width - INSET));
    this.#dot.setAttribute("cy", y(trend.last));
  }
}

function shape(tag) {
  return document.createElementNS("http://www.w3.org/2000/svg", tag);
}

/** The message rate of the last minute as bars. */
export class Pulse {
  #none = shape("path");
  #some = shape("path");
  #size;
  #slot = -1;

  /**
   * @param {SVGElement} svg
   * @param {{width: number, height: number}} size of the drawing, which is stretched to that of the element
   */
  constructor(svg, size) {
    this.#size = size;
    svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.#none.setAttribute("opacity", "0.35");
    svg.append(this.#none, this.#some);
  }

  /**
   * @param {import("./rate.js").MessageRate} messageRate
   * @param {number} nowMs
   */
  draw(messageRate, nowMs) {
    const slot = messageRate.slotAt(nowMs);
    if (slot === this.#slot) return;
    this.#slot = slot;
    const rates = [];
    messageRate.each(nowMs, (perSecond) => rates.push(perSecond));
    const shown = rates.slice(-PULSE_SLOTS);
    const top = Math.max(1, ...shown);
    this.#none.setAttribute("d", this.#bars(shown, (perSecond) => (perSecond ? 0 : 1)));
    this.#some.setAttribute("d", this.#bars(shown, (perSecond) => perSecond && Math.max(1.5, (perSecond / top) * this.#size.height)));
  }

  #bars(rates, heightOf) {
    const { width, height } = this.#size;
    const step = width / PULSE_SLOTS;
    let path = "";
    rates.forEach((perSecond, index) => {
      const bar = heightOf(perSecond);
      const left = (PULSE_SLOTS - rates.length + index) * step;
      if (bar) path += `M${left} ${height}v${-bar}h${Math.max(1, step - 1)}v${bar}z`;
    });
    return path;
  }
}
