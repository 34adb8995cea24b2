// Numbers, times and values as people read them.

const NUMBERS = new Intl.NumberFormat("en-US");
const LONGEST_EXCERPT = 160; // characters of a value in a row
const LONGEST_VALUE = 200_000; // characters of a value that is shown whole; the rest is left out, and that is said

export const number = (value) => (Number.isFinite(value) ? NUMBERS.format(value) : "–");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Format a rate: two digits that mean something. */
export function rate(perSecond) {
  if (!Number.isFinite(perSecond)) return "–";
  if (perSecond >= 10 || perSecond === 0) return number(Math.round(perSecond));
  return perSecond.toFixed(perSecond >= 1 ? 1 : 2).replace(/\.?0+$/, "") || "0";
}

const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1000],
];

/** Format a time span in ms: its largest unit, and the next one while that says something. */
export function span(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 0) return "0 s";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1).replace(".0", "")} s`;
  const at = UNITS.findIndex(([, size]) => ms >= size);
  const [unit, size] = UNITS[at];
  const [smaller, next] = UNITS[at + 1] ?? [];
  const rest = next ? Math.floor((ms % size) / next) : 0;
  return `${Math.floor(ms / size)} ${unit}${rest && ms < 10 * size ? ` ${rest} ${smaller}` : ""}`;
}

const two = (value) => String(value).padStart(2, "0");

/** Format a time of day, with the date unless it is today. */
export function time(ms, isExact = false) {
  if (!Number.isFinite(ms)) return "–";
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return String(ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const exact = isExact ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  return at.toDateString() === new Date().toDateString() ? `${clock}${exact}` : `${day} ${clock}${exact}`;
}

/** Format a time and how long that is from now. */
export function when(ms) {
  if (!Number.isFinite(ms)) return "–";
  const away = ms - Date.now();
  return `${time(ms)} (${away > 0 ? `in ${span(away)}` : `${span(-away)} ago`})`;
}

/** Format a value in one short line. */
export function excerpt(value) {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  const line = text.slice(0, LONGEST_EXCERPT + 1).replace(/\s+/g, " ");
  return text.length > LONGEST_EXCERPT ? `${line.slice(0, LONGEST_EXCERPT)}…` : line;
}

/** Format a value as JSON over many lines. */
export function pretty(value) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  if (text.length <= LONGEST_VALUE) return text;
  return `${text.slice(0, LONGEST_VALUE)}\n… ${number(text.length - LONGEST_VALUE)} more characters`;
}
