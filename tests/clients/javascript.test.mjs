// The JavaScript client against a gateway: node javascript.test.mjs PORT KEY. What is asked again, what fails and how, what
// a handler can do with a job, and what becomes of it when the connection breaks.

import assert from "node:assert/strict";
import net from "node:net";
import { after, afterEach, test } from "node:test";

import {
  ClosedError, ConflictError, FlowProducer, InvalidArgumentsError, Job, limits, NotFoundError, OutcomeUnknownError, Queue,
  QueueEvents, TooManyRequestsError, UnauthorizedError, UnreachableError, UnrecoverableError, WaitTimeoutError, Worker,
} from "../../gateway/pages/client.js";

const [port, key] = [Number(process.argv[2]), process.argv[3]];
const made = [];
const unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(error));
afterEach(async () => {
  await Promise.all(made.splice(0).map((each) => each.close(0)));
  assert.deepEqual(unhandled, []);
});

/** A cable to the gateway that can be cut. */
const cable = { open: new Set(), lost: null, cuts: 0, refuses: false };
cable.hangUp = () => {
  cable.cuts++;
  for (const socket of cable.open) socket.destroy();
};
const relay = net.createServer((client) => {
  if (cable.refuses) return client.destroy();
  const server = net.connect(port, "127.0.0.1");
  for (const [from, to] of [[client, server], [server, client]]) {
    cable.open.add(from);
    from.on("error", () => {}).on("close", () => (cable.open.delete(from), to.destroy()));
  }
  client.pipe(server);
  server.on("data", (data) => {
    if (cable.lost !== null && data.includes(cable.lost)) {
      cable.lost = null;
      cable.hangUp();
    } else client.write(data);
  });
});
await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));
after(() => relay.close());
const options = { url: `ws://127.0.0.1:${relay.address().port}`, key };

limits.firstPause = 30;

let count = 0;
function make(...more) {
  const name = `mails-${count++}`;
  const queue = new Queue(name, options);
  made.push(queue, ...more);
  return queue;
}
function work(queue, handler, more = {}) {
  const worker = new Worker(queue.name, handler, { ...options, ...more });
  made.unshift(worker);
  worker.said = [];
  for (const name of ["completed", "failed", "cancelled", "lost", "error", "draining"]) {
    worker.on(name, (...args) => worker.said.push([name, ...args]));
  }
  return worker;
}
const happens = (emitter, name) => new Promise((resolve) => emitter.on(name, (...args) => resolve(args)));
const wanted = () => {
  const waiting = {};
  waiting.promise = new Promise((resolve, reject) => Object.assign(waiting, { resolve, reject }));
  return waiting;
};

test("a key can be a function, which is asked for each connection", async () => {
  let asked = 0;
  const queue = new Queue("keys", { ...options, key: async () => (asked++ ? key : Promise.reject(new Error("no login"))) });
  made.push(queue);
  const trouble = happens(queue, "disconnected");
  await queue.count();
  assert.match((await trouble)[0].message, /^There is no key: no login$/);
  const again = happens(queue, "connected");
  cable.hangUp();
  await again;
  assert.equal(asked, 3);
  const wrong = new Queue("keys", { ...options, key: () => `wrong-${asked++}` });
  made.push(wrong);
  await assert.rejects(wrong.count(), UnauthorizedError);
  assert.equal(asked, 5); // one more than once: it may have expired on its way
});

test("a job is added, read and changed", async () => {
  const queue = make();
  const job = await queue.add("welcome", { to: "ada" }, { delay: 60_000 });
  assert.ok(job instanceof Job);
  assert.deepEqual([job.name, job.data, job.duplicate], ["welcome", { to: "ada" }, undefined]);
  await job.promote();
  assert.equal(await (await queue.getJob(job.id)).getState(), "waiting");
  assert.equal(await job.log("promoted"), 1);
  assert.equal(await queue.getJob("nobody"), null);
  assert.deepEqual((await queue.add("empty")).data, {});
  assert.equal((await queue.add("null", null)).data, null);
  assert.deepEqual((await queue.addBulk([{ name: "a" }, { name: "b" }])).map((each) => each.name), ["a", "b"]);
  assert.deepEqual(await queue.getJobCounts("waiting", "failed"), { waiting: 5, failed: 0 });
});

test("errors are classes with codes", async () => {
  const queue = make();
  await assert.rejects(queue.add("x", {}, { delay: -1 }), (error) => {
    assert.ok(error instanceof InvalidArgumentsError);
    return error.code === "INVALID_ARGUMENTS" && /args\[2\]\.delay/.test(error.message);
  });
  await assert.rejects(queue.retryJob("nobody"), NotFoundError);
  await assert.rejects(queue.add("x", 1n), TypeError);
});

