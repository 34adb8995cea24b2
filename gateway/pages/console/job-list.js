// The jobs of one state as a table of which only the rows that are seen exist. They are asked for page by page.

import { sayError } from "./dialogs.js";
import { atMostEvery, h, put, setText } from "./dom.js";
import { number, plural } from "./format.js";
import { queueHref } from "./routes.js";
import { columnsOf, STATES } from "./states.js";

export const limits = {
  page: 50, // jobs of one answer
  keptPages: 20,
  loadPause: 100, // ms between two looks at which pages are needed
  ahead: 8, // rows that exist beyond those that are seen
  mostRows: 300_000, // browsers cannot show higher elements; the jobs behind are found by their ids
};

export class JobList {
  #pages = new Map(); // by their numbers: the jobs, or null while they are asked for; the last used one comes last
  #rows = []; // the elements that exist, for reuse
  #first = 0; // the place of the first of them
  #total = 0;
  #height = 0; // of a row
  #version = 0; // of the list: answers of an earlier one may be old
  #frame = null;
  #closed = false;

  constructor(content, queue, state) {
    Object.assign(this, { queue, state, kind: STATES[state], columns: columnsOf(state) });
    this.spacer = h("div", { class: "spacer", role: "rowgroup" });
    this.table = h(
      "div",
      {
        class: `jobs ${state} ${this.kind.took ? "wide" : ""}`,
        role: "table",
        "aria-label": `${this.kind.title} jobs`,
        tabindex: "0",
      },
      h(
        "div",
        { role: "rowgroup", class: "head" },
        h(
          "div",
          { role: "row", class: "job" },
          this.columns.map(([name, title]) => h("span", { role: "columnheader", class: name }, title)),
        ),
      ),
      this.spacer,
    );
    this.empty = h("p", { class: "empty", hidden: true }, `No job is ${this.kind.title.toLowerCase()}.`);
    this.note = h("p", { class: "muted", hidden: true });
    put(content, h("div", { class: "card" }, this.table, this.empty, this.note));
    this.table.addEventListener("scroll", () => this.#soon(), { passive: true });
    this.table.addEventListener("keydown", (event) => this.#key(event));
    this.resized = new ResizeObserver(() => this.#soon());
    this.resized.observe(this.table);
    this.load = atMostEvery(limits.loadPause, () => this.#load());
  }

  close() {
    this.#closed = true;
    this.resized.disconnect();
    this.load.stop();
    cancelAnimationFrame(this.#frame);
  }

  /** Take the number of jobs of each state. */
  counted(counts) {
    const total = counts[this.state] ?? 0;
    this.#total = Math.min(total, limits.mostRows);
    this.table.setAttribute("aria-rowcount", total + 1);
    this.table.hidden = total === 0;
    this.empty.hidden = total !== 0;
    this.note.hidden = total <= limits.mostRows;
    setText(this.note, `The first ${number(this.#total)} of ${plural(total, "job")} are listed. Find the others by their ids.`);
    this.#soon();
  }

  /** Ask for the jobs again: something has changed. */
  changed() {
    this.#version++;
    const [first, last] = this.#seenPages();
    for (const page of this.#pages.keys()) {
      if (page < first || page > last) this.#pages.delete(page);
      else this.#ask(page);
    }
    this.#soon();
  }

  #soon() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (!this.#closed && !this.table.hidden) this.#draw();
    });
  }

  /** The places of the first row that exists and of the one behind the last. */
  #range() {
    this.#height ||= this.spacer.previousSibling.firstChild.getBoundingClientRect().height; // 0 while the table is hidden
    const { scrollTop, clientHeight } = this.table;
    const from = Math.max(0, Math.floor(scrollTop / this.#height) - limits.ahead);
    return [from, Math.min(this.#total, Math.ceil((scrollTop + clientHeight) / this.#height) + limits.ahead)];
  }

  #draw() {
    const [from, to] = this.#range();
    this.spacer.style.height = `${this.#total * this.#height}px`;
    while (this.#rows.length < to - from) {
      this.#rows.push(this.#newRow());
      this.spacer.append(this.#rows.at(-1));
    }
    while (this.#rows.length > Math.max(0, to - from)) this.#rows.pop().remove();
    this.#first = from;
    for (let place = from; place < to; place++) this.#fill(this.#rows[place - from], place);
    this.load();
  }

  #newRow() {
    const cells = this.columns.map(([name], at) => h("span", { role: "cell", class: name }, at === 0 && h("a", {})));
    return h("div", { role: "row", class: "job" }, cells);
  }

  #fill(row, place) {
    row.style.transform = `translateY(${place * this.#height}px)`;
    row.setAttribute("aria-rowindex", place + 2);
    const job = this.#job(place);
    row.classList.toggle("loading", !job);
    const [first, ...others] = row.children;
    const link = first.firstChild;
    setText(link, job ? this.columns[0][2](job) : "…");
    others.forEach((cell, at) => setText(cell, job ? this.columns[at + 1][2](job) : ""));
    if (job) link.setAttribute("href", queueHref(this.queue.name, "job", String(job.id)));
    else link.removeAttribute("href");
  }

  #job(place) {
    return this.#pages.get(Math.floor(place / limits.page))?.[place % limits.page];
  }

  /** The numbers of the first page that is seen and of the last one. */
  #seenPages() {
    const [from, to] = this.#range();
    return [Math.floor(from / limits.page), Math.floor(Math.max(from, to - 1) / limits.page)];
  }

  /** Ask for the pages that are seen now; those that were scrolled past meanwhile are not needed. */
  #load() {
    if (this.#total === 0) return;
    const [first, last] = this.#seenPages();
    for (let page = first; page <= last; page++) if (!this.#pages.has(page)) this.#ask(page);
  }

  async #ask(page) {
    const version = this.#version;
    if (!this.#pages.has(page)) this.#pages.set(page, null);
    try {
      const jobs = await this.queue[this.kind.get](page * limits.page, (page + 1) * limits.page - 1);
      if (this.#closed || version !== this.#version) return;
      this.#pages.delete(page);
      this.#pages.set(page, jobs);
      const [first, last] = this.#seenPages();
      for (const each of this.#pages.keys()) {
        if (this.#pages.size > limits.keptPages && (each < first || each > last)) this.#pages.delete(each);
      }
      this.#soon();
    } catch (error) {
      if (this.#closed) return;
      this.#pages.delete(page);
      sayError(error);
    }
  }

  /** Go from row to row by the arrow keys. */
  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const at = this.#rows.indexOf(document.activeElement.closest?.("[role=row]"));
    if (at < 0 && step < 0) return;
    event.preventDefault();
    const place = at < 0 ? Math.round(this.table.scrollTop / this.#height) : this.#first + at + step;
    if (place < 0 || place >= this.#total) return;
    const top = place * this.#height;
    const room = this.table.clientHeight - 2 * this.#height; // the head covers one
    if (top < this.table.scrollTop) this.table.scrollTop = top;
    else if (top > this.table.scrollTop + room) this.table.scrollTop = top - room;
    this.#draw();
    this.#rows[place - this.#first]?.querySelector("a").focus({ preventScroll: true });
  }
}
