/** The colours of the style sheets, for canvases, which cannot use CSS variables. */

import { byId } from "./dom.js";

let known = null;

/** @returns {{line: string, soft: string, rule: string}} in the current theme */
export function palette() {
  return (known ??= read());
}

/** Forgets the colours, because the theme has changed. */
export function forgetPalette() {
  known = null;
}

function read() {
  const color = (selector) => getComputedStyle(document.querySelector(selector)).color;
  return { line: color("#pulse"), soft: color(".hint"), rule: getComputedStyle(byId("chart-figure")).borderTopColor };
}
