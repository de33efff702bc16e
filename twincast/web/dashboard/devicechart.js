/** The chart of a device, with what belongs to it: ranges, paths, other devices. It begins with history and goes on live. */

import { Chart } from "./chart.js";
import { labelOf, sayMark, saySeries, sayValue, sayWhen } from "./chartwords.js";
import { serverNowMs } from "./clock.js";
import { byId, say } from "./dom.js";
import { fileName, pictureOf, save } from "./export.js";
import { Legend } from "./legend.js";
import { LivePast } from "./livepast.js";
import { deletionsIn } from "./moments.js";
import { palette } from "./palette.js";
import { PartList } from "./partlist.js";
import { askTable } from "./past.js";
import { drawablePaths, partAt, readPointer, writePointer } from "./pointer.js";
import { Selection } from "./selection.js";
import { RANGES, askedOf, edgesOf, moved, readView, viewBetween, viewOf, viewProblem, writeView, zoomed } from "./view.js";

const POINT_PX = 6;

export class DeviceChart {
  #host = byId("chart");
  #chart = new Chart(this.#host, {
    onSpan: (fromMs, toMs) => this.#view(viewBetween(fromMs, toMs)),
    onPoint: (atMs, withinMs) => this.#point(atMs, withinMs),
  });
  #partList = new PartList((path) => this.choose(path));
  #legend = new Legend({
    onPart: (pointer) => this.choose(readPointer(pointer), true),
    onDevice: (id) => this.#change((selection) => selection.compare(id)),
    onRemove: (index) => this.#change((selection) => selection.remove(index)),
  });
  #ask;
  #valueOf;
  #onView;
  #onNeed;
  #id = null;
  #device = null;
  #selection = new Selection((id) => (id === this.#id ? this.#device.value : this.#valueOf(id)));
  #past;
  #parameters = new URLSearchParams();
  #shown = null; // the view
  #problem = "";
  #size = { width: 0, height: 0 };
  #drawn = { toMs: 0, colors: null };
  #parts = []; // of the value, that can be drawn
  #isDirty = false;
  #pointed = null;

  /**
   * @param {object} means
   * @param {import("./past.js").Ask} means.ask
   * @param {(options: object) => import("./client.js").Client} means.follow a further client, with this page's credential
   * @param {(id: string) => any} means.valueOf the newest value of a device
   * @param {(parameters: URLSearchParams) => void} means.onView somebody chose what is shown
   * @param {(messages: object[]) => void} means.onMessages what happened to the devices behind their past
   * @param {() => void} means.onNeed
   */
  constructor({ ask, follow, valueOf, onView, onMessages, onNeed }) {
    this.#ask = ask;
    this.#valueOf = valueOf;
    this.#onView = onView;
    this.#onNeed = onNeed;
    this.#past = new LivePast({ ask, follow, question: () => this.#question(), onMessages, onNeed: () => this.#dirty() });
    for (const button of this.#buttons()) button.addEventListener("click", () => this.#view(viewOf(button.dataset.range)));
    byId("chart-nearer").addEventListener("click", () => this.#view(zoomed(this.#edges(), 0.5)));
    byId("chart-farther").addEventListener("click", () => this.#view(zoomed(this.#edges(), 2)));
    byId("chart-csv").addEventListener("click", () => this.#saveTable());
    byId("chart-png").addEventListener("click", () => this.#savePicture());
    this.#host.addEventListener("keydown", (event) => this.#key(event));
    this.#host.addEventListener("dblclick", () => this.#view(this.#ordinary()));
    new ResizeObserver(([{ contentRect: { width, height } }]) => this.#resize(width, height)).observe(this.#host);
  }

  /**
   * @param {import("./store.js").Device} device
   * @param {URLSearchParams} parameters of its address
   */
  open(device, parameters) {
    const isSame = device.id === this.#id;
    this.#device = device;
    if (isSame && parameters.toString() === this.#parameters.toString()) return;
    if (!isSame) this.close();
    this.#device = device;
    this.#id = device.id;
    this.#parameters = new URLSearchParams(parameters);
    const view = readView(parameters);
    this.#shown = view.isChosen ? view : this.#ordinary();
    this.#selection.read(device.id, parameters, device.path ?? drawablePaths(device.value, 1)[0]);
    this.#past.loadSoon();
  }

  /** Lets go of everything: no device is open, and what one said may be somebody else's to see. */
  close() {
    this.#past.close();
    this.#chart.clear();
    this.#partList.clear();
    this.#legend.draw([], []);
    this.#host.ariaLabel = "";
    for (const id of ["chart-now", "chart-note"]) say(byId(id), "");
    this.#id = this.#device = this.#pointed = null;
    this.#problem = "";
    this.#selection.read(null, new URLSearchParams(), null);
  }

  /** Whether what it draws is on its way. */
  get isComing() {
    return this.#past.isComing;
  }

  /** What of the address stays when another device is opened: the range. @returns {URLSearchParams} */
  get lasting() {
    const parameters = new URLSearchParams();
    if (this.#id !== null) writeView(this.#shown, parameters);
    return parameters;
  }

  /**
   * Draws one part of the value.
   * @param {string[]} path
   * @param {boolean} [isAdded] whether what is drawn stays; if the part is drawn, it goes then
   */
  choose(path, isAdded = false) {
    this.#change((selection) => selection.choose(path, isAdded));
  }

  /** Points at a time, as a mouse does, where it is seen. @param {number|null} atMs */
  point(atMs) {
    if (!this.#past.isKnown) return;
    const { fromMs, toMs } = this.#edges();
    const isSeen = atMs !== null && atMs >= fromMs && atMs <= toMs;
    this.#chart.point(isSeen ? atMs : null);
    if (isSeen) this.#point(atMs, ((toMs - fromMs) / this.#size.width) * POINT_PX); // a pixel may stand for what was before
  }

  #change(change) {
    change(this.#selection);
    this.#selection.write(this.#parameters);
    this.#changed();
  }

  /** The parts of the value that are drawn, as JSON Pointers. @returns {Set<string>} */
  get pointers() {
    return this.#selection.pointers;
  }

  /** Draws, once a device is open. */
  draw() {
    this.#offer(this.#device);
    const { paths } = this.#selection;
    byId("chart-figure").hidden = !paths.length;
    if (!paths.length) return;
    this.#showButtons();
    if (!this.#size.width) return;
    if (this.#past.isKnown) this.#drawPast();
    this.#caption();
  }

  #drawPast() {
    const edges = this.#edges();
    const colors = palette();
    const stepMs = (edges.toMs - edges.fromMs) / this.#size.width / 2; // half a pixel is not seen
    if (!this.#isDirty && edges.toMs - this.#drawn.toMs < stepMs && colors === this.#drawn.colors) return;
    this.#isDirty = false;
    this.#drawn = { toMs: edges.toMs, colors };
    const { series, traces, marks } = this.#past;
    if (this.#shown.range && Number.isFinite(RANGES[this.#shown.range])) {
      for (const each of series) each.dropBefore(serverNowMs() - RANGES[this.#shown.range]);
    }
    const lines = series.map((each, index) => {
      const { id, path, kind } = traces[index];
      const color = colors.states[index % colors.states.length];
      return { label: labelOf(path), color, kind, drawn: each.drawn(deletionsIn(this.#past.marksOf(id))) };
    });
    this.#chart.draw({ ...edges, nowMs: serverNowMs(), lines, marks }, this.#size, colors);
    this.#host.ariaLabel = `${labelOf(this.#selection.paths[0])} over time: ${saySeries(series[0], this.#shown.range === "all")}`;
  }

  #edges() {
    const firsts = this.#past.series.map(({ firstMs }) => firstMs).filter((firstMs) => firstMs !== null);
    return edgesOf(this.#shown, serverNowMs(), firsts.length ? Math.min(...firsts) : null);
  }

  #resize(width, height) {
    this.#size = { width: Math.floor(width), height: Math.floor(height) };
    this.#dirty();
  }

  #dirty() {
    this.#isDirty = true;
    this.#onNeed();
  }

  /** Offers what can be drawn of the value; what is drawn stays, whatever the device says now. */
  #offer(device) {
    const paths = drawablePaths(device.value);
    const pointers = paths.map(writePointer);
    for (const path of this.#selection.paths) if (!pointers.includes(writePointer(path))) paths.push(path);
    if (paths.length && this.#selection.offer(paths[0])) this.#past.loadSoon();
    this.#parts = paths.map((path) => ({ pointer: writePointer(path), label: labelOf(path) }));
    this.#partList.draw(this.#parts, this.#selection.paths[0]);
  }

  #buttons() {
    return [...byId("chart-ranges").querySelectorAll("[data-range]")];
  }

  #showButtons() {
    for (const button of this.#buttons()) button.setAttribute("aria-pressed", String(button.dataset.range === this.#shown.range));
  }

  /** What is shown where nobody chose: the shortest range in which the device said something. */
  #ordinary() {
    const silentMs = serverNowMs() - this.#device.updatedMs;
    const range = Object.keys(RANGES).find((name) => name !== "1h" && RANGES[name] > silentMs);
    return { ...readView(new URLSearchParams()), range };
  }

  /** Takes another view that somebody chose. */
  #view(view) {
    if (this.#id === null) return;
    this.#shown = view;
    writeView(view, this.#parameters);
    this.#changed();
  }

  #changed() {
    this.#onView(this.#parameters);
    this.#past.load();
    this.#onNeed();
  }

  /** What the server is asked for: all that the view can show. */
  #question() {
    if (this.#id === null || !this.#selection.paths.length) return null;
    const traces = this.#selection.traces();
    return { traces, ...askedOf(this.#shown, serverNowMs(), this.#size.width || this.#host.clientWidth || 600) };
  }

  #point(atMs, withinMs) {
    if (atMs === null && this.#pointed === null) return;
    this.#pointed = atMs === null ? null : { atMs, withinMs };
    this.#onNeed();
  }

  #caption() {
    const found = this.#pointed && this.#past.series[0]?.at(this.#pointed.atMs);
    const newest = partAt(this.#device.value, this.#selection.paths[0]);
    say(byId("chart-now"), found ? sayValue(found.value) : sayValue(newest));
    this.#showLegend();
    const problem = this.#problem || this.#past.problem;
    say(byId("chart-note"), problem ? `History is not to be had: ${problem}.` : viewProblem(this.#parameters) || this.#note(found));
  }

  #showLegend() {
    const { pointers } = this;
    const colors = palette().states;
    const lines = this.#past.traces.map(({ id, path }, index) => {
      const newest = partAt(id === this.#id ? this.#device.value : this.#valueOf(id), path);
      const value = this.#pointed ? this.#past.series[index].at(this.#pointed.atMs)?.value : newest;
      return { label: this.#nameOf({ id, path }), color: colors[index % colors.length], value: sayValue(value) };
    });
    this.#legend.draw(lines, this.#parts.filter(({ pointer }) => !pointers.has(pointer)));
  }

  /** As short as it can be told from the others. */
  #nameOf({ id, path }) {
    const { others, paths, pointers } = this.#selection;
    if (!others.length) return labelOf(path);
    return paths.length > 1 || !pointers.has(writePointer(path)) ? `${id} · ${labelOf(path)}` : id;
  }

  async #saveTable() {
    const { traces, series, isKnown } = this.#past;
    if (!isKnown) return;
    const { fromMs, toMs } = this.#edges();
    this.#problem = "";
    try {
      save(await askTable(this.#ask, { traces, fromMs, toMs, every: series[0].every }), fileName(this.#id, "csv"));
    } catch (error) {
      this.#problem = error.message;
      this.#onNeed();
    }
  }

  async #savePicture() {
    const { canvas } = this.#chart;
    if (!canvas) return;
    const { others } = this.#selection;
    const names = this.#selection.traces().map((trace) => this.#nameOf(trace));
    save(await pictureOf(canvas, others.length ? names.join(", ") : `${this.#id}: ${names.join(", ")}`), fileName(this.#id, "png"));
  }

  #note(found) {
    if (!this.#past.isKnown) return "Asking for the past";
    const { marks, series } = this.#past;
    const near = this.#pointed && marks.findLast(({ atMs }) => Math.abs(atMs - this.#pointed.atMs) <= this.#pointed.withinMs);
    if (near) return sayMark(near);
    return found ? sayWhen(found) : saySeries(series[0], this.#shown.range === "all");
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#shown) return;
    const edges = this.#edges();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.shiftKey) this.#view(moved(edges, step / 4));
    else if (step) {
      const widthMs = edges.toMs - edges.fromMs;
      const atMs = (this.#pointed?.atMs ?? edges.toMs) + (step * widthMs) / 60;
      this.#chart.point(Math.min(edges.toMs, Math.max(edges.fromMs, atMs)));
    } else if (event.key === "+" || event.key === "=") this.#view(zoomed(edges, 0.5));
    else if (event.key === "-") this.#view(zoomed(edges, 2));
    else if (event.key === "0") this.#view(this.#ordinary());
    else return;
    event.preventDefault();
  }
}
