// The family of a job as a tree: its ancestors, itself, and the jobs that it waits for.

import { h, put } from "./dom.js";
import { queueHref } from "./routes.js";
import { stateOf, STATES } from "./states.js";

const MOST_ANCESTORS = 10;
const DEPTH = 4; // levels below the job
const MOST_CHILDREN = 50; // of each kind, of one job

const queueOf = (qualified) => qualified.slice(qualified.lastIndexOf(":") + 1);

/** Fill an element with the tree; without relatives it is hidden. */
export async function showFamily(element, session, queueName, job) {
  const whole = await session.flows.getFlow({ queueName, id: String(job.id), depth: DEPTH, maxChildren: MOST_CHILDREN });
  if (!whole) return;
  const ancestors = [];
  for (let parent = job.parent; parent?.queueKey && ancestors.length < MOST_ANCESTORS;) {
    const name = queueOf(parent.queueKey);
    const found = await session.flows.getFlow({ queueName: name, id: String(parent.id), depth: 1 });
    ancestors.unshift(found?.job ?? { id: parent.id, name: "removed", queueQualifiedName: parent.queueKey, isGone: true });
    parent = found?.job.parent;
  }
  element.hidden = !ancestors.length && !whole.children?.length;
  const tree = ancestors.reduceRight(
    (below, each) => node(each, [below]),
    node(whole.job, (whole.children ?? []).map(branch), true),
  );
  put(element, h("h2", {}, "Family"), h("ul", { class: "tree" }, tree));
}

function branch(found) {
  if (!found) return h("li", { class: "muted" }, "removed");
  return node(found.job, (found.children ?? []).map(branch));
}

function node(job, below, isHere = false) {
  const queue = queueOf(job.queueQualifiedName);
  const state = stateOf(job);
  const label = [
    h("span", { class: "mono" }, String(job.id)),
    ` ${job.name ?? ""} `,
    h("span", { class: "muted" }, `in ${queue}`),
  ];
  return h(
    "li",
    {},
    isHere ? h("strong", { "aria-current": "true" }, label) : h("a", { href: queueHref(queue, "job", String(job.id)) }, label),
    " ",
    !job.isGone && h("span", { class: `badge ${state}` }, STATES[state].title),
    below.length > 0 && h("ul", {}, below),
  );
}
