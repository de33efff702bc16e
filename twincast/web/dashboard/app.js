/** Everything put together: what comes in goes to the store, the log and the detail; one drawing a frame shows them. */

import { askDeletion, explainNotFound } from "./notfound.js";
import { Client } from "./client.js";
import { setServerTime } from "./clock.js";
import { Deletion } from "./deletion.js";
import { Detail } from "./detail.js";
import { DeviceChart } from "./devicechart.js";
import { byId, setIcon } from "./dom.js";
import { Facts } from "./facts.js";
import { Forms } from "./forms.js";
import { count } from "./format.js";
import { AnimationLoop } from "./animation.js";
import { Fullness } from "./fullness.js";
import { SERVER_URL } from "./server.js";
import { Log, eventOf } from "./log.js";
import { Login } from "./login.js";
import { LogView } from "./logview.js";
import { forgetPalette } from "./palette.js";
import { explainFailure } from "./probe.js";
import { parse } from "./json.js";
import { listenToKeyboard } from "./keyboard.js";
import { takeCode } from "./pairing.js";
import { Navigation } from "./navigation.js";
import { Status } from "./status.js";
import { Store } from "./store.js";
import { Table } from "./table.js";
import { TimelineView } from "./timelineview.js";
import { TrendPast } from "./trendpast.js";
import { MessageRate } from "./rate.js";
import { Wall } from "./wall.js";

const TITLE_MAX_CHARS = 128;
const WORDS_INTERVAL_MS = 100; // nobody reads text that changes faster
const REST_MS = 300; // what a drawing costs is the same for one change and for all that came meanwhile
const BUSY_PER_S = 200; // from here on what is seen is a movement, no longer one change after the other

const loop = new AnimationLoop(draw, restMs);
const store = new Store();
const messageRate = new MessageRate();
const log = new Log();
let noted = "";
let wordsAtMs = -Infinity;
let isNeeded = false;
let isKnown = false; // which devices there are

const client = new Client({
  url: `${SERVER_URL}/ws`,
  parse,
  schedule: takeSoon,
  explain: explainFailure,
  onLink: takeLink,
  onSnapshot: takeSnapshot,
  onMessages: takeMessages,
});
const status = new Status(client, store, messageRate);
const fullness = new Fullness(() => login.refresh());
const login = new Login(client, { onRights: need, onStatus: (told) => fullness.take(told) });
const deletion = new Deletion(client, {
  may: (action, id) => login.may(action, id),
  onDeleted: (id) => detail.device?.id === id && detail.close(),
});
const forms = new Forms(client, () => store.devices.keys());
const logView = new LogView(log, { onNeed: need });
const ask = (path, signal) => login.ask(path, signal);
const follow = (options) => login.follow({ ...options, schedule: (drain) => loop.next(drain) });
const chart = new DeviceChart({
  ask,
  follow,
  valueOf: (id) => store.devices.get(id)?.value,
  onView: (parameters) => navigation.amend(parameters),
  onMessages: (messages) => detail.takeLate(messages),
  onNeed: need,
});
const detail = new Detail({
  onClose: leaveDevice,
  onSend: sendTo,
  onDelete: (id) => deletion.ask(id),
  mayDelete: (id) => deletion.isPossible(id),
  explain: (address) => explainNotFound(address, (id) => login.may("read", id)),
  askDeletion: (id, signal) => askDeletion(ask, id, signal),
  onNeed: need,
}, { chart, facts: new Facts({ ask, onNeed: need }), timeline: new TimelineView({ ask, onPoint: (atMs) => chart.point(atMs), onNeed: need }) });
const trendPast = new TrendPast({ ask, onNeed: need });
const table = new Table(store, { onOpen: openDevice, onLack: (devices) => detail.isOpen || trendPast.see(devices), onNeed: need });
const wall = new Wall({
  ask,
  follow,
  devicesLike: (filters) => store.like(filters),
  onView: (parameters) => navigation.amend(parameters),
  onClose: leaveDevice,
  onNeed: () => loop.now(),
});
const code = takeCode();
for (const event of ["popstate", "hashchange"]) addEventListener(event, pairAgain); // before anybody who reads the address
const navigation = new Navigation({ onMove: showAddress });

/** Asks for a drawing of everything in the next frame: somebody did something and wants to see it. */
function need() {
  isNeeded = true;
  loop.now();
}

/** Has what came decoded with the next drawing; the first state is waited for, and taken at once. */
function takeSoon(drain) {
  loop.next(drain);
  if (!isKnown) loop.now();
}

/** Few changes are drawn four times a second, the first one after a rest at once; many of them in every frame. */
function restMs() {
  return messageRate.perSecond(performance.now()) < BUSY_PER_S ? REST_MS : 0;
}

/** Takes a code that comes while the page is open: a link that was followed in its tab. */
function pairAgain(event) {
  const code = takeCode();
  if (!code) return;
  event.stopImmediatePropagation();
  navigation.settle();
  login.pair(code);
}

