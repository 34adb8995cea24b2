// Makes the pictures of README.md, by doing what it says, and of docs/page.md: fills queues with the jobs of a shop, works on
// them for a while, and photographs them.

import { spawn } from "node:child_process";
import path from "node:path";

import { Worker } from "../../gateway/pages/client.js";
import { browser, call, done, keys, NARROW, open, origin, reads } from "./browser.mjs";

const [folder, seconds] = [process.argv[3], Number(process.argv[4])];
const { worker: readme } = JSON.parse(process.argv[2]);
const REASONS = ["The mailbox is full", "No such user", "The relay does not answer"];
const PEOPLE = ["ada", "grace", "alan", "edsger", "barbara", "donald", "margaret", "tony"];
const random = (most) => Math.floor(Math.random() * most);
const WAVE = 60_000; // ms of a wave of orders, by 2 π
const HIGH = { width: 1200, height: 720 };
const LOW = { width: 1280, height: 640 };
const SETTLES = 2500; // ms until the numbers of the last seconds are there
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function take(page, name) {
  await page.screenshot({ path: path.join(folder, `${name}.png`) });
}

async function firstTenMinutes() {
  const page = await open("#/", null);
  await page.setViewportSize(HIGH);
  await page.getByLabel("Key").fill(keys.all);
  await page.keyboard.press("Enter");
  await page.getByLabel("Name of a queue to open").fill("letters");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Add a job" }).click();
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await reads(page.locator(".done"), "Added job");
  await reads(page.locator(".tabs"), "Waiting1");
  await take(page, "first-add");
  const worker = spawn(readme[0], readme.slice(1), { stdio: "inherit" });
  await page.locator(".done a").click();
  await reads(page.locator(".log"), "sending to ada@example.org");
  await reads(page.locator(".badge"), "Completed");
  await reads(page.locator(".tabs"), "Completed1");
  await page.evaluate(() => document.activeElement.blur());
  await take(page, "first-done");
  worker.kill();
  await page.close();
  await call("letters", "obliterate", { force: true });
  await call("letters", "resume");
}
await firstTenMinutes();

function fail(reason) {
  const stack = `Error: ${reason}\n    at Relay.send (mailer.mjs:31:13)\n    at async welcome (mailer.mjs:18:3)`;
  throw Object.assign(new Error(reason), { stack });
}
const letters = async (job, signal) => {
  await job.log(`connecting to relay-${random(3) + 1}`);
  await pause(50 + random(400));
  if (random(25) === 0 || job.data.to.startsWith("nobody")) fail(REASONS[random(3)]);
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

let isOpen = true;
async function trade() {
  for (let n = 0; isOpen; n++) {
    const waves = 1 + Math.sin(Date.now() / WAVE) + random(2);
    for (let each = 0; each < 2 * waves; each++) {
      const to = `${PEOPLE[random(PEOPLE.length)]}@example.org`;
      const name = ["welcome", "receipt", "reminder"][random(3)];
      await add("letters", name, { to, order: 2000 + random(900) }, random(8) ? {} : { delay: 600_000 });
    }
    if (n % 8 === 0) await add("images", "resize", { file: `photo-${100 + random(900)}`, width: [320, 640, 1280][random(3)] });
    await pause(250);
  }
}
const trading = trade();
await pause(seconds * 1000);

async function shoot(name, hash, text, { size = HIGH, colorScheme = "light" } = {}) {
  const page = await open(hash);
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme });
  await reads(page.locator("main"), text);
  await pause(SETTLES);
  await take(page, name);
  done(page);
}

await shoot("queues", "#/", "letters");
await shoot("failed", "#/queue/letters/failed", "No such user");
await shoot("job", "#/queue/letters/job/order-2041", "Why it failed", { colorScheme: "dark" });
await shoot("connections", "#/connections", "images", { size: LOW, colorScheme: "dark" });
await shoot("narrow", "#/", "letters", { size: NARROW });
await shoot("call", "#/queue/letters/call", "getJobCounts");
isOpen = false;
await trading;
await Promise.all(workers.map((worker) => worker.close(0)));
await browser.close();
