/** The device table: rows in sight, the order, the place of the keyboard. */

import { serverNowMs } from "./clock.js";
import { byId, make, say } from "./dom.js";
import { age, count } from "./format.js";
import { kindOf, stringify } from "./json.js";
import { VirtualList } from "./virtuallist.js";
import { Sparkline } from "./sparkline.js";

const FLASH_MS = 1400;
const FLASH = [{ opacity: 1 }, { opacity: 0 }];
const FRESH_MS = 2000;
const PAIRS_MAX = 8;
const TREND_HEIGHT = 24;
const TREND_WIDTH = 88;
const TREND_NARROW_WIDTH = 64;

export class Table {
  #store;
  #rows;
  #grid = byId("rows");
  #onOpen;
  #onLack;
  #onNeed;
  #lacking = [];
  #shown = [];
  #shownSeen = null;
  #activeIndex = -1;
  #isPointed = false;
  #narrow = matchMedia("(max-width: 820px)");
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #second = 0;
  #generation = 0;
  /** Where the keyboard is. @type {import("./store.js").Device|null} */
  #active = null;
  #openId = null;
  #isRevealing = false;
  #isMoving = false;
  /** Whether what was drawn last goes on to fade, and is to be drawn again. */
  isFading = false;

  /**
   * @param {import("./store.js").Store} store
   * @param {object} callbacks
   * @param {(device: import("./store.js").Device) => void} callbacks.onOpen
   * @param {(devices: import("./store.js").Device[]) => void} callbacks.onLack these are in sight, and their trends have no past yet
   * @param {() => void} callbacks.onNeed
   */
  constructor(store, { onOpen, onLack, onNeed }) {
    this.#store = store;
    this.#onOpen = onOpen;
    this.#onLack = onLack;
    this.#onNeed = onNeed;
    this.#rows = new VirtualList({ scroller: this.#grid, body: byId("rows-body"), make: () => this.#makeRow(), fill: this.#fill, onNeed });
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#grid.addEventListener("focus", onNeed);
    this.#grid.addEventListener("blur", onNeed);
    const body = byId("rows-body");
    body.addEventListener("pointerenter", (event) => { this.#isPointed = event.pointerType === "mouse"; });
    body.addEventListener("pointerleave", () => { this.#isPointed = false; });
    for (const button of this.#grid.querySelectorAll("[data-column]")) {
      button.addEventListener("click", () => this.#sortBy(button.dataset.column));
    }
    this.#narrow.addEventListener("change", () => this.refresh());
    this.#showOrder();
  }

  /** The devices in their order, as last drawn. */
  get shown() {
    return this.#shown;
  }

  /** Whether the order waits because somebody points at a row. */
  get isHeld() {
    return this.#isPointed && this.#store.column !== "device";
  }

  /** Marks the row of the device that is open, and brings it into sight. @param {string|null} id null: none is open */
  mark(id) {
    this.#openId = id;
    this.#isRevealing = id !== null;
    this.#onNeed();
  }

  /**
   * @param {number} nowMs by `performance.now()`
   * @param {boolean} isMoving whether so much comes that every frame is drawn
   */
  draw(nowMs, isMoving) {
    this.#shown = this.#store.rows(nowMs, this.isHeld);
    if (this.#isRevealing) this.#reveal();
    if (this.#shown !== this.#shownSeen) {
      this.#shownSeen = this.#shown;
      this.#activeIndex = this.#active ? this.#shown.indexOf(this.#active) : -1;
      this.#grid.setAttribute("aria-rowcount", String(this.#shown.length + 1));
    }
    this.#second = Math.floor(serverNowMs() / 1000);
    this.nowMs = nowMs;
    this.#isMoving = isMoving;
    this.isFading = false;
    this.#lacking = [];
    this.#rows.draw(this.#shown.length, (index) => this.#shown[index]);
    if (this.#lacking.length) this.#onLack(this.#lacking);
    const isInSight = this.#activeIndex >= 0 && document.getElementById(`row-${this.#activeIndex}`);
    if (isInSight) this.#grid.setAttribute("aria-activedescendant", `row-${this.#activeIndex}`);
    else this.#grid.removeAttribute("aria-activedescendant");
  }

  /** Shows the first device. */
  toTop() {
    this.#rows.toTop();
  }

  #reveal() {
    this.#isRevealing = false;
    const index = this.#shown.findIndex(({ id }) => id === this.#openId);
    if (index < 0) return; // the filter leaves it out, or it is not there
    this.#active = this.#shown[index];
    this.#activeIndex = index;
    this.#rows.reveal(index);
  }

  /** Draws every row again: the width is another one. */
  refresh() {
    this.#generation += 1;
    this.#onNeed();
  }

  /** Lets go of a device that was deleted. @param {import("./store.js").Device} device */
  forget(device) {
    if (this.#active !== device) return;
    this.#active = null;
    this.#activeIndex = -1;
  }

  /** Puts the keyboard into the table. */
  focus() {
    this.#grid.focus({ preventScroll: true });
  }

  #makeRow() {
    const device = make("div", "cell device");
    const value = make("div", "cell value");
    const changes = make("div", "cell changes");
    const updated = make("div", "cell updated");
    const flash = make("i", "flash");
    const trend = make("div", "cell trend");
    const cells = [device, value, trend, changes, updated];
    for (const cell of cells) cell.setAttribute("role", "gridcell");
    flash.setAttribute("aria-hidden", "true");
    const element = make("div", "row", [...cells, flash]);
    element.setAttribute("role", "row");
    const row = { element, index: -2, item: null, flashedAtMs: null, device, value, sparkline: new Sparkline(trend), changes, updated, flash };
    element.addEventListener("click", () => {
      this.#active = row.item;
      this.#activeIndex = row.index;
      if (row.item) this.#onOpen(row.item);
      this.#onNeed();
    });
    return row;
  }

  #fill = (row, device, index) => {
    const { element } = row;
    if (device.trend && !device.isTrendWhole) this.#lacking.push(device);
    if (row.place !== index) {
      row.place = index;
      element.id = `row-${index}`;
      element.setAttribute("aria-rowindex", String(index + 2));
    }
    const isOther = row.item !== device || row.generation !== this.#generation;
    if (isOther) {
      row.generation = this.#generation;
      say(row.device, device.id);
      row.device.title = device.id;
      row.flashing?.cancel();
      row.flashedAtMs = null;
    }
    if (isOther || row.seq !== device.seq || row.drawnTrend !== device.trend) this.#fillValue(row, device);
    if (device.seenAtMs > this.nowMs - FRESH_MS && row.seenAtMs !== device.seenAtMs) this.#flash(row, device.seenAtMs);
    row.seenAtMs = device.seenAtMs;
    if (row.flashedAtMs !== null) this.#fade(row);
    if (isOther || row.second !== this.#second || row.agedMs !== device.updatedMs) this.#fillAge(row, device);
    const isActive = index === this.#activeIndex;
    const isOpen = device.id === this.#openId;
    if (row.isActive !== isActive) element.classList.toggle("active", (row.isActive = isActive));
    if (row.isOpen !== isOpen) element.setAttribute("aria-selected", String((row.isOpen = isOpen)));
  };

  #fillValue(row, device) {
    row.seq = device.seq;
    row.drawnTrend = device.trend;
    fillBrief(row.value, device);
    say(row.changes, device.changes ? count(device.changes) : "–");
    const width = this.#narrow.matches ? TREND_NARROW_WIDTH : TREND_WIDTH;
    row.sparkline.draw(device.trend, { width, height: TREND_HEIGHT });
  }

  #fillAge(row, device) {
    row.second = this.#second;
    row.agedMs = device.updatedMs;
    const sinceMs = serverNowMs() - device.updatedMs;
    say(row.updated, age(sinceMs));
    row.updated.classList.toggle("fresh", sinceMs < FRESH_MS);
  }

  /** Begins a fade: it goes on with the drawings, since one that runs by itself has the page put together in every frame. */
  #flash(row, seenAtMs) {
    if (this.#still.matches) return;
    row.flashing ??= row.flash.animate(FLASH, { duration: FLASH_MS, easing: "ease-out" });
    row.flashedAtMs = seenAtMs;
    if (this.#isMoving) {
      row.flashing.play(); // every frame is drawn anyway, and this way not by the page's own thread
      row.flashing.currentTime = Math.max(0, this.nowMs - seenAtMs);
      row.flashedAtMs = null;
    } else row.flashing.pause();
  }

  #fade(row) {
    const sinceMs = Math.max(0, this.nowMs - row.flashedAtMs);
    row.flashing.currentTime = Math.min(sinceMs, FLASH_MS);
    if (sinceMs < FLASH_MS) this.isFading = true;
    else row.flashedAtMs = null;
  }

  #sortBy(column) {
    const isSame = this.#store.column === column;
    const startsDown = column === "updated" || column === "changes" || column === "trend";
    this.#store.show({ column, isDescending: isSame ? !this.#store.isDescending : startsDown });
    this.#grid.scrollTop = 0;
    this.#showOrder();
    this.#onNeed();
  }

  #showOrder() {
    for (const button of this.#grid.querySelectorAll("[data-column]")) {
      const isSorted = button.dataset.column === this.#store.column;
      const order = this.#store.isDescending ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", isSorted ? order : "none");
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.#shown.length - 1;
    const page = this.#rows.pageRows - 1;
    const from = this.#activeIndex;
    const to = {
      ArrowDown: from + 1, j: from + 1, ArrowUp: from - 1, k: from - 1,
      PageDown: from + page, PageUp: from - page, Home: 0, End: last,
    }[event.key];
    if (to !== undefined && last >= 0) {
      event.preventDefault();
      this.#activate(Math.min(last, Math.max(0, to)));
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !event.shiftKey) {
      this.#stepColumn(event.key === "ArrowRight" ? 1 : -1);
    } else if ((event.key === "Enter" || event.key === " ") && event.target === this.#grid && this.#active) {
      event.preventDefault();
      this.#onOpen(this.#active);
    }
  }

  #activate(index) {
    this.#activeIndex = index;
    this.#active = this.#shown[index];
    this.focus();
    this.#rows.reveal(index);
    if (this.#openId !== null) this.#onOpen(this.#active);
    this.#onNeed();
  }

  /** The heads of the columns are one stop of the Tab key with the rows; left and right lead to them. */
  #stepColumn(step) {
    const buttons = [...this.#grid.querySelectorAll("[data-column]")].filter((button) => button.offsetParent);
    const from = buttons.indexOf(document.activeElement);
    buttons[(from + step + buttons.length) % buttons.length].focus();
  }
}

/** An object's members as name and value, anything else as it is; names stay quiet, values do not. */
function fillBrief(cell, device) {
  const { value } = device;
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    cell.dataset.kind = kindOf(value);
    cell.names = undefined;
    say(cell, device.brief);
    return;
  }
  const names = Object.keys(value).slice(0, PAIRS_MAX);
  const known = JSON.stringify(names);
  if (cell.names !== known) {
    cell.dataset.kind = "object";
    cell.shown = undefined;
    cell.names = known;
    cell.values = names.map(() => make("b"));
    cell.replaceChildren(...(names.length ? names.flatMap((name, index) => [make("span", "name", name), " ", cell.values[index], " "]) : ["{}"]));
  }
  names.forEach((name, index) => {
    const member = value[name];
    say(cell.values[index], typeof member === "string" ? member : stringify(member).slice(0, 60));
  });
}
