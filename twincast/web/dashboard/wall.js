/** The charts of many devices on one page: each begins with history and goes on live. Its address is `#?devices=PATTERN&range=24h`. */

import { writeAddress } from "./address.js";
import { ChartGrid } from "./chartgrid.js";
import { serverNowMs } from "./clock.js";
import { byId, say } from "./dom.js";
import { count } from "./format.js";
import { LivePast } from "./livepast.js";
import { drawablePaths, drawnAs, partAt, writePointer } from "./pointer.js";
import { RANGES, askedOf, edgesOf, readView, viewBetween, viewOf, viewProblem, writeView } from "./view.js";

const CHARTS_MAX = 100;
const TOGETHER_MAX = 25; // devices of one request, and of one connection behind it
const PATHS_MAX = 16; // of one request
const PLOT_PX = 400;
const CHECK_MS = 1_000; // a device that says something of another shape is seen then

export class Wall {
  #panel = byId("wall");
  #ask;
  #follow;
  #devicesLike;
  #onView;
  #onClose;
  #onNeed;
  #grid;
  #parameters = new URLSearchParams();
  #shown = viewOf("24h");
  #pasts = [];
  #known = ""; // which devices there are charts of
  #count = "";
  #liked = null;
  #checkAtMs = 0;

  /**
   * @param {object} means
   * @param {import("./past.js").Ask} means.ask
   * @param {(options: object) => import("./client.js").Client} means.follow a further client, with this page's credential
   * @param {(filters: string[]) => import("./store.js").Device[]} means.devicesLike the devices that filters select, by name: the same array
   *   as long as they are the same
   * @param {(parameters: URLSearchParams) => void} means.onView somebody chose what is shown
   * @param {() => void} means.onClose
   * @param {() => void} means.onNeed
   */
  constructor({ ask, follow, devicesLike, onView, onClose, onNeed }) {
    this.#ask = ask;
    this.#follow = follow;
    this.#devicesLike = devicesLike;
    this.#onView = onView;
    this.#onClose = onClose;
    this.#onNeed = onNeed;
    this.#grid = new ChartGrid(byId("wall-charts"), {
      hrefOf: (id) => writeAddress(id, this.#lasting()),
      onSpan: (fromMs, toMs) => this.#view(viewBetween(fromMs, toMs)),
      onNeed,
    });
    for (const button of this.#buttons()) button.addEventListener("click", () => this.#view(viewOf(button.dataset.range)));
    byId("wall-close").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  /** @param {URLSearchParams} parameters of its address */
  open(parameters) {
    if (this.isOpen && parameters.toString() === this.#parameters.toString()) return;
    this.#parameters = new URLSearchParams(parameters);
    const view = readView(parameters);
    this.#shown = view.isChosen ? view : viewOf("24h");
    this.#panel.hidden = false;
    document.body.dataset.wall = "open";
    this.#known = "";
    this.#liked = null;
    this.#build();
    this.#onNeed();
  }

  close() {
    if (!this.isOpen) return;
    this.hide();
    this.#onClose();
  }

  /** Takes it away as long as nothing is known, or something else is shown; it is not closed for good. */
  hide() {
    for (const { past } of this.#pasts) past.close();
    this.#pasts = [];
    this.#grid.clear();
    this.#known = "";
    this.#liked = null;
    this.#panel.hidden = true;
    delete document.body.dataset.wall;
  }

  draw() {
    if (!this.isOpen) return;
    this.#build();
    for (const button of this.#buttons()) button.setAttribute("aria-pressed", String(button.dataset.range === this.#shown.range));
    const firsts = this.#pasts.flatMap(({ past }) => past.series.map(({ firstMs }) => firstMs)).filter((atMs) => atMs !== null);
    this.#grid.draw(edgesOf(this.#shown, serverNowMs(), firsts.length ? Math.min(...firsts) : null), serverNowMs());
    const problem = this.#pasts.map(({ past }) => past.problem).find(Boolean);
    say(byId("wall-note"), problem ? `History is not to be had: ${problem}.` : viewProblem(this.#parameters));
    const isComing = this.#pasts.some(({ past }) => past.isComing);
    say(byId("wall-count"), isComing ? "Asking for the past" : this.#count); // which takes no place of its own
  }

  /** Makes the charts, if there are other devices than before, or others of their parts can be drawn. */
  #build() {
    const filters = this.#parameters.getAll("devices");
    const liked = this.#devicesLike(filters);
    if (liked === this.#liked && performance.now() < this.#checkAtMs) return;
    this.#liked = liked;
    this.#checkAtMs = performance.now() + CHECK_MS;
    const devices = liked.filter((device) => partOf(device) !== undefined);
    const shown = devices.slice(0, CHARTS_MAX);
    const known = JSON.stringify(shown.map((device) => [device.id, partOf(device)]));
    this.#count = sayCount(devices.length, liked.length - devices.length);
    if (known === this.#known) return;
    this.#known = known;
    say(byId("wall-title"), filters.join(", ") || "All devices");
    for (const { past } of this.#pasts) past.close();
    this.#pasts = together(shown).map((some) => this.#pastOf(some));
    const places = new Map(this.#pasts.flatMap(({ past, devices: some }) => some.map((device, index) => [device, { past, index }])));
    this.#grid.show(shown.map((device) => cardOf(device, places.get(device))));
    for (const { past } of this.#pasts) past.load();
  }

  #pastOf(devices) {
    const question = () => ({
      traces: devices.map(traceOf),
      ...askedOf(this.#shown, serverNowMs(), this.#grid.width || PLOT_PX),
    });
    return { devices, past: new LivePast({ ask: this.#ask, follow: this.#follow, question, onNeed: this.#onNeed }) };
  }

  #view(view) {
    this.#shown = view;
    writeView(view, this.#parameters);
    this.#grid.link();
    this.#onView(this.#parameters);
    for (const { past } of this.#pasts) past.load();
    this.#onNeed();
  }

  /** What of the address stays when a device is opened: the range. */
  #lasting() {
    const parameters = new URLSearchParams();
    writeView(this.#shown, parameters);
    return parameters;
  }

  #buttons() {
    return [...byId("wall-ranges").querySelectorAll("[data-range]")];
  }
}

/** Which part of a device's value its chart shows; undefined if nothing can be drawn. */
function partOf({ path, value }) {
  return path ?? drawablePaths(value, 1)[0];
}

function traceOf(device) {
  const path = partOf(device);
  return { id: device.id, path, kind: drawnAs(partAt(device.value, path)) ?? "number" };
}

function cardOf(device, { past, index }) {
  const trace = traceOf(device);
  return {
    ...trace,
    newest: () => partAt(device.value, trace.path),
    series: () => past.series[index] ?? null,
    marks: () => past.marksOf(device.id),
  };
}

/**
 * Puts together what one request can ask for. A request gets each of its paths of each of its devices, though of a device one is
 * drawn: so devices of the same path are together, as far as that takes no further requests.
 */
function together(devices) {
  const likes = new Map();
  for (const device of devices) {
    const pointer = writePointer(partOf(device));
    likes.set(pointer, [...(likes.get(pointer) ?? []), device]);
  }
  const parts = [];
  for (const device of [...likes.values()].sort((a, b) => b.length - a.length).flat()) {
    const pointer = writePointer(partOf(device));
    let part = parts.find(({ some, paths }) => some.length < TOGETHER_MAX && (paths.has(pointer) || paths.size < PATHS_MAX));
    if (!part) parts.push((part = { some: [], paths: new Set() }));
    part.some.push(device);
    part.paths.add(pointer);
  }
  return parts.map(({ some }) => some);
}

function sayCount(devices, others) {
  if (!devices && !others) return "No such device";
  if (!devices) return "No device that can be drawn";
  const all = `${count(devices)} ${devices === 1 ? "device" : "devices"}`;
  const drawn = devices > CHARTS_MAX ? `The first ${CHARTS_MAX} of ${all}` : all;
  return others ? `${drawn}; ${count(others)} more ${others === 1 ? "has" : "have"} nothing to draw` : drawn;
}
