// The JavaScript client, as the conformance kit starts it: `node javascript_client.mjs CLIENT [WS]`, the URLs of client.js and,
// for a Node without a WebSocket, of the package `ws`.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const [client, ws] = process.argv.slice(2);
const { Queue, QueueEvents, Worker } = await import(client);
const WebSocket = ws && (await import(ws)).WebSocket;
const { BULLMQ_URL: url, BULLMQ_KEY, BULLMQ_KEY_FILE, BULLMQ_QUEUE: name, BULLMQ_ROLE: role } = process.env;
const key = BULLMQ_KEY_FILE ? () => readFile(BULLMQ_KEY_FILE, "utf8") : BULLMQ_KEY;
const here = { url, key, ...(WebSocket && { WebSocket }) };

function fail({ code, message }) {
  console.error(`${code}: ${message}`);
  process.exit(1);
}

async function work() {
  const handle = async ({ data }) => {
    await sleep(data.wait ?? 0);
    if (data.fail) throw new Error(data.fail);
    return data;
  };
  const worker = new Worker(name, handle, { ...here, concurrency: 10 });
  process.on("SIGTERM", () => worker.close());
  await worker.run().catch(fail);
}

async function produce() {
  const queue = new Queue(name, here).on("error", fail);
  for await (const line of createInterface({ input: process.stdin })) {
    const { fn, args = [] } = JSON.parse(line);
    try {
      console.log(JSON.stringify({ ok: await queue[fn](...args) }));
    } catch ({ code, message }) {
      console.log(JSON.stringify({ err: { code, message } }));
    }
  }
  await queue.close();
}

async function watch() {
  const events = new QueueEvents(name, here);
  process.on("SIGTERM", () => events.close());
  try {
    for await (const { name: event, fields, id } of events) {
      const args = [...(Object.keys(fields).length ? [fields] : []), ...(id ? [id] : [])];
      console.log(JSON.stringify({ event, args }));
    }
  } catch (error) {
    fail(error);
  }
}

await { worker: work, producer: produce, watcher: watch }[role]();
