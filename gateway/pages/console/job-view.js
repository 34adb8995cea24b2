// One job: what it is, where it stands in its life, what it was given and has told, and its family.

import { sayError } from "./dialogs.js";
import { facts, h, put, section, setText } from "./dom.js";
import { showFamily } from "./family.js";
import { number, plural, pretty, span, time, when } from "./format.js";
import { jobActions } from "./job-actions.js";
import { whileSeen } from "./live.js";
import { queueHref } from "./routes.js";
import { dueAt, STATES } from "./states.js";

const LOGS = 100; // rows of one answer
const MOST_LOGS = 2000; // rows on the page
const LOOK = 3000; // ms between two looks at an active job: its log has no events

export class JobPage {
  #closed = false;
  #rows = LOGS;
  #asked = 0;
  #isActive = false;
  #shown = null; // the text of the last job and state, to leave the page alone while nothing changes

  constructor(content, session, queue, id) {
    Object.assign(this, { content, session, queue, id });
    this.head = h("div", {});
    this.body = h("div", { class: "columns" });
    this.logs = h("section", { class: "card", hidden: true });
    this.family = h("section", { class: "card", hidden: true });
    put(content, this.head, this.body, this.family, this.logs);
    this.stop = whileSeen(LOOK, () => this.#isActive && this.changed());
    this.changed();
  }

  close() {
    this.#closed = true;
    this.stop();
  }

  async changed() {
    const lacks = this.session.lacks("observe");
    if (lacks) return put(this.head, h("p", { class: "card empty" }, `${lacks} to see the job.`));
    const asked = ++this.#asked;
    try {
      const [job, state, logs] = await Promise.all([
        this.queue.getJob(this.id),
        this.queue.getJobState(this.id),
        this.queue.getJobLogs(this.id, 0, this.#rows - 1, false),
      ]);
      if (this.#closed || asked !== this.#asked) return;
      this.#isActive = state === "active";
      const text = JSON.stringify([job, state]);
      this.#showLogs(logs);
      if (text === this.#shown) return;
      this.#shown = text;
      if (job) await this.#show(job, state);
      else this.#gone();
    } catch (error) {
      if (!this.#closed) sayError(error);
    }
  }

  #gone() {
    put(
      this.head,
      h(
        "div",
        { class: "card empty" },
        h("p", {}, `There is no job ${this.id}, or not any more.`),
        h("a", { href: queueHref(this.queue.name) }, "All jobs"),
      ),
    );
    put(this.body);
    this.family.hidden = true;
  }

  async #show(job, state) {
    const changed = () => this.changed();
    const gone = () => (location.hash = queueHref(this.queue.name));
    const title = STATES[state]?.title ?? state;
    const hadFocus = this.head.contains(document.activeElement);
    put(
      this.head,
      h(
        "div",
        { class: "bar" },
        h(
          "h2",
          { class: "job-title", tabindex: "-1" },
          job.name ?? "",
          " ",
          h("span", { class: "mono muted" }, String(job.id)),
        ),
        h("span", { class: `badge ${state}` }, title),
        h("span", { class: "gap" }),
        h("div", { class: "actions" }, jobActions(this.session, this.queue, job, state, { changed, gone })),
      ),
      progressOf(job.progress, state),
    );
    if (hadFocus) this.head.querySelector("h2").focus();
    const life = section(
      "Life",
      timeline(job, state),
      facts(
        ["Attempts", attempts(job)],
        ["Priority", job.priority ? number(job.priority) : null],
        ["Processed by", job.processedBy],
        ["Lost its worker", job.stalledCounter ? plural(job.stalledCounter, "time") : null],
        ["Scheduler", job.repeatJobKey],
        ["Deduplication id", job.deduplicationId],
        ["Will fail", job.deferredFailure],
      ),
    );
    const failure =
      job.failedReason !== undefined && section("Why it failed", h("p", { class: "reason" }, job.failedReason), stack(job));
    const result = state === "completed" && section("Result", code(job.returnvalue ?? null, "Result"));
    put(
      this.body,
      h("div", {}, life, section("Data", code(job.data, "Data"))),
      h("div", {}, failure, result, section("Options", code(job.opts, "Options"))),
    );
    try {
      await showFamily(this.family, this.session, this.queue.name, job);
    } catch (error) {
      if (this.#closed) return;
      this.family.hidden = false; // such as a parent in a queue that the key is not for
      put(this.family, h("h2", {}, "Family"), h("p", { class: "muted" }, error.message));
    }
  }

  #showLogs({ logs, count }) {
    this.logs.hidden = count === 0;
    if (count === 0) return;
    const more = async () => {
      this.#rows = Math.min(this.#rows * 2, MOST_LOGS);
      await this.changed();
    };
    const rest = count - logs.length;
    put(
      this.logs,
      h("h2", {}, "Log ", h("span", { class: "count" }, number(count))),
      rest > 0 &&
        (logs.length < MOST_LOGS
          ? h("button", { type: "button", onclick: more }, `Earlier rows (${number(rest)})`)
          : h("p", { class: "muted" }, `${plural(rest, "earlier row")} are not shown.`)),
      h(
        "ol",
        { class: "log", start: rest + 1, tabindex: "0", "aria-label": "Log" },
        logs.toReversed().map((row) => h("li", {}, row)),
      ),
    );
  }
}

function attempts(job) {
  const most = Math.max(1, job.opts?.attempts || 1);
  return `${number(job.attemptsMade ?? 0)} of ${number(most)}`;
}

function code(value, label) {
  return h("pre", { tabindex: "0", role: "region", "aria-label": label }, pretty(value));
}

function stack(job) {
  const traces = (job.stacktrace ?? []).map(String).filter(Boolean);
  return traces.map((trace, at) =>
    h(
      "details",
      { open: at === traces.length - 1 },
      h("summary", {}, `Stack of failure ${at + 1}`),
      h("pre", { tabindex: "0" }, trace),
    ),
  );
}

function progressOf(progress, state) {
  if (progress === 0 || progress === null || progress === undefined) return null;
  if (typeof progress !== "number") return h("p", { class: "muted" }, "Progress: ", h("code", {}, JSON.stringify(progress)));
  const bar = h("progress", { max: "100", value: String(Math.max(0, Math.min(100, progress))), "aria-label": "Progress" });
  return h("div", { class: `progress ${state}` }, bar, h("span", { class: "number" }, `${number(progress)} %`));
}

/** The steps of a job's life that have a time, and how long it was from one to the next. */
function timeline(job, state) {
  const steps = [["Added", job.timestamp]];
  if (job.delay > 0 && state === "delayed") steps.push(["Due", dueAt(job)]);
  if (job.processedOn)
    steps.push([job.attemptsStarted > 1 ? `Started, the ${ordinal(job.attemptsStarted)} time` : "Started", job.processedOn]);
  if (job.finishedOn) steps.push([state === "failed" ? "Failed" : "Completed", job.finishedOn]);
  return h(
    "ol",
    { class: "timeline" },
    steps.map(([name, at], index) => {
      const before = steps[index - 1]?.[1];
      const away = before === undefined ? "" : `${at >= before ? "+" : "−"}${span(Math.abs(at - before))}`;
      const isNext = at > Date.now();
      return h(
        "li",
        { class: isNext && "next" },
        h("span", {}, name),
        h("time", { datetime: isoOf(at), class: "number" }, isNext ? when(at) : time(at, true)),
        h("span", { class: "muted number" }, away),
      );
    }),
  );
}

const isoOf = (ms) => (Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : null);

function ordinal(count) {
  const ending = count % 100 > 10 && count % 100 < 14 ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[count % 10] ?? "th");
  return `${count}${ending}`;
}
