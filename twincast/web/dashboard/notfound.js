/** Says why there is no device at an address. Does not use the document. */

import { problemOfName } from "./validation.js";

const SHOWN_MAX_CHARS = 128;

/**
 * Explains an address at which nothing is.
 * @param {import("./address.js").Address} address
 * @param {(id: string) => boolean} mayRead
 * @returns {{name: string, lead: string, text: string}} the name, not too long to be shown; a sentence that goes before it, or
 *   is whole by itself; and the reason
 */
export function explainNotFound({ id, text }, mayRead) {
  const name = shortened(id ?? text);
  if (id === null) return { name, lead: "This address names no device.", text: `“${name}” is cut off or mistyped.` };
  const problem = problemOfName("The name of a device", id);
  if (problem) return { name, lead: "This address names no device.", text: problem };
  if (!mayRead(id)) return { name, lead: "This page may not see", text: "Its login has no right to read this device." };
  return {
    name,
    lead: "There is no device",
    text: "It has not sent anything yet, was deleted, or has another name. When it comes, it opens here.",
  };
}

function shortened(text) {
  const characters = [...text.slice(0, 2 * SHOWN_MAX_CHARS + 2)]; // a character may be two units long
  return characters.length > SHOWN_MAX_CHARS ? `${characters.slice(0, SHOWN_MAX_CHARS).join("")}…` : text;
}