test("a job is waited for", async () => {
  const queue = make();
  const [good, bad] = [await queue.add("x", 1), await queue.add("x", "fail")];
  await assert.rejects(good.waitUntilFinished(1), WaitTimeoutError);
  work(queue, async (job) => {
    if (job.data === "fail") throw new Error("no such user");
    return { seen: job.data };
  });
  assert.deepEqual(await good.waitUntilFinished(5000), { seen: 1 });
  await assert.rejects(bad.waitUntilFinished(), (error) => error instanceof ConflictError && error.message === "no such user");
  assert.deepEqual(await queue.addAndWait("x", 2, { removeOnComplete: true }), { seen: 2 });
});

test("there is a limit of calls", async () => {
  const queue = make();
  limits.mostCalls = 3;
  const results = await Promise.allSettled([1, 2, 3, 4, 5].map(() => queue.count()));
  limits.mostCalls = 10_000;
  assert.deepEqual(results.map(({ reason }) => reason instanceof TooManyRequestsError), [false, false, false, true, true]);
});

test("adds whose replies are lost add their jobs once", async () => {
  const queue = make();
  const flows = new FlowProducer(options);
  made.push(flows);
  cable.lost = "welcome";
  assert.equal((await queue.add("welcome")).duplicate, undefined);
  cable.lost = "two";
  await queue.addBulk([{ name: "one" }, { name: "two" }]);
  cable.lost = "top";
  const tree = { name: "top", queueName: queue.name, children: [{ name: "c", queueName: queue.name }] };
  const added = await flows.add(tree);
  assert.equal((await flows.getFlow({ queueName: queue.name, id: added.job.id })).children.length, 1);
  assert.equal(cable.lost, null);
  assert.deepEqual(await queue.getJobCounts("waiting", "waiting-children"), { waiting: 4, "waiting-children": 1 });
});

test("what cannot be made twice is not", async () => {
  const queue = make();
  cable.lost = "welcome";
  await assert.rejects(queue.add("welcome", {}, { removeOnComplete: true }), OutcomeUnknownError);
  cable.lost = '{"ok":null}';
  await assert.rejects(queue.pause(), OutcomeUnknownError);
  assert.equal(await queue.isPaused(), true);
});

test("reads are made again, and waits go on", async () => {
  const queue = make();
  const job = await queue.add("slow");
  cable.lost = '{"ok":1}';
  const waiting = job.waitUntilFinished();
  assert.equal(await queue.count(), 1);
  assert.equal(cable.lost, null);
  work(queue, async () => "done");
  assert.equal(await waiting, "done");
});

test("calls wait for a gateway for so long", async () => {
  limits.linkTimeout = 100;
  const queue = new Queue("mails", { url: "ws://127.0.0.1:9", key });
  made.push(queue);
  await assert.rejects(queue.count(), UnreachableError);
  limits.linkTimeout = 30_000;
});

test("a closed client says so", async () => {
  const queue = make();
  const waiting = assert.rejects(queue.getNextJob("mine-1", { block: 60_000 }), OutcomeUnknownError);
  await queue.count();
  await queue.close();
  await waiting;
  await assert.rejects(queue.count(), ClosedError);
});

test("refusals are told in the gateway's own words", async () => {
  const queue = new Queue("mails", { ...options, key: "wrong" });
  const told = [], asked = [];
  queue.on("error", (error) => told.push(error.code));
  queue.on("connected", () => told.push("connected"));
  const fetched = globalThis.fetch;
  globalThis.fetch = (...request) => (asked.push(request), fetched(...request));
  await assert.rejects(queue.drain(), UnauthorizedError); // nothing was done, though the call was sent
  globalThis.fetch = fetched;
  assert.deepEqual(asked, []); // the close code has said it
  for (const _ of [1, 2]) await assert.rejects(queue.count(), { constructor: UnauthorizedError, message: "This key is not known" });
  assert.deepEqual(told, ["UNAUTHORIZED"]);
  const worker = new Worker("mails", () => {}, { ...options, lockDuration: 1 });
  worker.on("error", () => {});
  await assert.rejects(worker.run(), (error) => error instanceof InvalidArgumentsError && /\?lockDuration/.test(error.message));
  const events = new QueueEvents("mails", { ...options, lastEventId: "x" });
  events.on("error", () => {});
  await assert.rejects(events.start(), InvalidArgumentsError);
});

