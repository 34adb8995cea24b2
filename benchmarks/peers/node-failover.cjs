'use strict';
// `node node-failover.cjs '{"sentinels":[…],"name":…}'`: Node's BullMQ behind sentinels, as its users write it. It adds a
// job every 10 ms and works them; each job that is done is a line: when it was added, by the clock of all processes.

const { Queue, Worker } = require('bullmq');

const { sentinels, name } = JSON.parse(process.argv[2]);
const connection = { sentinels, name, maxRetriesPerRequest: null };
const queue = new Queue('node', { connection });
const worker = new Worker('node', async job => void job, { connection, concurrency: 10 });
for (const each of [queue, worker]) each.on('error', () => {});
const added = new Set();
worker.on('completed', job => process.stdout.write(`${JSON.stringify({ done: job.id, at: job.data.at })}\n`));
setInterval(() => {
  queue.add('n', { at: Date.now() / 1000 }).then(
    job => process.stdout.write(`${JSON.stringify({ added: job.id })}\n`),
    () => process.stdout.write('{"failed":1}\n'),
  );
}, 10);
