// Queues, flows and events: objects whose methods are the functions of the gateway. What stands between "generated" and
// "end" is made by `make docs`.

import { Calls, Emitter, errorOf, isObject, limits, Link, queuePath, safeCall } from "./client-link.js";

// generated: functions
const QUEUE = {
  reads: [
    "getJob", "getJobs", "getWaiting", "getWaitingChildren", "getActive", "getDelayed", "getPrioritized",
    "getCompleted", "getFailed", "getRanges", "getJobState", "getJobLogs", "getJobCounts", "recordJobCountsMetric",
    "getJobCountByTypes", "count", "getActiveCount", "getCompletedCount", "getFailedCount", "getPrioritizedCount",
    "getWaitingCount", "getWaitingChildrenCount", "getDelayedCount", "getCountsPerPriority", "getConsumers", "renew",
    "getJobChildrenValues", "getJobIgnoredChildrenFailures", "getJobDependencies", "getJobDependenciesCount",
    "getDependencies", "isJobActive", "isJobCompleted", "isJobDelayed", "isJobFailed", "isJobWaiting",
    "isJobWaitingChildren", "getGlobalConcurrency", "isMaxed", "getGlobalRateLimit", "getRateLimitTtl",
    "getJobScheduler", "getJobSchedulersCount", "isPaused", "getVersion", "getMeta", "getDeduplicationJobId",
    "getWorkers", "getWorkersCount", "getMetrics", "exportPrometheusMetrics", "waitUntilJobFinished",
  ],
  writes: [
    "add", "addBulk", "cancelJob", "drainConsumer", "disconnectConsumer", "getNextJob", "moveJobToCompleted",
    "moveJobToFailed", "moveJobToDelayed", "moveJobToWait", "moveJobToWaitingChildren", "extendJobLock", "publishEvent",
    "trimEvents", "removeJobChildDependency", "removeJobUnprocessedChildren", "pause", "resume", "drain", "clean",
    "obliterate", "retryJobs", "promoteJobs", "remove", "removeDeduplicationKey", "removeDeprecatedPriorityKey",
    "removeOrphanedJobs", "removeJob", "retryJob", "promoteJob", "changeJobDelay", "changeJobPriority",
    "removeJobDeduplicationKey", "updateJobData", "updateJobProgress", "addJobLog", "clearJobLogs",
    "setGlobalConcurrency", "removeGlobalConcurrency", "setGlobalRateLimit", "removeGlobalRateLimit", "rateLimit",
    "removeRateLimitKey", "upsertJobScheduler", "removeJobScheduler", "getJobSchedulers", "addAndWait",
  ],
  jobs: [
    "add", "addBulk", "getJob", "getJobs", "getWaiting", "getWaitingChildren", "getActive", "getDelayed",
    "getPrioritized", "getCompleted", "getFailed", "getNextJob", "upsertJobScheduler",
  ],
};
const FLOWS = {
  reads: [
    "getFlow", "getConnections", "whoami", "renew", "getHistory", "getQueues", "getScale",
  ],
  writes: [
    "add", "addBulk", "drainConnection", "closeConnection",
  ],
  jobs: [],
};
// The methods of a job: the function, and the place of the token among its arguments.
const JOB_METHODS = {
  getState: ["getJobState", 0],
  moveToCompleted: ["moveJobToCompleted", 2],
  moveToFailed: ["moveJobToFailed", 2],
  moveToDelayed: ["moveJobToDelayed", 2],
  moveToWait: ["moveJobToWait", 1],
  moveToWaitingChildren: ["moveJobToWaitingChildren", 1],
  extendLock: ["extendJobLock", 1],
  getChildrenValues: ["getJobChildrenValues", 0],
  getIgnoredChildrenFailures: ["getJobIgnoredChildrenFailures", 0],
  getDependencies: ["getJobDependencies", 0],
  getDependenciesCount: ["getJobDependenciesCount", 0],
  removeChildDependency: ["removeJobChildDependency", 0],
  removeUnprocessedChildren: ["removeJobUnprocessedChildren", 0],
  remove: ["removeJob", 0],
  retry: ["retryJob", 0],
  promote: ["promoteJob", 0],
  changeDelay: ["changeJobDelay", 0],
  changePriority: ["changeJobPriority", 0],
  removeDeduplicationKey: ["removeJobDeduplicationKey", 0],
  updateData: ["updateJobData", 2],
  updateProgress: ["updateJobProgress", 2],
  log: ["addJobLog", 3],
  clearLogs: ["clearJobLogs", 2],
  isActive: ["isJobActive", 0],
  isCompleted: ["isJobCompleted", 0],
  isDelayed: ["isJobDelayed", 0],
  isFailed: ["isJobFailed", 0],
  isWaiting: ["isJobWaiting", 0],
  isWaitingChildren: ["isJobWaitingChildren", 0],
  waitUntilFinished: ["waitUntilJobFinished", 0],
};
// end

/** Methods for the functions of an API, over `calls`; jobs in results become objects. */
function addFunctions(target, api, { reads, writes, jobs }) {
  const gives = new Set(jobs);
  for (const fn of [...reads, ...writes]) {
    const isRead = reads.includes(fn);
    const value = async function (...args) {
      while (args.length && args.at(-1) === undefined) args.pop();
      const [data, safe] = isRead ? [{ fn, args }, true] : safeCall(api, fn, args);
      const result = await this._calls.call(data, safe, !isRead);
      return gives.has(fn) ? jobsOf(this, result) : result;
    };
    Object.defineProperty(target.prototype, fn, { value, writable: true, configurable: true });
  }
}

