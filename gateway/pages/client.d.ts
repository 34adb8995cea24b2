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

// From here on this file is made from the code by `make docs`.

/** Not JSON, no envelope, or an answer of an unknown form. */
export class InvalidMessageError extends ProxyError {}
/** An argument or option cannot be used; the message names the place. */
export class InvalidArgumentsError extends ProxyError {}
/** No such function. */
export class UnknownFunctionError extends ProxyError {}
/** No key, or a wrong or expired one (HTTP only). */
export class UnauthorizedError extends ProxyError {}
/** The key may not do this or reach this queue, and the message says what is missing; or a page's origin (HTTP). */
export class ForbiddenError extends ProxyError {}
/** No such job, parent or path; or an answer for a job that this connection does not hold. */
export class NotFoundError extends ProxyError {}
/** The job's lock is missing or somebody else's. */
export class NotLockedError extends ProxyError {}
/** The job or queue is in a state that does not allow this; or the job that was waited for has failed. */
export class ConflictError extends ProxyError {}
/**
 * The key's limit of calls or connections is reached, try again in a second; or too many calls of this connection
 * wait already; nothing was done.
 */
export class TooManyRequestsError extends ProxyError {}
/** Redis is not reachable or cannot serve; nothing was written, try again. */
export class RedisUnavailableError extends ProxyError {}
/** The keys that tokens are signed with are being read; nothing was done, try again in a second. */
export class KeysUnavailableError extends ProxyError {}
/**
 * The link to Redis broke while a write was under way, or another gateway does not answer: it may have happened,
 * or not; or it is written, and not known to be in `min_replicas` replicas.
 */
export class OutcomeUnknownError extends ProxyError {}
/** The job that was waited for did not end in time; or Redis does not answer (`/ready` only). */
export class WaitTimeoutError extends ProxyError {}
/** The gateway stops; try again elsewhere. */
export class ShuttingDownError extends ProxyError {}
/** Redis refused the command, or a bug of the gateway's, whose log then has the details. */
export class InternalError extends ProxyError {}
/** This client was closed, or the gateway has closed its connection for good. */
export class ClosedError extends ProxyError {}
/** There was no connection for too long; nothing was sent. */
export class UnreachableError extends ProxyError {}

