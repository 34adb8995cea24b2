// Adding a job.

import { button, say } from "./dialogs.js";
import { field, h, put } from "./dom.js";
import { queueHref } from "./routes.js";

const NUMBERS = { delay: ["Delay, in seconds", 1000], priority: ["Priority", 1], attempts: ["Attempts", 1] };

/** Read a field as JSON; an error names the field. */
export function readJson(input, label, empty) {
  const text = input.value.trim();
  if (!text) return empty;
  try {
    return JSON.parse(text);
  } catch (error) {
    input.focus();
    throw new SyntaxError(`${label}: ${error.message}`);
  }
}

export function addView(content, session, queue) {
  const lacks = session.lacksFor("add");
  const area = (value, rows) => h("textarea", { rows, spellcheck: "false", class: "mono" }, value);
  const name = h("input", { required: true, value: "welcome", maxlength: "1000" });
  const data = area('{\n  "to": "ada@example.org"\n}', 5);
  const options = area("", 2);
  const id = h("input", { maxlength: "1000", autocomplete: "off" });
  const numbers = Object.fromEntries(
    Object.keys(NUMBERS).map((key) => [key, h("input", { type: "number", min: "0", step: key === "delay" ? "any" : "1" })]),
  );
  const problem = h("p", { class: "problem", role: "alert" });
  const added = h("p", { class: "done", role: "status" });

  async function submit(event) {
    event?.preventDefault();
    if (lacks) return say(lacks, true);
    put(problem);
    put(added);
    try {
      const opts = { ...readJson(options, "More options", {}) };
      for (const [key, [, unit]] of Object.entries(NUMBERS)) {
        if (numbers[key].value !== "") opts[key] = Math.round(Number(numbers[key].value) * unit);
      }
      if (id.value) opts.jobId = id.value;
      const job = await queue.add(name.value, readJson(data, "Data", {}), opts);
      const what = job.duplicate ? "There was already a job " : "Added job ";
      put(added, what, h("a", { href: queueHref(queue.name, "job", String(job.id)) }, String(job.id)));
    } catch (error) {
      put(problem, error.code ? `${error.message} (${error.code})` : error.message);
    }
  }

  const form = h(
    "form",
    { class: "card form", onsubmit: submit },
    h("h2", {}, "Add a job"),
    field("Name", name),
    field("Data, as JSON", data),
    h(
      "div",
      { class: "fields" },
      Object.entries(NUMBERS).map(([key, [label]]) => field(label, numbers[key])),
      field("Id", id),
    ),
    field("More options, as JSON", options, 'Such as {"backoff": 1000, "removeOnComplete": true}'),
    problem,
    added,
    h(
      "div",
      { class: "actions" },
      lacks ? button("Add", submit, { lacks, kind: "main" }) : h("button", { class: "main" }, "Add"),
    ),
  );
  put(content, form);
  return {};
}
