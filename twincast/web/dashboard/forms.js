/** The three forms that send: telemetry, control, raw JSON. */

import { FieldError, control, raw, telemetry } from "./validation.js";
import { byId, make } from "./dom.js";
import { count, latency } from "./format.js";
import { brief } from "./json.js";

const CHECKS = { telemetry, control, raw };
const SUGGESTIONS = 12;

export class Forms {
  #client;
  #names;
  #tabs = [...document.querySelectorAll("[role=tab]")];

  /**
   * @param {import("./client.js").Client} client
   * @param {() => Iterable<string>} names of all devices, to suggest
   */
  constructor(client, names) {
    this.#client = client;
    this.#names = names;
    for (const name of Object.keys(CHECKS)) this.#prepare(name);
    for (const tab of this.#tabs) {
      tab.addEventListener("click", () => this.show(nameOf(tab)));
      tab.addEventListener("keydown", (event) => this.#stepTab(event));
    }
  }

  /**
   * Brings a form to the front.
   * @param {"telemetry"|"control"|"raw"} name
   * @param {object} [values] fields to fill
   */
  show(name, values = {}) {
    for (const tab of this.#tabs) {
      const isChosen = nameOf(tab) === name;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(`form-${nameOf(tab)}`).hidden = !isChosen;
    }
    const form = byId(`form-${name}`);
    for (const [field, value] of Object.entries(values)) form.elements[field].value = value;
    return form;
  }

  /** Brings a form to the front and the cursor to its first empty field. */
  edit(name, values) {
    const fields = [...this.show(name, values).querySelectorAll("input, textarea")];
    (fields.find((field) => !field.value) ?? fields.at(-1)).focus();
  }

  #prepare(name) {
    const form = byId(`form-${name}`);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(name, form);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("input", ({ target }) => {
      target.removeAttribute("aria-invalid");
      if (target.getAttribute("list")) this.#suggest(target.value);
    });
    for (const input of form.querySelectorAll("[list]")) input.addEventListener("focus", () => this.#suggest(input.value));
  }

  async #submit(name, form) {
    const fields = Object.fromEntries(new FormData(form));
    for (const field of form.elements) field.removeAttribute("aria-invalid");
    let text;
    try {
      text = CHECKS[name](fields);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.#pointOut(form, error);
      return;
    }
    const sentAtMs = performance.now();
    tell(form, "waiting", "Sending");
    try {
      tell(form, "done", sayAnswer(await this.#client.send(text), performance.now() - sentAtMs));
    } catch (error) {
      tell(form, "failed", error.message, error.code);
    }
  }

  #pointOut(form, { field, message, position }) {
    const element = form.elements[field];
    element.setAttribute("aria-invalid", "true");
    element.focus();
    if (position !== undefined) element.setSelectionRange(position, Math.min(position + 1, element.value.length));
    tell(form, "failed", message);
  }

  /** A list of all devices would be too long for the browser; of those that match, a few. */
  #suggest(part) {
    const wanted = part.toLowerCase();
    const found = [];
    for (const name of this.#names()) {
      if (name !== part && name.toLowerCase().includes(wanted) && found.push(name) === SUGGESTIONS) break;
    }
    byId("known-devices").replaceChildren(...found.map((name) => Object.assign(make("option"), { value: name })));
  }

  #stepTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = this.#tabs[(this.#tabs.indexOf(event.currentTarget) + step + this.#tabs.length) % this.#tabs.length];
    this.show(nameOf(next));
    next.focus();
  }
}

function nameOf(tab) {
  return tab.id.replace("tab-", "");
}

function sayAnswer(answer, tookMs) {
  const took = latency(tookMs);
  if (answer.type === "ack") return `Stored at position ${count(answer.seq)} · ${took}`;
  if (answer.type === "pong") return `Pong · ${took}`;
  return `${answer.type}: ${answer.note ?? brief(answer)}`;
}

function tell(form, state, text, code) {
  const output = form.querySelector("output");
  output.dataset.state = state;
  output.replaceChildren(...(code ? [make("code", "", code), " "] : []), text);
}
