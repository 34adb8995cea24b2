// What can be done to one job, by its state.

import { ask, attempt, button } from "./dialogs.js";
import { field, h } from "./dom.js";

/** Buttons for a job in a state; `changed` is called after each success, `gone` when the job was removed. */
export function jobActions(session, queue, job, state, { changed, gone }) {
  const id = String(job.id);
  const of = (fn, more = {}) => ({ lacks: session.lacksFor(fn), ...more });
  const waits = ["waiting", "prioritized", "delayed"].includes(state);

  const retry = () => attempt(() => queue.retryJob(id, state), `Job ${id} waits again`, changed);
  const promote = () => attempt(() => queue.promoteJob(id), `Job ${id} can run now`, changed);

  async function delay() {
    const input = h("input", { type: "number", name: "delay", min: "0", step: "any", value: "60", required: true });
    const asked = await ask({
      title: `Change the delay of job ${id}`,
      fields: [field("Seconds from now", input)],
      yes: "Change",
    });
    const ms = asked && Math.round(Number(asked.delay) * 1000);
    if (asked) await attempt(() => queue.changeJobDelay(id, ms), `Job ${id} is due in ${asked.delay} s`, changed);
  }

  async function priority() {
    const value = h("input", {
      type: "number",
      name: "priority",
      min: "0",
      max: "2097151",
      value: job.priority ?? 0,
      required: true,
    });
    const asked = await ask({
      title: `Change the priority of job ${id}`,
      fields: [field("Priority", value, "0 is none, and comes first; of the others smaller ones come first.")],
      yes: "Change",
    });
    const change = () => queue.changeJobPriority(id, { priority: Number(asked.priority) });
    if (asked) await attempt(change, `Job ${id} has the priority ${asked.priority}`, changed);
  }

  async function cancel() {
    const asked = await ask({
      title: `Cancel job ${id}?`,
      text: "It is taken from its worker, and fails for good.",
      fields: [
        field("Reason", h("input", { name: "reason", value: "Cancelled in the console", required: true, maxlength: "1000" })),
      ],
      yes: "Cancel the job",
      danger: true,
    });
    if (asked) await attempt(() => queue.cancelJob(id, asked.reason), `Job ${id} is cancelled`, changed);
  }

  async function remove() {
    const text = "The job and its children are removed for good.";
    const asked = await ask({ title: `Remove job ${id}?`, text, yes: "Remove", danger: true });
    if (asked) await attempt(() => queue.removeJob(id), `Job ${id} is removed`, gone);
  }

  return [
    ["failed", "completed"].includes(state) &&
      button(state === "failed" ? "Retry" : "Run again", retry, of("retryJob", { kind: "main" })),
    state === "delayed" && button("Promote", promote, of("promoteJob", { kind: "main" })),
    state === "delayed" && button("Change delay…", delay, of("changeJobDelay")),
    waits && button("Change priority…", priority, of("changeJobPriority")),
    state === "active" && button("Cancel…", cancel, of("cancelJob", { kind: "danger" })),
    state !== "active" && button("Remove…", remove, of("removeJob", { kind: "danger" })),
  ].filter(Boolean);
}
