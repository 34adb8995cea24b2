// What happens in a queue, by its events: views are told that something has changed, and how many jobs end per second.

import { QueueEvents } from "../client.js";
import { atMostEvery } from "./dom.js";

/** Times in milliseconds. */
export const limits = {
  watched: 12, // queues of the overview; the other ones change with the list
  settle: 1000, // between two looks at a queue that changes
  mostPerSecond: 2000, // events; a busier queue is looked at each `settle` instead
  busyFor: 10_000, // until its events are tried again
  rateOver: 10, // seconds
};

const ENDS = ["completed", "failed"];
const OTHERS = [
  "added",
  "active",
  "delayed",
  "waiting",
  "waiting-children",
  "removed",
  "cleaned",
  "drained",
  "paused",
  "resumed",
  "progress",
  "duplicated",
  "deduplicated",
  "stalled",
  "retries-exhausted",
  "gap",
];
const second = () => Math.floor(performance.now() / 1000);

export class Watch {
  #events = null;
  #timer = null;
  #ends = new Map(); // by the second in which they came
  #from = second();
  #now = 0; // the second of the last event, and how many it had
  #count = 0;

  /** Watch a queue; `changed` is called at most once per `settle`. */
  constructor(session, name, changed) {
    Object.assign(this, { session, name });
    this.changed = atMostEvery(limits.settle, changed);
    if (session.may("observe")) this.#open();
  }

  /** Return the jobs that ended per second, or null while that is not known. */
  get rate() {
    if (this.isBusy) return null;
    const now = second();
    const over = Math.min(limits.rateOver, now - this.#from);
    let sum = 0;
    for (const [at, count] of this.#ends) {
      if (at < now - limits.rateOver) this.#ends.delete(at);
      else if (at < now) sum += count;
    }
    return over > 0 ? sum / over : 0;
  }

  get isBusy() {
    return this.#timer !== null;
  }

  close() {
    this.#events?.close();
    clearTimeout(this.#timer);
    this.changed.stop();
  }

  #open() {
    this.#timer = null;
    this.#from = second();
    this.#ends.clear();
    const events = new QueueEvents(this.name, { ...this.session.options, events: [...ENDS, ...OTHERS.slice(0, -1)] });
    this.#events = events;
    for (const [name, listener] of Object.entries(this.session.told)) events.on(name, listener);
    for (const name of [...ENDS, ...OTHERS]) events.on(name, () => this.#came(name));
  }

  #came(name) {
    const at = second();
    if (at !== this.#now) [this.#now, this.#count] = [at, 0];
    if (ENDS.includes(name)) this.#ends.set(at, (this.#ends.get(at) ?? 0) + 1);
    if (++this.#count > limits.mostPerSecond) this.#rest();
    this.changed();
  }

  /** Leave the events alone for a while, and look each second instead. */
  #rest() {
    if (this.isBusy) return;
    this.#events.close();
    const until = performance.now() + limits.busyFor;
    const look = () => {
      this.changed();
      if (performance.now() >= until) this.#open();
      else this.#timer = setTimeout(look, limits.settle);
    };
    this.#timer = setTimeout(look, limits.settle);
  }
}

/** Do `work` every `pause` ms while the page is seen, and at once when it is seen again; returns what ends it. */
export function whileSeen(pause, work) {
  const look = () => document.visibilityState === "visible" && work();
  const timer = setInterval(look, pause);
  document.addEventListener("visibilitychange", look);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
  };
}
