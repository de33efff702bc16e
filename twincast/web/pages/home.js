/** The first page: the lines to copy with the address that it was reached by, and to those who may read, how much is going on. */

import { SERVER_URL } from "../dashboard/server.js";

const WRITTEN = "http://127.0.0.1:8000";
const LOOK_INTERVAL_MS = 2_000;
const counts = document.getElementById("counts");
let before = null;

function prepare(pre) {
  pre.textContent = pre.textContent.replaceAll(WRITTEN, SERVER_URL);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    button.textContent = (await copy(pre)) ? "Copied" : "Select it, and copy";
    setTimeout(() => { button.textContent = "Copy"; }, 2_000);
  });
  pre.previousElementSibling.append(button);
}

/** Browsers give the clipboard to pages over https and from this machine only; elsewhere the old way still works. */
async function copy(pre) {
  if (await navigator.clipboard?.writeText(pre.textContent).then(() => true, () => false)) return true;
  getSelection().selectAllChildren(pre);
  return document.execCommand("copy");
}

function show({ devices_known: devices, epoch, seq }) {
  const now = { epoch, seq, atMs: performance.now() };
  const isSame = before?.epoch === epoch && seq >= before.seq;
  const perSecond = isSame ? Math.round((1_000 * (seq - before.seq)) / (now.atMs - before.atMs)) : null;
  before = now;
  const words = [`${devices.toLocaleString("en")} ${devices === 1 ? "device" : "devices"}`];
  if (perSecond !== null) words.push(`${perSecond.toLocaleString("en")} ${perSecond === 1 ? "event" : "events"}/s`);
  counts.textContent = words.join(", ");
  counts.hidden = false;
}

/** Looks how the server is, as long as somebody looks at the page. @returns {Promise<boolean>} whether to look again */
async function look() {
  if (document.hidden) return true;
  try {
    const response = await fetch("api/status", { cache: "no-store" });
    if (response.status === 401) {
      document.getElementById("login").hidden = false;
      counts.hidden = true;
      return false;
    }
    if (response.ok) show(await response.json());
  } catch {
    counts.hidden = true; // it is gone, and may come again
    before = null;
  }
  return true;
}

async function keepLooking() {
  if (await look()) setTimeout(keepLooking, LOOK_INTERVAL_MS);
}

for (const pre of document.querySelectorAll("pre")) prepare(pre);
keepLooking();
