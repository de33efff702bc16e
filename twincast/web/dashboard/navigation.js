/**
 * Keeps the address and the browser's history in step with the device that is open. The device's entry lies over the page's
 * own, so that going back closes the device and does not leave the page, and going forward opens it again.
 */

import { readAddress, writeAddress } from "./address.js";

const REST_MS = 250; // browsers limit how often a page changes its address; a held arrow key would exceed that

export class Navigation {
  #onMove;
  #depth = depthHere();
  #isLeaving = false; // going back takes a moment, in which another device may open
  #timer = 0;

  /** @param {{onMove: (address: import("./address.js").Address) => void}} callbacks called when the person or a link changed the address */
  constructor({ onMove }) {
    this.#onMove = onMove;
    /** What is open, or is to be once it can be. @type {import("./address.js").Address} */
    this.address = readAddress(location.hash);
    addEventListener("popstate", () => this.#arrive());
    addEventListener("hashchange", () => this.#arrive()); // a link or a typed address is no popstate everywhere
  }

  /**
   * Notes that a device was opened.
   * @param {string} id
   * @param {URLSearchParams} parameters of its address, if it was not open already
   */
  open(id, parameters) {
    if (id !== this.address.id) this.address = readAddress(writeAddress(id, parameters));
    this.#settleOver();
  }

  /** Notes that something else of the open device is shown. @param {URLSearchParams} parameters */
  amend(parameters) {
    if (this.address.id === null) return;
    this.address = readAddress(writeAddress(this.address.id, parameters));
    this.#settleOver();
  }

  #settleOver() {
    if (this.#depth) this.#settleSoon();
    else this.settle();
  }

  /** Notes that no device is open any more. */
  close() {
    this.address = readAddress("");
    this.settle();
  }

  /** Brings address and history in step with what is open. */
  settle() {
    clearTimeout(this.#timer);
    if (this.#isLeaving) return;
    const { hash } = this.address;
    if (!hash) this.#leave();
    else if (this.#depth) {
      if (hash !== location.hash) history.replaceState({ depth: this.#depth }, "", hash);
    } else {
      if (location.hash) history.replaceState(null, "", ownAddress()); // it was opened by its address: this page goes beneath
      history.pushState({ depth: 1 }, "", hash);
      this.#depth = 1;
    }
  }

  #settleSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.settle(), REST_MS);
  }

  #leave() {
    const depth = this.#depth;
    this.#depth = 0;
    if (depth && history.length > depth) {
      this.#isLeaving = true;
      history.go(-depth);
    } else if (location.hash) history.replaceState(null, "", ownAddress());
  }

  #arrive() {
    clearTimeout(this.#timer);
    const here = readAddress(location.hash);
    if (here.hash && !depthHere()) history.replaceState({ depth: this.#depth + 1 }, "");
    this.#depth = here.hash ? depthHere() : 0;
    if (this.#isLeaving) {
      this.#isLeaving = false;
      this.settle();
    } else if (here.hash !== this.address.hash) {
      this.address = here;
      this.#onMove(here);
    }
  }
}

function ownAddress() {
  return location.pathname + location.search;
}

/** How many entries of devices lie in the history from the page's own to this one. */
function depthHere() {
  const depth = history.state?.depth;
  return location.hash && Number.isInteger(depth) && depth > 0 ? depth : 0;
}
