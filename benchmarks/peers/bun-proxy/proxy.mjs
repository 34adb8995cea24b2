// A WebSocket proxy over npm's BullMQ in the design that came first: one Queue, Worker or QueueEvents per socket.
//
//   /queue/NAME                       {"id", "data": {"fn", "args"}}        -> {"id", "data": {"ok"} or {"err"}}
//   /queue/NAME/process/CONCURRENCY   {"id", "data": {"type": "process"}}   <- {"id", "data": {"result"} or {"err"}}
//   /queue/NAME/events?events=a,b     {"id", "data": {"event", "args"}}
//
// And by HTTP, with one Queue for each name:
//
//   POST /queue/NAME/FUNCTION         [argument, …]                         -> {"ok"} or {"err"}
//   POST /workers                     {"queue", "endpoint", "opts"}         -> OK; each job is then a request
//
// REDIS_PORT, KEY and PREFIX come from the environment; the chosen port goes to stdout.

import { Queue, QueueEvents, Worker } from 'bullmq';
import Redis from 'ioredis';

const connection = new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null });
const prefix = process.env.PREFIX;
const names = ['active', 'added', 'completed', 'delayed', 'drained', 'failed', 'progress', 'removed', 'stalled', 'waiting'];
const encode = (id, data) => JSON.stringify({ id, data });
const described = error => ({ err: { message: error.message } });

class QueueSocket {
  constructor(ws, { queue }) {
    this.ws = ws;
    this.queue = new Queue(queue, { connection, prefix });
    this.queue.on('error', () => {});
  }

  async message(text) {
    const { id, data } = JSON.parse(text);
    try {
      if (typeof this.queue[data.fn] !== 'function') throw new Error(`no function ${data.fn}`);
      this.ws.send(encode(id, { ok: await this.queue[data.fn](...data.args) }));
    } catch (error) {
      this.ws.send(encode(id, described(error)));
    }
  }

  close() {
    return this.queue.close();
  }
}

class WorkerSocket {
  constructor(ws, { queue, concurrency }) {
    this.ws = ws;
    this.next = 0;
    this.waiting = new Map();
    this.worker = new Worker(queue, job => this.process(job), { connection, prefix, concurrency });
    this.worker.on('error', () => {});
  }

  process(job) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.ws.send(encode(id, { type: 'process', payload: job.data }));
    });
  }

  message(text) {
    const { id, data } = JSON.parse(text);
    const job = this.waiting.get(id);
    if (!job || data.type === 'ack') return;
    this.waiting.delete(id);
    if ('result' in data) job.resolve(data.result);
    else job.reject(new Error(data.err?.message ?? 'failed'));
  }

  close() {
    return this.worker.close(true);
  }
}

class EventsSocket {
  constructor(ws, { queue, events }) {
    this.next = 0;
    this.events = new QueueEvents(queue, { connection, prefix });
    this.events.on('error', () => {});
    for (const event of events) {
      this.events.on(event, (...args) => ws.send(encode(this.next++, { event, args })));
    }
  }

  message() {}

  close() {
    return this.events.close();
  }
}

function route(url) {
  const match = /^\/queue\/([^/]+)(?:\/process\/(\d+)|\/(events))?$/.exec(url.pathname);
  if (!match) return undefined;
  const queue = decodeURIComponent(match[1]);
  if (match[2]) return { kind: WorkerSocket, queue, concurrency: Number(match[2]) };
  if (match[3]) return { kind: EventsSocket, queue, events: url.searchParams.get('events')?.split(',') ?? names };
  return { kind: QueueSocket, queue };
}

const queues = new Map();

function queueOf(name) {
  let queue = queues.get(name);
  if (!queue) {
    queue = new Queue(name, { connection, prefix });
    queue.on('error', () => {});
    queues.set(name, queue);
  }
  return queue;
}

async function call(request) {
  const match = /^\/queue\/([^/]+)\/(\w+)$/.exec(new URL(request.url).pathname);
  if (!match) return new Response('nothing here', { status: 404 });
  const queue = queueOf(decodeURIComponent(match[1]));
  try {
    if (typeof queue[match[2]] !== 'function') throw new Error(`no function ${match[2]}`);
    return Response.json({ ok: await queue[match[2]](...(await request.json())) });
  } catch (error) {
    return Response.json(described(error), { status: 500 });
  }
}

const hooks = new Map();

async function hook(request) {
  const { queue, endpoint, opts } = await request.json();
  await hooks.get(queue)?.close();
  const send = async job => {
    const body = JSON.stringify({ job, token: job.token });
    const response = await fetch(endpoint.url, { method: endpoint.method, headers: endpoint.headers, body });
    if (!response.ok) throw new Error(response.statusText);
    return response.headers.get('content-type')?.startsWith('application/json') ? response.json() : response.text();
  };
  const worker = new Worker(queue, send, { connection, prefix, ...opts });
  worker.on('error', () => {});
  hooks.set(queue, worker);
  return new Response('OK');
}

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (request.headers.get('authorization') !== `Bearer ${process.env.KEY}`) return new Response('no', { status: 401 });
    if (request.method === 'POST') return request.url.endsWith('/workers') ? hook(request) : call(request);
    const data = route(new URL(request.url));
    if (!data) return new Response('nothing here', { status: 404 });
    return server.upgrade(request, { data }) ? undefined : new Response('WebSocket only', { status: 426 });
  },
  websocket: {
    maxPayloadLength: 2 ** 24,
    open(ws) {
      ws.data.session = new ws.data.kind(ws, ws.data);
    },
    message(ws, text) {
      return ws.data.session.message(text);
    },
    close(ws) {
      ws.data.session?.close().catch(() => {});
    },
  },
});

console.log(`listening ${server.port}`);
process.on('SIGTERM', () => process.exit(0));
