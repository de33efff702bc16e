/** Asks before a device is deleted, for it is deleted for everyone; with its history, if somebody chooses that, for good. */

import { byId, make, say, saySentence } from "./dom.js";

const GOES = "It goes for everyone who watches. What it said stays in the log, and a later reading makes it anew.";
const GOES_FOR_GOOD = "It goes for everyone who watches, and with it all that the log has of it: its readings, and the commands to it."
  + " This cannot be undone. What it sends later is new. Backups from before still have it: `twincast journal info`, on the server, names them.";
const IS_GONE = "No answer has anything of it any more.";
const HELD_BY = {
  files: "The server's files still have some of it, and are being written anew without it.",
  stream: "The stream that the servers share still has some of it, for some minutes.",
};
const LEFT = "Backups from before still have it: `twincast journal info`, on the server, names them.";

export class Deletion {
  #client;
  #dialog = byId("delete");
  #form = byId("form-delete");
  #output = byId("form-delete").querySelector("output");
  #history = byId("delete-history");
  #cancel = byId("delete-cancel");
  #may;
  #onDeleted;
  #id = "";
  #isDone = false;

  /**
   * @param {import("./client.js").Client} client
   * @param {object} means
   * @param {(action: string, id: string) => boolean} means.may
   * @param {(id: string) => void} means.onDeleted
   */
  constructor(client, { may, onDeleted }) {
    this.#client = client;
    this.#may = may;
    this.#onDeleted = onDeleted;
    this.#cancel.addEventListener("click", () => this.#dialog.close());
    this.#history.addEventListener("change", () => this.#show());
    this.#dialog.addEventListener("close", () => this.#isDone && this.#onDeleted(this.#id));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#isDone) this.#delete(this.#id);
    });
  }

  /** Whether this page may delete a device, with its history or without. @param {string} id */
  isPossible(id) {
    return this.#may("publish", id) || this.#may("admin", id);
  }

  /** Asks whether a device is to go, by its name. @param {string} id */
  ask(id) {
    this.#id = id;
    this.#isDone = false;
    this.#history.checked = !this.#may("publish", id);
    this.#history.disabled = this.#history.checked;
    for (const part of [this.#history, this.#history.parentElement]) part.hidden = !this.#may("admin", id);
    say(byId("delete-name"), id);
    this.#tell("", "");
    this.#show();
    this.#dialog.showModal();
    this.#cancel.focus();
  }

  /** Asks no longer: the device is gone already, and its history is not asked about. @param {string} id */
  forget(id) {
    if (id === this.#id && this.#dialog.open && !this.#history.checked) this.#dialog.close();
  }

  #show() {
    const { checked } = this.#history;
    say(byId("delete-lead"), this.#isDone ? "Deleted" : "Delete");
    say(byId("delete-end"), this.#isDone ? ", with its history" : "?");
    saySentence(byId("delete-hint"), checked ? GOES_FOR_GOOD : GOES);
    const button = this.#form.querySelector(".danger");
    say(button, checked ? "Delete for good" : "Delete");
    button.hidden = this.#isDone;
    say(this.#cancel, this.#isDone ? "Close" : "Cancel");
  }

  async #delete(id) {
    const takesHistory = this.#history.checked;
    this.#tell("waiting", "Deleting");
    try {
      if (takesHistory) this.#finish(id, await this.#client.deleteHistory(id));
      else await this.#client.send(JSON.stringify({ type: "delete", device_id: id }));
    } catch (error) {
      if (id === this.#id) this.#tell("failed", error.message, error.code);
      return;
    }
    if (takesHistory) return;
    this.forget(id);
    this.#onDeleted(id);
  }

  /** Says what still has some of it, which somebody who asked for this wants to know: the dialog stays until it is closed. */
  #finish(id, { pending }) {
    if (id !== this.#id || !this.#dialog.open) return;
    this.#isDone = true;
    for (const part of [this.#history, this.#history.parentElement]) part.hidden = true;
    this.#show();
    this.#tell("", "");
    saySentence(byId("delete-hint"), [IS_GONE, ...pending.map((holder) => HELD_BY[holder]).filter(Boolean), LEFT].join(" "));
    this.#cancel.focus();
  }

  #tell(state, text, code) {
    this.#output.dataset.state = state;
    this.#output.replaceChildren(...(code ? [make("code", "", code), " "] : []), text);
  }
}
