// Drives the JavaScript client: each line of standard input says what happens to it, a line of output what it did.
// The clock, the network and chance are the test's own, so that every order of things can be tried at once.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const module = await import(pathToFileURL(process.argv[2]).href);

let nowMs = 1_000_000;
let timers = new Map();
let nextTimer = 1;
let chance = 1;
let events = [];
let socket = null;
let client = null;
let http = null; // what plain HTTP answers; null for nothing

globalThis.fetch = async (url) => {
  events.push({ asked: String(url) });
  if (!http) throw new TypeError("fetch failed");
  return { ok: http.status < 400, status: http.status, json: async () => http.problem };
};
globalThis.setTimeout = (run, delayMs = 0) => {
  timers.set(nextTimer, { run, atMs: nowMs + delayMs });
  return nextTimer++;
};
globalThis.clearTimeout = (timer) => timers.delete(timer);
Object.defineProperty(globalThis, "performance", { value: { now: () => nowMs } });
Date.now = () => nowMs;
Math.random = () => chance;
console.error = (error) => events.push({ reported: String(error?.message ?? error) });
process.on("unhandledRejection", (error) => events.push({ unhandled: String(error?.message ?? error) }));

globalThis.WebSocket = class {
  constructor(url) {
    if (chance === "throw") throw new Error("no sockets here");
    socket = this;
    this.isOpen = false;
    events.push({ dialed: String(url) });
  }

  send(text) {
    if (!this.isOpen) throw new Error("the socket is not open");
    events.push({ sent: text });
  }

  close(code) {
    this.isOpen = false;
    if (socket === this) socket = null;
    events.push({ hung_up: code });
  }
};

/** A function that gets credentials, one after another; the last one for ever. */
function tokensOf(given) {
  let next = 0;
  return () => {
    const { raises, gives, never } = given[Math.min(next++, given.length - 1)];
    if (never) return new Promise(() => {});
    if (raises === "at once") throw new Error("no credential now");
    return raises ? Promise.reject(new Error(raises)) : Promise.resolve(gives);
  };
}

const throws = (name) => () => { throw new Error(`${name} failed`); };
const rejects = (name) => async () => { throw new Error(`${name} failed`); };

const actions = {
  make({ options = {}, tokens, throwing = [], rejecting = [] }) {
    client?.close();
    timers = new Map();
    events = [];
    socket = null;
    chance = 1;
    http = null;
    const callbacks = {
      onLink: (link) => events.push({ link }),
      onSnapshot: ({ epoch, seq }, twins, gap) => events.push({ snapshot: { epoch, seq, twins: Object.fromEntries(twins), gap } }),
      onMessages: (messages) => events.push({ messages }),
    };
    for (const name of throwing) callbacks[name] = throws(name);
    for (const name of rejecting) callbacks[name] = rejects(name);
    client = new module.Client({ url: "ws://twincast.test/ws", ...callbacks, ...options, ...(tokens ? { token: tokensOf(tokens) } : {}) });
  },
  call({ method, args = [], name, isWatched = true }) {
    const result = client?.[method](...args);
    if (!isWatched) return;
    result?.then?.(
      (answer) => events.push({ settled: name, answer }),
      (error) => events.push({ settled: name, code: error.code, message: error.message }),
    );
  },
  accept() {
    socket.isOpen = true;
    socket.onopen?.({});
  },
  receive({ texts }) {
    for (const text of texts) socket?.onmessage?.({ data: text });
  },
  end({ code = 1006, reason = "", isTold = true }) {
    const ended = socket;
    socket = null;
    ended.isOpen = false;
    ended.onerror?.({});
    if (isTold) ended.onclose?.({ code, reason });
  },
  async advance({ ms }) {
    const untilMs = nowMs + ms;
    for (;;) {
      await settled();
      const due = [...timers].filter(([, { atMs }]) => atMs <= untilMs).sort(([, a], [, b]) => a.atMs - b.atMs)[0];
      if (!due) break;
      timers.delete(due[0]);
      nowMs = Math.max(nowMs, due[1].atMs);
      due[1].run();
    }
    nowMs = untilMs;
  },
  answer(how) {
    http = how;
  },
  chance({ value }) {
    chance = value;
  },
  async evaluate({ text }) {
    try {
      const value = await new Function("m", "client", `return (${text})`)(module, client);
      return { value };
    } catch (error) {
      return { code: error.code ?? error.name, message: error.message };
    }
  },
};

const settled = () => new Promise((resolve) => { setImmediate(resolve); });

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...how } = JSON.parse(line);
  let failed;
  let result;
  try {
    result = await actions[action](how);
  } catch (error) {
    failed = error.stack;
  }
  await actions.advance({ ms: 0 });
  await settled();
  const state = client && { link: client.link, position: client.position, twins: Object.fromEntries(client.twins) };
  process.stdout.write(`${JSON.stringify({ events, result, failed, state, timers: timers.size })}\n`);
  events = [];
}
