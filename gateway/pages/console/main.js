// The page: who is signed in, the head, and which view stands below it. Views are functions that fill an element and
// return what ends them.

import { connectionsView } from "./connections-view.js";
import { say } from "./dialogs.js";
import { h, put, s, setText } from "./dom.js";
import { keyView } from "./key-view.js";
import { queueView } from "./queue-view.js";
import { queuesView } from "./queues-view.js";
import { route } from "./routes.js";
import { Session, storedKey } from "./session.js";

const main = document.getElementById("main");
const head = document.getElementById("head");
const link = h("span", { class: "link", "data-state": "up" }, "live");
const VIEWS = new Map([
  ["queue", queueView],
  ["connections", connectionsView],
]);
let session = null;
let close = () => {};

function show(isFirst = false) {
  close();
  const [kind = "", ...rest] = route();
  const view = VIEWS.get(kind) ?? queuesView;
  put(main);
  const title = new Map([[queueView, rest[0]], [connectionsView, "Connections"]]).get(view) ?? "Queues";
  document.title = `${title} · bullmq-proxy`;
  for (const each of head.querySelectorAll("nav a")) {
    const isHere = each.hash === (kind === "connections" ? "#/connections" : "#/");
    each.toggleAttribute("aria-current", isHere);
    if (isHere) each.setAttribute("aria-current", "page");
  }
  close = view(main, session, rest);
  if (!isFirst) (main.querySelector("[data-focus]") ?? main).focus({ preventScroll: true });
}

const THEMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

function themeButton() {
  const label = h("span", {}, THEMES[currentTheme()]);
  const next = () => {
    chooseTheme(themes[(themes.indexOf(currentTheme()) + 1) % themes.length]);
    setText(label, THEMES[currentTheme()]);
  };
  const icon = s(
    "svg",
    { viewBox: "0 0 16 16", "aria-hidden": "true" },
    s("circle", { cx: 8, cy: 8, r: 6 }),
    s("path", { d: "M8 2a6 6 0 0 1 0 12z" }),
  );
  return h("button", { type: "button", class: "quiet theme", onclick: next }, icon, label);
}

function whoIs() {
  const { key, permissions, queues } = session.who;
  const name = key || (session.key ? "unlimited key" : "no key needed");
  return h(
    "details",
    { class: "who" },
    h("summary", {}, name),
    h(
      "div",
      { class: "card" },
      h("p", {}, "May ", h("strong", {}, permissions.join(", ") || "nothing")),
      h("p", {}, "in ", queues.includes("*") ? "all queues" : queues.join(", ") || "no queue"),
      session.key && h("button", { type: "button", onclick: () => signOut() }, "Sign out"),
    ),
  );
}

function showHead() {
  const links = [
    ["#/", "Queues"],
    ["#/connections", "Connections"],
  ];
  put(
    head,
    h("a", { class: "brand", href: "#/" }, "bullmq-proxy"),
    session &&
      h(
        "nav",
        { "aria-label": "Pages" },
        links.map(([href, text]) => h("a", { href }, text)),
      ),
    h("div", { class: "side" }, session && link, session && whoIs(), themeButton()),
  );
}

const told = {
  connected: () => mark("up", "live"),
  disconnected: () => mark("down", "reconnecting"),
  error: (error) => {
    if (["UNAUTHORIZED", "CLOSED"].includes(error.code)) signOut(error.message);
    else say(error.message, true);
  },
};

function mark(state, text) {
  link.dataset.state = state;
  setText(link, text);
}

async function enter(key) {
  session = await Session.open(key, told);
  mark("up", "live");
  showHead();
  show(true);
}

function signOut(reason = null) {
  if (!session) return;
  close();
  close = () => {};
  session.close();
  session = null;
  Session.forget();
  showHead();
  keyView(main, reason, enter);
}

window.addEventListener("hashchange", () => session && show());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("click", (event) => {
  const open = head.querySelector("details[open]");
  if (open && !open.contains(event.target)) open.open = false;
});
document.addEventListener("keydown", (event) => {
  const open = head.querySelector("details[open]");
  if (event.key !== "Escape" || !open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

showHead();
try {
  await enter(storedKey());
} catch (error) {
  keyView(main, error.code === "UNAUTHORIZED" && !storedKey() ? null : error.message, enter);
}
