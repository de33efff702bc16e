/** Checks a form's fields before anything is sent; the server checks again. Does not use the document. */

import { parse } from "./json.js";

const ID_MAX_CHARS = 128;
const MESSAGE_MAX_BYTES = 64 * 1024;
const CONTROL_CHARACTERS = /\p{Cc}/u;

/** A field that cannot be sent. `position` is where in its text, if that is known. */
export class FieldError extends Error {
  /**
   * @param {string} field
   * @param {string} message
   * @param {number} [position]
   */
  constructor(field, message, position) {
    super(message);
    this.field = field;
    this.position = position;
  }
}

/**
 * Makes a telemetry message.
 * @param {{device_id: string, value: string}} fields
 * @returns {string} JSON
 * @throws {FieldError}
 */
export function telemetry({ device_id, value }) {
  checkName("device_id", "The device", device_id);
  checkJson("value", value, "A value is missing: a number, \"a text\", true, null, or an object.");
  return checkSize("value", `{"type":"telemetry","device_id":${JSON.stringify(device_id)},"value":${value.trim()}}`);
}

/**
 * Makes a control message.
 * @param {{target: string, command: string, args: string}} fields
 * @returns {string} JSON
 * @throws {FieldError}
 */
export function control({ target, command, args }) {
  checkName("target", "The target", target);
  checkName("command", "The command", command);
  const names = `"target":${JSON.stringify(target)},"command":${JSON.stringify(command)}`;
  if (!args.trim()) return `{"type":"control",${names}}`;
  const parsed = checkJson("args", args, "");
  if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed)) {
    throw new FieldError("args", "Arguments are an object, such as {\"percent\": 40}.");
  }
  return checkSize("args", `{"type":"control",${names},"args":${args.trim()}}`);
}

/**
 * Checks a raw message.
 * @param {{text: string}} fields
 * @returns {string} JSON
 * @throws {FieldError}
 */
export function raw({ text }) {
  checkJson("text", text, "A message is missing, such as {\"type\": \"ping\"}.");
  return checkSize("text", text);
}

/**
 * Says what keeps a text from being a name.
 * @param {string} what it would be the name of; the sentence begins with it
 * @param {string} text
 * @returns {string} a sentence, or nothing
 */
export function problemOfName(what, text) {
  if (!text) return `${what} is missing.`;
  const length = [...text].length;
  if (length > ID_MAX_CHARS) return `${what} takes up to ${ID_MAX_CHARS} characters; these are ${length}.`;
  return CONTROL_CHARACTERS.test(text) ? `${what} takes no control characters.` : "";
}

function checkName(field, what, text) {
  const problem = problemOfName(what, text);
  if (problem) throw new FieldError(field, problem);
}

function checkJson(field, text, missing) {
  if (!text.trim()) throw new FieldError(field, missing);
  try {
    return parse(text);
  } catch (error) {
    throw new FieldError(field, explain(text, error.message), positionOf(text, error.message));
  }
}

function checkSize(field, text) {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > MESSAGE_MAX_BYTES) throw new FieldError(field, `A message takes up to 64 KiB; this one has ${Math.ceil(bytes / 1024)}.`);
  return text;
}

/** Says in people's words what is most often wrong, else what the browser says. */
function explain(text, message) {
  const trimmed = text.trim();
  if (/^[\p{L}_][^\s"{}[\]:,]*$/u.test(trimmed)) return `Not JSON: a text takes quotes: ${JSON.stringify(trimmed)}`;
  if (/^[{[]/.test(trimmed) && /'/.test(trimmed) && !/"/.test(trimmed)) return "Not JSON: names and texts take double quotes.";
  if (/,\s*[}\]]/.test(trimmed)) return "Not JSON: there is a comma before a closing bracket.";
  return `Not JSON: ${message.replace(/^JSON\.parse: /, "").replace(/, "?\.{0,3}.* is not valid JSON$/s, "").replace(/ in JSON/, "").replace(/ at position \d+ \((.*)\)$/, ", $1")}`;
}

function positionOf(text, message) {
  const position = /position (\d+)/.exec(message);
  if (position) return Number(position[1]);
  const place = /line (\d+) column (\d+)/.exec(message);
  if (!place) return undefined;
  const before = text.split("\n").slice(0, Number(place[1]) - 1);
  return before.join("\n").length + (before.length ? 1 : 0) + Number(place[2]) - 1;
}
