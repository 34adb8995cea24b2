'use strict';
// Node's side of the interop tests: BullMQ, told what to do by JSON lines on stdin.
//
//   in:  {"id": 1, "op": "call", "queue": "mails", "fn": "add", "args": ["welcome", {}]}
//   out: {"id": 1, "ok": <what the method resolved to>} or {"id": 1, "error": "<the error's message>"}
//
// Watchers and workers also send notes of their own accord: {"note": <handle>, "what": …}.

const readline = require('node:readline');
const Redis = require('ioredis');
const {
  FlowProducer, Job, Queue, QueueEvents, QueueEventsProducer, UnrecoverableError, WaitingChildrenError, Worker,
} = require('bullmq');

const common = { connection: JSON.parse(process.argv[2]), prefix: process.argv[3] };
const redis = new Redis(common.connection);
const shared = { ...common, connection: redis }; // where a connection of its own, with all scripts, would cost the most
const queues = new Map();
const hands = new Map(); // workers that fetch nothing by themselves, by queue
const ears = new Map(); // what jobs' ends are waited for with, by queue
const open = new Map(); // watchers and workers that run, by handle
let flows; // one producer serves all queues
let handles = 0;
let exporter; // of Node's spans, once there are any

const write = message => process.stdout.write(`${JSON.stringify(message)}\n`);

function made(map, name, make) {
  if (!map.has(name)) map.set(name, make());
  return map.get(name);
}

const queueOf = name => made(queues, name, () => new Queue(name, shared));
const handOf = name => made(hands, name, () => new Worker(name, undefined, { ...shared, autorun: false }));

/** The job, or for a missing one what a program holds that loaded it before it was removed. */
async function jobOf(queue, id) {
  return (await Job.fromId(queue, id)) ?? new Job(queue, 'gone', {}, {}, id);
}

const earOf = name => made(ears, name, () => new QueueEvents(name, common));

function failure(message, unrecoverable) {
  const error = unrecoverable ? new UnrecoverableError(message) : new Error(message);
  error.stack = `Error: ${message}\n    at work (work.js:1:1)`; // the same one wherever this file lies
  return error;
}

// Functions whose first argument is a job's id, where Node has a method of the job.
const jobMethods = {
  changeJobDelay: 'changeDelay',
  changeJobPriority: 'changePriority',
  clearJobLogs: 'clearLogs',
  extendJobLock: 'extendLock',
  getJobChildrenValues: 'getChildrenValues',
  getJobDependencies: 'getDependencies',
  getJobDependenciesCount: 'getDependenciesCount',
  getJobIgnoredChildrenFailures: 'getIgnoredChildrenFailures',
  isJobActive: 'isActive',
  isJobCompleted: 'isCompleted',
  isJobDelayed: 'isDelayed',
  isJobFailed: 'isFailed',
  isJobWaiting: 'isWaiting',
  isJobWaitingChildren: 'isWaitingChildren',
  moveJobToDelayed: 'moveToDelayed',
  moveJobToWait: 'moveToWait',
  moveJobToWaitingChildren: 'moveToWaitingChildren',
  promoteJob: 'promote',
  removeJob: 'remove',
  removeJobChildDependency: 'removeChildDependency',
  removeJobDeduplicationKey: 'removeDeduplicationKey',
  removeJobUnprocessedChildren: 'removeUnprocessedChildren',
  retryJob: 'retry',
  updateJobData: 'updateData',
};

/** An `err` as the gateway takes it, as the error that a program would have in hand. */
function given(err) {
  const { message, stack = `Error: ${message}`, unrecoverable } = typeof err === 'string' ? { message: err } : err;
  return Object.assign(failure(message, unrecoverable), { stack });
}

// What needs a Worker's options, such as the duration of locks, or more than JSON.
const byHand = {
  getNextJob: (name, token, opts) => handOf(name).getNextJob(token, { block: false, ...opts }),
  moveJobToCompleted: async (name, id, value, token, fetchNext = false) =>
    (await jobOf(handOf(name), id)).moveToCompleted(value, token, fetchNext),
  moveJobToFailed: async (name, id, err, token, fetchNext) =>
    (await jobOf(handOf(name), id)).moveToFailed(given(err), token, fetchNext),
  publishEvent: async (name, event, maxEvents) => {
    const producer = new QueueEventsProducer(name, shared);
    await producer.publishEvent(event, maxEvents);
    await producer.close();
  },
  waitUntilJobFinished: async (name, id, ttl) => (await jobOf(queueOf(name), id)).waitUntilFinished(earOf(name), ttl),
};

