/** The timeline of a device on its page: it begins with history, goes on live, and goes back page by page. */

import { exactTime } from "./chartwords.js";
import { byId, make, say } from "./dom.js";
import { latency } from "./format.js";
import { brief } from "./json.js";
import { read } from "./past.js";
import { Timeline, happeningOf } from "./timeline.js";

const PAGE = 100;
const COMMANDS_PAGE = 20; // of each the readings around it are asked for
const PRUNED = "pruned"; // instead of a cursor: what follows the oldest that is kept has to be found by time
const NAMES = { data_update: "Reading", late: "Late", control: "Command", deleted: "Deleted" };

export class TimelineView {
  #list = byId("timeline");
  #select = byId("timeline-kind");
  #older = byId("timeline-older");
  #note = byId("timeline-note");
  #ask;
  #onPoint;
  #onNeed;
  #id = null;
  #timeline = new Timeline();
  #rows = new Map();
  #turn = null;
  #epoch = "";
  #cursor = null; // of the next page; null if there is none
  #isReadBack = false; // somebody went back: what is there stays
  #isAsking = false;
  #isDirty = false;
  #problem = "";
  #active = null;

  /**
   * @param {object} means
   * @param {import("./past.js").Ask} means.ask
   * @param {(atMs: number) => void} means.onPoint somebody points at something that happened
   * @param {() => void} means.onNeed
   */
  constructor({ ask, onPoint, onNeed }) {
    this.#ask = ask;
    this.#onPoint = onPoint;
    this.#onNeed = onNeed;
    this.#select.addEventListener("change", () => this.open(this.#id));
    this.#older.addEventListener("click", () => {
      this.#isReadBack = true;
      this.#load();
    });
    this.#list.addEventListener("click", ({ target }) => this.#activate(target.closest("li")));
    this.#list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Begins with the newest of a device. @param {string} id */
  open(id) {
    this.close();
    this.#id = id;
    this.#turn = new AbortController();
    this.#load();
  }

  close() {
    this.#turn?.abort();
    this.#turn = this.#id = this.#cursor = this.#active = null;
    this.#timeline = new Timeline();
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#list.removeAttribute("aria-activedescendant");
    this.#older.hidden = true;
    this.#problem = "";
    this.#isAsking = this.#isReadBack = false;
  }

  /** Takes what happens to the device from now on. @param {object[]} messages */
  take(messages) {
    this.#timeline.add(messages.filter(({ type }) => Object.hasOwn(NAMES, type)).map(happeningOf));
    this.#isDirty = true;
  }

  get #areCommandsOnly() {
    return this.#select.value === "commands";
  }

  async #load() {
    if (this.#isAsking || this.#id === null) return;
    const { signal } = this.#turn;
    this.#isAsking = this.#isDirty = true;
    this.#onNeed();
    try {
      const kinds = this.#areCommandsOnly ? "control,deleted" : "data_update,late,control,deleted";
      const answer = await this.#get([["kinds", kinds], ["limit", this.#areCommandsOnly ? COMMANDS_PAGE : PAGE], ...this.#place()]);
      if (signal.aborted) return;
      this.#epoch = answer.epoch;
      this.#cursor = answer.cursor ?? null;
      this.#timeline.add(answer.entries.map(happeningOf));
      this.#problem = "";
      if (this.#areCommandsOnly) await this.#frame();
    } catch (error) {
      if (!signal.aborted) this.#problem = error.message;
    }
    if (signal.aborted) return;
    this.#isAsking = false;
    this.#isDirty = true;
    this.#onNeed();
  }

  /** Where the next page begins. */
  #place() {
    if (this.#cursor === PRUNED) return [["to", new Date(this.#timeline.firstMs + 1).toISOString()]];
    return this.#cursor ? [["cursor", this.#cursor]] : [];
  }

  /** Asks for the readings around each command. */
  async #frame() {
    const reading = [["kinds", "data_update"], ["time", "stored"], ["limit", 1]];
    const timeline = this.#timeline; // another one is begun when a device is opened meanwhile
    await Promise.all(timeline.unframed.map(async (command) => {
      command.isFramed = true;
      const at = `${this.#epoch}:${command.seq}`;
      const answers = await Promise.all([this.#get([...reading, ["to", at]]), this.#get([...reading, ["from", at], ["order", "asc"]])]);
      timeline.add(answers.flatMap(({ entries }) => entries.map(happeningOf)));
    }));
  }

  #get(parameters) {
    return read(this.#ask, "api/history", [["device_id", this.#id], ...parameters], this.#turn.signal);
  }

  draw() {
    if (!this.#isDirty || this.#id === null) return;
    this.#isDirty = false;
    if (!this.#isReadBack && this.#timeline.prune(this.#areCommandsOnly) && !this.#areCommandsOnly) this.#cursor = PRUNED;
    const shown = this.#timeline.list(this.#areCommandsOnly);
    this.#put(shown.map((happening) => this.#rowOf(happening)));
    this.#older.hidden = !this.#cursor;
    this.#older.disabled = this.#isAsking;
    const none = this.#areCommandsOnly ? "No commands." : "Nothing yet.";
    const silence = this.#isAsking ? "Asking for the past" : shown.length ? "" : none;
    say(this.#note, this.#problem ? `History is not to be had: ${this.#problem}.` : silence);
  }

  #rowOf(happening) {
    let row = this.#rows.get(happening.seq);
    if (!row) {
      const { seq, type, atMs } = happening;
      const time = make("time", "", exactTime(atMs));
      time.dateTime = new Date(atMs).toISOString();
      row = { element: make("li", "", [time, make("b", "", NAMES[type]), make("span", "", textOf(happening))]), atMs };
      row.element.role = "option";
      row.element.id = `happening-${seq}`;
      row.element.dataset.kind = type;
      row.element.dataset.seq = String(seq);
      if (type === "control") row.element.append((row.effect = make("small")));
      this.#rows.set(seq, row);
    }
    if (row.effect) {
      const effect = this.#timeline.effectOf(happening);
      say(row.effect, effect ? `${latency(effect.after.atMs - happening.atMs)} later: ${effect.text}` : "no reading since");
    }
    return row.element;
  }

  /** Brings the list in step, and leaves alone what stays. */
  #put(elements) {
    elements.forEach((element, index) => {
      const there = this.#list.children[index];
      if (there !== element) this.#list.insertBefore(element, there ?? null);
    });
    while (this.#list.children.length > elements.length) {
      const { lastChild } = this.#list;
      this.#rows.delete(Number(lastChild.dataset.seq));
      lastChild.remove();
    }
  }

  #activate(element) {
    if (!element) return;
    this.#active?.removeAttribute("aria-selected");
    this.#active = element;
    element.setAttribute("aria-selected", "true");
    this.#list.setAttribute("aria-activedescendant", element.id);
    element.scrollIntoView({ block: "nearest" });
    this.#onPoint(this.#rows.get(Number(element.dataset.seq)).atMs);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { firstElementChild: first, lastElementChild: last } = this.#list;
    const from = this.#active?.isConnected ? this.#active : null;
    const to = {
      ArrowDown: from ? from.nextElementSibling : first, ArrowUp: from?.previousElementSibling, Home: first, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#activate(to);
  }
}

function textOf({ type, value, command, args, scope }) {
  if (type === "control") return `${command}${args && Object.keys(args).length ? ` ${brief(args, 80)}` : ""}`;
  if (type !== "deleted") return brief(value, 120);
  return scope === "history" ? "with all that was known of it" : "until a reading comes again";
}
