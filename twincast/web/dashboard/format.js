/** Numbers, times and ages as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** @param {number} number @returns {string} `12,345` */
export function count(number) {
  return whole.format(number);
}

/** @param {number} perSecond @returns {string} `4,998`, or `0.5` for less than ten */
export function rate(perSecond) {
  return perSecond > 0 && perSecond < 9.95 ? perSecond.toFixed(1) : whole.format(perSecond);
}

/** @param {number} number @returns {string} at most six significant digits, for axes and summaries */
export function measure(number) {
  if (!Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return number.toExponential(2);
  return String(Number(number.toPrecision(6)));
}

/** @param {number} durationMs @returns {string} `now`, `12 s`, `3 min`, `5 h`, `9 d` */
export function age(durationMs) {
  const seconds = durationMs / 1000;
  if (!(seconds >= 1)) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** @param {number} size @returns {string} `999 bytes`, `4.1 MB`: by thousands, as disks are sold */
export function bytes(size) {
  if (size === 1) return "1 byte";
  const units = ["bytes", "KB", "MB", "GB", "TB", "PB"];
  const unit = Math.min(units.length - 1, size < 1000 ? 0 : Math.floor(Math.log10(size) / 3));
  return `${unit ? (size / 1000 ** unit).toFixed(1) : whole.format(size)} ${units[unit]}`;
}

/** @param {number} seconds @returns {string} `45 s`, `12 min`, `36 h`, `30 days` */
export function duration(seconds) {
  if (seconds < 120) return `${whole.format(seconds)} s`;
  if (seconds < 7200) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172_800) return `${whole.format(seconds / 3600)} h`;
  return `${whole.format(seconds / 86_400)} days`;
}

/** @param {number} durationMs @returns {string} `340 µs`, `1.4 ms`, `120 ms` */
export function latency(durationMs) {
  if (!Number.isFinite(durationMs)) return "–";
  if (durationMs < 1) return `${Math.round(durationMs * 1000)} µs`;
  return `${durationMs < 10 ? durationMs.toFixed(1) : Math.round(durationMs)} ms`;
}

/** @param {number} atMs @returns {string} `21:04:11` in local time */
export function time(atMs) {
  return clock.format(atMs);
}

/** @param {number} atMs @returns {string} `21:04:11.123` in local time */
export function preciseTime(atMs) {
  return `${clock.format(atMs)}.${String(Math.floor(atMs) % 1000).padStart(3, "0")}`;
}

/** @param {number} atMs @returns {string} date and time in the reader's way */
export function dateTime(atMs) {
  return full.format(atMs);
}

const DAY_MS = 86_400_000;
const parts = (options) => new Intl.DateTimeFormat(undefined, options);
const minuteOf = parts({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const secondOf = parts({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayOf = parts({ day: "numeric", month: "short" });
const monthOf = parts({ month: "short", year: "numeric" });
const yearOf = parts({ year: "numeric" });

/**
 * Labels the times of an axis, in the reader's zone; the day stands below the first one and wherever it changes.
 * @param {number[]} timesMs
 * @param {number} stepMs how far they are apart
 * @returns {string[]} of one or two lines
 */
export function axisTimes(timesMs, stepMs) {
  if (stepMs >= 365 * DAY_MS) return timesMs.map((atMs) => yearOf.format(atMs));
  if (stepMs >= 28 * DAY_MS) return timesMs.map((atMs) => monthOf.format(atMs));
  const [small, large] = stepMs >= DAY_MS ? [(atMs) => dayOf.format(atMs), yearOf] : [clockOf(stepMs), dayOf];
  return timesMs.map((atMs, index) => {
    const below = large.format(atMs);
    const isNew = index === 0 || large.format(timesMs[index - 1]) !== below;
    return isNew ? `${small(atMs)}\n${below}` : small(atMs);
  });
}

function clockOf(stepMs) {
  if (stepMs >= 60_000) return (atMs) => minuteOf.format(atMs);
  return stepMs >= 1_000 ? (atMs) => secondOf.format(atMs) : preciseTime;
}
