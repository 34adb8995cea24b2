// The states of jobs: their names for people, the functions that list them, and what a row says beside the name.

import { excerpt, span, time } from "./format.js";

/** In the order of a job's life; `get` is the function that lists them, the next one or the newest first. */
export const STATES = {
  waiting: { title: "Waiting", get: "getWaiting", since: ["Added", (job) => time(job.timestamp)], tells: data },
  prioritized: { title: "Prioritized", get: "getPrioritized", since: ["Added", (job) => time(job.timestamp)], tells: priority },
  active: { title: "Active", get: "getActive", since: ["Started", (job) => time(job.processedOn)], tells: progress },
  delayed: { title: "Delayed", get: "getDelayed", since: ["Due", (job) => time(dueAt(job))], tells: data },
  "waiting-children": {
    title: "Waiting for children",
    short: "Children",
    get: "getWaitingChildren",
    since: ["Added", (job) => time(job.timestamp)],
    tells: data,
  },
  completed: { title: "Completed", get: "getCompleted", since: ["Ended", (job) => time(job.finishedOn)], tells: result },
  failed: { title: "Failed", get: "getFailed", since: ["Ended", (job) => time(job.finishedOn)], tells: reason },
};

export const shortOf = (state) => STATES[state].short ?? STATES[state].title;
export const dueAt = (job) => job.timestamp + (job.delay ?? 0);
export const tookOf = (job) => (job.finishedOn && job.processedOn ? span(job.finishedOn - job.processedOn) : "");

function data(job) {
  return excerpt(job.data);
}

function priority(job) {
  return `priority ${job.priority} · ${excerpt(job.data)}`;
}

function progress(job) {
  const told = job.progress;
  return told === 0 || told === undefined ? excerpt(job.data) : `${typeof told === "number" ? `${told} %` : excerpt(told)}`;
}

function result(job) {
  return job.returnvalue === null || job.returnvalue === undefined ? "" : excerpt(job.returnvalue);
}

function reason(job) {
  return excerpt(job.failedReason ?? "");
}

/** Return what a job's own times say of its state, where nobody was asked. */
export function stateOf(job) {
  if (job.finishedOn) return job.failedReason === undefined || (job.returnvalue ?? null) !== null ? "completed" : "failed";
  if (job.processedOn) return "active";
  return job.delay > 0 ? "delayed" : "waiting";
}
