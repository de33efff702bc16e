/**
 * The login. The credential stays in this module's memory: not in an address, a cookie or any storage, so that it is gone
 * with the page: to log out is to load it anew. The form is one that password keepers know.
 */

import { Client, matcherOf } from "./client.js";
import { byId, say, saySentence } from "./dom.js";
import { exchange } from "./pairing.js";
import { askStatus } from "./probe.js";

export class Login {
  #client;
  #token = null;
  #dialog = byId("login");
  #form = byId("form-login");
  #button = byId("account");
  #rights = null; // null as long as the server has not said
  #onRights;
  #onStatus;
  #problem = ""; // why there was no key for a code

  /**
   * @param {import("./client.js").Client} client
   * @param {{onRights: () => void, onStatus: (status: object|null) => void}} callbacks
   */
  constructor(client, { onRights, onStatus }) {
    this.#client = client;
    this.#onRights = onRights;
    this.#onStatus = onStatus;
    this.#button.addEventListener("click", () => (this.#token ? location.reload() : this.#ask("")));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#logIn(this.#form.elements.token.value.trim());
    });
    byId("login-cancel").addEventListener("click", () => this.#dialog.close());
  }

  /** Whether this page may do something with a device; what it may not, the server refuses in any case. */
  may(action, id) {
    return this.#rights === null || matcherOf(this.#rights[action] ?? [])(id);
  }

  /**
   * Asks the server something with this page's credential.
   * @param {string} path behind the server's address
   * @param {AbortSignal} [signal]
   * @returns {Promise<Response>}
   */
  ask(path, signal) {
    return fetch(path, { cache: "no-store", headers: this.#token ? { Authorization: `Bearer ${this.#token}` } : {}, signal });
  }

  /** Makes a further client with this page's credential. @param {object} options of it @returns {Client} */
  follow(options) {
    return new Client({ ...options, url: this.#client.url, parse: this.#client.parse, token: this.#token ?? undefined });
  }

  /** Takes note that the connection's phase changed. @param {import("./client.js").Link} link */
  enter({ phase, reason, needsLogin }) {
    if (phase === "live") {
      this.#dialog.close();
      this.#showWho();
    } else if (needsLogin) {
      const hadToken = this.#token !== null;
      this.#token = null;
      this.#button.hidden = false;
      say(this.#button, "Log in");
      this.#ask(hadToken ? reason : this.#problem);
    }
  }

  /**
   * Logs in by a pairing code. Until it is known what that is good for, nothing connects.
   * @param {string} code
   */
  async pair(code) {
    try {
      this.#logIn(await exchange(code));
    } catch (error) {
      this.#problem = error.message;
      if (this.#client.link.phase === "closed") this.#client.open();
      else this.#ask(this.#problem);
    }
  }

  #ask(problem) {
    const output = this.#form.querySelector("output");
    output.dataset.state = problem ? "failed" : "";
    saySentence(output, problem);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#form.elements.token.select();
  }

  #logIn(token) {
    if (!token) return;
    this.#token = token;
    this.#problem = "";
    this.#form.reset();
    const output = this.#form.querySelector("output");
    output.dataset.state = "waiting";
    output.textContent = "Logging in";
    this.#client.logIn(token);
  }

  /** Asks the server anew how it is; `onStatus` gets null if it does not say. */
  async refresh() {
    const token = this.#token;
    const response = await askStatus(token).catch(() => null);
    const status = response?.ok ? await response.json().catch(() => null) : null;
    if (token === this.#token) this.#onStatus(status);
  }

  /** Says who this page is to the server; where there is no login, there is nothing to say. */
  async #showWho() {
    const token = this.#token;
    const response = await askStatus(token).catch(() => null);
    const status = response?.ok ? await response.json().catch(() => ({})) : {};
    if (token !== this.#token) return;
    this.#rights = status.rights ?? null;
    this.#onRights();
    this.#onStatus(status);
    const isReader = status.identity === "anonymous" && !status.rights.publish;
    this.#button.hidden = !token && !isReader;
    say(this.#button, token ? "Log out" : "Log in");
    this.#button.title = token ? `Logged in as ${status.identity ?? "?"}` : "Log in to send readings and commands";
  }
}
