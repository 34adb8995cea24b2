// The JavaScript client, as the conformance kit starts it: `node javascript_client.mjs CLIENT WS [SOCKET]`, the URLs of client.js
// and of the package `ws`, for a Node without a WebSocket. With SOCKET it is many clients, for which warm_node.py asks there:
// Node would take longer to start each of them than they have to do.

import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

const [client, ws, path] = process.argv.slice(2);
const { Queue, QueueEvents, Worker } = await import(client);
const { WebSocket } = await import(ws);

async function handle({ data }) {
  await sleep(data.wait ?? 0);
  if (data.fail) throw new Error(data.fail);
  return data;
}

async function produce(queue, input, print) {
  const failed = new Promise((_, reject) => queue.on("error", reject)); // there will be no connection any more
  await Promise.race([failed, call(queue, input, print)]);
}

async function call(queue, input, print) {
  for (const line of input.split("\n").filter(Boolean)) {
    const { fn, args = [] } = JSON.parse(line);
    try {
      print({ ok: await queue[fn](...args) });
    } catch ({ code, message }) {
      print({ err: { code, message } });
    }
  }
}

async function watch(events, print) {
  await events.start(); // what comes between this and the loop is not lost
  for await (const { name: event, fields, id } of events) {
    print({ event, args: [...(Object.keys(fields).length ? [fields] : []), ...(id ? [id] : [])] });
  }
}

/** Be a client: `say(stdout, stderr)` is what it prints, `ended` resolves with the exit code, `close` is for SIGTERM. */
function play({ BULLMQ_URL: url, BULLMQ_KEY, BULLMQ_KEY_FILE, BULLMQ_QUEUE: name, BULLMQ_ROLE: role }, input, say) {
  const here = { url, key: BULLMQ_KEY_FILE ? () => readFile(BULLMQ_KEY_FILE, "utf8") : BULLMQ_KEY, WebSocket };
  const print = (value) => say(`${JSON.stringify(value)}\n`, "");
  const kinds = {
    worker: () => [new Worker(name, handle, { ...here, concurrency: 10 }), (worker) => worker.run()],
    producer: () => [new Queue(name, here), (queue) => produce(queue, input, print)],
    watcher: () => [new QueueEvents(name, here), (events) => watch(events, print)],
  };
  const [it, run] = kinds[role]();
  const ended = run(it).then(
    () => it.close().then(() => 0),
    ({ code, message }) => (say("", `${code}: ${message}\n`), 1),
  );
  return { ended, close: () => it.close() };
}

if (!path) {
  const { ended, close } = play(process.env, process.env.BULLMQ_ROLE === "producer" ? await text(process.stdin) : "", (out, err) => {
    process.stdout.write(out);
    process.stderr.write(err);
  });
  process.on("SIGTERM", close);
  process.exit(await ended);
}
createServer((socket) => {
  let close = () => {};
  const tell = (told) => socket.write(`${JSON.stringify(told)}\n`);
  const lines = createInterface({ input: socket }).on("error", () => {}); // nobody hears a client that was killed
  lines.on("line", (line) => {
    const { env, input } = JSON.parse(line);
    if (!env) return close();
    const it = play(env, input, (stdout, stderr) => tell({ stdout, stderr }));
    close = it.close;
    it.ended.then((code) => socket.end(`${JSON.stringify({ code })}\n`));
  });
  socket.on("error", () => {}).on("close", () => close());
}).listen(path, () => console.log("ready"));
process.stdin.on("end", () => process.exit(0)).resume();
