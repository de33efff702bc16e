/** The page of a device: its value in full, and what of it is drawn over time. */

import { serverNowMs } from "./clock.js";
import { DeviceChart } from "./devicechart.js";
import { byId, copyFrom, say } from "./dom.js";
import { age, count, dateTime, preciseTime } from "./format.js";
import { stringify } from "./json.js";
import { readPointer } from "./pointer.js";
import { ValueTree } from "./valuetree.js";

const REST_MS = 150; // a held arrow key goes through devices faster than anybody reads

export class Detail {
  #panel = byId("detail");
  #tree = new ValueTree(byId("detail-value"), (pointer, isAdded) => this.#chart.choose(readPointer(pointer), isAdded));
  #chart;
  #facts;
  #timeline;
  #device = null;
  #seq = -1;
  #treeOf = "";
  #timer = 0;
  #isPastDue = false;
  #absent = null;
  #onClose;
  #onNeed;
  #explain;
  #askDeletion;
  #deletion = ""; // what is known of the end of a device that there is not
  #turn = null; // of a question under way
  #mayDelete;

  /**
   * @param {object} callbacks
   * @param {() => void} callbacks.onClose
   * @param {(form: "telemetry"|"control", device: object) => void} callbacks.onSend
   * @param {(id: string) => void} callbacks.onDelete
   * @param {(id: string) => boolean} callbacks.mayDelete
   * @param {(address: import("./address.js").Address) => {name: string, lead: string, text: string, isUnknown?: true}} callbacks.explain
   * @param {(id: string, signal: AbortSignal) => Promise<string>} callbacks.askDeletion whether a device that there is not was deleted
   * @param {() => void} callbacks.onNeed
   * @param {{chart: DeviceChart, facts: import("./facts.js").Facts, timeline: import("./timelineview.js").TimelineView}} parts
   */
  constructor({ onClose, onSend, onDelete, mayDelete, explain, askDeletion, onNeed }, { chart, facts, timeline }) {
    this.#chart = chart;
    this.#facts = facts;
    this.#timeline = timeline;
    this.#onClose = onClose;
    this.#explain = explain;
    this.#askDeletion = askDeletion;
    this.#onNeed = onNeed;
    this.#mayDelete = mayDelete;
    for (const id of ["detail-close", "absent-close"]) byId(id).addEventListener("click", () => this.close());
    byId("detail-copy").addEventListener("click", ({ currentTarget }) => copyFrom(currentTarget, stringify(this.#device.value, 2)));
    byId("detail-telemetry").addEventListener("click", () => onSend("telemetry", this.#device));
    byId("detail-control").addEventListener("click", () => onSend("control", this.#device));
    byId("detail-delete").addEventListener("click", () => onDelete(this.#device.id));
  }

  /** The device that is open, or null. */
  get device() {
    return this.#device;
  }

  /** Whether a device is open, or the place of one that is not there. */
  get isOpen() {
    return !this.#panel.hidden;
  }

  /**
   * @param {import("./store.js").Device} device
   * @param {URLSearchParams} parameters of its address
   */
  open(device, parameters) {
    this.#chart.open(device, parameters);
    if (this.#device === device) return;
    this.#letGoOfPast();
    this.#timer = setTimeout(() => {
      this.#isPastDue = true;
      this.#openPast();
    }, REST_MS);
    this.#device = device;
    this.#seq = -1;
    this.#treeOf = "";
    say(byId("detail-title"), device.id);
    this.#show(null);
    this.#showGone("");
  }

  /** Asks for what else is said of the past: behind the chart, which is looked at first. */
  #openPast() {
    if (!this.#isPastDue || this.#chart.isComing) return;
    this.#isPastDue = false;
    this.#facts.open(this.#device);
    this.#timeline.open(this.#device.id);
  }

  /** Says that at an address there is no device. @param {import("./address.js").Address} address */
  openAbsent(address) {
    this.#device = null;
    this.#letGo();
    this.#showGone("");
    this.#show(address);
    this.#drawAbsent();
    this.#tree.clear(); // what was here may be somebody else's to see
    this.#askWhy(address);
  }

  async #askWhy(address) {
    if (!this.#explain(address).isUnknown) return;
    const { signal } = (this.#turn = new AbortController());
    const text = await this.#askDeletion(address.id, signal).catch(() => "");
    if (signal.aborted || !text) return;
    this.#deletion = text;
    this.#onNeed();
  }

  #show(absent) {
    this.#absent = absent;
    this.#deletion = "";
    this.#turn?.abort();
    this.#turn = null;
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
    this.#letGo();
    this.#panel.hidden = true;
    delete document.body.dataset.detail;
  }

  #letGo() {
    this.#chart.close();
    this.#letGoOfPast();
  }

  #letGoOfPast() {
    clearTimeout(this.#timer);
    this.#isPastDue = false;
    this.#facts.close();
    this.#timeline.close();
  }

  /** Takes events, also those of other devices. @param {object[]} messages */
  take(messages) {
    const id = this.#device?.id;
    const own = id === undefined ? [] : messages.filter(({ device_id: device, target }) => (device ?? target) === id);
    if (!own.length) return;
    if (own.some(({ scope }) => scope === "history")) { // what it said is erased
      this.#facts.close();
      this.#timeline.open(id);
    }
    this.#facts.take(own);
    this.#timeline.take(own);
  }

  /** Takes late readings, which come by a way of their own. @param {object[]} messages */
  takeLate(messages) {
    this.#timeline.take(messages.filter(({ type, device_id: id }) => type === "late" && id === this.#device?.id));
  }

  /** Says of the device, if it is open, that it was deleted; its last value stays to be read. @param {object} event */
  bury({ device_id: id, timestamp_utc, scope }) {
    if (id !== this.#device?.id) return;
    const history = scope === "history" ? ", with its history" : "";
    this.#showGone(`Deleted at ${preciseTime(Date.parse(timestamp_utc))}${history}. A new reading makes it anew.`);
  }

  #showGone(text) {
    say(byId("detail-gone"), text);
    byId("detail-gone").hidden = !text;
    byId("detail-foot").hidden = Boolean(text || this.#absent);
    this.#panel.toggleAttribute("data-gone", Boolean(text));
  }

  draw() {
    const device = this.#device;
    if (this.#absent) this.#drawAbsent();
    if (!device) return;
    byId("detail-delete").hidden = !this.#mayDelete(device.id);
    if (device.seq !== this.#seq) {
      this.#seq = device.seq;
      say(byId("detail-seq"), count(device.seq));
      say(byId("detail-changes"), count(device.changes));
      byId("detail-updated").title = dateTime(device.updatedMs);
    }
    say(byId("detail-updated"), [preciseTime(device.updatedMs), ageText(serverNowMs() - device.updatedMs), ...sourceText(device)].join(" · "));
    this.#chart.draw();
    this.#openPast();
    this.#facts.draw();
    this.#timeline.draw();
    const { pointers } = this.#chart;
    const treeOf = `${device.seq} ${[...pointers].join(" ")}`;
    if (treeOf !== this.#treeOf) this.#tree.show(device.value, pointers);
    this.#treeOf = treeOf;
  }

  /** What the page may see it learns after it has come in. */
  #drawAbsent() {
    const { name, lead, text, isUnknown } = this.#explain(this.#absent);
    const isWhole = lead.endsWith(".");
    say(byId("detail-title"), name || "No name");
    say(byId("absent-lead"), lead);
    say(byId("absent-name"), isWhole ? "" : name);
    say(byId("absent-end"), isWhole ? "" : ".");
    say(byId("absent-text"), (isUnknown && this.#deletion) || text);
  }
}

function sourceText({ source }) {
  return source ? [`by ${{ rest: "REST", websocket: "WebSocket", nats: "NATS" }[source] ?? source}`] : [];
}

function ageText(durationMs) {
  const text = age(durationMs);
  return text === "now" ? text : `${text} ago`;
}
