/** How full the journal is, and for how long its disk lasts: in the head of the page, for those whom the server tells. */

import { byId, say } from "./dom.js";
import { bytes, count, dateTime, duration } from "./format.js";

const REFRESH_MS = 30_000;
const SOON_S = 86_400; // a disk that is full by tomorrow is a matter of today

export class Fullness {
  #refresh;
  #timer = 0;

  /** @param {() => void} refresh asks the server how it is; the answer comes by `take` */
  constructor(refresh) {
    this.#refresh = refresh;
  }

  /** Shows what a status says; what there is stays if it could not be asked. @param {{space?: object}|null} status */
  take(status) {
    clearTimeout(this.#timer);
    const box = byId("journal");
    if (status) box.hidden = !status.space;
    if (!box.hidden) this.#timer = setTimeout(this.#refresh, REFRESH_MS);
    if (status?.space) this.#draw(status.space, box);
  }

  #draw(space, box) {
    const isDisk = space.disk_free_bytes !== null;
    const disk = space.file_bytes + space.wal_bytes + space.history_bytes;
    say(byId("journal-bytes"), bytes(isDisk ? disk : space.used_bytes));
    box.title = sayAll(space);
    box.toggleAttribute("data-low", space.problem !== null || (space.full_in_s !== null && space.full_in_s < SOON_S));
  }
}

function sayAll(space) {
  const since = space.oldest_at_utc ? `, since ${dateTime(Date.parse(space.oldest_at_utc))}` : "";
  const lines = [`${count(space.entries)} ${space.entries === 1 ? "entry" : "entries"}${since}`];
  const kept = [];
  if (space.keep_s !== null) kept.push(duration(space.keep_s));
  if (space.keep_bytes !== null) kept.push(`${bytes(space.keep_bytes)} at most`);
  lines.push(kept.length ? `Kept: ${kept.join(", ")}` : "Everything is kept");
  if (space.disk_free_bytes !== null) lines.push(`${bytes(space.disk_free_bytes)} of the disk are free${sayPace(space)}`);
  if (space.problem !== null) lines.push(space.problem);
  return lines.join("\n");
}

function sayPace(space) {
  if (space.growth_bytes_per_s === null) return "";
  const pace = `${bytes(space.growth_bytes_per_s)}/s`;
  return space.full_in_s === null ? `, and stay so at this pace (${pace})` : `, for ${duration(space.full_in_s)} at this pace (${pace})`;
}
