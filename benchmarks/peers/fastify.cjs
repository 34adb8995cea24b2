'use strict';
// `POST /queue/NAME/FUNCTION` with a JSON array of arguments, on Node with fastify over npm's BullMQ, as its users would
// write it: one Queue for each name, kept. REDIS_PORT, KEY and PREFIX come from the environment; the chosen port goes to
// stdout.

const fastify = require('fastify');
const Redis = require('ioredis');
const { Queue } = require('bullmq');

const connection = new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null });
const queues = new Map();

function queueOf(name) {
  let queue = queues.get(name);
  if (!queue) {
    queue = new Queue(name, { connection, prefix: process.env.PREFIX });
    queue.on('error', () => {});
    queues.set(name, queue);
  }
  return queue;
}

const app = fastify();

app.addHook('onRequest', async (request, reply) => {
  if (request.headers.authorization !== `Bearer ${process.env.KEY}`) return reply.code(401).send({ err: 'no' });
});

app.post('/queue/:queue/:fn', async (request, reply) => {
  const queue = queueOf(request.params.queue);
  const { fn } = request.params;
  if (typeof queue[fn] !== 'function') return reply.code(404).send({ err: { message: `no function ${fn}` } });
  return { ok: await queue[fn](...request.body) };
});

app.listen({ host: '127.0.0.1', port: 0 }).then(() => console.log(`listening ${app.server.address().port}`));
process.on('SIGTERM', () => process.exit(0));
