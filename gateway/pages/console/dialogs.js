// What asks and what tells: dialogs before something is changed, buttons that say why they cannot be used, and news.

import { h, newId, put } from "./dom.js";

const STAYS = 6000; // ms that news stay on the page

/** Tell something in the corner, and to those who hear the page. */
export function say(text, isError = false) {
  const said = document.getElementById("said");
  const note = h("p", { class: isError ? "note bad" : "note" }, text);
  put(said, note);
  setTimeout(() => note.remove(), STAYS);
}

export const sayError = (error) => say(error.code ? `${error.message} (${error.code})` : error.message, true);

/** A button; with `lacks`, the reason, it stays where it is and says why it does nothing. */
export function button(label, act, { lacks = null, kind = "", title = null } = {}) {
  const reason = lacks ?? title;
  return h(
    "button",
    {
      type: "button",
      class: kind,
      title: reason,
      "aria-disabled": lacks !== null && "true",
      onclick: (event) => (lacks === null ? act(event) : say(`${label}: ${lacks}`, true)),
    },
    label,
    lacks !== null && h("span", { class: "heard" }, ` – ${lacks}`),
  );
}

/** Do `work` on a click, and tell how it ended: `done` is a text, or makes one of the result. */
export async function attempt(work, done, changed = () => {}) {
  try {
    const result = await work();
    say(typeof done === "function" ? done(result) : done);
    changed();
    return true;
  } catch (error) {
    sayError(error);
    return false;
  }
}

/**
 * Ask in a dialog; resolves with the values of its fields by their names, or with null where nothing is to be done.
 *
 * `fields` are elements of the form, `danger` marks what destroys. Escape closes it.
 */
export function ask({ title, text = null, fields = [], yes = "OK", danger = false }) {
  const heading = h("h2", { id: newId("title") }, title);
  const form = h(
    "form",
    { method: "dialog" },
    heading,
    text && h("p", {}, text),
    fields,
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { type: "submit", class: danger ? "danger" : "main" }, yes),
    ),
  );
  const dialog = h("dialog", { "aria-labelledby": heading.id }, form);
  const before = document.activeElement;
  return new Promise((resolve) => {
    let values = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      values = Object.fromEntries(new FormData(form));
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before?.isConnected) before.focus();
      resolve(values);
    });
    document.body.append(dialog);
    dialog.showModal();
    if (danger && !fields.length) form.querySelector("button").focus(); // the one that does nothing
  });
}
