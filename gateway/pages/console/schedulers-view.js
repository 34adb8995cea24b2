// The job schedulers of a queue, with the times of their next jobs.

import { ask, attempt, button, sayError } from "./dialogs.js";
import { h, put } from "./dom.js";
import { excerpt, number, plural, span, when } from "./format.js";

const MOST = 200; // schedulers of one page; Node's own list has no end

export function schedulersView(content, session, queue) {
  const body = h("tbody");
  const note = h("p", { class: "empty", hidden: true });
  const heads = ["Scheduler", "Runs", "Next job", "Made", "Name", "Data", "Remove"];
  let closed = false;
  put(
    content,
    h(
      "div",
      { class: "card table", role: "region", "aria-label": "Job schedulers", tabindex: "0" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            heads.map((text) => h("th", { scope: "col" }, text)),
          ),
        ),
        body,
      ),
      note,
    ),
  );

  async function changed() {
    const lacks = session.lacksFor("getJobSchedulers");
    if (lacks) return tell(lacks);
    try {
      const [found, count] = await Promise.all([queue.getJobSchedulers(0, MOST - 1, true), queue.getJobSchedulersCount()]);
      if (closed) return;
      put(body, found.map(row));
      if (!found.length) tell("No job scheduler makes jobs here.");
      else if (count > found.length) tell(`The first ${number(found.length)} of ${plural(count, "scheduler")}.`);
      else note.hidden = true;
    } catch (error) {
      if (!closed) sayError(error);
    }
  }

  function tell(text) {
    note.hidden = false;
    put(note, text);
  }

  function row(scheduler) {
    const { key, every, pattern, tz, next, iterationCount, limit, name, template } = scheduler;
    const runs = pattern ? [h("code", {}, pattern), tz && ` ${tz}`] : every ? `every ${span(every)}` : "–";
    const made = `${number(iterationCount ?? 0)}${limit ? ` of ${number(limit)}` : ""}`;
    const cells = { Runs: runs, "Next job": when(next), Made: made, Name: name ?? "", Data: excerpt(template?.data ?? {}) };
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, key),
      Object.entries(cells).map(([label, value]) => h("td", { "data-label": label }, value)),
      h(
        "td",
        {},
        button("Remove…", () => remove(key), { lacks: session.lacksFor("removeJobScheduler"), kind: "danger small" }),
      ),
    );
  }

  async function remove(key) {
    const text = "It makes no more jobs, and its next one is removed.";
    const asked = await ask({ title: `Remove the scheduler ${key}?`, text, yes: "Remove", danger: true });
    if (asked) await attempt(() => queue.removeJobScheduler(key), `The scheduler ${key} is removed`, changed);
  }

  changed();
  return { changed, close: () => (closed = true) };
}