test("events go on where they were, and gaps are told", async () => {
  const queue = make();
  const events = new QueueEvents(queue.name, { ...options, events: ["added"] });
  made.push(events);
  await events.start();
  const seen = events[Symbol.asyncIterator]();
  const gap = seen.next();
  cable.hangUp();
  assert.deepEqual((await gap).value, { name: "gap", fields: { from: null, to: null }, id: null });
  const heard = [];
  events.on("added", ({ jobId }) => heard.push(jobId));
  await queue.add("x", {}, { jobId: "a" });
  assert.equal((await seen.next()).value.fields.jobId, "a");
  cable.hangUp();
  for (const jobId of ["b", "c", "d"]) await queue.add("x", {}, { jobId });
  for (const jobId of ["b", "c", "d"]) assert.equal((await seen.next()).value.fields.jobId, jobId);
  assert.deepEqual(heard, ["a", "b", "c", "d"]);
  const last = seen.next();
  await events.close();
  assert.equal((await last).done, true);
});

test("a loop that is slow gets all events", async () => {
  const queue = make();
  limits.mostEvents = 5;
  const events = new QueueEvents(queue.name, { ...options, events: ["added"] });
  made.push(events);
  await events.start();
  const seen = events[Symbol.asyncIterator]();
  await queue.add("x", {}, { jobId: "j0" });
  const came = [(await seen.next()).value.fields.jobId];
  const ids = Array.from({ length: 20 }, (_, n) => `j${n}`);
  await queue.addBulk(ids.slice(1).map((jobId) => ({ name: "x", opts: { jobId } })));
  while (came.length < ids.length) came.push((await seen.next()).value.fields.jobId);
  limits.mostEvents = 10_000;
  assert.deepEqual(came, ids);
});

test("handlers complete, fail, and fail for good", async () => {
  const queue = make();
  const worker = work(queue, async (job) => {
    if (job.name === "bad") throw new Error("no such user");
    if (job.name === "worse") throw new UnrecoverableError("closed");
    if (job.name === "odd") return 1n;
    await job.updateProgress({ done: 50 });
    await job.log("half");
    assert.equal((await job.queue.getJobCounts("active")).active, 1);
    return { n: job.data.n + job.attemptsStarted };
  });
  const jobs = await queue.addBulk([{ name: "good", data: { n: 1 } }, { name: "bad", opts: { attempts: 2, backoff: 60_000 } },
    { name: "worse", opts: { attempts: 5 } }, { name: "odd" }]);
  await jobs[0].waitUntilFinished();
  while (worker.said.length < 4) await queue.count();
  assert.deepEqual(worker.said.map(([name]) => name), ["completed", "failed", "failed", "failed"]);
  assert.deepEqual(await Promise.all(jobs.map((job) => job.getState())), ["completed", "delayed", "failed", "failed"]);
  const [good, bad] = [await queue.getJob(jobs[0].id), await queue.getJob(jobs[1].id)];
  assert.deepEqual([good.returnvalue, good.progress, (await queue.getJobLogs(good.id)).logs], [{ n: 2 }, { done: 50 }, ["half"]]);
  assert.equal(bad.failedReason, "no such user");
});

test("jobs are given back, delayed, and wait for children", async () => {
  const queue = make();
  const seen = [];
  work(queue, async (job) => {
    seen.push(job.id);
    const first = seen.indexOf(job.id) === seen.length - 1;
    if (job.id === "back" && first) return job.release();
    if (job.id === "later" && first) {
      await job.delayFor(1);
      await assert.rejects(job.release(), NotFoundError);
      return;
    }
    assert.equal(await job.waitChildren(), false);
    return "done";
  });
  const jobs = await queue.addBulk(["back", "later"].map((jobId) => ({ name: "x", opts: { jobId } })));
  for (const job of jobs) assert.equal(await job.waitUntilFinished(), "done");
  assert.deepEqual((await queue.getCompleted()).map((job) => job.attemptsMade), [1, 1]);
});

test("a cancelled job aborts its signal, a late answer is lost", async () => {
  const queue = make();
  const begun = wanted();
  const worker = work(queue, async (job, signal) => {
    begun.resolve(signal);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    await assert.rejects(job.log("late"), NotFoundError);
  });
  const job = await queue.add("x");
  await begun.promise;
  const [[cancelled, reason]] = await Promise.all([happens(worker, "cancelled"), queue.cancelJob(job.id, "withdrawn")]);
  assert.deepEqual([cancelled.id, reason, worker.inHand], [job.id, "withdrawn", 0]);
  await worker.close();
  const late = work(queue, async (job) => {
    await queue.moveJobToFailed(job.id, "somebody else", job.token);
  });
  queue.add("x");
  const [, error] = await happens(late, "lost");
  assert.ok(error.code);
});

