/** What a chart shows as a file: a table by the server's own words, or a picture. */

import { make } from "./dom.js";

const FONT = "600 14px 'Plex Sans', system-ui, sans-serif";
const HEAD_PX = 34;

/**
 * Hands a file to the person.
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * @param {string} id
 * @param {string} ending
 * @returns {string} the name of a file, by the device's
 */
export function fileName(id, ending) {
  return `${id.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "") || "chart"}.${ending}`;
}

/**
 * Paints a chart on the page's ground, with its name above.
 * @param {HTMLCanvasElement} canvas
 * @param {string} title
 * @returns {Promise<Blob>} a PNG
 */
export function pictureOf(canvas, title) {
  const scale = devicePixelRatio;
  const page = document.createElement("canvas");
  page.width = canvas.width;
  page.height = canvas.height + HEAD_PX * scale;
  const context = page.getContext("2d");
  const { backgroundColor, color } = getComputedStyle(canvas.closest(".panel"));
  context.fillStyle = backgroundColor;
  context.fillRect(0, 0, page.width, page.height);
  context.drawImage(canvas, 0, HEAD_PX * scale);
  context.scale(scale, scale);
  context.fillStyle = color;
  context.font = FONT;
  context.textBaseline = "middle";
  context.fillText(title, 14, HEAD_PX / 2, canvas.width / scale - 28);
  return new Promise((done, fail) => page.toBlob((blob) => (blob ? done(blob) : fail(new Error("no picture"))), "image/png"));
}
