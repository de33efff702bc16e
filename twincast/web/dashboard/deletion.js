/** Asks before a device is deleted, for it is deleted for everyone. */

import { byId, make, say } from "./dom.js";

export class Deletion {
  #client;
  #dialog = byId("delete");
  #form = byId("form-delete");
  #output = byId("form-delete").querySelector("output");
  #onDeleted;
  #id = "";

  /**
   * @param {import("./client.js").Client} client
   * @param {{onDeleted: (id: string) => void}} callbacks
   */
  constructor(client, { onDeleted }) {
    this.#client = client;
    this.#onDeleted = onDeleted;
    byId("delete-cancel").addEventListener("click", () => this.#dialog.close());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#delete(this.#id);
    });
  }

  /** Asks whether a device is to go, by its name. @param {string} id */
  ask(id) {
    this.#id = id;
    say(byId("delete-name"), id);
    this.#tell("", "");
    this.#dialog.showModal();
    byId("delete-cancel").focus();
  }

  /** Asks no longer: the device is gone already. @param {string} id */
  forget(id) {
    if (id === this.#id && this.#dialog.open) this.#dialog.close();
  }

  async #delete(id) {
    this.#tell("waiting", "Deleting");
    try {
      await this.#client.send(JSON.stringify({ type: "delete", device_id: id }));
    } catch (error) {
      this.#tell("failed", error.message, error.code);
      return;
    }
    this.forget(id);
    this.#onDeleted(id);
  }

  #tell(state, text, code) {
    this.#output.dataset.state = state;
    this.#output.replaceChildren(...(code ? [make("code", "", code), " "] : []), text);
  }
}
