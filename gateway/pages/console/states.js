// The states of jobs: their names for people, the functions that list them, and what a row says beside the name.

import { excerpt, number, span, time } from "./format.js";

const added = ["Added", (job) => time(job.timestamp)];
const ended = ["Ended", (job) => time(job.finishedOn)];
const took = ["Took", (job) => (job.finishedOn && job.processedOn ? span(job.finishedOn - job.processedOn) : "")];
const data = ["Data", (job) => excerpt(job.data)];

/** In the order of a job's life; `get` is the function that lists them, the next one or the newest first. */
export const STATES = {
  waiting: { title: "Waiting", get: "getWaiting", since: added, tells: data },
  prioritized: {
    title: "Prioritized",
    get: "getPrioritized",
    since: added,
    took: ["Priority", (job) => number(job.priority)],
    tells: data,
  },
  active: {
    title: "Active",
    get: "getActive",
    since: ["Started", (job) => time(job.processedOn)],
    tells: ["Progress", progress],
  },
  delayed: { title: "Delayed", get: "getDelayed", since: ["Due", (job) => time(dueAt(job))], tells: data },
  "waiting-children": {
    title: "Waiting for children",
    short: "Children",
    get: "getWaitingChildren",
    since: added,
    tells: data,
  },
  completed: {
    title: "Completed",
    get: "getCompleted",
    since: ended,
    took,
    tells: ["Result", (job) => excerpt(job.returnvalue ?? "")],
  },
  failed: {
    title: "Failed",
    get: "getFailed",
    since: ended,
    took,
    tells: ["Reason", (job) => excerpt(job.failedReason ?? "")],
  },
};

/** The columns of a list of jobs: the class, the title, and what stands in it. */
export const columnsOf = (state) => {
  const { since, took, tells } = STATES[state];
  return [
    ["id", "Job", (job) => String(job.id)],
    ["name", "Name", (job) => job.name ?? ""],
    ["since number", ...since],
    ...(took ? [["took number", ...took]] : []),
    ["attempts number", "Attempts", (job) => number(job.attemptsMade ?? 0)],
    ["tells", ...tells],
  ];
};

export const shortOf = (state) => STATES[state].short ?? STATES[state].title;
export const dueAt = (job) => job.timestamp + (job.delay ?? 0);

function progress(job) {
  if (job.progress === 0 || job.progress === undefined) return "";
  return typeof job.progress === "number" ? `${number(job.progress)} %` : excerpt(job.progress);
}

/** Return what a job's own times say of its state, where nobody was asked. */
export function stateOf(job) {
  if (job.finishedOn) return job.failedReason === undefined || (job.returnvalue ?? null) !== null ? "completed" : "failed";
  if (job.processedOn) return "active";
  return job.delay > 0 ? "delayed" : "waiting";
}
