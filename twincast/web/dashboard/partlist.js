/** The list above a chart: which part of the value it shows. */

import { byId, make } from "./dom.js";
import { readPointer, writePointer } from "./pointer.js";

export class PartList {
  #select = byId("chart-path");
  #offered = "";

  /** @param {(path: string[]) => void} onChoose */
  constructor(onChoose) {
    this.#select.addEventListener("change", () => onChoose(readPointer(this.#select.value)));
  }

  /**
   * @param {{pointer: string, label: string}[]} parts
   * @param {string[]} [shown] the one that is
   */
  draw(parts, shown) {
    const offered = JSON.stringify([parts, shown]);
    if (offered === this.#offered) return;
    this.#offered = offered;
    this.#select.replaceChildren(...parts.map(({ pointer, label }) => {
      const option = make("option", "", label);
      option.value = pointer;
      return option;
    }));
    if (shown) this.#select.value = writePointer(shown);
    this.#select.disabled = parts.length < 2;
  }

  clear() {
    this.#select.replaceChildren();
    this.#offered = "";
  }
}
