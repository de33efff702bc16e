/**
 * What lines show: their past, as the server has it, and what comes behind it, each reading once. Does not use the document.
 */

import { Feed } from "./feed.js";
import { countsAtMs, timeMs } from "./moments.js";
import { askPast } from "./past.js";
import { partAt } from "./pointer.js";

const READINGS_MAX = 5_000; // live ones make more of them: then the server adds them up
const HASTE_MS = 200; // a held arrow key goes through devices faster than anybody reads
const AGAIN_MS = 5_000;

/**
 * @typedef {object} Question
 * @property {import("./past.js").Trace[]} traces
 * @property {number|null} fromMs null for the beginning
 * @property {number|null} toMs null for now, and what comes
 * @property {number} points how many buckets a chart can show
 */

export class LivePast {
  #ask;
  #follow;
  #question;
  #onMessages;
  #onNeed;
  #asked = null;
  #answer = null;
  #turn = null;
  #isAsking = false;
  #feed = null;
  #timer = 0;
  #loadedAtMs = -Infinity;
  /** Why there is no past, or nothing behind it; empty if there is. */
  problem = "";

  /**
   * @param {object} means
   * @param {import("./past.js").Ask} means.ask
   * @param {(options: object) => import("./client.js").Client} means.follow a further client, with this page's credential
   * @param {() => Question|null} means.question what is to be shown, whenever it is asked for; null for nothing
   * @param {(messages: object[]) => void} [means.onMessages] what came behind the past, each event once; a late one may come again
   * @param {() => void} means.onNeed something to be drawn has come
   */
  constructor({ ask, follow, question, onMessages, onNeed }) {
    this.#ask = ask;
    this.#follow = follow;
    this.#question = question;
    this.#onMessages = onMessages ?? (() => {});
    this.#onNeed = onNeed;
  }

  /** Whether there is an answer. */
  get isKnown() {
    return this.#answer !== null;
  }

  /** Whether the first answer is on its way. */
  get isComing() {
    return this.#answer === null && this.#isAsking;
  }

  /** What the lines show, in order. @returns {import("./past.js").Trace[]} */
  get traces() {
    return this.#asked?.traces ?? [];
  }

  /** One for each trace. @returns {(import("./series.js").Readings|import("./series.js").Buckets)[]} */
  get series() {
    return this.#answer?.series ?? [];
  }

  /** @returns {import("./past.js").Mark[]} by time */
  get marks() {
    return this.#answer?.marks ?? [];
  }

  /** @param {string} id of a device @returns {import("./past.js").Mark[]} its own, by time */
  marksOf(id) {
    return this.marks.filter((mark) => mark.id === id);
  }

  /** Asks anew, at once or, if that was a moment ago, soon. What there is stays until the answer comes. */
  loadSoon() {
    const waitMs = Math.max(0, this.#loadedAtMs + HASTE_MS - performance.now());
    clearTimeout(this.#timer);
    if (waitMs) this.#timer = setTimeout(() => this.load(), waitMs);
    else this.load();
  }

  /** Asks anew at once. What there is stays until the answer comes. */
  async load() {
    this.#stop();
    const question = this.#question();
    if (!question) return;
    this.#loadedAtMs = performance.now();
    const turn = (this.#turn = new AbortController());
    this.#isAsking = true;
    try {
      const answer = await askPast(this.#ask, { ...question, signal: turn.signal });
      if (!turn.signal.aborted) this.#begin(question, answer);
    } catch (error) {
      if (turn.signal.aborted) return;
      this.problem = error.message;
      if (error.isForNow ?? true) this.#timer = setTimeout(() => this.load(), AGAIN_MS);
    }
    if (!turn.signal.aborted) this.#isAsking = false; // else another turn has begun, or none is wanted
    this.#onNeed();
  }

  /** Lets go of everything. */
  close() {
    this.#stop();
    this.#asked = this.#answer = null;
    this.problem = "";
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#turn?.abort();
    this.#isAsking = false;
    this.#feed?.close();
    this.#feed = null;
  }

  /** Goes on behind what the answer has: each reading is in the answer or comes, and none does both. */
  #begin(question, answer) {
    this.#asked = question;
    this.#answer = answer;
    this.problem = "";
    this.#feed = new Feed(this.#follow, { devices: [...new Set(question.traces.map(({ id }) => id))], at: answer.at }, {
      onMessages: (messages) => this.#take(messages),
      onGap: () => this.load(),
      onRefused: (reason) => {
        this.problem = reason;
        this.#onNeed();
      },
    });
  }

  #take(messages) {
    const answer = this.#answer;
    for (const message of messages) {
      const { type, seq } = message;
      if (type === "data_update" || type === "late") {
        if (seq <= answer.readingsSeq) continue;
        answer.readingsSeq = seq;
        this.#add(message);
      } else if ((type === "control" || type === "deleted") && seq > answer.marksSeq) {
        answer.marksSeq = seq;
        const { timestamp_utc: stored, command, args, scope } = message;
        answer.marks.push({ atMs: timeMs(stored), seq, id: message.device_id ?? message.target, type, command, args, scope });
      }
    }
    this.#onMessages(messages);
    if (messages.some(({ scope }) => scope === "history")) this.load(); // what a device said is erased
    if (answer.series.some(({ every, length }) => !every && length > READINGS_MAX)) this.loadSoon();
    this.#onNeed();
  }

  #add(message) {
    const atMs = countsAtMs(message);
    const { traces, fromMs, toMs } = this.#asked;
    if (toMs !== null && !(atMs >= fromMs && atMs < toMs)) return;
    traces.forEach(({ id, path }, index) => {
      const part = id === message.device_id ? partAt(message.value, path) : undefined;
      if (part !== undefined) this.#answer.series[index].add(atMs, message.seq, part);
    });
  }
}
