// Workers: jobs come over a connection, a handler processes them, and what became of each is handed in. A connection that
// breaks costs no job within the grace time: handlers go on, and the next connection takes up what the gateway has kept.

import {
  Calls, ConflictError, Emitter, errorOf, InvalidArgumentsError, limits, Link, NotFoundError, OutcomeUnknownError, queuePath,
  UnrecoverableError,
} from "./client-link.js";
import { BoundQueue, Job, ownerOf } from "./client-queue.js";

/** A job in a worker's hands. */
class WorkerJob extends Job {
  #worker;

  constructor(worker, queue, number, { job, payload }, signal) {
    super(queue, { ...job, data: payload });
    this.#worker = worker;
    Object.defineProperties(this, { number: { value: number }, signal: { value: signal } });
  }

  updateProgress(progress) {
    return this.#worker._tell(this, { type: "progress", progress });
  }

  log(row, keepLogs) {
    return keepLogs === undefined ? this.#worker._tell(this, { type: "log", row }) : super.log(row, keepLogs);
  }

  async release() {
    await this.#worker._answer(this, { type: "release" });
  }

  async delayFor(milliseconds) {
    await this.#worker._answer(this, { type: "delay", delay: milliseconds });
  }

  async waitChildren() {
    if (!this.#worker._confirm) {
      throw new InvalidArgumentsError("waitChildren needs confirm: without it nobody says whether a child is pending");
    }
    try {
      await this.#worker._answer(this, { type: "waitChildren" });
      return true;
    } catch (error) {
      if (error instanceof ConflictError) return false;
      throw error;
    }
  }
}

const LOST = "The job is not this worker's any more";

export class Worker extends Emitter {
  #held = new Map(); // by the number of the message that pushed the job
  #ready = false; // messages about jobs can be sent
  #whenChanged = []; // wakes those who wait for that, or for their job to be gone
  #whenEmpty = [];
  #secret = null;
  #isPaused = false;
  #timer = null;
  #closing = null;

  constructor(name, handler, { url, key, WebSocket, concurrency = 1, grace = limits.grace, confirm = true, ...more } = {}) {
    super();
    Object.assign(this, { name, concurrency, _confirm: Boolean(confirm) });
    this.handler = handler;
    this.grace = grace;
    const asked = { ...flat(more), grace, confirm: Number(this._confirm) };
    const query = () => (this.#secret ? { ...asked, consumer: this.#secret } : asked);
    const owner = {
      ...ownerOf(this),
      opened: () => this.#opened(),
      connected: () => this._emit("connected"),
      received: (id, data) => this.#received(id, data),
      broke: (refused) => this.#broke(refused),
      stopped: (error) => this.#stopped(error),
      probe: { type: "resume" },
    };
    this._link = new Link(owner, { url, key, WebSocket }, queuePath(name, `/process/${concurrency}`), query);
    this._calls = new Calls(this._link);
    this._queue = new BoundQueue(this._calls);
    this._link.start();
  }

  get inHand() {
    return this.#held.size;
  }

  /** Wait until the worker is closed; a refusal of the gateway's is thrown. */
  async run() {
    await this._link.wait();
    if (this._link.error && !this._link.wasClosed) throw errorOf(this._link.error);
  }

  pause() {
    return this.#pause(true);
  }

  resume() {
    return this.#pause(false);
  }

  async #pause(isPaused) {
    this.#isPaused = isPaused;
    this._link.owner.probe = { type: isPaused ? "pause" : "resume" };
    if (this._link.socket) await this._calls.call({ type: isPaused ? "pause" : "resume" }, true, false);
  }

