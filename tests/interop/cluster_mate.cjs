'use strict';
// `node cluster_mate.cjs PORTS PREFIX QUEUE`: Node's BullMQ on a cluster. It adds a job, prints what becomes of it, and then
// works the jobs of the queue until it is killed.

const { Cluster } = require('ioredis');
const { Queue, QueueEvents, Worker } = require('bullmq');

const [ports, prefix, name] = [JSON.parse(process.argv[2]), process.argv[3], process.argv[4]];
const connect = () =>
  new Cluster(ports.map(port => ({ host: '127.0.0.1', port })), { redisOptions: { maxRetriesPerRequest: null } });
const print = message => process.stdout.write(`${JSON.stringify(message)}\n`);

(async () => {
  const queue = new Queue(name, { connection: connect(), prefix });
  // From the first event on: Node is ready before it reads, and would miss the end of a job that is quick.
  const events = new QueueEvents(name, { connection: connect(), prefix, lastEventId: '0' });
  await events.waitUntilReady();
  const job = await queue.add('for-the-gateway', { from: 'node' });
  print({ result: await job.waitUntilFinished(events, 10_000) });
  new Worker(name, async () => 'by node', { connection: connect(), prefix });
  print({ works: true });
})();