function takeLink(link) {
  status.enter(link);
  login.enter(link);
  noteLink(link);
  need();
}

/** Notes in the log that the connection came, went or was refused; that it is tried again says the head of the page. */
function noteLink({ phase, reason, resumed, gap }) {
  const state = { live: "connected", waiting: "lost", refused: "refused" }[phase];
  const text = phase === "live" ? sayHow(resumed, gap) : reason;
  if (!state || !text || `${state} ${text}` === noted) return;
  noted = `${state} ${text}`;
  log.push(eventOf({ type: "connection", state, text, timestamp_utc: new Date().toISOString() }, Date.now()));
}

function sayHow(resumed, gap) {
  if (resumed) return "resumed, nothing is missing";
  const devices = `${count(client.twins.size)} devices`;
  return gap?.to ? `${devices}; events ${count(gap.from)} to ${count(gap.to)} may be missing` : devices;
}

function takeSnapshot(at, twins, gap) {
  if (at.timestamp_utc) setServerTime(at.timestamp_utc);
  store.replace(twins, !gap || gap.reason === "too_old");
  isKnown = client.link.phase === "live";
  if (isKnown) showAddress();
  else hideDevice(); // somebody else logs in
  need();
}

function takeMessages(batch) {
  const nowMs = performance.now();
  const clockMs = Date.now();
  messageRate.add(nowMs, batch.length);
  for (const message of batch) {
    if (message.type === "data_update") {
      takeChange(message, store.apply(message, nowMs));
    } else if (message.type === "deleted") takeDeletion(message);
    log.push(eventOf(message, clockMs));
  }
  detail.take(batch);
}

function takeChange(message, device) {
  if (device.id === navigation.address.id && detail.device !== device) showDevice(device); // it has come, or come again
}

function takeDeletion(message) {
  const device = store.remove(message.device_id);
  if (!device) return;
  table.forget(device);
  detail.bury(message);
  deletion.forget(message.device_id);
}

function draw(nowMs) {
  if (!wall.isOpen) table.draw(nowMs, restMs() === 0);
  if (table.isFading) loop.next();
  detail.draw();
  wall.draw();
  if (!isNeeded && nowMs - wordsAtMs < WORDS_INTERVAL_MS) {
    loop.next(); // what came just now must not wait for the next message to be seen
    return;
  }
  isNeeded = false;
  wordsAtMs = nowMs;
  logView.draw();
  status.draw(nowMs, table.shown.length, table.isHeld);
}

function openDevice(device) {
  navigation.open(device.id, chart.lasting);
  showDevice(device);
}

/** Shows what the address says: a device, that there is none, or all of them. */
function showAddress() {
  const { address } = navigation;
  if (!isKnown) return;
  if (!address.hash) {
    detail.close();
    wall.close();
    return;
  }
  navigation.settle();
  if (!address.isWall) wall.hide();
  const device = store.devices.get(address.id);
  if (address.isWall) showWall();
  else if (device) showDevice(device);
  else {
    detail.openAbsent(address);
    mark(address.id ?? "");
  }
}

function showWall() {
  detail.hide();
  wall.open(navigation.address.parameters);
  mark(null);
}

/** Opens the charts of the devices that the table shows. */
function openWall() {
  navigation.open("", new URLSearchParams([["devices", store.filter.trim() || "*"]]));
  showWall();
}

function showDevice(device) {
  detail.open(device, navigation.address.parameters);
  mark(device.id);
}

function mark(id) {
  table.mark(id);
  document.title = id ? `${id.slice(0, TITLE_MAX_CHARS)} · twincast` : "twincast";
  need();
}

function hideDevice() {
  detail.hide();
  wall.hide();
  mark(null);
}

function leaveDevice() {
  mark(null);
  navigation.close();
  table.focus();
}

function sendTo(form, device) {
  detail.close();
  showView("send");
  forms.edit(form, form === "telemetry" ? { device_id: device.id } : { target: device.id });
}

/** Phones show one of the three parts at a time. */
function showView(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll(".views button")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
}

function showTheme() {
  const { choice } = globalThis.twincastTheme;
  const button = byId("theme");
  setIcon(button, choice);
  button.title = `Theme: ${choice} (t)`;
  button.setAttribute("aria-label", `Theme: ${choice}`);
  forgetPalette();
  need();
}

function filterDevices(text) {
  store.show({ filter: text });
  table.toTop();
  if (detail.device) table.mark(detail.device.id);
  need();
}

byId("filter").addEventListener("input", ({ target }) => filterDevices(target.value));
byId("wall-open").addEventListener("click", openWall);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); table.focus(); });
byId("theme").addEventListener("click", () => { globalThis.twincastTheme.next(); showTheme(); });
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => {
    detail.close();
    showView(button.dataset.view);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
listenToKeyboard({ detail, wall, forms, logView, table, showView, filterDevices });
showTheme();
setInterval(() => loop.next(), 500); // ages and rates change also when nothing comes
if (code) login.pair(code);
else client.open();
