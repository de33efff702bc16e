/** The chart of a device, with what belongs to it: ranges, paths, other devices. It begins with history and goes on live. */

import { Chart } from "./chart.js";
import { labelOf, sayMark, saySeries, sayValue, sayWhen } from "./chartwords.js";
import { serverNowMs } from "./clock.js";
import { byId, make, say } from "./dom.js";
import { fileName, pictureOf, save } from "./export.js";
import { Feed } from "./feed.js";
import { Legend } from "./legend.js";
import { countsAtMs, timeMs } from "./moments.js";
import { palette } from "./palette.js";
import { askPast, askTable } from "./past.js";
import { drawablePaths, drawnAs, partAt, readPointer, writePointer } from "./pointer.js";
import { RANGES, edgesOf, moved, readView, viewBetween, viewOf, writeView, zoomed } from "./view.js";

const PX_PER_BUCKET = 1.5;
const READINGS_MAX = 5_000; // live ones make more of them: then the server adds them up
const HASTE_MS = 200; // a held arrow key goes through devices faster than anybody reads
const AGAIN_MS = 5_000;
const LINES_MAX = 12; // more nobody tells apart

export class DeviceChart {
  #host = byId("chart");
  #select = byId("chart-path");
  #chart = new Chart(this.#host, {
    onSpan: (fromMs, toMs) => this.#view(viewBetween(fromMs, toMs)),
    onPoint: (atMs, withinMs) => this.#point(atMs, withinMs),
  });
  #legend = new Legend({
    onPart: (pointer) => this.choose(readPointer(pointer), true),
    onDevice: (id) => this.#compare([...new Set([...this.#others, id])]),
    onRemove: (index) => this.#remove(this.#traces()[index]),
  });
  #ask;
  #follow;
  #valueOf;
  #onView;
  #onNeed;
  #id = null;
  #device = null;
  #paths = [];
  #others = []; // the devices that it is compared with
  #offered = "";
  #parameters = new URLSearchParams();
  #shown = null; // the view
  #past = null;
  #problem = "";
  #turn = null;
  #feed = null;
  #timer = 0;
  #loadedAtMs = -Infinity;
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
   * @param {() => void} means.onNeed
   */
  constructor({ ask, follow, valueOf, onView, onNeed }) {
    this.#ask = ask;
    this.#follow = follow;
    this.#valueOf = valueOf;
    this.#onView = onView;
    this.#onNeed = onNeed;
    this.#select.addEventListener("change", () => this.choose(readPointer(this.#select.value)));
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
    this.#paths = parameters.getAll("path").map(readPointer);
    if (!this.#paths.length) this.#paths = [device.path ?? drawablePaths(device.value, 1)[0]].filter(Boolean);
    this.#others = [...new Set(parameters.getAll("with"))].filter((id) => id && id !== device.id);
    this.#loadSoon();
  }

  /** Lets go of everything: no device is open, and what one said may be somebody else's to see. */
  close() {
    this.#stop();
    this.#chart.clear();
    this.#select.replaceChildren();
    this.#legend.draw([], []);
    this.#host.ariaLabel = "";
    for (const id of ["chart-now", "chart-note"]) say(byId(id), "");
    this.#id = this.#device = this.#past = this.#pointed = null;
    this.#offered = this.#problem = "";
    this.#paths = [];
    this.#others = [];
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
    const pointer = writePointer(path);
    const others = this.#paths.filter((each) => writePointer(each) !== pointer);
    const isThere = others.length < this.#paths.length;
    this.#paths = !isAdded ? [path] : isThere && others.length ? others : [...others, path].slice(-LINES_MAX);
    this.#parameters.delete("path");
    for (const each of this.#paths) this.#parameters.append("path", writePointer(each));
    this.#changed();
  }

  #compare(others) {
    this.#others = others.filter((id) => id !== this.#id).slice(0, LINES_MAX - 1);
    this.#parameters.delete("with");
    for (const id of this.#others) this.#parameters.append("with", id);
    this.#changed();
  }

  #remove({ id, path }) {
    if (id !== this.#id) this.#compare(this.#others.filter((each) => each !== id));
    else if (this.#paths.length > 1) this.choose(path, true);
    else if (this.#others.length) this.#compare([]);
  }

  /** What the lines show: of each device each part, as many as can be told apart. @returns {import("./past.js").Trace[]} */
  #traces() {
    const newest = (id) => (id === this.#id ? this.#device.value : this.#valueOf(id));
    const traces = [this.#id, ...this.#others].flatMap((id) => this.#paths.map((path) => ({
      id, path, kind: drawnAs(partAt(newest(id), path)) ?? drawnAs(partAt(this.#device.value, path)) ?? "number",
    })));
    return traces.slice(0, LINES_MAX);
  }

  /** The parts of the value that are drawn, as JSON Pointers. @returns {Set<string>} */
  get pointers() {
    return new Set(this.#paths.map(writePointer));
  }

  /** Draws, once a device is open. */
  draw() {
    this.#offer(this.#device);
    byId("chart-figure").hidden = !this.#paths.length;
    if (!this.#paths.length) return;
    this.#showButtons();
    if (!this.#size.width) return;
    if (this.#past) this.#drawPast();
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
      const breaks = marks.filter((mark) => mark.type === "deleted" && mark.id === id).map(({ atMs }) => atMs);
      return { label: labelOf(path), color: colors.states[index % colors.states.length], kind, drawn: each.drawn(breaks) };
    });
    this.#chart.draw({ ...edges, nowMs: serverNowMs(), lines, marks }, this.#size, colors);
    this.#host.ariaLabel = `${labelOf(this.#paths[0])} over time: ${saySeries(series[0], this.#shown.range === "all")}`;
  }

  #edges() {
    const firsts = (this.#past?.series ?? []).map(({ firstMs }) => firstMs).filter((firstMs) => firstMs !== null);
    return edgesOf(this.#shown, serverNowMs(), firsts.length ? Math.min(...firsts) : null);
  }

  #resize(width, height) {
    this.#size = { width: Math.floor(width), height: Math.floor(height) };
    this.#isDirty = true;
    this.#onNeed();
  }

  /** Offers what can be drawn of the value; what is drawn stays, whatever the device says now. */
  #offer(device) {
    const paths = drawablePaths(device.value);
    const pointers = paths.map(writePointer);
    for (const path of this.#paths) if (!pointers.includes(writePointer(path))) paths.push(path);
    if (!this.#paths.length && paths.length) {
      this.#paths = [paths[0]];
      this.#loadSoon();
    }
    this.#parts = paths.map((path) => ({ pointer: writePointer(path), label: labelOf(path) }));
    const offered = JSON.stringify([paths, this.#paths]);
    if (offered === this.#offered) return;
    this.#offered = offered;
    this.#select.replaceChildren(...paths.map((path) => {
      const option = make("option", "", labelOf(path));
      option.value = writePointer(path);
      return option;
    }));
    if (this.#paths.length) this.#select.value = writePointer(this.#paths[0]);
    this.#select.disabled = paths.length < 2;
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
    if (!this.#id) return;
    this.#shown = view;
    writeView(view, this.#parameters);
    this.#changed();
  }

  #changed() {
    this.#onView(this.#parameters);
    this.#load();
    this.#onNeed();
  }

  #loadSoon() {
    const waitMs = Math.max(0, this.#loadedAtMs + HASTE_MS - performance.now());
    clearTimeout(this.#timer);
    if (waitMs) this.#timer = setTimeout(() => this.#load(), waitMs);
    else this.#load();
  }

  async #load() {
    this.#stop();
    if (!this.#id || !this.#paths.length) return;
    this.#loadedAtMs = performance.now();
    const turn = (this.#turn = new AbortController());
    const traces = this.#traces();
    try {
      const past = await askPast(this.#ask, { traces, ...this.#asked(), signal: turn.signal });
      if (!turn.signal.aborted) this.#begin({ ...past, traces });
    } catch (error) {
      if (turn.signal.aborted) return;
      this.#problem = error.message;
      if (error.isForNow ?? true) this.#timer = setTimeout(() => this.#load(), AGAIN_MS);
    }
    this.#onNeed();
  }

  /** What the server is asked for: all that the view can show. */
  #asked() {
    const { range, fromMs, toMs } = this.#shown;
    const points = Math.min(2_000, Math.max(100, Math.round((this.#size.width || this.#host.clientWidth || 600) / PX_PER_BUCKET)));
    if (!range) return { fromMs, toMs, points };
    return { fromMs: Number.isFinite(RANGES[range]) ? serverNowMs() - RANGES[range] : null, toMs: null, points };
  }

  /** Goes on behind what the answer has: each reading is in the answer or comes, and none does both. */
  #begin(past) {
    this.#past = past;
    this.#problem = "";
    this.#isDirty = true;
    this.#feed = new Feed(this.#follow, { devices: [...new Set(past.traces.map(({ id }) => id))], at: past.at }, {
      onMessages: (messages) => this.#take(messages),
      onGap: () => this.#load(),
      onRefused: (reason) => {
        this.#problem = reason;
        this.#onNeed();
      },
    });
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#turn?.abort();
    this.#feed?.close();
    this.#feed = null;
  }

  #take(messages) {
    const past = this.#past;
    for (const message of messages) {
      const { type, seq } = message;
      if (type === "data_update" || type === "late") {
        if (seq <= past.readingsSeq) continue;
        past.readingsSeq = seq;
        this.#add(message);
      } else if ((type === "control" || type === "deleted") && seq > past.marksSeq) {
        past.marksSeq = seq;
        const { timestamp_utc: stored, command, args } = message;
        past.marks.push({ atMs: timeMs(stored), seq, id: message.device_id ?? message.target, type, command, args });
      }
    }
    this.#isDirty = true;
    if (past.series.some(({ every, length }) => !every && length > READINGS_MAX)) this.#loadSoon();
    this.#onNeed();
  }

  #add(message) {
    const atMs = countsAtMs(message);
    const { range, fromMs, toMs } = this.#shown;
    if (!range && !(atMs >= fromMs && atMs < toMs)) return;
    this.#past.traces.forEach(({ id, path }, index) => {
      const part = id === message.device_id ? partAt(message.value, path) : undefined;
      if (part !== undefined) this.#past.series[index].add(atMs, message.seq, part);
    });
  }

  #point(atMs, withinMs) {
    if (atMs === null && this.#pointed === null) return;
    this.#pointed = atMs === null ? null : { atMs, withinMs };
    this.#onNeed();
  }

  #caption() {
    const found = this.#pointed && this.#past?.series[0]?.at(this.#pointed.atMs);
    const newest = partAt(this.#device.value, this.#paths[0]);
    say(byId("chart-now"), found ? sayValue(found.value) : sayValue(newest));
    this.#showLegend();
    say(byId("chart-note"), this.#problem ? `History is not to be had: ${this.#problem}.` : this.#note(found));
  }

  #showLegend() {
    const { pointers } = this;
    const colors = palette().states;
    const lines = (this.#past?.traces ?? []).map(({ id, path }, index) => {
      const newest = partAt(id === this.#id ? this.#device.value : this.#valueOf(id), path);
      const value = this.#pointed ? this.#past.series[index].at(this.#pointed.atMs)?.value : newest;
      return { label: this.#nameOf({ id, path }), color: colors[index % colors.length], value: sayValue(value) };
    });
    this.#legend.draw(lines, this.#parts.filter(({ pointer }) => !pointers.has(pointer)));
  }

  /** As short as it can be told from the others. */
  #nameOf({ id, path }) {
    if (!this.#others.length) return labelOf(path);
    return this.#paths.length > 1 ? `${id} · ${labelOf(path)}` : id;
  }

  async #saveTable() {
    const { traces, series } = this.#past ?? {};
    if (!traces) return;
    const { fromMs, toMs } = this.#edges();
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
    const names = this.#traces().map((trace) => this.#nameOf(trace));
    save(await pictureOf(canvas, this.#others.length ? names.join(", ") : `${this.#id}: ${names.join(", ")}`), fileName(this.#id, "png"));
  }

  #note(found) {
    if (!this.#past) return "Asking for the past";
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
