// All queues that the key is for: counts, rate, the oldest waiting job, who is there; and the charts of the last hour.

import { charts } from "./charts.js";
import { sayError } from "./dialogs.js";
import { h, put, setText } from "./dom.js";
import { number, plural, rate, span } from "./format.js";
import { limits, Watch, whileSeen } from "./live.js";
import { queueHref } from "./routes.js";
import { shortOf, STATES } from "./states.js";

const PAGE = 100; // queues of one answer
const LIST_PERIOD = 5000; // ms between two looks at the list: who comes and goes no event tells
const SHOWN = Object.keys(STATES);

export function queuesView(main, session) {
  const rows = new Map();
  const body = h("tbody");
  const empty = h("p", { class: "empty", hidden: true });
  const more = h("button", { type: "button", hidden: true, onclick: () => ((pages += 1), load()) }, "More queues");
  let [filter, pages, closed, loading] = ["", 1, false, false];
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) rows.get(target.dataset.name)?.look(isIntersecting);
  });

  async function load() {
    if (loading || closed) return;
    loading = true;
    try {
      const found = [];
      let cursor = null;
      for (let page = 0; page < pages && (page === 0 || cursor); page++) {
        const at = cursor ? `&cursor=${cursor}` : "";
        const answer = await session.ask(`queues?counts=1&oldest=1&connected=1&limit=${PAGE}${at}`);
        found.push(...answer.queues);
        cursor = answer.cursor;
      }
      if (closed) return;
      more.hidden = cursor === null;
      update(found);
    } catch (error) {
      if (!closed) sayError(error);
    } finally {
      loading = false;
    }
  }

  function update(found) {
    const names = new Set(found.map(({ name }) => name));
    for (const [name, row] of rows) if (!names.has(name)) (row.close(), rows.delete(name));
    for (const each of found) {
      if (!rows.has(each.name)) rows.set(each.name, new Row(session, each.name, seen, rows));
      rows.get(each.name).update(each);
    }
    arrange();
  }

  function arrange() {
    const fits = [...rows.values()].filter(({ name }) => name.toLowerCase().includes(filter));
    fits.sort((one, other) => one.name.localeCompare(other.name));
    const elements = fits.map(({ element }) => element);
    if (elements.length !== body.children.length || elements.some((each, at) => body.children[at] !== each))
      put(body, elements);
    empty.hidden = fits.length > 0;
    setText(
      empty,
      rows.size ? "No queue has such a name." : "There is no queue yet. Open one by its name, and add its first job.",
    );
    setText(count, plural(rows.size, "queue"));
  }

  const count = h("span", { class: "muted" });
  const search = h("input", {
    type: "search",
    "aria-label": "Filter queues by name",
    placeholder: "Filter",
    oninput: (event) => ((filter = event.target.value.toLowerCase()), arrange()),
  });
  const lacks = session.lacks("observe");
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "Queue"),
    [...SHOWN.map((state) => shortOf(state)), "Per second", "Oldest waits", "Workers", "Watchers"].map((text) =>
      h("th", { scope: "col", class: "number" }, text),
    ),
  );
  put(
    main,
    h(
      "div",
      { class: "bar" },
      h("h1", { tabindex: "-1", "data-focus": true }, "Queues"),
      count,
      h("span", { class: "gap" }),
      search,
      opener(),
    ),
  );
  if (lacks) {
    main.append(h("p", { class: "card empty" }, `${lacks} to see the queues. Open one by its name.`));
    return () => {};
  }
  const chart = charts(session, null);
  main.append(
    chart.element,
    h(
      "div",
      { class: "card table", role: "region", "aria-label": "Queues", tabindex: "0" },
      h("table", { class: "queues" }, h("thead", {}, head), body),
      empty,
      more,
    ),
  );
  load();
  const stop = whileSeen(LIST_PERIOD, load);
  const ticking = whileSeen(1000, () => rows.forEach((row) => row.tick()));
  return () => {
    closed = true;
    stop();
    ticking();
    chart.close();
    seen.disconnect();
    rows.forEach((row) => row.close());
  };
}

/** A field that leads to a queue, also to one that has no jobs yet. */
function opener() {
  const input = h("input", {
    "aria-label": "Name of a queue to open",
    placeholder: "Queue name",
    required: true,
    maxlength: "1000",
  });
  const open = (event) => {
    event.preventDefault();
    location.hash = queueHref(input.value.trim());
  };
  return h("form", { class: "inline", onsubmit: open }, input, h("button", {}, "Open"));
}

class Row {
  #watch = null;

  constructor(session, name, seen, rows) {
    Object.assign(this, { session, name, seen, rows });
    this.cells = Object.fromEntries(
      [...SHOWN, "rate", "oldest", "workers", "watchers"].map((each) => [each, h("td", { class: "number" })]),
    );
    const labels = { rate: "per second", oldest: "oldest waits" };
    for (const [each, cell] of Object.entries(this.cells))
      cell.dataset.label = labels[each] ?? (STATES[each] ? shortOf(each) : each);
    this.badge = h("span", { class: "badge paused", hidden: true }, "paused");
    this.element = h(
      "tr",
      { "data-name": name },
      h("th", { scope: "row" }, h("a", { href: queueHref(name) }, name), this.badge),
      Object.values(this.cells),
    );
    seen.observe(this.element);
  }

  close() {
    this.seen.unobserve(this.element);
    this.#watch?.close();
    this.#watch = null;
  }

  /** Watch the queue while it is seen, and not too many others are. */
  look(isSeen) {
    const watched = [...this.rows.values()].filter((row) => row.#watch).length;
    if (isSeen && !this.#watch && watched < limits.watched)
      this.#watch = new Watch(this.session, this.name, () => this.refresh());
    if (!isSeen && this.#watch) {
      this.#watch.close();
      this.#watch = null;
    }
  }

  async refresh() {
    try {
      const path = `queue/${encodeURIComponent(this.name)}`;
      const [counts, paused] = await this.session.ask(path, "POST", [{ fn: "getJobCounts" }, { fn: "isPaused" }]);
      this.update({ counts: counts.ok, paused: paused.ok });
    } catch {
      // the list comes soon, and says what is wrong
    }
  }

  update({ counts, paused, oldest, workers, watchers }) {
    for (const state of counts ? SHOWN : []) {
      setText(this.cells[state], number(counts[state] ?? 0));
      this.cells[state].classList.toggle("none", !counts[state]);
    }
    if (counts) this.cells.failed.classList.toggle("bad", counts.failed > 0);
    if (paused !== undefined) this.badge.hidden = !paused;
    if (oldest !== undefined) setText(this.cells.oldest, oldest === null ? "–" : span(oldest));
    if (workers !== undefined) setText(this.cells.workers, number(workers));
    if (watchers !== undefined) setText(this.cells.watchers, number(watchers));
    this.tick();
  }

  tick() {
    if (!this.#watch) return setText(this.cells.rate, "–");
    setText(this.cells.rate, this.#watch.isBusy ? "many" : rate(this.#watch.rate));
  }
}