test("a worker that closes waits for jobs, and gives the others back", async () => {
  const queue = make();
  const [begun, goOn] = [wanted(), wanted()];
  const worker = work(queue, async () => (begun.resolve(), await goOn.promise), { concurrency: 2 });
  await queue.addBulk([{ name: "x" }, { name: "x" }]);
  while (worker.inHand < 2) await begun.promise.then(() => queue.count());
  const closing = worker.close();
  await queue.add("later");
  goOn.resolve("done");
  await closing;
  assert.deepEqual(worker.said.map(([name]) => name), ["completed", "completed"]);
  const again = wanted();
  const other = work(queue, async () => (again.resolve(), await new Promise(() => {})));
  await again.promise;
  await other.close(1);
  let job;
  while (!job) [job] = await queue.getWaiting();
  assert.deepEqual([job.name, job.attemptsMade, job.stalledCounter], ["later", 0, 0]);
});

test("a pause holds over connections, a drain is told", async () => {
  const queue = make();
  const worker = work(queue, async () => await new Promise(() => {}));
  await worker.pause();
  const back = happens(worker, "connected");
  cable.hangUp();
  await back;
  const [consumer] = (await queue.getConsumers()).consumers.slice(-1);
  await queue.add("x");
  await worker.resume();
  while (!worker.inHand) await queue.count();
  const draining = happens(worker, "draining");
  await queue.drainConsumer((await queue.getConsumers()).consumers.at(-1).id);
  assert.deepEqual(await draining, [null]);
  assert.ok(consumer);
});

test("handlers go on while the connection is made again, and their answers are handed in", async () => {
  const queue = make();
  const [begun, goOn] = [wanted(), wanted()];
  const worker = work(queue, async (job) => {
    begun.resolve();
    await goOn.promise;
    await job.updateProgress(1); // waits for the next connection
    return job.data;
  }, { concurrency: 3 });
  const jobs = await queue.addBulk([1, 2, 3].map((data) => ({ name: "x", data })));
  while (worker.inHand < 3) await queue.count();
  const broken = happens(worker, "disconnected");
  cable.hangUp();
  await broken;
  goOn.resolve();
  assert.deepEqual(await Promise.all(jobs.map((job) => job.waitUntilFinished())), [1, 2, 3]);
  const shown = await queue.getJob(jobs[0].id);
  assert.deepEqual([shown.attemptsStarted, shown.stalledCounter, shown.progress], [1, 0, 1]);
});

for (const grace of [0, 100]) {
  test(`a handler is aborted when its job goes back: grace ${grace}`, async () => {
    const queue = make();
    limits.firstPause = 400;
    const begun = [wanted(), wanted()];
    let runs = 0;
    const worker = work(queue, async (job) => (begun[runs++].resolve(job), await new Promise(() => {})), { grace });
    await queue.add("x");
    await begun[0].promise;
    const cancelled = happens(worker, "cancelled");
    cable.hangUp();
    await cancelled;
    assert.equal((await begun[1].promise).attemptsStarted, 2);
    limits.firstPause = 30;
  });
}

test("without a gateway nothing waits for ever", async () => {
  const queue = make();
  const handlers = [];
  const worker = work(queue, (job) => (handlers.push(job), new Promise(() => {})), { grace: 100, concurrency: 2 });
  await queue.addBulk([{ name: "x" }, { name: "x" }]);
  while (handlers.length < 2) await queue.count();
  limits.linkTimeout = 100;
  const broken = happens(worker, "disconnected");
  cable.refuses = true;
  cable.hangUp();
  await broken;
  const [held, answered] = handlers;
  await Promise.all([
    assert.rejects(held.updateProgress(1), NotFoundError),
    assert.rejects(answered.release(), OutcomeUnknownError),
  ]);
  assert.equal(worker.inHand, 0);
  limits.linkTimeout = 30_000;
  cable.refuses = false;
});

test("under cut sockets no job is lost and none handled twice", async () => {
  const queue = make();
  const handled = new Map();
  const handler = async (job) => {
    handled.set(job.id, (handled.get(job.id) ?? 0) + 1);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20)); // the job's work
    return job.id;
  };
  for (const _ of [1, 2]) work(queue, handler, { concurrency: 10 });
  const ids = Array.from({ length: 200 }, (_, n) => `j${n}`);
  const adding = Promise.all(ids.map((jobId) => queue.add("x", {}, { jobId })));
  for (let cuts = 0; (await queue.getJobCounts("completed")).completed < ids.length; ) if (cuts++ < 12) cable.hangUp();
  await adding;
  assert.deepEqual([...handled.keys()].sort(), [...ids].sort());
  assert.deepEqual([...handled.values()].filter((runs) => runs !== 1), []);
});
