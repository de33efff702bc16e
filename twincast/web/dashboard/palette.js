/** The colours of the style sheets, for canvases, which cannot use CSS variables. */

import { make } from "./dom.js";

const NAMES = { line: "mark", soft: "soft", rule: "line", edge: "edge", amber: "amber", red: "red", violet: "violet", onMark: "on-mark" };
const LINES = ["mark", "violet", "amber", "blue", "red", "green"];

/** @typedef {{line: string, soft: string, rule: string, edge: string, amber: string, red: string, violet: string, onMark: string, states: string[]}} Palette */

let known = null;

/** @returns {Palette} in the current theme: the same object until that changes */
export function palette() {
  return (known ??= read());
}

/** Forgets the colours, because the theme has changed. */
export function forgetPalette() {
  known = null;
}

/** A variable may depend on the theme; only an element that uses it has its value. */
function read() {
  const probe = make("i");
  probe.hidden = true;
  document.body.append(probe);
  const color = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colors = Object.fromEntries(Object.entries(NAMES).map(([name, variable]) => [name, color(variable)]));
  const states = LINES.map(color);
  probe.remove();
  return { ...colors, states };
}
