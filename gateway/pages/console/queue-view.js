// One queue: its head with what can be done to all of its jobs, tabs, and what stands below the chosen one.

import { addView } from "./add-view.js";
import { callView } from "./call-view.js";
import { charts } from "./charts.js";
import { sayError } from "./dialogs.js";
import { h, put, setText } from "./dom.js";
import { number } from "./format.js";
import { JobList } from "./job-list.js";
import { JobPage } from "./job-view.js";
import { Watch } from "./live.js";
import { QueueActions } from "./queue-actions.js";
import { queueHref } from "./routes.js";
import { schedulersView } from "./schedulers-view.js";
import { shortOf, STATES } from "./states.js";

const OTHERS = { schedulers: "Schedulers", add: "Add a job", call: "Try a call", history: "Last hour" };
const FIRST = ["active", "waiting", "prioritized", "delayed", "waiting-children", "failed", "completed"]; // the first that has jobs is shown
const KINDS = {
  job: (...args) => new JobPage(...args),
  schedulers: schedulersView,
  add: addView,
  call: callView,
  history: historyView,
};

export function queueView(main, session, [name, tab, id]) {
  const queue = session.queue(name);
  const lacks = session.lacks("observe");
  const counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, h("span", { class: "count" }, "")]));
  const badge = h("span", { class: "badge paused", hidden: true }, "paused");
  const content = h("div", { class: "content" });
  const tabs = h("nav", { class: "tabs", "aria-label": `Parts of the queue ${name}` });
  const actions = new QueueActions(session, queue, () => changed());
  let [closed, view, known] = [false, null, {}];

  function showTabs(current) {
    const link = (key, ...text) => h("a", { href: queueHref(name, key), "aria-current": key === current && "page" }, text);
    put(
      tabs,
      Object.keys(STATES).map((state) => link(state, shortOf(state), counts[state])),
      h("span", { class: "gap" }),
      Object.entries(OTHERS).map(([key, title]) => link(key, title)),
    );
    showCurrent();
  }

  const showCurrent = () => tabs.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

  function open(current) {
    showTabs(current);
    if (STATES[current]) view = new JobList(content, queue, current);
    else view = KINDS[current](content, session, queue, id);
    view.counted?.(known);
  }

  async function refresh() {
    if (lacks) return;
    try {
      const [found, paused] = await Promise.all([queue.getJobCounts(), queue.isPaused()]);
      if (closed) return;
      known = found;
      for (const [state, element] of Object.entries(counts)) setText(element, number(found[state] ?? 0));
      badge.hidden = !paused;
      actions.update(paused);
      view?.counted?.(found);
    } catch (error) {
      if (!closed) sayError(error);
    }
  }

  async function changed() {
    await refresh();
    if (!closed) view?.changed?.();
  }

  put(
    main,
    h(
      "div",
      { class: "bar" },
      h("a", { class: "back", href: "#/", "aria-label": "All queues" }, "←"),
      h("h1", { tabindex: "-1", "data-focus": true }, name),
      badge,
      h("span", { class: "gap" }),
      finder(name),
      actions.element,
    ),
    tabs,
    content,
  );
  const watch = new Watch(session, name, changed);
  const asked = STATES[tab] || KINDS[tab] ? tab : null;
  if (asked && !(lacks && STATES[asked])) open(asked);
  refresh().then(() => {
    if (closed) return;
    if (view) showCurrent(); // counts have made all of them wider
    else if (lacks) {
      showTabs(asked);
      put(content, h("p", { class: "card empty" }, `${lacks} to see its jobs.`));
    } else open(FIRST.find((state) => known[state] > 0) ?? "waiting");
  });
  return () => {
    closed = true;
    watch.close();
    view?.close?.();
  };
}

/** A field that leads to a job by its id. */
function finder(name) {
  const input = h("input", { "aria-label": "Id of a job to open", placeholder: "Job id", required: true });
  const open = (event) => {
    event.preventDefault();
    location.hash = queueHref(name, "job", input.value.trim());
  };
  return h("form", { class: "inline", onsubmit: open }, input, h("button", {}, "Find"));
}

function historyView(content, session, queue) {
  const chart = charts(session, queue.name);
  put(content, chart.element);
  return chart;
}
