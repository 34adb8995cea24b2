// The last hour as two drawings: jobs per second, and how long jobs waited.

import { h, newId, put, s, setText } from "./dom.js";
import { rate, span, time } from "./format.js";
import { whileSeen } from "./live.js";

const [WIDTH, HEIGHT] = [600, 120]; // of the drawing, in its own units
const GRID = 3; // lines
const NOT_KEPT = "nothing has happened, or other queues are busier";
const SERIES = [
  ["added", "Added"],
  ["completed", "Completed"],
  ["failed", "Failed"],
];

/** Draw the history of a queue, or of all of them: `element`, and `close`. */
export function charts(session, name) {
  const jobs = new Chart("Jobs per second", rate, roundUp, SERIES);
  const waits = new Chart("Waiting time", span, roundUpSpan, [
    ["waited", "Mean"],
    ["longest", "Longest"],
  ]);
  const element = h("div", { class: "charts" }, jobs.element, waits.element);
  let [stop, closed] = [() => {}, false];

  async function look() {
    try {
      const history = complete(await session.ask(`history${name === null ? "" : `?queue=${encodeURIComponent(name)}`}`));
      if (closed) return;
      if (!history.kept) return fail(NOT_KEPT, history);
      const perSecond = (counts) => counts.map((count) => count / (history.step / 1000));
      jobs.draw(history, Object.fromEntries(SERIES.map(([each]) => [each, perSecond(history[each])])));
      waits.draw(history, history);
      return history;
    } catch (error) {
      if (closed) return;
      element.hidden = error.code === "FORBIDDEN"; // the history of all queues is not for a key that is for some
      return fail(error.message);
    }
  }

  function fail(message, history = null) {
    for (const each of [jobs, waits]) each.fail(message);
    return history;
  }

  look().then((history) => {
    if (!closed) stop = whileSeen(history?.step ?? 10_000, look);
  });
  return {
    element,
    close() {
      closed = true;
      stop();
    },
  };
}

/** Leave out the last step, which still goes on. */
function complete(history) {
  const series = Object.entries(history).map(([name, value]) => [name, Array.isArray(value) ? value.slice(0, -1) : value]);
  return { ...Object.fromEntries(series), end: history.end - history.step };
}

class Chart {
  #shown = null; // { end, step, series }

  constructor(title, format, roundUp, series) {
    Object.assign(this, { title, format, roundUp, series });
    const id = newId("chart");
    this.drawing = s("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-labelledby": id,
    });
    this.name = s("title", { id }, title);
    this.drawing.append(this.name);
    this.mark = s("line", { class: "mark", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.scale = h("span", { class: "scale" });
    this.at = h("span", { class: "muted" });
    this.values = series.map(() => h("strong", {}, "–"));
    const legend = series.map(([name, text], at) => h("span", { class: `key ${name}` }, text, " ", this.values[at]));
    this.drawing.addEventListener("pointermove", (event) => this.#point(event));
    this.drawing.addEventListener("pointerleave", () => this.#tell(null));
    this.element = h(
      "section",
      { class: "card chart" },
      h("div", { class: "bar" }, h("h2", {}, title), this.at, h("span", { class: "gap" }), legend),
      h("div", { class: "plot" }, this.scale, this.drawing),
      h("div", { class: "axis" }, h("span", {}, "−60 min"), h("span", {}, "−30 min"), h("span", {}, "now")),
    );
  }

  fail(message) {
    setText(this.at, message);
  }

  /** Draw series by their names; what is null is a gap. */
  draw({ end, step }, all) {
    const series = this.series.map(([name]) => all[name] ?? []);
    this.#shown = { end, step, series };
    const most = Math.max(...series.flat().filter(Number.isFinite), 0);
    const top = this.roundUp(most);
    const y = (value) => (HEIGHT - 1 - (value / (top || 1)) * (HEIGHT - 6)).toFixed(1);
    const grid = Array.from({ length: GRID }, (_, at) => {
      const height = y((top * (at + 1)) / GRID);
      return s("line", { class: "grid", x1: 0, x2: WIDTH, y1: height, y2: height });
    });
    const paths = series.map((values, at) => s("path", { class: `line ${this.series[at][0]}`, d: pathOf(values, y) }));
    put(this.drawing, this.name, grid, paths.reverse(), this.mark);
    setText(this.scale, top ? this.format(top) : "");
    setText(
      this.name,
      `${this.title} over the last hour: ${this.series.map(([name, text]) => summary(text, all[name] ?? [], this.format)).join("; ")}`,
    );
    this.#tell(null);
  }

  #point(event) {
    if (!this.#shown) return;
    const { left, width } = this.drawing.getBoundingClientRect();
    const count = this.#shown.series[0].length;
    this.#tell(Math.max(0, Math.min(count - 1, Math.round(((event.clientX - left) / width) * (count - 1)))));
  }

  /** Tell the values at a place, or the last ones that are complete. */
  #tell(place) {
    if (!this.#shown) return;
    const { end, step, series } = this.#shown;
    const last = series[0].length - 1;
    const at = place ?? last;
    series.forEach((values, index) => setText(this.values[index], this.format(values[at] ?? NaN)));
    setText(this.at, place === null ? "" : time(end - (last - at) * step));
    this.mark.setAttribute("visibility", place === null ? "hidden" : "visible");
    const x = ((at / Math.max(1, last)) * WIDTH).toFixed(1);
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
  }
}

function pathOf(values, y) {
  let [path, isOpen] = ["", false];
  values.forEach((value, at) => {
    const isThere = Number.isFinite(value);
    if (isThere) {
      const x = ((at / Math.max(1, values.length - 1)) * WIDTH).toFixed(1);
      path += isOpen ? `L${x} ${y(value)}` : `M${x} ${y(value)}h.01`; // a value between two gaps is a dot
    }
    isOpen = isThere;
  });
  return path;
}

function summary(text, values, format) {
  const there = values.filter(Number.isFinite);
  if (!there.length) return `${text} none`;
  const mean = there.reduce((sum, value) => sum + value, 0) / there.length;
  return `${text} ${format(mean)} on average, ${format(Math.max(...there))} at most`;
}

/** Return the next of 1, 2, 5, 10, 20 … that is not smaller. */
function roundUp(value) {
  if (value <= 0) return 0;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * size).find((each) => each >= value * 0.999);
}

/** Return the next span, in ms, that people count in. */
function roundUpSpan(ms) {
  const unit = [3_600_000, 60_000].find((each) => ms > each / 2);
  if (!unit) return roundUp(ms);
  return [1, 2, 5, 10, 15, 30].map((each) => each * unit).find((each) => each >= ms) ?? roundUp(ms / unit) * unit;
}
