// Calling a function by hand: its signature, its arguments as JSON, and the answer.

import { readJson } from "./add-view.js";
import { ask, button, say } from "./dialogs.js";
import { field, h, put, setText } from "./dom.js";
import { pretty, span } from "./format.js";
import { FUNCTIONS } from "./functions.js";

const NOTHING = "It is shown here.";
const DESTROYS = /^(remove|drain|clean|obliterate|trim|cancel|disconnect)/;

export function callView(content, session, queue) {
  const groups = grouped();
  const select = h(
    "select",
    { onchange: () => show() },
    [...groups].map(([group, functions]) =>
      h(
        "optgroup",
        { label: group },
        functions.map(([name]) => h("option", { value: name, selected: name === "getJobCounts" }, name)),
      ),
    ),
  );
  const signature = h("code", { class: "signature" });
  const about = h("p", {});
  const needs = h("p", { class: "muted" });
  const args = h("textarea", { rows: 6, spellcheck: "false", class: "mono" });
  const actions = h("div", { class: "actions" });
  const outcome = h("p", { class: "muted", role: "status" }, NOTHING);
  const answer = h("pre", { tabindex: "0", role: "region", "aria-label": "Answer", hidden: true });
  let [closed, calls] = [false, 0];

  function show() {
    const known = FUNCTIONS[select.value];
    setText(signature, known.signature);
    setText(about, known.about);
    setText(
      needs,
      `Needs ${known.needs.join(" or ")}; ${known.writes ? "writes" : "reads only"}${known.waits ? "; may wait long" : ""}.`,
    );
    args.value = JSON.stringify(known.example, null, 2);
    put(actions, button("Call", call, { lacks: session.lacksFor(select.value), kind: "main" }));
    setText(outcome, NOTHING);
    answer.hidden = true;
  }

  async function call() {
    const fn = select.value;
    let list;
    try {
      list = readJson(args, "Arguments", []);
      if (!Array.isArray(list)) throw new TypeError("Arguments: an array is expected, such as [1, 2]");
    } catch (error) {
      return say(error.message, true);
    }
    const text = `It is called with ${JSON.stringify(list).slice(0, 200)} in ${queue.name}, and may remove jobs for good.`;
    if (DESTROYS.test(fn) && !(await ask({ title: `Call ${fn}?`, text, yes: "Call", danger: true }))) return;
    const mine = ++calls;
    const began = performance.now();
    setText(outcome, "Waiting for the answer …");
    answer.hidden = true;
    let [result, error] = [null, null];
    try {
      result = await queue[fn](...list);
    } catch (caught) {
      error = caught;
    }
    if (closed || mine !== calls) return;
    const took = span(performance.now() - began);
    setText(outcome, error ? `Refused after ${took}: ${error.code ?? error.name}` : `Answered after ${took}`);
    answer.className = error ? "bad" : "";
    setText(answer, error ? error.message : pretty(result));
    answer.hidden = false;
  }

  put(
    content,
    h(
      "div",
      { class: "columns call" },
      h(
        "section",
        { class: "card form" },
        h("h2", {}, "Try a call"),
        field("Function", select),
        h("p", {}, signature),
        about,
        needs,
        field("Arguments, as a JSON array", args),
        actions,
      ),
      h("section", { class: "card" }, h("h2", {}, "Answer"), outcome, answer),
    ),
  );
  show();
  return { close: () => (closed = true) };
}

function grouped() {
  const groups = new Map();
  for (const each of Object.entries(FUNCTIONS)) groups.set(each[1].group, [...(groups.get(each[1].group) ?? []), each]);
  return groups;
}
