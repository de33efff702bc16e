/** Says why there is no device at an address. Does not use the document. */

import { exactTime } from "./chartwords.js";
import { timeMs } from "./moments.js";
import { exactly, read } from "./past.js";
import { problemOfName } from "./validation.js";

const SHOWN_MAX_CHARS = 128;
const COMES_AGAIN = "When it comes, it opens here.";

/**
 * Explains an address at which nothing is.
 * @param {import("./address.js").Address} address
 * @param {(id: string) => boolean} mayRead
 * @returns {{name: string, lead: string, text: string, isUnknown?: true}} the name, not too long to be shown; a sentence that goes
 *   before it, or is whole by itself; the reason; and whether only the server may know more
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
    text: `It has not sent anything yet, was deleted, or has another name. ${COMES_AGAIN}`,
    isUnknown: true,
  };
}

/**
 * Asks whether a device that there is not was deleted.
 * @param {import("./past.js").Ask} ask
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<string>} that it was, when, and whether its history went as well; empty if the log tells nothing of it
 */
export async function askDeletion(ask, id, signal) {
  const found = await read(ask, "api/history", [["devices", exactly(id)], ["kinds", "deleted"], ["limit", 1]], signal);
  const newest = found.devices[0]?.entries[0];
  if (!newest) return "";
  const history = newest.scope === "history" ? ", with its history" : "";
  return `It was deleted at ${exactTime(timeMs(newest.timestamp_utc))}${history}. ${COMES_AGAIN}`;
}

function shortened(text) {
  const characters = [...text.slice(0, 2 * SHOWN_MAX_CHARS + 2)]; // a character may be two units long
  return characters.length > SHOWN_MAX_CHARS ? `${characters.slice(0, SHOWN_MAX_CHARS).join("")}…` : text;
}