function jobsOf(queue, shown) {
  if (Array.isArray(shown)) return shown.map((each) => jobsOf(queue, each));
  return isObject(shown) && !shown.err ? new Job(queue, shown) : shown;
}

/** A job as the gateway has shown it; it does not change by itself. */
export class Job {
  constructor(queue, shown) {
    Object.assign(this, shown);
    Object.defineProperty(this, "queue", { value: queue, enumerable: false });
  }
}
for (const [name, [fn, place]] of Object.entries(JOB_METHODS)) {
  Job.prototype[name] = function (...args) {
    const all = [this.id, ...args];
    if (place && this.token) {
      while (all.length < place) all.push(null);
      all.splice(place, 0, this.token);
    }
    return this.queue[fn](...all);
  };
}

/** A connection for calls. */
class Client extends Emitter {
  constructor(path, options) {
    super();
    this._link = new Link({ ...ownerOf(this), opened: () => this._calls.opened() }, options, path);
    this._calls = new Calls(this._link);
  }

  async close() {
    this._link.close();
  }
}

/** What a link tells whoever has calls and listeners. */
export const ownerOf = (client) => ({
  connected: () => client._emit("connected"),
  received: (id, data) => client._calls.replied(id, data),
  broke: (refused) => client._calls.broke(refused),
  waits: (trouble) => client._emit("disconnected", trouble),
  stopped: (error) => {
    client._calls.stopped(error);
    if (!client._link.wasClosed) client._emit("error", error);
  },
});

export class Queue extends Client {
  constructor(name, options) {
    super(queuePath(name), options);
    this.name = name;
  }
}
addFunctions(Queue, "queue", QUEUE);

export class FlowProducer extends Client {
  constructor(options) {
    super("/flows", options);
  }
}
addFunctions(FlowProducer, "flows", FLOWS);

/** The functions of a queue over the connection of a worker. */
export class BoundQueue {
  constructor(calls) {
    this._calls = calls;
  }
}
addFunctions(BoundQueue, "queue", QUEUE);

const OF_THE_LINK = new Set(["connected", "disconnected", "error"]);

/** The events of a queue, which go on where they were when the connection breaks. */
export class QueueEvents extends Emitter {
  #wasOpen = false;
  #waiting = []; // events for a loop; also while there is neither a loop nor a listener
  #isIterated = false;
  #isHeard = false;
  #came = () => {};
  #taken = () => {};

  constructor(name, { events = ["*"], lastEventId = null, ...options } = {}) {
    super();
    this.name = name;
    this.lastEventId = lastEventId; // of the last event; the next connection goes on behind it
    const query = () => ({ events: events.join(), ...(this.lastEventId && { lastEventId: this.lastEventId }) });
    this._link = new Link(this.#owner(), options, queuePath(name, "/events"), query);
    this._link.start();
  }

  async close() {
    this._link.close();
  }

  /** Wait until events come; a refusal is thrown. */
  async start() {
    if (!this.#wasOpen && !this._link.error) {
      await Promise.race([this._link.wait(), new Promise((resolve) => this.on("connected", resolve))]);
    }
    if (this._link.error) throw errorOf(this._link.error);
  }

  on(name, listener) {
    if (!OF_THE_LINK.has(name)) {
      this.#isHeard = true;
      if (!this.#isIterated) {
        this.#waiting = [];
        this.#taken();
      }
    }
    return super.on(name, listener);
  }

  async *[Symbol.asyncIterator]() {
    this.#isIterated = true;
    for (;;) {
      while (this.#waiting.length) {
        yield this.#waiting.shift();
        if (this.#waiting.length <= limits.mostEvents / 2) this.#taken();
      }
      if (this._link.error) {
        if (this._link.wasClosed) return;
        throw errorOf(this._link.error);
      }
      await new Promise((resolve) => (this.#came = resolve));
    }
  }

  #owner() {
    return {
      before: async () => {
        if (this.#isFull) await new Promise((resolve) => (this.#taken = resolve));
      },
      opened: () => {},
      connected: () => {
        if (this.#wasOpen && !this.lastEventId) this.#deliver("gap", { from: null, to: null }, null);
        this.#wasOpen = true;
        this._emit("connected");
      },
      received: (id, { event, args }) => {
        if (!event || !args?.length || (this.#isFull && !this._link.restart())) return;
        const last = args.at(-1);
        if (event === "gap") return this.#deliver("gap", last, null);
        this.lastEventId = last;
        this.#deliver(event, args.length > 1 ? args[0] : {}, last);
      },
      broke: () => {},
      waits: (trouble) => this._emit("disconnected", trouble),
      stopped: (error) => {
        this.#came();
        this.#taken();
        if (!this._link.wasClosed) this._emit("error", error);
      },
    };
  }

  get #isFull() {
    return this.#waiting.length >= limits.mostEvents;
  }

  #deliver(name, fields, id) {
    this._emit(name, fields, id);
    if (this.#isHeard && !this.#isIterated) return;
    this.#waiting.push({ name, fields, id });
    this.#came();
  }
}
