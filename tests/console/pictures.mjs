// Makes the pictures of docs/page.md: fills queues with the jobs of a shop, works on them for a while, and photographs them.

import path from "node:path";

import { Worker } from "../../gateway/pages/client.js";
import { browser, call, done, keys, NARROW, open, origin, reads, WIDE } from "./browser.mjs";

const [folder, seconds] = [process.argv[3], Number(process.argv[4])];
const REASONS = ["The mailbox is full", "No such user", "The relay does not answer"];
const PEOPLE = ["ada", "grace", "alan", "edsger", "barbara", "donald", "margaret", "tony"];
const random = (most) => Math.floor(Math.random() * most);
const SETTLES = 2500; // ms until the numbers of the last seconds are there
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const letters = async (job, signal) => {
  await job.log(`connecting to relay-${random(3) + 1}`);
  await pause(50 + random(400));
  if (random(25) === 0 || job.data.to.startsWith("nobody")) throw new Error(REASONS[random(3)]);
  await job.log(`sent to ${job.data.to}`);
  return { sent: !signal.aborted };
};
const images = async (job) => {
  for (let part = 10; part <= 100; part += 10) {
    await pause(400 + random(400));
    await job.updateProgress(part);
  }
  return { file: `${job.data.file}-${job.data.width}.webp` };
};
const at = { url: origin, key: keys.all };
const workers = [
  new Worker("letters", letters, { ...at, concurrency: 10, name: "mailer-1" }),
  new Worker("letters", letters, { ...at, concurrency: 10, name: "mailer-2" }),
  new Worker("images", images, { ...at, concurrency: 4, name: "resizer" }),
];
for (const worker of workers) worker.on("error", () => {});

const add = (queue, ...args) => call(queue, "add", ...args);
await add(
  "letters",
  "welcome",
  { to: "nobody@example.org", template: "welcome", language: "en" },
  { jobId: "order-2041", attempts: 3, backoff: 500 },
);
for (let n = 0; n < 6; n++) await add("reports", "monthly", { month: n + 1 }, { delay: (n + 1) * 1_800_000 });
await call(
  "reports",
  "upsertJobScheduler",
  "nightly",
  { pattern: "0 3 * * *", tz: "Europe/Rome" },
  { name: "report", data: { format: "pdf" } },
);
await call("invoices", "pause");
await call(
  "invoices",
  "addBulk",
  Array.from({ length: 42 }, (_, n) => ({ name: "invoice", data: { order: 2000 + n } })),
);

const end = Date.now() + seconds * 1000;
for (let n = 0; Date.now() < end; n++) {
  const waves = 1 + Math.sin(n / 12) + random(2);
  for (let each = 0; each < 2 * waves; each++) {
    const to = `${PEOPLE[random(PEOPLE.length)]}@example.org`;
    await add(
      "letters",
      ["welcome", "receipt", "reminder"][random(3)],
      { to, order: 2000 + random(900) },
      random(8) ? {} : { delay: 600_000 },
    );
  }
  if (n % 3 === 0) await add("images", "resize", { file: `photo-${100 + random(900)}`, width: [320, 640, 1280][random(3)] });
  await pause(250);
}

async function shoot(name, hash, text, { size = WIDE, colorScheme = "light" } = {}) {
  const page = await open(hash);
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme });
  await reads(page.locator("main"), text);
  await pause(SETTLES);
  await page.screenshot({ path: path.join(folder, `${name}.png`) });
  done(page);
}

await shoot("queues", "#/", "letters");
await shoot("failed", "#/queue/letters/failed", "order-2041");
await shoot("job", "#/queue/letters/job/order-2041", "Why it failed", { colorScheme: "dark" });
await shoot("connections", "#/connections", "images", { colorScheme: "dark" });
await shoot("narrow", "#/", "letters", { size: NARROW });
await shoot("add", "#/queue/letters/add", "More options");
await shoot("call", "#/queue/letters/call", "getJobCounts");
await Promise.all(workers.map((worker) => worker.close(0)));
await browser.close();
