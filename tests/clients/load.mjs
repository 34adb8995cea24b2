// A load on one queue: node load.mjs CLIENT PORTS KEY JOBS. It adds jobs and works on them with the JavaScript client at the
// module CLIENT, says "running" when the load runs, and in the end what it has seen, as JSON.

const { Queue, Worker } = await import(process.argv[2]);
const [ports, key, jobs] = [process.argv[3].split(","), process.argv[4], Number(process.argv[5])];
const AT_ONCE = 200; // adds, each with the wait for its end
const at = (n) => ({ url: `ws://127.0.0.1:${ports[n % ports.length]}`, key });
const [handled, ended] = [new Uint8Array(jobs), new Uint8Array(jobs)]; // how often each was
const PARTS = 5;
const memory = []; // bytes of the heap, after each fifth of the jobs
const said = { lost: 0, cancelled: 0, failed: 0, error: 0 };
let completed = 0;

const queue = new Queue("load", at(0));
const workers = Array.from({ length: 4 }, (_, n) => {
  const handler = async (job) => {
    handled[job.data.n]++;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 5)); // the job's work
    return job.data;
  };
  const worker = new Worker("load", handler, { ...at(n), concurrency: 20 });
  worker.on("completed", () => {
    if (++completed === Math.ceil(jobs / 20)) console.log("running");
    if (completed % Math.max(1, Math.floor(jobs / PARTS)) === 0 && memory.length < PARTS) {
      globalThis.gc?.();
      memory.push(process.memoryUsage().heapUsed);
    }
  });
  for (const name of Object.keys(said)) worker.on(name, () => said[name]++);
  return worker;
});

let next = 0;
async function add() {
  while (next < jobs) {
    const n = next++;
    const job = await queue.add("x", { n }, { jobId: `j${n}` });
    ended[(await job.waitUntilFinished()).n] = 1;
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, add));
await Promise.all(workers.map((worker) => worker.close()));
await queue.close();
const most = process.resourceUsage().maxRSS * 1024; // bytes
const count = (numbers, isMeant) => numbers.reduce((sum, n) => sum + isMeant(n), 0);
const [once, twice] = [count(handled, (runs) => runs > 0), count(handled, (runs) => runs > 1)];
const seen = { added: next, ended: count(ended, (n) => n), handled: once, twice, most, memory };
console.log(JSON.stringify({ ...seen, ...said }));
