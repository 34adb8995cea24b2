// What can be done to a queue as a whole.

import { ask, attempt, button } from "./dialogs.js";
import { field, h } from "./dom.js";
import { plural } from "./format.js";
import { STATES } from "./states.js";

const CLEANED = ["completed", "failed", "waiting", "prioritized", "delayed", "active"];
const MOST_CLEANED = 100_000; // jobs of one clean, unless more are asked for

export class QueueActions {
  constructor(session, queue, changed) {
    Object.assign(this, { session, queue, changed });
    const make = (label, fn, act, kind = "") => button(label, act, { lacks: session.lacksFor(fn), kind });
    this.pause = make("Pause", "pause", () => this.#pause());
    this.resume = make("Resume", "resume", () => this.#resume());
    this.resume.hidden = session.may("observe"); // until it is known which of them fits; for others it never is
    this.element = h(
      "div",
      { class: "actions" },
      this.pause,
      this.resume,
      make("Retry failed…", "retryJobs", () => this.#retry()),
      make("Promote delayed…", "promoteJobs", () => this.#promote()),
      make("Clean…", "clean", () => this.#clean()),
      make("Drain…", "drain", () => this.#drain(), "danger"),
    );
  }

  /** Show what fits to a queue that is paused, or is not. */
  update(paused) {
    const [shown, hidden] = paused ? [this.resume, this.pause] : [this.pause, this.resume];
    const hadFocus = document.activeElement === hidden;
    shown.hidden = false;
    hidden.hidden = true;
    if (hadFocus) shown.focus();
  }

  async #pause() {
    await attempt(() => this.queue.pause(), `${this.queue.name} is paused`, this.changed);
  }

  async #resume() {
    await attempt(() => this.queue.resume(), `${this.queue.name} goes on`, this.changed);
  }

  async #retry() {
    const asked = await ask({ title: "Retry all failed jobs?", text: "They go back to wait, and run again.", yes: "Retry" });
    if (asked) await attempt(() => this.queue.retryJobs(), "The failed jobs wait again", this.changed);
  }

  async #promote() {
    const asked = await ask({
      title: "Promote all delayed jobs?",
      text: "They can run now, whatever their delay.",
      yes: "Promote",
    });
    if (asked) await attempt(() => this.queue.promoteJobs(), "The delayed jobs wait now", this.changed);
  }

  async #drain() {
    const delayed = h("input", { type: "checkbox", name: "delayed" });
    const asked = await ask({
      title: `Drain ${this.queue.name}?`,
      text: "All waiting jobs are removed for good.",
      fields: [h("label", { class: "check" }, delayed, "The delayed ones, too")],
      yes: "Remove them",
      danger: true,
    });
    if (asked) await attempt(() => this.queue.drain(Boolean(asked.delayed)), `${this.queue.name} is drained`, this.changed);
  }

  async #clean() {
    const states = h(
      "select",
      { name: "state" },
      CLEANED.map((state) => h("option", { value: state }, STATES[state].title)),
    );
    const asked = await ask({
      title: `Clean ${this.queue.name}`,
      text: "Jobs in one state are removed for good, the oldest first.",
      fields: [
        field("State", states),
        field("Older than, in seconds", h("input", { type: "number", name: "grace", min: "0", value: "3600", required: true })),
        field("At most", h("input", { type: "number", name: "limit", min: "1", value: MOST_CLEANED, required: true })),
      ],
      yes: "Remove them",
      danger: true,
    });
    if (!asked) return;
    const [grace, limit] = [Math.round(Number(asked.grace) * 1000), Number(asked.limit)];
    await attempt(
      () => this.queue.clean(grace, limit, asked.state),
      (ids) => `${plural(ids.length, "job")} removed`,
      this.changed,
    );
  }
}
