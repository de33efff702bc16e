/** The event log on the page. */

import { byId, copyFrom, make, say, setIcon } from "./dom.js";
import { count, preciseTime } from "./format.js";
import { brief, stringify } from "./json.js";
import { VirtualList } from "./virtuallist.js";

const MOVED_MAX = 20; // where more come at once, none of those in sight stays, and the rows need not move

/** Describes an event in one line, without its subject. */
function textOf({ message }) {
  if (message.type === "data_update") {
    const merged = message.merged ? ` (the newest of ${count(message.merged)})` : "";
    return brief(message.value) + merged;
  }
  if (message.type === "control") return `${message.command} ${Object.keys(message.args).length ? brief(message.args) : ""}`;
  if (message.type === "deleted") return message.scope === "history" ? "deleted, with its history" : "deleted";
  if (message.type === "error") return message.message;
  if (message.type === "connection") return message.text;
  if (message.type === "ack") return `${message.id} is stored at ${count(message.seq)}`;
  if (message.type === "echo") return `${message.note}: ${brief(message.received)}`;
  return "";
}

export class LogView {
  #log;
  #rows;
  #scroller = byId("log");
  #pause = byId("log-pause");
  #newer = byId("log-newer");
  #shown = byId("events-shown");
  #shownCount = 0;
  #putBeforeCount = 0;
  #isPausedByHand = false;
  #onNeed;

  /**
   * @param {import("./log.js").Log} log
   * @param {{onNeed: () => void}} callbacks
   */
  constructor(log, { onNeed }) {
    this.#log = log;
    this.#onNeed = onNeed;
    this.#rows = new VirtualList({
      scroller: this.#scroller,
      body: byId("log-body"),
      make: makeRow,
      fill,
      onNeed: () => this.#seeScroll(),
    });
    this.#pause.addEventListener("click", () => this.togglePause());
    this.#newer.addEventListener("click", () => this.#goOn());
    byId("log-clear").addEventListener("click", () => this.#change(() => log.clear()));
    byId("log-copy").addEventListener("click", (event) => copyFrom(event.currentTarget, this.text()));
    byId("log-filter").addEventListener("input", ({ target }) => this.#change(() => log.filter({ text: target.value })));
    byId("log-kind").addEventListener("change", ({ target }) => this.#change(() => log.filter({ kind: target.value })));
  }

  /** Pauses the log, or resumes it. */
  togglePause() {
    if (this.#isPausedByHand) this.#goOn();
    else {
      this.#isPausedByHand = true;
      this.#log.pause();
      this.#showPause();
    }
  }

  /** @returns {string} the events that are shown, oldest first, each a line of JSON */
  text() {
    const lines = [];
    for (let index = this.#log.length - 1; index >= 0; index -= 1) lines.push(stringify(this.#log.at(index).message));
    return lines.join("\n");
  }

  draw() {
    const cameCount = this.#log.shownCount - this.#shownCount;
    this.#shownCount += cameCount;
    if (cameCount < MOVED_MAX) this.#putBeforeCount += cameCount;
    const putBeforeCount = this.#log.isPaused ? 0 : this.#putBeforeCount; // whoever reads has them in order, also by ear
    this.#rows.draw(this.#log.length, (index) => this.#log.at(index), putBeforeCount);
    const newer = this.#log.newerCount;
    this.#newer.hidden = newer === 0;
    if (newer) say(this.#newer, `${count(newer)} newer`);
    this.#scroller.dataset.blank = String(this.#log.length === 0);
  }

  /** A person who scrolls down wants to read: the list stands still until they are back at the top. */
  #seeScroll() {
    if (this.#rows && !this.#isPausedByHand) {
      if (this.#rows.scrollTop > 2) this.#log.pause();
      else this.#log.resume();
      this.#showPause();
    }
    this.#onNeed();
  }

  #goOn() {
    this.#isPausedByHand = false;
    this.#log.resume();
    this.#scroller.scrollTop = 0;
    this.#showPause();
  }

  #change(step) {
    step();
    this.#scroller.scrollTop = 0;
    this.#onNeed();
  }

  #showPause() {
    const isPaused = this.#isPausedByHand;
    const label = isPaused ? "Go on" : "Pause";
    this.#pause.setAttribute("aria-pressed", String(isPaused));
    this.#pause.setAttribute("aria-label", label);
    this.#pause.title = `${label} (p)`;
    setIcon(this.#pause, isPaused ? "play" : "pause");
    say(this.#shown, isPaused ? "Paused" : this.#log.isPaused ? "Held while you read" : "");
    this.#onNeed();
  }
}

function makeRow() {
  const time = make("time");
  const subject = make("b");
  const text = make("span");
  return { element: make("div", "event", [time, subject, text]), index: -2, item: null, time, subject, text };
}

function fill(row, event) {
  if (row.item === event) return;
  event.text ??= textOf(event);
  row.element.dataset.kind = event.message.state === "connected" ? "up" : event.kind;
  say(row.time, preciseTime(event.atMs));
  say(row.subject, event.subject);
  say(row.text, event.text);
}
