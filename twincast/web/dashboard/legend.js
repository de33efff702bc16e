/** Which lines a chart has: their colours, names and values; and how lines are added and taken away. */

import { byId, make, say } from "./dom.js";

export class Legend {
  #list = byId("chart-legend");
  #parts = byId("chart-add");
  #device = byId("chart-with");
  #shape = "";
  #offered = "";
  #values = [];

  /**
   * @param {object} callbacks
   * @param {(pointer: string) => void} callbacks.onPart a further part of the value is to be drawn
   * @param {(id: string) => void} callbacks.onDevice a further device is
   * @param {(index: number) => void} callbacks.onRemove a line no more
   */
  constructor({ onPart, onDevice, onRemove }) {
    this.#list.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button) onRemove(Number(button.dataset.index));
    });
    this.#parts.addEventListener("change", () => {
      const { value } = this.#parts;
      this.#parts.selectedIndex = 0;
      onPart(value.slice(1));
    });
    this.#device.addEventListener("change", () => {
      const id = this.#device.value;
      this.#device.value = "";
      if (id) onDevice(id);
    });
  }

  /**
   * @param {{label: string, color: string, value: string}[]} lines shown if they are several
   * @param {{pointer: string, label: string}[]} parts that could be drawn besides
   */
  draw(lines, parts) {
    this.#offer(parts);
    const shown = lines.length > 1 ? lines : [];
    const shape = JSON.stringify(shown.map(({ label, color }) => [label, color]));
    if (shape !== this.#shape) this.#build(shown, shape);
    shown.forEach(({ value }, index) => say(this.#values[index], value));
  }

  #build(lines, shape) {
    this.#shape = shape;
    this.#list.hidden = !lines.length;
    this.#values = lines.map(() => make("b"));
    this.#list.replaceChildren(...lines.map(({ label, color }, index) => {
      const swatch = make("i");
      swatch.style.background = color;
      const button = make("button", "", "×");
      Object.assign(button, { type: "button", ariaLabel: `Without ${label}`, title: "Take it away" });
      button.dataset.index = String(index);
      return make("li", "", [swatch, make("span", "", label), this.#values[index], button]);
    }));
  }

  #offer(parts) {
    const offered = JSON.stringify(parts);
    if (offered === this.#offered) return;
    this.#offered = offered;
    const first = this.#parts.options[0];
    this.#parts.replaceChildren(first, ...parts.map(({ pointer, label }) => {
      const option = make("option", "", label);
      option.value = `=${pointer}`; // the whole value's pointer is empty, as the heading's value is
      return option;
    }));
    this.#parts.hidden = !parts.length;
  }
}
