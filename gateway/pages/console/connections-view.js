// Who is connected, on all shards: what each has in hand, and buttons that drain or close one of them.

import { ask, attempt, button, sayError } from "./dialogs.js";
import { h, put, setText } from "./dom.js";
import { number, plural, span } from "./format.js";
import { whileSeen } from "./live.js";
import { queueHref } from "./routes.js";

const PERIOD = 3000; // ms between two looks: no event tells who comes and goes
const MOST = 500;
const HEADS = ["Queue", "Kind", "Key", "In hand", "Calls", "Unread", "For", "Address", "Shard", "Actions"];
const NUMBERS = ["In hand", "Calls", "Unread", "For"];

export function connectionsView(main, session) {
  const body = h("tbody");
  const count = h("span", { class: "muted" });
  const note = h("p", { class: "empty", hidden: true });
  const head = h("div", { class: "bar" }, h("h1", { tabindex: "-1", "data-focus": true }, "Connections"), count);
  const rows = new Map();
  let [closed, loading] = [false, false];
  put(main, head);
  const lacks = session.lacks("manage");
  if (lacks) {
    main.append(h("p", { class: "card empty" }, `${lacks} to see who is connected.`));
    return () => {};
  }
  const heads = HEADS.map((text) => h("th", { scope: "col", class: NUMBERS.includes(text) && "number" }, text));
  main.append(
    h(
      "div",
      { class: "card table", role: "region", "aria-label": "Connections", tabindex: "0" },
      h("table", { class: "connections" }, h("thead", {}, h("tr", {}, heads)), body),
      note,
    ),
  );

  async function load() {
    if (loading || closed) return;
    loading = true;
    try {
      const { connections, omitted, silent } = await session.ask(`connections?limit=${MOST}`);
      if (closed) return;
      setText(count, plural(connections.length + omitted, "connection"));
      const ids = new Set(connections.map(({ id }) => id));
      for (const [id, row] of rows) if (!ids.has(id)) (row.element.remove(), rows.delete(id));
      for (const each of connections) {
        if (!rows.has(each.id)) {
          rows.set(each.id, new Row(each, act));
          body.append(rows.get(each.id).element);
        }
        rows.get(each.id).update(each);
      }
      const notes = [
        omitted && `${number(omitted)} more are not listed.`,
        silent && `${plural(silent, "shard")} did not answer.`,
      ].filter(Boolean);
      note.hidden = notes.length === 0;
      setText(note, notes.join(" "));
    } catch (error) {
      if (!closed) sayError(error);
    } finally {
      loading = false;
    }
  }

  async function act(connection, what) {
    const { id, queue, kind } = connection;
    const of = `the ${kind} connection${queue === null ? "" : ` of ${queue}`}`;
    const asked = await ask({
      title: what === "drain" ? `Drain ${of}?` : `Close ${of}?`,
      text:
        what === "drain" && kind === "worker"
          ? "It gets no new jobs, and finishes those in hand."
          : "It is closed. Jobs in hand go back to wait, first in line; the client may connect again.",
      yes: what === "drain" ? "Drain" : "Close",
      danger: true,
    });
    const done = (isDone) => (isDone ? `${what === "drain" ? "Drained" : "Closed"} ${of}` : "It has gone already");
    if (asked) await attempt(() => session.ask(`connections/${encodeURIComponent(id)}/${what}`, "POST"), done, load);
  }

  load();
  const stop = whileSeen(PERIOD, load);
  return () => {
    closed = true;
    stop();
  };
}

class Row {
  constructor(connection, act) {
    const { queue, kind } = connection;
    this.cells = Object.fromEntries(
      HEADS.slice(3, 9).map((name) => [name, h("td", { "data-label": name, class: NUMBERS.includes(name) && "number" })]),
    );
    const small = (label, what, kindOf = "small") => button(label, () => act(connection, what), { kind: kindOf });
    this.element = h(
      "tr",
      {},
      h("th", { scope: "row" }, queue === null ? "–" : h("a", { href: queueHref(queue) }, queue)),
      h("td", { "data-label": "Kind" }, h("span", { class: `badge ${kind}` }, kind)),
      h("td", { "data-label": "Key" }, connection.key || "–"),
      Object.values(this.cells),
      h("td", { class: "actions" }, kind === "worker" && small("Drain…", "drain"), small("Close…", "close", "small danger")),
    );
  }

  update({ inHand, concurrency, calls, lag, since, address, shard, host }) {
    const texts = {
      "In hand": concurrency === null ? number(inHand) : `${number(inHand)} of ${number(concurrency)}`,
      Calls: number(calls),
      Unread: lag ? `${number(lag)} B` : "0",
      For: span(Date.now() - since),
      Address: address ?? "",
      Shard: `${shard} on ${host}`,
    };
    for (const [name, text] of Object.entries(texts)) setText(this.cells[name], text);
  }
}
