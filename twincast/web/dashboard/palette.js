/** The colours of the style sheets, for canvases, which cannot use variables. */

import { byId } from "./dom.js";

let known = null;

/** @returns {{line: string, soft: string, rule: string}} as they are in the theme of the moment */
export function palette() {
  return (known ??= read());
}

/** Forgets the colours: the theme is another one. */
export function forgetPalette() {
  known = null;
}

function read() {
  const color = (selector) => getComputedStyle(document.querySelector(selector)).color;
  return { line: color("#pulse"), soft: color(".hint"), rule: getComputedStyle(byId("chart-figure")).borderTopColor };
}
