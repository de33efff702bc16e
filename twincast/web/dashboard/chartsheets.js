/**
 * Shows the drawings of many charts on few canvases, each as high as a screen, that scroll with them. A canvas of its own for each chart
 * would be a layer of its own, which browsers put together anew in every frame: with fifty that takes longer than a frame.
 */

import { make } from "./dom.js";

const SHEET_PX = 900;
const MARGIN = "300px 0px"; // of what comes into sight next

/**
 * @typedef {object} Place
 * @property {number} left CSS pixels from the host's edge
 * @property {number} top
 * @property {number} width
 * @property {number} height
 */

export class ChartSheets {
  #host;
  #sight;
  #sheets = [];
  #drawings = new Map(); // canvases, by where they are shown
  #width = 0;

  /**
   * @param {HTMLElement} host as high as all charts together
   * @param {HTMLElement} scroller in which it moves
   */
  constructor(host, scroller) {
    this.#host = host;
    this.#sight = new IntersectionObserver((seen) => this.#see(seen), { root: scroller, rootMargin: MARGIN });
  }

  /** Makes room. What was shown has to be shown again. @param {number} width CSS pixels @param {number} height */
  resize(width, height) {
    this.clear();
    this.#width = width;
    for (let top = 0; top < height; top += SHEET_PX) {
      const canvas = make("canvas", "sheet");
      canvas.width = canvas.height = 0;
      canvas.style.top = `${top}px`;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${Math.min(SHEET_PX, height - top)}px`;
      this.#sheets.push({ canvas, top, height: Math.min(SHEET_PX, height - top), context: null });
      this.#host.append(canvas);
      this.#sight.observe(canvas);
    }
  }

  clear() {
    this.#sight.disconnect();
    for (const { canvas } of this.#sheets) canvas.remove();
    this.#sheets = [];
    this.#drawings.clear();
  }

  /** @param {Place} place the same object for the same place @param {HTMLCanvasElement} drawing */
  show(place, drawing) {
    this.#drawings.set(place, drawing);
    for (const sheet of this.#sheets) if (sheet.context) this.#put(sheet, place, drawing);
  }

  #put({ context, top, height }, place, drawing) {
    if (place.top + place.height < top || place.top > top + height) return;
    const scale = devicePixelRatio;
    const [left, from] = [Math.round(place.left * scale), Math.round((place.top - top) * scale)];
    context.clearRect(left, from, drawing.width, drawing.height);
    context.drawImage(drawing, left, from);
  }

  /** Only what is in sight takes memory. */
  #see(seen) {
    for (const { target, isIntersecting } of seen) {
      const sheet = this.#sheets.find(({ canvas }) => canvas === target);
      if (!sheet || isIntersecting === (sheet.context !== null)) continue;
      target.width = isIntersecting ? Math.round(this.#width * devicePixelRatio) : 0;
      target.height = isIntersecting ? Math.round(sheet.height * devicePixelRatio) : 0;
      sheet.context = isIntersecting ? target.getContext("2d") : null;
      if (sheet.context) for (const [place, drawing] of this.#drawings) this.#put(sheet, place, drawing);
    }
  }
}
