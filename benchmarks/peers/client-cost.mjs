// As client_cost.py, in JavaScript: node --experimental-websocket client-cost.mjs client|raw add|work PORT KEY JOBS

import { once } from "node:events";
import { Queue, Worker } from "../../gateway/pages/client.js";

const [way, task, port, key, count] = process.argv.slice(2);
const jobs = Number(count);
const WINDOW = 32; // adds under way
const CONCURRENCY = 50;
const DATA = { to: "ada@example.org" };
const NAME = "clients";
const here = { url: `ws://127.0.0.1:${port}`, key };
const handle = async (data) => ({ sent: Boolean(data) });

async function start() {
  console.log("ready");
  await once(process.stdin, "data");
}

function socket(path) {
  return new WebSocket(`${here.url}${path}`, ["bullmq-proxy.v1", `bearer.${key}`]);
}

const programs = {
  async "client add"() {
    const queue = new Queue(NAME, here);
    await queue.count();
    await start();
    let next = 0;
    const add = async () => {
      while (next++ < jobs) await queue.add("welcome", DATA);
    };
    await Promise.all(Array.from({ length: WINDOW }, add));
    console.log("done");
  },
  async "client work"() {
    const worker = new Worker(NAME, (job) => handle(job.data), { ...here, concurrency: CONCURRENCY });
    worker.on("connected", () => console.log("ready"));
  },
  async "raw add"() {
    const queue = socket(`/queue/${NAME}`);
    await once(queue, "open");
    await start();
    let sent = 0;
    let replies = 0;
    const add = () => {
      if (sent < jobs) queue.send(JSON.stringify({ id: ++sent, data: { fn: "add", args: ["welcome", DATA] } }));
    };
    queue.onmessage = (message) => {
      const { data } = JSON.parse(message.data);
      if (data.err) throw new Error(data.err.message);
      if (++replies === jobs) console.log("done");
      add();
    };
    for (let n = 0; n < WINDOW; n++) add();
  },
  async "raw work"() {
    const worker = socket(`/queue/${NAME}/process/${CONCURRENCY}`);
    const send = (id, data) => worker.send(JSON.stringify({ id, data }));
    worker.onopen = () => console.log("ready");
    worker.onmessage = async (message) => {
      const { id, data } = JSON.parse(message.data);
      if (data.type !== "process") return;
      send(id, { type: "ack" });
      send(id, { result: await handle(data.payload) });
    };
  },
};

await programs[`${way} ${task}`]();
