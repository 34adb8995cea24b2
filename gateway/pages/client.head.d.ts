/** The JavaScript client of bullmq-proxy; docs/clients.md has examples. */

/** Limits; times in milliseconds. They may be changed before a client is made. */
export const limits: {
  openTimeout: number;
  firstPause: number;
  longestPause: number;
  refusal: number;
  laterPause: number;
  settled: number;
  quiet: number;
  mostCalls: number;
  linkTimeout: number;
  repeats: number;
  repeatPause: number;
  mostEvents: number;
  grace: number;
  closeTimeout: number;
  kept: number;
  keptAge: number;
};

/** What the gateway, or this client, refuses: `code` says why for programs, `message` for people. */
export class ProxyError extends Error {
  code: string;
}

/** Thrown by a handler: the job fails for good, whatever attempts it has left. */
export class UnrecoverableError extends Error {}

export interface ConnectionOptions {
  /** Of the gateway: by default the one that this module comes from, else ws://127.0.0.1:8080. */
  url?: string;
  /** That the gateway knows, or a function that returns a token for it: it is asked before each connection, and when the
   *  token ends soon. None for a gateway without keys. */
  key?: string | (() => string | Promise<string>);
  /** The class for connections, where there is no global one: that of the package `ws` in Node 18. */
  WebSocket?: unknown;
}

/** Listeners; `error` and `lost` go to the console where nobody listens. */
declare class Emitter {
  /** Call `listener` whenever `name` happens. */
  on(name: string, listener: (...args: any[]) => void): this;
  /** Call it no more. */
  off(name: string, listener: (...args: any[]) => void): this;
}

/** A queue. Listeners: `connected`, `disconnected` (why), `error` (why there will be no connection any more). */
export class Queue extends Emitter {
  constructor(name: string, options?: ConnectionOptions);
  readonly name: string;
  /** Close the connection; calls under way end with `CLOSED`, or with `OUTCOME_UNKNOWN` if they write. */
  close(): Promise<void>;
}
export interface Queue extends QueueFunctions {}

/** Adds and reads flows, which are trees of jobs; they are shown as JSON. */
export class FlowProducer extends Emitter {
  constructor(options?: ConnectionOptions);
  close(): Promise<void>;
}
export interface FlowProducer extends FlowFunctions {}

/** A job as the gateway has shown it; it does not change by itself. */
export class Job {
  /** The functions of its queue, over the connection that it came by. */
  readonly queue: QueueFunctions;
}
export interface Job extends JobFunctions {}

/** A job in a worker's hands. */
export interface WorkerJob extends Omit<Job, "updateProgress" | "log"> {
  /** Aborted when the job is not this worker's any more. */
  readonly signal: AbortSignal;
  /** Say how far the job is, by any JSON: stored with it and published as an event. */
  updateProgress(progress: any): Promise<void>;
  /** Add a row to the job's log; only the last `keepLogs` stay, where that is given. */
  log(row: string, keepLogs?: number): Promise<void | number>;
  /** Give the job back: first in line, no attempt is charged. The handler then returns. */
  release(): Promise<void>;
  /** Give the job back, to run after this delay; no attempt is charged. The handler then returns. */
  delayFor(milliseconds: number): Promise<void>;
  /** Let the job wait for its children; false when none is pending: then the handler goes on. After true it returns. */
  waitChildren(): Promise<boolean>;
}

/**
 * Processes the jobs of a queue, from now on.
 *
 * Listeners: `completed` (job, result), `failed` (job, error), `cancelled` (job, reason), `lost` (job, error: its answer
 * was not stored, or nobody knows), `draining` (ms until the gateway stops, or null), `connected`, `disconnected` (why),
 * `error`.
 */
export class Worker extends Emitter {
  constructor(
    name: string,
    handler: (job: WorkerJob, signal: AbortSignal) => unknown,
    options?: ConnectionOptions & Omit<WorkerOptions, "confirm"> & { concurrency?: number; confirm?: boolean },
  );
  readonly name: string;
  readonly concurrency: number;
  /** The number of jobs in hand: processed, or waiting for their answer to be stored. */
  readonly inHand: number;
  /** Wait until the worker is closed; a refusal of the gateway's is thrown. */
  run(): Promise<void>;
  /** Take no new jobs; those in hand go on. */
  pause(): Promise<void>;
  /** Take jobs again. */
  resume(): Promise<void>;
  /** Take no new jobs, wait so many milliseconds for those in hand, give the others back, and close the connection. */
  close(timeout?: number): Promise<void>;
}

/** An event; `gap` tells of events that are lost, `from` one id `to` another, and has no id. */
export interface QueueEvent {
  name: string;
  fields: Record<string, any>;
  id: string | null;
}

/** The events of a queue, for listeners, which get the fields and the id, or for a loop: `for await (const event of …)`. */
export class QueueEvents extends Emitter implements AsyncIterable<QueueEvent> {
  constructor(name: string, options?: ConnectionOptions & { events?: string[]; lastEventId?: string | null });
  readonly name: string;
  /** Of the last event; the next connection goes on behind it. */
  lastEventId: string | null;
  /** Wait until events come; a refusal is thrown. */
  start(): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncIterator](): AsyncIterator<QueueEvent>;
}
