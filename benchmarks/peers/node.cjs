'use strict';
// `node node.cjs TASK`: Node's BullMQ straight to Redis, as its users write it. The same lines as the Python clients:
// stdout {"at":"warm"} and {"at":"done",…}, stdin `go` and `end`.

const readline = require('node:readline');
const { Queue, QueueEvents, Worker } = require('bullmq');

const task = JSON.parse(process.argv[2]);
const { load } = task;
const connection = { host: '127.0.0.1', port: task.redis_port, maxRetriesPerRequest: null };
const options = { connection, prefix: task.prefix };
const now = () => performance.now() * 1000; // µs
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

const meter = { on: false, operations: 0, errors: 0, latency: {}, started: 0 };

/** The buckets of histogram.py. */
function bucket(us) {
  const value = Math.max(0, Math.trunc(us));
  const shift = Math.max(0, 32 - Math.clz32(value) - 6);
  return 32 * shift + (value >>> shift);
}

function done(operations, us) {
  if (!meter.on) return;
  meter.operations += operations;
  if (us === undefined) return;
  const index = bucket(us);
  meter.latency[index] = (meter.latency[index] ?? 0) + operations;
}

function jobData(number) {
  const data = number === undefined ? { to: 'someone@example.com', text: '' } : { n: number, text: '' };
  data.text = 'x'.repeat(Math.max(0, load.payload - JSON.stringify(data).length));
  return data;
}

let closing = false;
let finish;
const finished = new Promise(resolve => (finish = resolve));
const open = [];

function failed(error) {
  if (closing) return;
  if (!meter.errors) process.stderr.write(`${error.message}\n`);
  meter.errors += 1;
}

function keep(thing) {
  open.push(thing);
  thing.on('error', failed);
  return thing;
}

const queues = () => Promise.all(Array.from({ length: load.connections }, async () => {
  const queue = keep(new Queue(task.queue, options));
  await queue.waitUntilReady();
  return queue;
}));

const workers = processor => Promise.all(Array.from({ length: load.workers }, async () => {
  const worker = keep(new Worker(task.queue, processor, { ...options, concurrency: load.concurrency }));
  await worker.waitUntilReady();
}));

const watchers = () => Promise.all(Array.from({ length: load.watchers }, async () => {
  // From the beginning of the stream: `$` would leave out what happens before the first read.
  const events = keep(new QueueEvents(task.queue, { ...options, lastEventId: '0-0' }));
  await events.waitUntilReady();
  return events;
}));

/** Keep a window of promises outstanding on each queue. */
function spin(all, once) {
  const loop = async queue => {
    while (!closing) await once(queue);
  };
  for (const queue of all) for (let i = 0; i < load.window; i++) loop(queue).catch(failed);
}

const kinds = {
  async add() {
    const data = jobData();
    const jobs = Array.from({ length: load.bulk }, () => ({ name: 'job', data }));
    spin(await queues(), async queue => {
      const sent = now();
      await (load.bulk ? queue.addBulk(jobs) : queue.add('job', data));
      done(load.bulk || 1, now() - sent);
    });
  },

  async process() {
    let left = task.jobs;
    await workers(async () => {
      done(1);
      if (--left <= 0) finish();
      return { ok: true };
    });
  },

  async roundtrip() {
    const waiting = new Map();
    let next = 0;
    const [first] = await watchers();
    first.on('completed', ({ returnvalue }) => {
      const { sent, resolve } = waiting.get(returnvalue.n);
      waiting.delete(returnvalue.n);
      done(1, now() - sent);
      resolve();
    });
    await workers(async job => ({ n: job.data.n }));
    spin(await queues(), async queue => {
      const number = next++;
      const back = new Promise(resolve => waiting.set(number, { sent: now(), resolve }));
      await queue.add('job', jobData(number));
      await back;
    });
  },

  async events() {
    const all = await watchers();
    const [queue] = await queues();
    const data = jobData();
    let missing = 0;
    let sent = 0;
    const batch = () => {
      missing += load.window * load.watchers;
      sent = now();
      for (let i = 0; i < load.window; i++) queue.add('job', data).catch(failed);
    };
    for (const events of all) {
      events.on('waiting', () => {
        done(1, now() - sent);
        if (--missing <= 0 && !closing) batch();
      });
    }
    batch();
  },
};

const say = members => process.stdout.write(`${JSON.stringify(members)}\n`);

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  setTimeout(() => process.exit(3), task.deadline * 1000);
  await kinds[load.kind]();
  await sleep(task.warmup * 1000);
  say({ at: 'warm' });
  if ((await lines.next()).value !== 'go') process.exit(1);
  Object.assign(meter, { on: true, operations: 0, latency: {}, started: now() });
  await Promise.race([finished, sleep(task.duration * 1000)]);
  meter.on = false;
  const { operations, errors, latency } = meter;
  say({ at: 'done', operations, errors, latency, seconds: (now() - meter.started) / 1e6 });
  await lines.next();
  closing = true;
  process.exit(0);
}

main().catch(error => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