export interface QueueFunctions {
  /** Add a job and return it. `duplicate: true` stands beside its fields when the job was there already. */
  add(name: string, data?: any, opts?: JobOptions | null): Promise<Job>;
  /**
   * Add many jobs at once, in their order, and return them. All are checked before the first one is stored.
   *
   * One that BullMQ still refuses, as its parent is missing, shows as an object with `err` in its place.
   */
  addBulk(jobs: BulkJob[]): Promise<(Job | RefusedJob)[]>;
  /** Return a job, or null. */
  getJob(jobId: string | number): Promise<Job | null>;
  /**
   * Return the jobs of some types, in the order of the types; `start` and `end` count within each type.
   *
   * Those that are larger than 16 MiB together are refused: ask for them in pages.
   */
  getJobs(types?: "active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children" | ("active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children")[] | null, start?: number, end?: number, asc?: boolean): Promise<Job[]>;
  /** Return the waiting jobs, the oldest first. */
  getWaiting(start?: number, end?: number): Promise<Job[]>;
  /** Return the waiting-children jobs, the oldest first. */
  getWaitingChildren(start?: number, end?: number): Promise<Job[]>;
  /** Return the active jobs, the oldest first. */
  getActive(start?: number, end?: number): Promise<Job[]>;
  /** Return the delayed jobs, the oldest first. */
  getDelayed(start?: number, end?: number): Promise<Job[]>;
  /** Return the prioritized jobs, the oldest first. */
  getPrioritized(start?: number, end?: number): Promise<Job[]>;
  /** Return the completed jobs, the newest first. */
  getCompleted(start?: number, end?: number): Promise<Job[]>;
  /** Return the failed jobs, the newest first. */
  getFailed(start?: number, end?: number): Promise<Job[]>;
  /**
   * Return the ids of the jobs of some types, each once; `start` and `end` count within each type.
   *
   * Some hundred thousand ids are more than 16 MiB and refused: ask for them in pages.
   */
  getRanges(types: ("active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children")[], start?: number, end?: number, asc?: boolean): Promise<string[]>;
  /** Return a job's state, or `unknown` (Node's `job.getState`). */
  getJobState(jobId: string | number): Promise<string>;
  /** Return the rows of a job's log, and how many there are. Rows of more than 16 MiB are refused: ask for less. */
  getJobLogs(jobId: string | number, start?: number, end?: number, asc?: boolean): Promise<JobLogs>;
  /** Return the number of jobs of each type; of all types when none is named. */
  getJobCounts(...types: ("active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children")[]): Promise<Record<string, number>>;
  /** Return the same as `getJobCounts`; what Node also records for a tracer has no meaning here. */
  recordJobCountsMetric(...types: ("active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children")[]): Promise<Record<string, number>>;
  /** Return the number of jobs of these types together. */
  getJobCountByTypes(...types: ("active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "repeat" | "wait" | "waiting" | "waiting-children")[]): Promise<number>;
  /** Return the number of jobs to be processed: waiting, delayed, prioritized and waiting for children. */
  count(): Promise<number>;
  /** Return the number of active jobs. */
  getActiveCount(): Promise<number>;
  /** Return the number of completed jobs. */
  getCompletedCount(): Promise<number>;
  /** Return the number of failed jobs. */
  getFailedCount(): Promise<number>;
  /** Return the number of prioritized jobs. */
  getPrioritizedCount(): Promise<number>;
  /** Return the number of waiting jobs. */
  getWaitingCount(): Promise<number>;
  /** Return the number of waiting-children jobs. */
  getWaitingChildrenCount(): Promise<number>;
  /** Return the number of delayed jobs; with `timestamp`, in ms since 1970, of those that are due before it. */
  getDelayedCount(timestamp?: number | null): Promise<number>;
  /** Return the number of waiting jobs of each priority; 0 stands for jobs without one. */
  getCountsPerPriority(priorities: number[]): Promise<Record<string, number>>;
  /**
   * Take a job from whoever holds it: it fails for good with `reason`, whatever attempts it has left.
   *
   * With `fail` false it goes back instead: first in line, no attempt charged. Its worker gets `cancel` with the
   * reason, on whatever shard or host it is connected; `delivered` says whether that was sent. Else it learns of
   * it when its lock is to be renewed, or by its answer, which is not stored. A job that nobody holds is a
   * `CONFLICT`.
   */
  cancelJob(jobId: string | number, reason?: string, opts?: CancelOptions | null): Promise<CancelledJob>;
  /**
   * Return who works on the queue over Worker connections, and its webhook workers, on all shards and hosts.
   *
   * The others of its workers, of BullMQ's own libraries, are among those of `getWorkers`.
   */
  getConsumers(): Promise<Consumers>;
  /**
   * Give a Worker connection no new jobs any more; `id` is that of `getConsumers`.
   *
   * Its client gets `drain`, without a deadline, and can finish what it has in hand. This lasts until it connects
   * again.
   */
  drainConsumer(id: string): Promise<null>;
  /**
   * Close a Worker connection with the code 4001; `id` is that of `getConsumers`.
   *
   * The jobs that it has not answered go back, first in line, with no attempt charged and no loss counted.
   */
  disconnectConsumer(id: string): Promise<null>;
  /**
   * Put a fresh token in force on the connection, in place of the one that it was opened with; return its rights.
   *
   * It has the same `sub`. Its rights may be others: they hold from the next call on. A token that is not for the
   * connection is refused, and the present one stays. On a connection that was opened with a key it is a
   * `CONFLICT`.
   */
  renew(token: string): Promise<Caller>;
  /**
   * Take one job and lock it under `token`; return null when there is none (Node's `worker.getNextJob`).
   *
   * With `block` it waits for one, as many ms as that says. The lock lives for `lockDuration` ms and is the
   * caller's to renew, by `extendJobLock`; the job is the caller's to move on.
   */
  getNextJob(token: string, opts?: NextJobOptions | null): Promise<Job | null>;
  /**
   * Complete a job with its return value, which is any JSON (Node's `job.moveToCompleted`).
   *
   * With `fetchNext` the next job, if there is one, is taken in the same step and locked under the same token for
   * 30 s: `[job, id, 0, 0]`. Without, or when there is none, the list is empty, or has null for the job.
   */
  moveJobToCompleted(jobId: string | number, result: any, token: string, fetchNext?: boolean): Promise<(RawJob | string | number | null)[]>;
  /**
   * Fail a job: it is tried again if its attempts allow it (Node's `job.moveToFailed`).
   *
   * `err` is a text, or an object with `message` and perhaps `stack` and `unrecoverable`, which fails the job for
   * good. The result is as that of `moveJobToCompleted`, or null when the job is back in wait at once.
   */
  moveJobToFailed(jobId: string | number, err: any, token: string, fetchNext?: boolean): Promise<(RawJob | string | number | null)[] | null>;
  /** Give a job back until `timestamp`, in ms since 1970; no attempt is charged (Node's `job.moveToDelayed`). */
  moveJobToDelayed(jobId: string | number, timestamp: number, token: string): Promise<null>;
  /**
   * Give a job back as the first in line; no attempt is charged (Node's `job.moveToWait`).
   *
   * Returns for how many ms the queue's rate limit lets nobody take jobs, 0 for none.
   */
  moveJobToWait(jobId: string | number, token: string): Promise<number>;
  /**
   * Make a job wait for its children, or for `opts.child` alone (Node's `job.moveToWaitingChildren`).
   *
   * False when there is nothing to wait for: the job is then the caller's as before. When a child has failed it
   * is, too, with a `CONFLICT`: fail the job with that message and `unrecoverable`, as Node's worker does.
   */
  moveJobToWaitingChildren(jobId: string | number, token: string, opts?: WaitingChildrenOptions | null): Promise<boolean>;
  /**
   * Extend a job's lock to `duration` ms from now; return 1, or 0 when the lock is not under this token.
   *
   * Node's `job.extendLock`.
   */
  extendJobLock(jobId: string | number, token: string, duration: number): Promise<number>;
  /**
   * Publish an event under the name `event.eventName`, with its other members as text, to all who watch the queue.
   *
   * This is Node's `QueueEventsProducer.publishEvent`, and trims the stream to about `maxEvents` entries as that
   * does. An event under one of BullMQ's own names is believed by everybody who waits for such: hence the
   * permission.
   */
  publishEvent(event: PublishedEvent, maxEvents?: number): Promise<null>;
  /** Trim the event stream to about `maxLength` entries; return how many were removed. */
  trimEvents(maxLength: number): Promise<number>;
  /**
   * Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`).
   *
   * Results that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
   */
  getJobChildrenValues(jobId: string | number): Promise<Record<string, any>>;
  /**
   * Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`).
   *
   * Reasons that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
   */
  getJobIgnoredChildrenFailures(jobId: string | number): Promise<Record<string, string>>;
  /**
   * Return the keys of a job's children: completed, unfinished, failed, ignored (Node's `job.getDependencies`).
   *
   * Without options all of them; with options only the named kinds, a page of each, and beside it the cursor of
   * the next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count` is the
   * number at which the page ends, counted from the first child of all, and the next cursor is `cursor + count`.
   * What is larger than 16 MiB together is refused.
   */
  getJobDependencies(jobId: string | number, opts?: DependenciesOptions | null): Promise<JobDependencies>;
  /** Return the number of a job's children of each kind, or of the named kinds (Node's `job.getDependenciesCount`). */
  getJobDependenciesCount(jobId: string | number, opts?: DependenciesCountOptions | null): Promise<JobDependenciesCount>;
  /**
   * Detach a job from its parent, which then does not wait for it (Node's `job.removeChildDependency`).
   *
   * Returns whether the parent was waiting for it. A parent that has no other child to wait for moves to wait.
   */
  removeJobChildDependency(jobId: string | number): Promise<boolean>;
  /**
   * Remove a job's unfinished children, and theirs (Node's `job.removeUnprocessedChildren`).
   *
   * Children that a worker holds stay. A job that has nothing more to wait for moves to wait. Many children are
   * removed some at a time.
   */
  removeJobUnprocessedChildren(jobId: string | number): Promise<null>;
  /**
   * Return a page of a job's children, completed or pending; `jobs` has their hashes, in no order.
   *
   * `items[].id` is a child's key, `<prefix>:<queue>:<id>`. Children that are larger than 16 MiB together are
   * refused: ask for them in pages.
   */
  getDependencies(parentId: string | number, type: "pending" | "processed", start: number, end: number): Promise<Dependencies>;
  /** Pause the queue: no worker of any kind takes new jobs until `resume`. */
  pause(): Promise<null>;
  /** Resume a paused queue; jobs that versions before 6 have put aside for it come back. */
  resume(): Promise<null>;
  /** Remove all waiting jobs, and with `delayed` the delayed ones, too; the next jobs of schedulers stay. */
  drain(delayed?: boolean | null): Promise<null>;
  /** Remove at most `limit` jobs (0: all) of a type that are older than `grace` ms; return their ids. */
  clean(grace: number, limit: number, type?: "active" | "completed" | "delayed" | "failed" | "paused" | "prioritized" | "wait" | "waiting"): Promise<string[]>;
  /** Pause the queue and remove it completely; with `force` even while jobs are active. */
  obliterate(opts?: ObliterateOptions | null): Promise<null>;
  /** Move all failed, or all completed, jobs back to wait. */
  retryJobs(opts?: RetryJobsOptions | null): Promise<null>;
  /** Move all delayed jobs to wait. */
  promoteJobs(opts?: PromoteJobsOptions | null): Promise<null>;
  /**
   * Remove a job and its children, and theirs; return 1, or 0 when a worker holds one of them.
   *
   * With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
   * Many children are removed some at a time, the job last: a worker that takes one meanwhile keeps what is left.
   */
  remove(jobId: string | number, opts?: RemoveOptions | null): Promise<number>;
  /** Free a deduplication id, so that another job can have it; return 1 when a job had it. */
  removeDeduplicationKey(id: string): Promise<number>;
  /** Remove a key that old versions of BullMQ left behind; return 1 when it was there. */
  removeDeprecatedPriorityKey(): Promise<number>;
  /**
   * Remove jobs that are in no state; return their number.
   *
   * This goes through all keys of the Redis database, some `count` at a time and at most 1,000, and ends early
   * once `limit` jobs are removed (0: never).
   */
  removeOrphanedJobs(count?: number, limit?: number): Promise<number>;
  /**
   * Remove a job and its children, and theirs; a job that a worker holds is an error (Node's `job.remove`).
   *
   * With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
   */
  removeJob(jobId: string | number, opts?: RemoveOptions | null): Promise<null>;
  /** Move a failed or completed job back to wait (Node's `job.retry`). */
  retryJob(jobId: string | number, state?: "completed" | "failed", opts?: RetryOptions | null): Promise<null>;
  /** Move a delayed job to wait (Node's `job.promote`). */
  promoteJob(jobId: string | number): Promise<null>;
  /** Change how long a delayed job waits: `delay` ms from now (Node's `job.changeDelay`). */
  changeJobDelay(jobId: string | number, delay: number): Promise<null>;
  /**
   * Change a job's priority, 0 to 2097151; none if it is left out (Node's `job.changePriority`).
   *
   * It moves behind the jobs of that priority, or with `lifo` before them. A job that does not wait has its new
   * priority for when it does.
   */
  changeJobPriority(jobId: string | number, opts: PriorityOptions): Promise<null>;
  /**
   * Free a job's deduplication id, so that another job can have it (Node's `job.removeDeduplicationKey`).
   *
   * Returns false when the job has none, or another job holds it.
   */
  removeJobDeduplicationKey(jobId: string | number): Promise<boolean>;
  /** Replace a job's data (Node's `job.updateData`). */
  updateJobData(jobId: string | number, data: any, token?: string | null): Promise<null>;
  /** Set a job's progress, which is any JSON (Node's `job.updateProgress`). */
  updateJobProgress(jobId: string | number, progress: any, token?: string | null): Promise<null>;
  /** Add a row to a job's log and return the number of rows; only the last `keepLogs` stay (Node's `job.log`). */
  addJobLog(jobId: string | number, logRow: string, keepLogs?: number | null, token?: string | null): Promise<number>;
  /** Clear a job's log, except for its last `keepLogs` rows (Node's `job.clearLogs`). */
  clearJobLogs(jobId: string | number, keepLogs?: number | null, token?: string | null): Promise<null>;
  /** Return whether a job is active (Node's `job.isActive`). */
  isJobActive(jobId: string | number): Promise<boolean>;
  /** Return whether a job is completed (Node's `job.isCompleted`). */
  isJobCompleted(jobId: string | number): Promise<boolean>;
  /** Return whether a job is delayed (Node's `job.isDelayed`). */
  isJobDelayed(jobId: string | number): Promise<boolean>;
  /** Return whether a job is failed (Node's `job.isFailed`). */
  isJobFailed(jobId: string | number): Promise<boolean>;
  /** Return whether a job is waiting, without a priority (Node's `job.isWaiting`). */
  isJobWaiting(jobId: string | number): Promise<boolean>;
  /** Return whether a job is waiting for its children (Node's `job.isWaitingChildren`). */
  isJobWaitingChildren(jobId: string | number): Promise<boolean>;
  /**
   * Limit how many jobs all workers together process at a time; return 1 when there was no limit before.
   *
   * The gateways' workers take what a higher limit allows at once.
   */
  setGlobalConcurrency(concurrency: number): Promise<number>;
  /** Return how many jobs all workers together may process at a time, or null. */
  getGlobalConcurrency(): Promise<number | null>;
  /** Remove the limit of jobs at a time; return 1 when there was one. */
  removeGlobalConcurrency(): Promise<number>;
  /** Return whether as many jobs are active as the global concurrency allows. */
  isMaxed(): Promise<boolean>;
  /** Limit how many jobs all workers together start in `duration` ms; return how many of both settings are new. */
  setGlobalRateLimit(max: number, duration: number): Promise<number>;
  /** Return the rate limit of all workers together, or null. */
  getGlobalRateLimit(): Promise<RateLimit | null>;
  /** Remove the rate limit of all workers together; return how many of its two settings there were. */
  removeGlobalRateLimit(): Promise<number>;
  /**
   * Start no more jobs for `expireTimeMs` ms, as if the rate limit were reached.
   *
   * This holds for workers with a limit of their own, and for all while a global one is set.
   */
  rateLimit(expireTimeMs: number): Promise<null>;
  /** Reset the counter of the rate limit; return 1 when there was one. The gateways' workers go on at once. */
  removeRateLimitKey(): Promise<number>;
  /**
   * Return for how many ms the rate limit lets no more jobs start.
   *
   * With `maxJobs`, or a global rate limit, it is 0 while fewer jobs have started. Without either it is what is
   * left of the current period: -2 when there is none, -1 when it never ends.
   */
  getRateLimitTtl(maxJobs?: number | null): Promise<number>;
  /**
   * Create a job scheduler, or change the one with this id; return its next job.
   *
   * Null where there is none: the limit is reached, or the pattern does not fire before the end date.
   */
  upsertJobScheduler(jobSchedulerId: string, repeatOpts: RepeatOptions, jobTemplate?: JobTemplate | null): Promise<Job | null>;
  /** Remove a job scheduler, and its next job unless that has started; return whether there was one. */
  removeJobScheduler(jobSchedulerId: string): Promise<boolean>;
  /** Return a job scheduler, or null. */
  getJobScheduler(id: string): Promise<JobScheduler | null>;
  /**
   * Return the job schedulers by the time of their next jobs, the latest first unless `asc`.
   *
   * Leftovers of schedulers whose data is gone are removed. Schedulers that are larger than 16 MiB together are
   * refused: ask for them in pages.
   */
  getJobSchedulers(start?: number, end?: number, asc?: boolean): Promise<JobScheduler[]>;
  /** Return the number of job schedulers. */
  getJobSchedulersCount(): Promise<number>;
  /** Return whether the queue is paused. */
  isPaused(): Promise<boolean>;
  /** Return the library and version that introduced themselves to the queue first, or null. */
  getVersion(): Promise<string | null>;
  /** Return the queue's global configuration; unknown fields come as they are stored, as strings. */
  getMeta(): Promise<QueueMeta>;
  /** Return the id of the job that has a deduplication id, or null. */
  getDeduplicationJobId(id: string): Promise<string | null>;
  /**
   * Return the Redis connections of the queue's workers; a shard is one worker, however many clients it serves.
   *
   * Where a shard's queues share a connection to wait on, that one stands here.
   */
  getWorkers(): Promise<Record<string, string>[]>;
  /** Return the number of entries that `getWorkers` has. */
  getWorkersCount(): Promise<number>;
  /** Return how many jobs finished in each minute, the newest minute first; for workers that keep metrics. */
  getMetrics(type: "completed" | "failed", start?: number, end?: number): Promise<Metrics>;
  /** Return `getJobCounts` and `getMetrics` in Prometheus's text format; the variables become labels of each line. */
  exportPrometheusMetrics(globalVariables?: Record<string, string> | null): Promise<string>;
  /**
   * Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).
   *
   * When it has failed for good, the error is `CONFLICT` with the reason as its message; when it is gone,
   * `NOT_FOUND`. With `ttl` it is `TIMEOUT` after so many ms; 0 and null wait for as long as the connection lives.
   */
  waitUntilJobFinished(jobId: string | number, ttl?: number | null): Promise<any>;
  /**
   * Add a job, wait until it is completed, and return its return value: `add` and `waitUntilJobFinished` in one.
   *
   * No end is missed, also with `removeOnComplete`. When the wait ends otherwise, as after `ttl` ms, the job
   * stays. One that is there already is waited for as well; that needs the permission `observe`, too.
   */
  addAndWait(name: string, data?: any, opts?: JobOptions | null, ttl?: number | null): Promise<any>;
}

export interface FlowFunctions {
  /**
   * Add a flow, which is a job with the jobs that it waits for, and return it in the same form.
   *
   * All are checked before the first one is stored, and stored at once. `opts` has default job options by queue:
   * `{"queuesOptions": {"mails": {"defaultJobOptions": {"attempts": 3}}}}`.
   */
  add(flow: FlowNode, opts?: FlowOptions | null): Promise<AddedFlow>;
  /** Add several flows at once and return them. One whose root BullMQ refuses shows `err` beside it. */
  addBulk(flows: FlowNode[]): Promise<AddedFlow[]>;
  /**
   * Return a job with its children, down to `depth` levels, or null where there is no such job.
   *
   * The children are in this order: completed, pending, failed, and those whose failure the parent ignores. null
   * stands for one that was removed.
   */
  getFlow(opts: FlowQuery): Promise<Flow | null>;
  /**
   * Return who is connected to the queues that the key is for, on all shards and hosts, the oldest ones first.
   *
   * Connections of no queue, such as those of flows, are shown to a key for all queues, whose pattern is `*`. A
   * worker's id is that of `getConsumers`, too. Webhook workers, and workers of BullMQ's own libraries, are no
   * connections.
   */
  getConnections(opts?: ConnectionsQuery | null): Promise<Connections>;
  /**
   * Let the worker on a connection finish what it has in hand, and give it nothing new: it gets `drain`.
   *
   * The connection of any other client is closed, as by `closeConnection`. Returns false where there is none of
   * this id on the queues that the key is for.
   */
  drainConnection(id: string): Promise<boolean>;
  /**
   * Close a connection with the code 4001; one for requests ends with the response to the last of them.
   *
   * The jobs that its worker has not answered go back, first in line, with no attempt charged and no loss counted.
   * Returns false where there is none of this id on the queues that the key is for.
   */
  closeConnection(id: string): Promise<boolean>;
  /** Return the name of the caller's key, its permissions, and the queues that it is for. */
  whoami(): Promise<Caller>;
  /** Put a fresh token in force on the connection, as `renew` of a queue does; return its rights. */
  renew(token: string): Promise<Caller>;
  /**
   * Return what has become of jobs in the last hour over the shards of this gateway, in steps of 10 seconds.
   *
   * What other programs add and finish is not seen, nor what other gateways do; `getMetrics` counts the finished
   * jobs of all where workers keep metrics. A job waits from when it was added, or from the end of the delay that
   * it was added with, until it goes to a worker for the first time. Without a queue the key must be for all: its
   * pattern is `*`.
   */
  getHistory(opts?: HistoryQuery | null): Promise<History>;
  /**
   * Return the queues that the key is for, in no order, and a `cursor` for the next page while there may be more.
   *
   * One call goes through 100,000 of Redis' keys at most, so that a page may have fewer queues than `limit`, or
   * none. A queue that is there all the time is in one of the pages, or seldom in two; one that comes meanwhile
   * may be missing.
   */
  getQueues(opts?: QueuesQuery | null): Promise<FoundQueues>;
  /**
   * Return how many jobs of a queue need a worker now, those included that have one, and who works on them.
   *
   * Delayed jobs and parents that wait for children are not among them; of a paused queue only the active ones
   * are.
   */
  getScale(opts: ScaleQuery): Promise<Scale>;
}

/** The members of a job, and the functions for it. */
export interface JobFunctions {
  name: string;
  data: any;
  opts: any;
  id: string;
  progress?: any;
  returnvalue?: any;
  stacktrace?: any[] | null;
  delay?: number | null;
  priority?: number | null;
  attemptsStarted?: number | null;
  attemptsMade?: number | null;
  stalledCounter?: number | null;
  repeatJobKey?: string;
  timestamp?: number | null;
  parentKey?: string;
  parent?: JobParent;
  deduplicationId?: string;
  queueQualifiedName?: string;
  finishedOn?: number;
  processedOn?: number;
  failedReason?: string;
  deferredFailure?: string;
  processedBy?: string;
  duplicate?: boolean;
  token?: string;
  /** Return a job's state, or `unknown` (Node's `job.getState`). */
  getState(): Promise<string>;
  /**
   * Complete a job with its return value, which is any JSON (Node's `job.moveToCompleted`).
   *
   * With `fetchNext` the next job, if there is one, is taken in the same step and locked under the same token for
   * 30 s: `[job, id, 0, 0]`. Without, or when there is none, the list is empty, or has null for the job.
   */
  moveToCompleted(result: any, fetchNext?: boolean): Promise<(RawJob | string | number | null)[]>;
  /**
   * Fail a job: it is tried again if its attempts allow it (Node's `job.moveToFailed`).
   *
   * `err` is a text, or an object with `message` and perhaps `stack` and `unrecoverable`, which fails the job for
   * good. The result is as that of `moveJobToCompleted`, or null when the job is back in wait at once.
   */
  moveToFailed(err: any, fetchNext?: boolean): Promise<(RawJob | string | number | null)[] | null>;
  /** Give a job back until `timestamp`, in ms since 1970; no attempt is charged (Node's `job.moveToDelayed`). */
  moveToDelayed(timestamp: number): Promise<null>;
  /**
   * Give a job back as the first in line; no attempt is charged (Node's `job.moveToWait`).
   *
   * Returns for how many ms the queue's rate limit lets nobody take jobs, 0 for none.
   */
  moveToWait(): Promise<number>;
  /**
   * Make a job wait for its children, or for `opts.child` alone (Node's `job.moveToWaitingChildren`).
   *
   * False when there is nothing to wait for: the job is then the caller's as before. When a child has failed it
   * is, too, with a `CONFLICT`: fail the job with that message and `unrecoverable`, as Node's worker does.
   */
  moveToWaitingChildren(opts?: WaitingChildrenOptions | null): Promise<boolean>;
  /**
   * Extend a job's lock to `duration` ms from now; return 1, or 0 when the lock is not under this token.
   *
   * Node's `job.extendLock`.
   */
  extendLock(duration: number): Promise<number>;
  /**
   * Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`).
   *
   * Results that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
   */
  getChildrenValues(): Promise<Record<string, any>>;
  /**
   * Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`).
   *
   * Reasons that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
   */
  getIgnoredChildrenFailures(): Promise<Record<string, string>>;
  /**
   * Return the keys of a job's children: completed, unfinished, failed, ignored (Node's `job.getDependencies`).
   *
   * Without options all of them; with options only the named kinds, a page of each, and beside it the cursor of
   * the next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count` is the
   * number at which the page ends, counted from the first child of all, and the next cursor is `cursor + count`.
   * What is larger than 16 MiB together is refused.
   */
  getDependencies(opts?: DependenciesOptions | null): Promise<JobDependencies>;
  /** Return the number of a job's children of each kind, or of the named kinds (Node's `job.getDependenciesCount`). */
  getDependenciesCount(opts?: DependenciesCountOptions | null): Promise<JobDependenciesCount>;
  /**
   * Detach a job from its parent, which then does not wait for it (Node's `job.removeChildDependency`).
   *
   * Returns whether the parent was waiting for it. A parent that has no other child to wait for moves to wait.
   */
  removeChildDependency(): Promise<boolean>;
  /**
   * Remove a job's unfinished children, and theirs (Node's `job.removeUnprocessedChildren`).
   *
   * Children that a worker holds stay. A job that has nothing more to wait for moves to wait. Many children are
   * removed some at a time.
   */
  removeUnprocessedChildren(): Promise<null>;
  /**
   * Remove a job and its children, and theirs; a job that a worker holds is an error (Node's `job.remove`).
   *
   * With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
   */
  remove(opts?: RemoveOptions | null): Promise<null>;
  /** Move a failed or completed job back to wait (Node's `job.retry`). */
  retry(state?: "completed" | "failed", opts?: RetryOptions | null): Promise<null>;
  /** Move a delayed job to wait (Node's `job.promote`). */
  promote(): Promise<null>;
  /** Change how long a delayed job waits: `delay` ms from now (Node's `job.changeDelay`). */
  changeDelay(delay: number): Promise<null>;
  /**
   * Change a job's priority, 0 to 2097151; none if it is left out (Node's `job.changePriority`).
   *
   * It moves behind the jobs of that priority, or with `lifo` before them. A job that does not wait has its new
   * priority for when it does.
   */
  changePriority(opts: PriorityOptions): Promise<null>;
  /**
   * Free a job's deduplication id, so that another job can have it (Node's `job.removeDeduplicationKey`).
   *
   * Returns false when the job has none, or another job holds it.
   */
  removeDeduplicationKey(): Promise<boolean>;
  /** Replace a job's data (Node's `job.updateData`). */
  updateData(data: any): Promise<null>;
  /** Set a job's progress, which is any JSON (Node's `job.updateProgress`). */
  updateProgress(progress: any): Promise<null>;
  /** Add a row to a job's log and return the number of rows; only the last `keepLogs` stay (Node's `job.log`). */
  log(logRow: string, keepLogs?: number | null): Promise<number>;
  /** Clear a job's log, except for its last `keepLogs` rows (Node's `job.clearLogs`). */
  clearLogs(keepLogs?: number | null): Promise<null>;
  /** Return whether a job is active (Node's `job.isActive`). */
  isActive(): Promise<boolean>;
  /** Return whether a job is completed (Node's `job.isCompleted`). */
  isCompleted(): Promise<boolean>;
  /** Return whether a job is delayed (Node's `job.isDelayed`). */
  isDelayed(): Promise<boolean>;
  /** Return whether a job is failed (Node's `job.isFailed`). */
  isFailed(): Promise<boolean>;
  /** Return whether a job is waiting, without a priority (Node's `job.isWaiting`). */
  isWaiting(): Promise<boolean>;
  /** Return whether a job is waiting for its children (Node's `job.isWaitingChildren`). */
  isWaitingChildren(): Promise<boolean>;
  /**
   * Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).
   *
   * When it has failed for good, the error is `CONFLICT` with the reason as its message; when it is gone,
   * `NOT_FOUND`. With `ttl` it is `TIMEOUT` after so many ms; 0 and null wait for as long as the connection lives.
   */
  waitUntilFinished(ttl?: number | null): Promise<any>;
}

/** An added job with its children; with `err` it was not added, or did not get its parent. */
export interface AddedFlow {
  job: AddedJobJson;
  err?: JobError;
  children?: AddedFlow[];
}

/** A job that was added; with `duplicate` nothing was, it or its deduplication id was there already. */
export interface AddedJobJson {
  name?: string;
  data: any;
  opts: any;
  id: string | number;
  progress?: any;
  returnvalue?: any;
  stacktrace?: any[] | null;
  delay?: number | null;
  priority: number | null;
  attemptsStarted: number | null;
  attemptsMade: number | null;
  stalledCounter: number | null;
  repeatJobKey?: string;
  timestamp: number | null;
  parentKey?: string;
  parent?: JobParent;
  deduplicationId?: string;
  queueQualifiedName: string;
  finishedOn?: number;
  processedOn?: number;
  failedReason?: string;
  deferredFailure?: string;
  processedBy?: string;
  duplicate?: boolean;
}

/** The wait before a retry: `fixed`, `exponential`, or a name that a custom worker knows. `delay` in ms. */
export interface Backoff {
  type: string;
  delay?: number;
  jitter?: number;
}

/** One entry of `addBulk`. */
export interface BulkJob {
  name: string;
  data?: any;
  opts?: JobOptions | null;
}

/** Whoever calls. */
export interface Caller {
  /** the name of the key; empty for one of `auth_keys`. */
  key: string;
  /** that it has. */
  permissions: ("produce" | "consume" | "observe" | "tune" | "manage")[];
  /** patterns of the queues that it is for; a `*` stands for any text. */
  queues: string[];
}

/** Options of `cancelJob`. */
export interface CancelOptions {
  fail?: boolean;
}

/** What has become of a job that was taken from its holder. */
export interface CancelledJob {
  /** whether the client that held it was sent `cancel`. */
  delivered: boolean;
  state: "failed" | "waiting";
}

/** A child of a job. `queue` is the qualified name, `<prefix>:<queue>`. */
export interface ChildKey {
  id: string;
  queue: string;
}

/** Connections, the oldest one first. */
export interface Connections {
  connections: ShownConnection[];
  /** how many more there are, beyond `limit`. */
  omitted: number;
  /** how many shards have not answered in time; their connections are missing here. */
  silent: number;
}

/** Which connections: at most `limit` of them, those of one queue, or of one kind. */
export interface ConnectionsQuery {
  queue?: string | null;
  kind?: "events" | "flows" | "http" | "queue" | "worker" | null;
  limit?: number;
}

/** The Worker connections of a queue, and its webhook workers. */
export interface Consumers {
  consumers: ShownConsumer[];
  /** how many more there are, on shards that have more than 1000 of them. */
  omitted: number;
  /** how many shards have not answered in time; their consumers are missing here. */
  silent: number;
}

/** One job per id at a time. `ttl` in milliseconds. */
export interface Deduplication {
  id?: string;
  ttl?: number;
  extend?: boolean;
  replace?: boolean;
  reschedule?: boolean;
  keepLastIfActive?: boolean;
}

/** Children of a job, `total` of them in all. */
export interface Dependencies {
  items: Dependency[];
  jobs: RawJob[];
  total: number;
}

/** Options of `getJobDependenciesCount`: the kinds of children to count. */
export interface DependenciesCountOptions {
  processed?: boolean;
  unprocessed?: boolean;
  ignored?: boolean;
  failed?: boolean;
}

/** Options of `getJobDependencies`: the kinds of children to read, page by page. */
export interface DependenciesOptions {
  processed?: Page | null;
  unprocessed?: Page | null;
  ignored?: Page | null;
  failed?: Page | null;
}

/** A child by its key, with the JSON of its result once it is processed; `err` when that is no JSON. */
export interface Dependency {
  id: string;
  v?: any;
  err?: string;
}

/** A job with its children; null stands for one that was removed. */
export interface Flow {
  job: JobJson;
  children?: (Flow | null)[];
}

/** One job of a flow, with the jobs that it waits for. */
export interface FlowNode {
  name: string;
  queueName: string;
  data?: any;
  prefix?: string | null;
  opts?: JobOptions | null;
  children?: FlowNode[] | null;
}

/** Of a flow: options by queue name. */
export interface FlowOptions {
  queuesOptions?: Record<string, QueueOptions | null> | null;
}

/** Which flow, and how much of it. `depth` counts levels; `maxChildren` is for each kind of children, about. */
export interface FlowQuery {
  queueName: string;
  id: string | number;
  prefix?: string | null;
  depth?: number;
  maxChildren?: number;
}

/** A queue that is there, with what was asked for and can be told. */
export interface FoundQueue {
  name: string;
  /** the number of its jobs by state. */
  counts?: Record<string, number>;
  /** milliseconds that the job next in line has waited; null where none waits. */
  oldest?: number | null;
  /** whether it is paused. */
  paused?: boolean;
  /** Worker connections, and webhook workers. */
  workers?: number;
  /** connections that watch it, and streams. */
  watchers?: number;
}

/** A page of queues. */
export interface FoundQueues {
  queues: FoundQueue[];
  /** for the next page; null when there is none. */
  cursor: string | null;
  /** how many shards have not answered in time, where it was asked who is connected: who is there is missing. */
  silent?: number;
}

/** What has become of jobs in the last hour, in 360 steps of 10 seconds, the oldest one first. */
export interface History {
  /** milliseconds of a step. */
  step: number;
  /** of the last step, which still goes on, in ms since 1970. */
  end: number;
  /** new jobs. */
  added: number[];
  /** jobs, for good, as the failed ones. */
  completed: number[];
  /** those that are not tried again. */
  failed: number[];
  /** mean milliseconds that jobs had waited which went to a worker for the first time; null for none. */
  waited: (number | null)[];
  /** that one of them had waited. */
  longest: (number | null)[];
  /** whether the queue is among the busiest ones, of which figures are kept; else all are zero. */
  kept: boolean;
}

/** Of which queue; of all, where none is named. */
export interface HistoryQuery {
  queue?: string | null;
}

/** A job as Node's `Job.toJSON` shows it. Times in milliseconds since 1970; null where Node has NaN. */
export interface JobJson {
  name?: string;
  /** as the producer wrote it. */
  data: any;
  /** under the names of the job options; `attempts` is always there. */
  opts: any;
  id: string | number;
  /** as a worker wrote it; 0 before. */
  progress?: any;
  /** of a completed job, as its worker wrote it. */
  returnvalue?: any;
  /** of its failures. */
  stacktrace?: any[] | null;
  /** in milliseconds. */
  delay?: number | null;
  priority: number | null;
  /** how often a worker has started it. */
  attemptsStarted: number | null;
  /** how often it was finished, or has failed. */
  attemptsMade: number | null;
  /** how often it has lost its worker. */
  stalledCounter: number | null;
  /** of the job scheduler that it comes from. */
  repeatJobKey?: string;
  /** when it was created. */
  timestamp: number | null;
  /** of the job that waits for this one, `<prefix>:<queue>:<id>`. */
  parentKey?: string;
  parent?: JobParent;
  deduplicationId?: string;
  /** `<prefix>:<queue>`. */
  queueQualifiedName: string;
  /** when it was completed, or has failed. */
  finishedOn?: number;
  /** when a worker took it last. */
  processedOn?: number;
  /** of its last failure. */
  failedReason?: string;
  /** why it will fail as soon as a worker takes it. */
  deferredFailure?: string;
  /** the name of the worker that took it. */
  processedBy?: string;
}

/**
 * A job's children by their keys, `<prefix>:<queue>:<id>`.
 *
 * `processed`: return values; `ignored`: why they failed; a cursor of 0 says that there is no further page.
 */
export interface JobDependencies {
  processed?: Record<string, any>;
  nextProcessedCursor?: number;
  unprocessed?: string[];
  nextUnprocessedCursor?: number;
  ignored?: Record<string, string>;
  nextIgnoredCursor?: number;
  failed?: string[];
  nextFailedCursor?: number;
}

/** How many children a job has of each kind. */
export interface JobDependenciesCount {
  processed?: number;
  unprocessed?: number;
  ignored?: number;
  failed?: number;
}

/** Why a job was not added; `code` is an error code. */
export interface JobError {
  message: string;
  code: string;
}

/** The rows that were logged for a job, and how many there are. */
export interface JobLogs {
  logs: string[];
  count: number;
}

/** BullMQ's JobsOptions. Times in milliseconds, sizes in bytes. */
export interface JobOptions {
  /** the job's id; no integer, and without `:` (but with two of them, as BullMQ's own ids have). */
  jobId?: string;
  /** 0 is none; smaller ones come first. */
  priority?: number;
  /** before the first attempt. */
  delay?: number;
  /** how often it is tried; 0 and 1 are once. */
  attempts?: number;
  /** between attempts. */
  backoff?: number | Backoff;
  /** put in front of those that wait. */
  lifo?: boolean;
  /** how many completed jobs stay; true: none, false: all. */
  removeOnComplete?: boolean | number | KeepJobs;
  /** how many failed jobs stay; true: none, false: all. */
  removeOnFail?: boolean | number | KeepJobs;
  /** how many rows of its log are kept. */
  keepLogs?: number;
  /** how many stack traces are kept. */
  stackTraceLimit?: number;
  /** most bytes of data. */
  sizeLimit?: number;
  /** when it was created, instead of now. */
  timestamp?: number;
  /** the job that waits for this one. */
  parent?: Parent;
  /** its failure fails the parent. */
  failParentOnFailure?: boolean;
  /** its failure lets the parent go on at once. */
  continueParentOnFailure?: boolean;
  /** its failure counts for the parent as done. */
  ignoreDependencyOnFailure?: boolean;
  /** its failure takes it off the parent's children. */
  removeDependencyOnFailure?: boolean;
  /** while one job of this id is there, no other is added. */
  deduplication?: Deduplication;
  /** handed on to the worker. */
  telemetry?: Telemetry;
}

/** The job that waits for this one, with the flags of what its failure means to the parent. */
export interface JobParent {
  id: string;
  queueKey: string;
  fpof?: boolean;
  rdof?: boolean;
  idof?: boolean;
  cpof?: boolean;
}

/** A job scheduler. Times in milliseconds since 1970. */
export interface JobScheduler {
  key: string;
  name?: string;
  next: number | null;
  iterationCount?: number | null;
  limit?: number | null;
  startDate?: number | null;
  endDate?: number | null;
  tz?: string;
  pattern?: string;
  every?: number | null;
  offset?: number | null;
  template?: SchedulerTemplate;
}

/** What the jobs of a scheduler are made of; the name is the scheduler's id unless it is given. */
export interface JobTemplate {
  name?: string | null;
  data?: any;
  opts?: TemplateOptions | null;
}

/** How many finished jobs stay. `age` in seconds. */
export interface KeepJobs {
  age?: number;
  count?: number;
  limit?: number;
}

/** A job that is locked under `token`; one with a `deferredFailure` has failed already and is only to be moved. */
export interface LockedJobJson {
  name?: string;
  data: any;
  opts: any;
  id: string | number;
  progress?: any;
  returnvalue?: any;
  stacktrace?: any[] | null;
  delay?: number | null;
  priority: number | null;
  attemptsStarted: number | null;
  attemptsMade: number | null;
  stalledCounter: number | null;
  repeatJobKey?: string;
  timestamp: number | null;
  parentKey?: string;
  parent?: JobParent;
  deduplicationId?: string;
  queueQualifiedName: string;
  finishedOn?: number;
  processedOn?: number;
  failedReason?: string;
  deferredFailure?: string;
  processedBy?: string;
  token: string;
}

/** Finished jobs by the minute, the newest minute first; `count` is how many minutes are kept. */
export interface Metrics {
  meta: MetricsMeta;
  data: number[];
  count: number;
}

/** How far the counting is: jobs so far, and time (ms since 1970) and count at the end of the last full minute. */
export interface MetricsMeta {
  count: number | null;
  prevTS: number | null;
  prevCount: number | null;
}

/** Options of `getNextJob`. */
export interface NextJobOptions {
  block?: number;
  lockDuration?: number;
}

/** Options of `obliterate`. */
export interface ObliterateOptions {
  force?: boolean;
  count?: number;
}

/** Where to go on reading, and about how many entries to read. */
export interface Page {
  cursor?: number;
  count?: number;
}

/** The job that waits for this one. `queue` is the qualified name, `<prefix>:<queue>`. */
export interface Parent {
  id: string;
  queue: string;
}

/** Options of `changeJobPriority`. */
export interface PriorityOptions {
  priority?: number;
  lifo?: boolean;
}

/** Options of `promoteJobs`. */
export interface PromoteJobsOptions {
  count?: number;
}

/** An event's name, and beside it what it has to say: texts, numbers, booleans or null. */
export interface PublishedEvent {
  eventName: string;
}

/** A queue's global configuration; fields that others have put there come beside it, as strings. */
export interface QueueMeta {
  version?: string;
  concurrency?: number | null;
  maxLenEvents?: number | null;
  max?: number | null;
  duration?: number | null;
  paused: boolean;
}

/** Of one queue, for the jobs of a flow that go there. */
export interface QueueOptions {
  defaultJobOptions?: JobOptions | null;
}

/**
 * Which queues: about `limit` of them, behind `cursor`; and what of each.
 *
 * With `counts` how many jobs it has, by state; with `oldest` how long the job next in line has waited, and
 * whether the queue is paused; with `connected` how many workers and watchers it has on all gateways.
 */
export interface QueuesQuery {
  cursor?: string | null;
  limit?: number;
  counts?: boolean;
  oldest?: boolean;
  connected?: boolean;
}

/** At most `max` jobs start in `duration` ms. */
export interface RateLimit {
  max: number | null;
  duration: number | null;
}

/** A job with `data`, `stacktrace` and `returnvalue` as the JSON text that is stored, and without its id. */
export interface RawJob {
  id?: string;
  name?: string;
  data: string;
  opts: any;
  progress: any;
  delay: number | null;
  priority: number | null;
  timestamp: number | null;
  attemptsStarted: number | null;
  attemptsMade: number | null;
  stalledCounter: number | null;
  finishedOn?: number | null;
  processedOn?: number | null;
  repeatJobKey?: string;
  debounceId?: string;
  deduplicationId?: string;
  failedReason?: string;
  deferredFailure?: string;
  stacktrace?: string;
  returnvalue?: string;
  parentKey?: string;
  parent?: JobParent;
  processedBy?: string;
}

/** Stands in the place of a job that BullMQ did not take. */
export interface RefusedJob {
  err: JobError;
}

/** Options of `remove`. */
export interface RemoveOptions {
  removeChildren?: boolean;
}

/** When a job scheduler's jobs are due: either `pattern` or `every`. */
export interface RepeatOptions {
  /** a cron pattern of one to six fields (docs/cron.md). */
  pattern?: string;
  /** milliseconds from one job to the next. */
  every?: number;
  /** the most jobs. */
  limit?: number;
  /** none is due before; milliseconds or ISO 8601. */
  startDate?: number | string;
  /** none is created after; milliseconds or ISO 8601. */
  endDate?: number | string;
  /** the time zone of the pattern. */
  tz?: string;
  /** the first one is due at once. */
  immediately?: boolean;
  /** milliseconds by which jobs are due after the multiples of `every`. */
  offset?: number;
  /** of the jobs so far. */
  count?: number;
}

/** Options of `retryJobs`. */
export interface RetryJobsOptions {
  count?: number;
  state?: "completed" | "failed";
  timestamp?: number | null;
}

/** Options of `retryJob`. */
export interface RetryOptions {
  resetAttemptsMade?: boolean;
  resetAttemptsStarted?: boolean;
}

/** The work of a queue. */
export interface Scale {
  queue: string;
  /** jobs that need a worker now, or have one. */
  value: number;
  /** milliseconds that the job next in line has waited; null where none waits. */
  oldest: number | null;
  /** whether it is paused. */
  paused: boolean;
  /** Worker connections and webhook workers, on all gateways. */
  workers: number;
}

/** Of which queue. */
export interface ScaleQuery {
  queue: string;
}

/** What a job scheduler makes its jobs of; members that are empty are left out. */
export interface SchedulerTemplate {
  data?: any;
  opts?: Record<string, any>;
}

/** A connection of a client. Times in milliseconds since 1970. */
export interface ShownConnection {
  id: string;
  kind: "events" | "flows" | "http" | "queue" | "worker";
  /** null for one that is of no queue, such as one of flows. */
  queue: string | null;
  /** the name of its key; empty for one of `auth_keys`. */
  key: string;
  /** the name of the machine that its gateway runs on. */
  host: string;
  /** the gateway, as at the beginning of `id`. */
  gateway: string;
  /** the slot of its shard. */
  shard: number;
  /** of the client, or of the proxy before it; empty on a Unix socket. */
  address: string;
  /** when it was made. */
  since: number;
  /** jobs that a worker holds. */
  inHand: number;
  /** how many it may hold; null for one that is no worker. */
  concurrency: number | null;
  /** without a reply. */
  calls: number;
  /** bytes that were sent and that the client has not read. */
  lag: number;
}

/** A Worker connection, or a webhook worker. Times in milliseconds since 1970. */
export interface ShownConsumer {
  id: string;
  /** the name of its key; empty for one of `auth_keys`, and for a webhook worker. */
  key: string;
  /** the connection's option, at most 100 characters of it, or null; that of the webhook worker. */
  name: string | null;
  connectedSince: number;
  /** how many jobs it may hold. */
  concurrency: number;
  /** how many it holds. */
  inHand: number;
  /** whether it gets new ones: it has not paused, is not silent, and nobody has drained it. */
  takesJobs: boolean;
  /** false while its jobs are kept for it after its connection broke. */
  connected: boolean;
  /**
   * when anything came from it last, a pong for example, to half of `ping_interval`; for a webhook worker when its
   * endpoint has answered last.
   */
  lastHeard: number;
  /** whether it is a webhook worker: `drainConsumer` and `disconnectConsumer` do not know it. */
  webhook: boolean;
}

/** What a tracer hands on from producer to worker. */
export interface Telemetry {
  metadata?: string;
  omitContext?: boolean;
}

/** The options of a scheduler's jobs: those of a job, without what the scheduler decides. */
export interface TemplateOptions {
  /** the job's id; no integer, and without `:` (but with two of them, as BullMQ's own ids have). */
  jobId?: any;
  /** 0 is none; smaller ones come first. */
  priority?: number;
  /** before the first attempt. */
  delay?: any;
  /** how often it is tried; 0 and 1 are once. */
  attempts?: number;
  /** between attempts. */
  backoff?: number | Backoff;
  /** put in front of those that wait. */
  lifo?: boolean;
  /** how many completed jobs stay; true: none, false: all. */
  removeOnComplete?: boolean | number | KeepJobs;
  /** how many failed jobs stay; true: none, false: all. */
  removeOnFail?: boolean | number | KeepJobs;
  /** how many rows of its log are kept. */
  keepLogs?: number;
  /** how many stack traces are kept. */
  stackTraceLimit?: number;
  /** most bytes of data. */
  sizeLimit?: number;
  /** when it was created, instead of now. */
  timestamp?: number;
  /** the job that waits for this one. */
  parent?: Parent;
  /** its failure fails the parent. */
  failParentOnFailure?: boolean;
  /** its failure lets the parent go on at once. */
  continueParentOnFailure?: boolean;
  /** its failure counts for the parent as done. */
  ignoreDependencyOnFailure?: boolean;
  /** its failure takes it off the parent's children. */
  removeDependencyOnFailure?: boolean;
  /** while one job of this id is there, no other is added. */
  deduplication?: any;
  /** handed on to the worker. */
  telemetry?: Telemetry;
}

/** Options of `moveJobToWaitingChildren`. */
export interface WaitingChildrenOptions {
  child?: ChildKey | null;
}

/** The options of a Worker connection; times in milliseconds. */
export interface WorkerOptions {
  /** Milliseconds that a job's lock lasts; it is renewed at half of them. */
  lockDuration?: number;
  /** Milliseconds between BullMQ's checks for jobs without a lock. Connections that differ share the shortest. */
  stalledInterval?: number;
  /** A job that has lost its worker more often than this fails. */
  maxStalledCount?: number;
  limiter?: { max?: number; duration?: number };
  /** How many finished jobs stay, unless the job option of this name says it; an object as JSON. */
  removeOnComplete?: boolean | number | KeepJobs;
  /** How many finished jobs stay, unless the job option of this name says it; an object as JSON. */
  removeOnFail?: boolean | number | KeepJobs;
  /** This worker's name, which BullMQ stores as the job's `processedBy`. */
  name?: string;
  metrics?: { maxDataPoints?: number };
  /** Milliseconds until a pushed job of which nothing is heard goes back, once the client has said `ack`; 0: never. */
  ackTimeout?: number;
  /** Milliseconds that a started job may take: then the client gets `cancel`; 0: any time. */
  maxRuntime?: number;
  /**
   * `fail`: a job that takes longer than `maxRuntime` fails, and is tried again as its `attempts` say; `release`:
   * it goes back as one that has lost its worker.
   */
  overrun?: "fail" | "release";
  /**
   * Milliseconds for which the jobs in hand are kept when the connection breaks, for a client that comes back; 0:
   * no.
   */
  grace?: number;
  /** 1: each final answer is confirmed by `finished`. */
  confirm?: 0 | 1;
}
