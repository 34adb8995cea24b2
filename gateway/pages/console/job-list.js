// The jobs of one state as a table of which only the rows that are seen exist. They are asked for page by page.

import { sayError } from "./dialogs.js";
import { h, put, setText } from "./dom.js";
import { number, plural } from "./format.js";
import { queueHref } from "./routes.js";
import { STATES, tookOf } from "./states.js";

export const limits = {
  page: 50, // jobs of one answer
  keptPages: 20,
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
    Object.assign(this, { queue, state, kind: STATES[state] });
    this.spacer = h("div", { class: "spacer", role: "rowgroup" });
    const titles = [
      "Job",
      "Name",
      this.kind.since[0],
      ...(this.#isEnded ? ["Took"] : []),
      "Attempts",
      this.kind.title === "Failed" ? "Reason" : "Tells",
    ];
    this.table = h(
      "div",
      { class: `jobs ${state}`, role: "table", "aria-label": `${this.kind.title} jobs`, tabindex: "0" },
      h(
        "div",
        { role: "rowgroup", class: "head" },
        h(
          "div",
          { role: "row", class: "job" },
          titles.map((title) => h("span", { role: "columnheader" }, title)),
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
  }

  get #isEnded() {
    return this.state === "completed" || this.state === "failed";
  }

  close() {
    this.#closed = true;
    this.resized.disconnect();
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
    const [from, to] = this.#range();
    for (const page of this.#pages.keys()) {
      if (page < Math.floor(from / limits.page) || page > Math.floor(to / limits.page)) this.#pages.delete(page);
      else this.#ask(page);
    }
    this.#soon();
  }

  #soon() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (!this.#closed) this.#draw();
    });
  }

  /** The places of the first row that exists and of the one behind the last. */
  #range() {
    this.#height ||= this.spacer.previousSibling.firstChild.getBoundingClientRect().height || 40;
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
  }

  #newRow() {
    const cell = (name) => h("span", { role: "cell", class: name });
    const link = h("a", {});
    return h(
      "div",
      { role: "row", class: "job" },
      h("span", { role: "cell", class: "id" }, link),
      cell("name"),
      cell("since number"),
      this.#isEnded && cell("took number"),
      cell("attempts number"),
      cell("tells"),
    );
  }

  #fill(row, place) {
    row.style.transform = `translateY(${place * this.#height}px)`;
    row.setAttribute("aria-rowindex", place + 2);
    const job = this.#job(place);
    row.classList.toggle("loading", !job);
    const texts = job
      ? [
          job.id,
          job.name ?? "",
          this.kind.since[1](job),
          ...(this.#isEnded ? [tookOf(job)] : []),
          number(job.attemptsMade ?? 0),
          this.kind.tells(job),
        ]
      : [];
    [...row.children].forEach((cell, at) => setText(at ? cell : cell.firstChild, String(texts[at] ?? (at ? "" : "…"))));
    if (job) row.firstChild.firstChild.setAttribute("href", queueHref(this.queue.name, "job", String(job.id)));
    else row.firstChild.firstChild.removeAttribute("href");
  }

  #job(place) {
    const page = Math.floor(place / limits.page);
    if (!this.#pages.has(page)) this.#ask(page);
    return this.#pages.get(page)?.[place % limits.page];
  }

  async #ask(page) {
    const version = this.#version;
    if (!this.#pages.has(page)) this.#pages.set(page, null);
    try {
      const jobs = await this.queue[this.kind.get](page * limits.page, (page + 1) * limits.page - 1);
      if (this.#closed || version !== this.#version) return;
      this.#pages.delete(page);
      this.#pages.set(page, jobs);
      const [from, to] = this.#range();
      for (const each of this.#pages.keys()) {
        const isSeen = each >= Math.floor(from / limits.page) && each <= Math.floor(to / limits.page);
        if (this.#pages.size > limits.keptPages && !isSeen) this.#pages.delete(each);
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