  close(timeout = limits.closeTimeout) {
    return (this.#closing ??= this.#close(timeout));
  }

  async #close(timeout) {
    let timer;
    const inTime = new Promise((resolve) => (timer = setTimeout(resolve, timeout)));
    const empty = this.#pause(true)
      .catch((error) => this._link.error ?? this._emit("error", error))
      .then(() => this.#held.size && !this._link.error && new Promise((resolve) => this.#whenEmpty.push(resolve)));
    await Promise.race([empty, inTime]);
    clearTimeout(timer);
    for (const held of this.#held.values()) {
      if (!held.answer && this.#ready) this._link.send(held.job.number, { type: "release" });
      this.#takeAway(held, "The worker closes");
    }
    this._link.close();
  }

  // The user's side

  async _tell(job, data) {
    this.#of(job);
    while (!this.#ready) {
      await new Promise((resolve) => this.#whenChanged.push(resolve));
      this.#of(job);
    }
    this._link.send(job.number, data);
  }

  /** Give the final answer; resolves with the job's state when it is stored. */
  async _answer(job, data) {
    const held = this.#of(job);
    if (held.answer) throw new ConflictError(`Job ${job.id} has its final answer already`);
    JSON.stringify(data);
    held.answer = data;
    const stored = new Promise((resolve, reject) => Object.assign(held, { resolve, reject }));
    if (this.#ready) this.#handIn(held);
    return stored;
  }

  #of(job) {
    const held = this.#held.get(job.number);
    if (held?.job !== job) throw new NotFoundError(`Job ${job.id} is not in this worker's hands any more`);
    return held;
  }

  #handIn(held) {
    this._link.send(held.job.number, held.answer);
    if (!this._confirm) this.#ended(held.job.number, null);
  }

  // The work

  async #work(number, data) {
    const controller = new AbortController();
    const job = new WorkerJob(this, this._queue, number, data, controller.signal);
    const held = { job, controller, answer: null, gone: false };
    this.#held.set(number, held);
    this._link.send(number, { type: "ack" });
    let answer, happened;
    try {
      const result = await this.handler(job, controller.signal);
      JSON.stringify(result);
      [answer, happened] = [{ result: result ?? null }, ["completed", job, result]];
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      const err = { message: error.message || error.name, stack: error.stack };
      if (error instanceof UnrecoverableError) err.unrecoverable = true;
      [answer, happened] = [{ err }, ["failed", job, error]];
    }
    if (held.gone || held.answer) {
      if (!held.gone && happened[0] === "failed") this._emit("error", happened[2]); // nobody else hears of it
      return;
    }
    try {
      await this._answer(job, answer);
      this._emit(...happened);
    } catch (error) {
      this._emit("lost", job, error);
    }
  }

  #forget(held) {
    this.#held.delete(held.job.number);
    held.gone = !held.answer;
    for (const resolve of this.#whenChanged.splice(0)) resolve();
    if (!this.#held.size) for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  #takeAway(held, reason) {
    this.#forget(held);
    if (held.answer) return held.reject(new OutcomeUnknownError(`${reason}; its answer may have been stored, or not`));
    held.controller.abort(new Error(reason));
    this._emit("cancelled", held.job, reason);
  }

  // The connection's side

  #opened() {
    if (!this.grace) this.#isReady();
    this._calls.opened();
    if (this.#isPaused) this._link.send("paused", { type: "pause" });
  }

  #isReady() {
    this.#ready = true;
    for (const resolve of this.#whenChanged.splice(0)) resolve();
  }

  #received(id, data) {
    const held = this.#held.get(id);
    if (data.type === "process") this.#work(id, data);
    else if (data.type === "finished") this.#ended(id, data.state);
    else if (data.type === "lost") this.#ended(id, null, errorOf(data.err));
    else if (data.type === "cancel") held && this.#takeAway(held, data.reason);
    else if (data.type === "welcome") this.#welcomed(data);
    else if (data.type === "drain") this._emit("draining", data.deadline ?? null);
    else if (!data.type && !this._calls.replied(id, data) && data.err) this.#objected(held, errorOf(data.err));
  }

  #broke(refused) {
    this.#ready = false;
    this._calls.broke(refused);
    if (this.#held.size) this.#timer ??= setTimeout(() => this.#graceEnds(), this.grace);
    if (!this.grace) this.#graceEnds();
  }

  #stopped(error) {
    ownerOf(this).stopped(error);
    for (const held of this.#held.values()) this.#takeAway(held, `The connection has ended: ${error.message}`);
    clearTimeout(this.#timer);
    this.#isReady();
  }

  #ended(number, state, error) {
    const held = this.#held.get(number);
    if (!held) return;
    this.#forget(held);
    if (!held.answer) held.controller.abort(error ?? new Error(LOST));
    else if (error) held.reject(error);
    else held.resolve(state);
  }

  /** Take an error about a message on a job: a refused waitChildren, or an answer that cannot be read. */
  #objected(held, error) {
    if (!held?.answer) return this._emit("error", error);
    if (held.answer.type === "waitChildren") {
      held.answer = null;
      return held.reject(error);
    }
    held.answer = { err: { message: error.message }, unrecoverable: true };
    this.#handIn(held);
  }

  /** Go on with what the gateway has kept, hand in what could not be before, and give back what nobody knows. */
  #welcomed({ consumer, jobs }) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#secret = consumer;
    const kept = new Map(jobs.map((each) => [each.number, each]));
    for (const [number, held] of this.#held) if (!kept.has(number)) this.#takeAway(held, LOST);
    for (const [number, { token }] of kept) {
      const held = this.#held.get(number);
      if (!held) this._link.send(number, { type: "release" });
      else {
        held.job.token = token;
        if (held.answer) this.#handIn(held);
      }
    }
    this.#isReady();
  }

  /** Stop the handlers whose jobs others may have by now; answers wait for a connection a while longer. */
  #graceEnds(answered = false) {
    clearTimeout(this.#timer);
    this.#timer = null;
    for (const held of this.#held.values()) {
      if (answered || !held.answer || !this.grace) this.#takeAway(held, "The connection was gone for longer than the grace time");
    }
    if (this.#held.size) this.#timer = setTimeout(() => this.#graceEnds(true), limits.linkTimeout);
  }
}

/** Options as the query string has them. */
function flat({ limiter, metrics, ...plain }) {
  const named = Object.entries(plain).filter(([, value]) => value !== undefined && value !== null);
  const nested = [["limiter", limiter], ["metrics", metrics]].flatMap(([name, values]) =>
    Object.entries(values ?? {}).map(([each, value]) => [`${name}.${each}`, value]));
  return Object.fromEntries([...named, ...nested].map(([name, value]) =>
    [name, typeof value === "string" ? value : JSON.stringify(value)]));
}
