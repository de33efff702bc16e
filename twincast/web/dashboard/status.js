/** The head of the page: how the connection is, how much comes in; and what stands where there is nothing to show. */

import { byId, copyFrom, make, say } from "./dom.js";
import { count, latency, rate, time } from "./format.js";
import { SERVER_URL } from "./server.js";
import { Pulse } from "./sparkline.js";

const PHASES = { closed: "Closed", connecting: "Connecting", live: "Live", waiting: "Reconnecting", refused: "Refused" };
const PULSE = { width: 120, height: 26 };
const QUICK_MS = 1500; // a server that restarts is back sooner; no need to alarm anybody

export class Status {
  #client;
  #store;
  #messageRate;
  #liveUntilMs = NaN;
  #blank = "";
  #pulse = new Pulse(byId("pulse"), PULSE);

  /**
   * @param {import("./client.js").Client} client
   * @param {import("./store.js").Store} store
   * @param {import("./rate.js").MessageRate} messageRate
   */
  constructor(client, store, messageRate) {
    this.#client = client;
    this.#store = store;
    this.#messageRate = messageRate;
    byId("retry").addEventListener("click", () => client.retry());
  }

  /** Takes note that the connection's phase changed. @param {import("./client.js").Link} link */
  enter(link) {
    if (link.phase === "live") this.#liveUntilMs = NaN;
    else if (Number.isNaN(this.#liveUntilMs)) this.#liveUntilMs = Date.now();
    document.body.dataset.phase = link.phase;
    say(byId("link-phase"), PHASES[link.phase]);
  }

  /**
   * @param {number} nowMs by `performance.now()`
   * @param {number} shownCount how many devices match the filter
   * @param {boolean} isHeld whether their order waits
   */
  draw(nowMs, shownCount, isHeld) {
    const perSecond = this.#messageRate.perSecond(nowMs);
    const total = this.#store.devices.size;
    say(byId("rate"), rate(perSecond));
    say(byId("messages-count"), count(this.#client.messagesCount));
    say(byId("devices-count"), count(total));
    this.#pulse.draw(this.#messageRate, nowMs);
    const matching = this.#store.filter.trim() ? `${count(shownCount)} of ${count(total)}` : "";
    say(byId("devices-shown"), isHeld ? "Order held while you point" : matching);
    this.#drawLink();
    this.#drawBlank(total, shownCount);
  }

  #drawLink() {
    const { phase, reason, retryAtMs, attempt } = this.#client.link;
    const leftS = Math.max(0, Math.ceil((retryAtMs - Date.now()) / 1000));
    const inTime = leftS > 0 ? `in ${leftS} s` : "now";
    say(byId("link-note"), phase === "waiting" ? inTime : phase === "live" ? latency(this.#client.roundTripMs) : "");
    const isQuick = phase !== "refused" && attempt < 2 && Date.now() - this.#liveUntilMs < QUICK_MS;
    const isLost = phase === "waiting" || phase === "refused" || (phase === "connecting" && attempt > 0);
    const isNotice = isLost && !isQuick && this.#store.devices.size > 0;
    byId("notice").hidden = !isNotice;
    document.body.toggleAttribute("data-stale", isLost && !isQuick);
    if (!isNotice) return;
    say(byId("notice-title"), phase === "refused" ? "The server refuses this page." : "Not connected.");
    const next = phase === "waiting" ? ` Next attempt ${inTime}.` : phase === "connecting" ? " Trying now." : "";
    say(byId("notice-text"), `${sentence(reason)}This is the state as of ${time(this.#liveUntilMs)}.${next}`);
  }

  /** Shows what to do where the table has nothing to show. */
  #drawBlank(total, shown) {
    const { phase, reason, attempt, needsLogin } = this.#client.link;
    let kind = "";
    if (total && !shown) kind = `no match ${this.#store.filter}`;
    else if (!total && phase === "live") kind = "empty";
    else if (!total && (phase === "waiting" || phase === "refused")) kind = `${phase} ${reason}`;
    else if (!total && attempt === 0) kind = "connecting";
    else if (!total) return; // between two attempts: what stands there stays
    if (kind === this.#blank) return;
    this.#blank = kind;
    const box = byId("nothing");
    box.hidden = !kind;
    if (kind === "empty") box.replaceChildren(...firstDevice());
    else if (kind === "connecting") box.replaceChildren(make("p", "lead", "Connecting to the server."));
    else if (phase === "waiting" && !total) box.replaceChildren(...notUp(reason));
    else if (needsLogin && !total) box.replaceChildren(...loggedOut());
    else if (phase === "refused" && !total) box.replaceChildren(...refused(reason));
    else if (kind) box.replaceChildren(make("p", "lead", "No device matches the filter."), this.#unfilter());
  }

  #unfilter() {
    const button = make("button", "button", "Show all devices");
    button.type = "button";
    button.addEventListener("click", () => {
      byId("filter").value = "";
      byId("filter").dispatchEvent(new Event("input"));
    });
    return button;
  }
}

function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}. ` : "";
}

/** How to get a first device, each way a line to copy. */
function firstDevice() {
  const url = SERVER_URL === "http://127.0.0.1:8000" ? "" : ` --url ${SERVER_URL}`;
  const json = `'{"device_id": "lab/thermometer", "value": 21.5}'`;
  return [
    make("p", "lead", "No devices yet."),
    make("p", "", "The first one appears here as soon as it sends. Three ways to begin:"),
    make("dl", "ways", [
      ...way("This machine, live: processor, memory, disk and network", `twincast host${url}`),
      ...way("A fleet of twenty, with a month of plausible signals", `twincast simulate --devices 20 --rate 50 --backfill 30d${url}`),
      ...way("One reading, by plain HTTP", `curl -H 'Content-Type: application/json' -d ${json} ${SERVER_URL}/api/data`),
    ]),
  ];
}

function way(what, command) {
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("aria-hidden", "true");
  const use = icon.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "use"));
  use.setAttribute("href", "dashboard/icons.svg#copy");
  const button = make("button", "tool", [icon]);
  button.type = "button";
  button.setAttribute("aria-label", `Copy: ${what}`);
  button.addEventListener("click", () => copyFrom(button, command));
  return [make("dt", "", what), make("dd", "", [make("code", "", command), button])];
}

function notUp(reason) {
  if (reason.startsWith("the server is not ready")) {
    return [
      make("p", "lead", "The server is not ready yet."),
      make("p", "", `${sentence(reason)}This page goes on by itself once it is.`),
    ];
  }
  return [
    make("p", "lead", "The server does not answer."),
    make("p", "", `${sentence(reason)}This page keeps trying, and goes on by itself once the server is up. To start it:`),
    make("dl", "ways", [...way("In the project's directory", "scripts/serve"), ...way("Where twincast is installed", "twincast serve")]),
  ];
}

function refused(reason) {
  const button = make("button", "button", "Try again");
  button.type = "button";
  button.addEventListener("click", () => byId("retry").click());
  return [make("p", "lead", "The server refuses this page."), make("p", "", sentence(reason)), button];
}

function loggedOut() {
  const button = make("button", "button", "Log in");
  button.type = "button";
  button.addEventListener("click", () => byId("account").click());
  return [make("p", "lead", "This server asks for a login."), button];
}
