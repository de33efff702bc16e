/** One device beside the table: its value in full, and one of its numbers over time. */

import { drawChart } from "./chart.js";
import { serverNowMs } from "./clock.js";
import { byId, copyFrom, make, say } from "./dom.js";
import { age, count, dateTime, measure, preciseTime } from "./format.js";
import { Trend } from "./trend.js";
import { numberAt, numericPaths, stringify } from "./json.js";
import { palette } from "./palette.js";

const POINTS = 1200;
const COLORED_MAX_CHARS = 20_000;
const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

export class Detail {
  #panel = byId("detail");
  #canvas = byId("chart");
  #path = byId("chart-path");
  #device = null;
  #trend = new Trend(POINTS);
  #paths = "";
  #chosen = null;
  #seq = -1;
  #pointerX = null;
  #size = { width: 0, height: 0 };
  #absent = null;
  #onClose;
  #explain;
  #mayDelete;

  /**
   * @param {object} callbacks
   * @param {() => void} callbacks.onClose
   * @param {(form: "telemetry"|"control", device: object) => void} callbacks.onSend
   * @param {(id: string) => void} callbacks.onDelete
   * @param {(id: string) => boolean} callbacks.mayDelete
   * @param {(address: import("./address.js").Address) => {name: string, lead: string, text: string}} callbacks.explain
   * @param {() => void} callbacks.onNeed
   */
  constructor({ onClose, onSend, onDelete, mayDelete, explain, onNeed }) {
    this.#onClose = onClose;
    this.#explain = explain;
    this.#mayDelete = mayDelete;
    for (const id of ["detail-close", "absent-close"]) byId(id).addEventListener("click", () => this.close());
    byId("detail-copy").addEventListener("click", ({ currentTarget }) => copyFrom(currentTarget, stringify(this.#device.value, 2)));
    byId("detail-telemetry").addEventListener("click", () => onSend("telemetry", this.#device));
    byId("detail-control").addEventListener("click", () => onSend("control", this.#device));
    byId("detail-delete").addEventListener("click", () => onDelete(this.#device.id));
    this.#path.addEventListener("change", () => {
      this.#choose(JSON.parse(this.#path.value));
      onNeed();
    });
    this.#canvas.addEventListener("pointermove", ({ offsetX }) => { this.#pointerX = offsetX; onNeed(); });
    this.#canvas.addEventListener("pointerleave", () => { this.#pointerX = null; onNeed(); });
    new ResizeObserver(([{ contentRect: { width, height } }]) => { this.#size = { width, height }; onNeed(); }).observe(this.#canvas);
  }

  /** The device that is open, or null. */
  get device() {
    return this.#device;
  }

  /** Whether a device is open, or the place of one that is not there. */
  get isOpen() {
    return !this.#panel.hidden;
  }

  /** @param {import("./store.js").Device} device */
  open(device) {
    if (this.#device === device) return;
    this.#device = device;
    this.#seq = -1;
    this.#paths = "";
    this.#choose(device.path);
    say(byId("detail-title"), device.id);
    this.#show(null);
    this.#showGone("");
  }

  /** Says that at an address there is no device. @param {import("./address.js").Address} address */
  openAbsent(address) {
    this.#device = null;
    this.#showGone("");
    this.#show(address);
    this.#drawAbsent();
    byId("detail-value").replaceChildren(); // what was here may be somebody else's to see
  }

  #show(absent) {
    this.#absent = absent;
    for (const id of ["detail-body", "detail-foot", "detail-copy"]) byId(id).hidden = absent !== null;
    byId("detail-absent").hidden = absent === null;
    this.#panel.hidden = false;
    document.body.dataset.detail = "open";
  }

  close() {
    if (!this.isOpen) return;
    this.hide();
    this.#onClose();
  }

  /** Takes the panel away as long as nothing is known; it is not closed for good. */
  hide() {
    this.#device = this.#absent = null;
    this.#panel.hidden = true;
    delete document.body.dataset.detail;
  }

  /** Says of the device, if it is open, that it was deleted; its last value stays to be read. @param {object} event */
  bury({ device_id: id, timestamp_utc }) {
    if (id === this.#device?.id) this.#showGone(`Deleted at ${preciseTime(Date.parse(timestamp_utc))}. A new reading makes it anew.`);
  }

  #showGone(text) {
    say(byId("detail-gone"), text);
    byId("detail-gone").hidden = !text;
    byId("detail-foot").hidden = Boolean(text || this.#absent);
    this.#panel.toggleAttribute("data-gone", Boolean(text));
  }

  /**
   * Takes one change: the chart shows all of them, also those between two drawings.
   * @param {object} event
   * @param {import("./store.js").Device} device that it changed; another one than the open one, if that was deleted before
   */
  note(event, device) {
    if (event.device_id !== this.#device?.id) return;
    if (device !== this.#device) this.open(device);
    else if (this.#chosen) this.#add(event);
  }

  #add(event) {
    const number = numberAt(event.value, this.#chosen);
    if (number !== null) this.#trend.push(Date.parse(event.timestamp_utc), number);
  }

  draw() {
    const device = this.#device;
    if (this.#absent) this.#drawAbsent();
    if (!device) return;
    byId("detail-delete").hidden = !this.#mayDelete(device.id);
    if (device.seq !== this.#seq) {
      this.#seq = device.seq;
      this.#showPaths(device);
      showJson(byId("detail-value"), stringify(device.value, 2));
      say(byId("detail-seq"), count(device.seq));
      say(byId("detail-changes"), count(device.changes));
      byId("detail-updated").title = dateTime(device.updatedMs);
    }
    say(byId("detail-updated"), [preciseTime(device.updatedMs), ageText(serverNowMs() - device.updatedMs), ...sourceText(device)].join(" · "));
    this.#drawChart();
  }

  /** What the page may see it learns after it has come in. */
  #drawAbsent() {
    const { name, lead, text } = this.#explain(this.#absent);
    const isWhole = lead.endsWith(".");
    say(byId("detail-title"), name || "No name");
    say(byId("absent-lead"), lead);
    say(byId("absent-name"), isWhole ? "" : name);
    say(byId("absent-end"), isWhole ? "" : ".");
    say(byId("absent-text"), text);
  }

  #drawChart() {
    byId("chart-figure").hidden = !this.#chosen;
    if (!this.#chosen || !this.#size.width) return;
    const pointed = drawChart(this.#canvas, this.#trend, {
      ...this.#size, nowMs: serverNowMs(), pointerX: this.#pointerX, colors: palette(),
    });
    const { length, last } = this.#trend;
    const { min, max } = this.#trend.bounds();
    say(byId("chart-now"), measure(pointed ? pointed.value : last));
    const summary = length > 1 ? `${count(length)} points, ${measure(min)} to ${measure(max)}` : "One point; the line grows as changes come";
    say(byId("chart-note"), pointed ? `at ${preciseTime(pointed.atMs)}` : summary);
    this.#canvas.ariaLabel = `${this.#path.selectedOptions[0]?.text ?? "value"} over time: ${summary}`;
  }

  #showPaths(device) {
    const paths = numericPaths(device.value);
    const known = JSON.stringify(paths);
    if (known === this.#paths) return;
    this.#paths = known;
    const isKept = this.#chosen && paths.some((path) => path.join("\n") === this.#chosen.join("\n"));
    if (!isKept) this.#choose(paths[0] ?? null);
    this.#path.replaceChildren(...paths.map((path) => {
      const option = make("option", "", path.join(" › ") || "Value");
      option.value = JSON.stringify(path);
      return option;
    }));
    if (this.#chosen) this.#path.value = JSON.stringify(this.#chosen);
    this.#path.disabled = paths.length < 2;
  }

  /** Begins a chart with what the table already knows, if it followed the same number. */
  #choose(path) {
    this.#chosen = path;
    this.#trend = new Trend(POINTS);
    const device = this.#device;
    if (!path) return;
    if (device.trend && path.join("\n") === device.path?.join("\n")) {
      for (let index = 0; index < device.trend.length; index += 1) {
        this.#trend.push(device.trend.at(index), device.trend.value(index));
      }
    } else {
      const number = numberAt(device.value, path);
      if (number !== null) this.#trend.push(device.updatedMs, number);
    }
  }
}

function sourceText({ source }) {
  return source ? [`by ${{ rest: "REST", websocket: "WebSocket" }[source] ?? source}`] : [];
}

function ageText(durationMs) {
  const text = age(durationMs);
  return text === "now" ? text : `${text} ago`;
}

/** Colours JSON by the kind of each part; every part is a text node. */
function showJson(element, text) {
  if (text.length > COLORED_MAX_CHARS) {
    element.textContent = text;
    return;
  }
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(TOKENS)) {
    const [whole, string, colon, number] = match;
    parts.push(text.slice(from, match.index));
    const kind = string ? (colon ? "name" : "text") : number ? "number" : "word";
    parts.push(make("span", kind, string ?? whole), colon ?? "");
    from = match.index + whole.length;
  }
  parts.push(text.slice(from));
  element.replaceChildren(...parts);
}
