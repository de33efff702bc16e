/** A value as JSON, of which the parts that can be drawn are chosen by click. All of its text is text. */

import { make, say } from "./dom.js";
import { stringify } from "./json.js";
import { drawnAs, writePointer } from "./pointer.js";

const BUTTONS_MAX_CHARS = 20_000;

export class ValueTree {
  #element;
  #shape = "";
  #leaves = [];

  /**
   * @param {HTMLElement} element
   * @param {(pointer: string, isAdded: boolean) => void} onChoose `isAdded` if what is drawn is to stay
   */
  constructor(element, onChoose) {
    this.#element = element;
    element.addEventListener("click", ({ target, shiftKey, ctrlKey, metaKey }) => {
      const leaf = target.closest("[data-pointer]");
      if (leaf) onChoose(leaf.dataset.pointer, shiftKey || ctrlKey || metaKey);
    });
  }

  /**
   * Shows a value; where it has the same parts as before, only their text changes, so that one can be clicked meanwhile.
   * @param {any} value
   * @param {Set<string>} chosen the pointers of what is drawn
   */
  show(value, chosen) {
    const pieces = [];
    const text = stringify(value, 2);
    if (text.length > BUTTONS_MAX_CHARS) pieces.push({ text });
    else write(value, "", "", pieces);
    const shape = JSON.stringify(pieces.map(({ text: piece, kind, pointer }) => [kind, pointer ?? piece]));
    if (shape !== this.#shape) this.#build(pieces, shape);
    const leaves = pieces.filter(({ pointer }) => pointer !== undefined);
    this.#leaves.forEach((leaf, index) => {
      say(leaf, leaves[index].text);
      leaf.setAttribute("aria-pressed", String(chosen.has(leaves[index].pointer)));
    });
  }

  clear() {
    this.#shape = "";
    this.#leaves = [];
    this.#element.replaceChildren();
  }

  #build(pieces, shape) {
    this.#shape = shape;
    this.#leaves = [];
    this.#element.replaceChildren(...pieces.map(({ text, kind, pointer }) => {
      if (pointer === undefined) return kind ? make("span", kind, text) : text;
      const leaf = make("button", kind);
      leaf.type = "button";
      leaf.tabIndex = -1; // the list above the chart is the keyboard's way
      leaf.title = "Draw this; with Shift or Ctrl besides";
      leaf.dataset.pointer = pointer;
      this.#leaves.push(leaf);
      return leaf;
    }));
  }
}

function write(value, pointer, margin, pieces) {
  if (value === null || typeof value !== "object") {
    const text = stringify(value);
    const kind = { string: "text", number: "number", bigint: "number" }[typeof value] ?? "word";
    pieces.push(drawnAs(value) ? { text, kind, pointer } : { text, kind });
    return;
  }
  const isList = Array.isArray(value);
  const names = Object.keys(value);
  const [open, close] = isList ? "[]" : "{}";
  const inner = `${margin}  `;
  pieces.push({ text: open });
  names.forEach((name, index) => {
    pieces.push({ text: `${index ? "," : ""}\n${inner}` });
    if (!isList) pieces.push({ text: JSON.stringify(name), kind: "name" }, { text: ": " });
    write(value[name], pointer + writePointer([name]), inner, pieces);
  });
  pieces.push({ text: names.length ? `\n${margin}${close}` : close });
}