/** Node's telemetry, and a function that returns the spans that it has made since. */
function tracing() {
  const { SpanKind } = require('@opentelemetry/api');
  const { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-node');
  const { BullMQOtel } = require('bullmq-otel');
  if (!exporter) {
    exporter = new InMemorySpanExporter();
    new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();
  }
  exporter.reset();
  const spans = () => exporter.getFinishedSpans().map(span => ({
    trace: span.spanContext().traceId,
    id: span.spanContext().spanId,
    parent: span.parentSpanContext?.spanId ?? '',
    name: span.name,
    kind: SpanKind[span.kind],
    attributes: span.attributes,
  }));
  return { telemetry: new BullMQOtel({ tracerName: 'interop' }), spans };
}

const operations = {
  async call({ queue: name, fn, args }) {
    if (fn in byHand) return byHand[fn](name, ...args);
    const queue = queueOf(name);
    if (!(fn in jobMethods)) return queue[fn](...args);
    const [id, ...rest] = args;
    return (await jobOf(queue, id))[jobMethods[fn]](...rest);
  },

  /** Marks a queue of another prefix with Node's version. */
  async meet({ queue: name, prefix }) {
    const queue = new Queue(name, { ...shared, prefix });
    await queue.count();
    await queue.close();
  },

  flow({ fn, args }) {
    flows ??= new FlowProducer(common);
    return flows[fn](...args);
  },

  // Work by hand: one job at a time, in the caller's order.

  take: ({ queue, token }) => handOf(queue).getNextJob(token, { block: false }),

  async complete({ queue, job, token, value }) {
    await (await jobOf(queueOf(queue), job)).moveToCompleted(value, token, false);
  },

  async fail({ queue, job, token, message, unrecoverable }) {
    await (await jobOf(queueOf(queue), job)).moveToFailed(failure(message, unrecoverable), token, false);
  },

  /** End the only active job, whose id nobody can know beforehand. */
  async finish({ queue, token, fail, fetchNext = false }) {
    const [job] = await queueOf(queue).getActive();
    if (fail) await job.moveToFailed(failure('no luck'), token, fetchNext);
    else await job.moveToCompleted('done', token, fetchNext);
  },

  // What becomes of job schedulers.

  promoteAll: ({ queue }) => queueOf(queue).promoteJobs(),

  /** The data of a scheduler is gone, and its id is left. */
  async loseHash({ queue, scheduler }) {
    const client = await queueOf(queue).getBackend().client;
    await client.del(queueOf(queue).toKey(`repeat:${scheduler}`));
  },

  /** All schedulers are gone, and their jobs are left. */
  async loseSchedulers({ queue }) {
    const client = await queueOf(queue).getBackend().client;
    await client.del(queueOf(queue).toKey('repeat'));
  },

  async waitForChildren({ queue, job, token }) {
    return (await jobOf(queueOf(queue), job)).moveToWaitingChildren(token);
  },

  /** As if the holder's lock had expired. */
  async dropLock({ queue, job }) {
    await (await queueOf(queue).backend.client).del(`${common.prefix}:${queue}:${job}:lock`);
  },

  async checkStalled({ queue }) {
    await handOf(queue).moveStalledJobsToWait();
  },

  /** A plain command of Redis; its first argument is a key of the queue, without what all of them begin with. */
  redis: ({ queue, command: [name, key, ...rest] }) => redis.call(name, queueOf(queue).toKey(key), ...rest),

  // What goes on until it is ended.

  async watch({ queue }) {
    const handle = ++handles;
    // The queue is new: from its beginning on, so that nothing is missed while the connection comes up.
    const events = new QueueEvents(queue, { ...common, lastEventId: '0-0', autorun: false });
    const emit = events.emit.bind(events);
    events.emit = (event, ...args) => {
      // BullMQ says everything about a job twice: as `completed` and as `completed:<id>`.
      if (/^\d+-\d+$/.test(args.at(-1)) && !event.includes(':')) write({ note: handle, event, args });
      return emit(event, ...args);
    };
    events.on('error', error => write({ note: handle, event: 'error', args: [error.message] }));
    await events.waitUntilReady();
    events.run();
    open.set(handle, events);
    return handle;
  },

  /**
   * `data.fail`: so many attempts fail first, `data.hopeless`: for good. `data.park`: the job waits for its children.
   * `gated`: no job ends before `release`.
   */
  async work({ queue, options, gated }) {
    const handle = ++handles;
    let release = () => {};
    const gate = gated ? new Promise(resolve => (release = resolve)) : undefined;
    const worker = new Worker(
      queue,
      async job => {
        write({ note: handle, started: job.id });
        await gate;
        if (job.data.park && (await job.moveToWaitingChildren(job.token))) throw new WaitingChildrenError();
        if (job.attemptsMade < (job.data.fail ?? 0)) throw failure(`no luck ${job.attemptsMade}`, job.data.hopeless);
        return { got: job.data };
      },
      { ...common, ...options },
    );
    worker.on('error', () => {});
    worker.release = release;
    await worker.waitUntilReady();
    open.set(handle, worker);
    return handle;
  },

  // With bullmq-otel: what Node's own spans are.

  async tracedAdd({ queue: name, fn, args }) {
    const { telemetry, spans } = tracing();
    const queue = new Queue(name, { ...common, telemetry });
    await queue[fn](...args);
    await queue.close();
    return spans();
  },

  /** Let a worker work on one job, and answer with its spans. */
  async tracedWork({ queue }) {
    const { telemetry, spans } = tracing();
    let ended;
    const end = new Promise(resolve => (ended = resolve));
    const worker = new Worker(queue, async () => 'done', { ...common, telemetry });
    worker.on('completed', ended);
    await end;
    await worker.close();
    return spans();
  },

  /** Answered after all notes so far: the pipe keeps their order. */
  flush: () => {},

  release: ({ handle }) => open.get(handle).release(),

  async end({ handle }) {
    await open.get(handle).close();
    open.delete(handle);
  },

  async forget({ queue }) {
    const all = [queues, hands, ears];
    await Promise.all(all.map(map => map.get(queue)?.close()));
    all.forEach(map => map.delete(queue));
  },
};

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const { id, op, ...members } = JSON.parse(line);
  try {
    write({ id, ok: await operations[op](members) });
  } catch (error) {
    write({ id, error: error.message });
  }
}).on('close', () => process.exit(0));
