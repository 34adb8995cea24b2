// Elements. Text gets into the page here alone, and as text: nothing in it is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `on…` names a listener, true an attribute without a value; what is null or false is left out. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** Make an element of a drawing. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...shown(children));
  return element;
}

const shown = (children) => children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false);

/** Put other children into an element. */
export function put(element, ...children) {
  element.replaceChildren(...shown(children));
}

/** Change a text, if it is another one. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let count = 0;
/** Return an id that no other element has. */
export const newId = (word) => `${word}-${count++}`;

/** A field with its label; `hint` stands below it. */
export function field(label, input, hint) {
  input.id ||= newId("field");
  const note = hint && h("small", { id: `${input.id}-hint`, class: "hint" }, hint);
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, note);
}

/** A list of names and values, without those that are not there. */
export function facts(...pairs) {
  const there = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h(
    "dl",
    { class: "facts" },
    there.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A part of a page under a heading of its own. */
export const section = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);

/** Run `work` now and whenever the function that is returned is called, at most once in `pause` ms. */
export function atMostEvery(pause, work) {
  let timer = null;
  let last = -Infinity;
  const run = () => {
    timer = null;
    last = performance.now();
    work();
  };
  const ask = () => {
    if (timer === null) timer = setTimeout(run, Math.max(0, last + pause - performance.now()));
  };
  ask.stop = () => {
    clearTimeout(timer);
    timer = -1; // for good
  };
  return ask;
}
