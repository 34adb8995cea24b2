// What the tests of the console share: one browser, pages of it that somebody has signed in to, and the gateway's answers.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { modules, program, origin: gateway, keys: secrets } = JSON.parse(process.argv[2]);
export const origin = gateway;
export const keys = secrets; // secrets by the names of the keys
const { chromium } = await import(pathToFileURL(path.join(modules, "playwright-core", "index.mjs")));
const AXE = fs.readFileSync(path.join(modules, "axe-core", "axe.min.js"), "utf8");
const TIMEOUT = 20_000; // ms, for machines that do much else
export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 390, height: 844 };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-dev-shm-usage"];
// One process for all pages, without threads of its own for compiling and drawing: a sixth less processor time.
FLAGS.push("--renderer-process-limit=1", "--disable-features=IsolateOrigins,site-per-process", "--in-process-gpu");
FLAGS.push("--disable-site-isolation-trials", "--js-flags=--single-threaded");

export const browser = await chromium.launch({ executablePath: program, args: FLAGS });
// What browsers tell of refusals, and of connections that end with their view.
const EXPECTED = ["the server responded with a status of 40", "closed before the connection is established"];
/** What must not be: requests to elsewhere, errors of scripts, dialogs that job data have opened. */
export const wrong = [];

/** Call a function of a queue; the result, or a thrown error with the code. */
export async function call(queue, fn, ...args) {
  const headers = { Authorization: `Bearer ${keys.all}`, "Content-Type": "application/json" };
  const url = `${origin}/queue/${encodeURIComponent(queue)}/${fn}`;
  const answer = await (await fetch(url, { method: "POST", headers, body: JSON.stringify(args) })).json();
  if (answer.err) throw Object.assign(new Error(answer.err.message), { code: answer.err.code });
  return answer.ok;
}

// One for all pages, so that they share its cache; sessionStorage, and so the key, is each page's own.
const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce" });

const idle = []; // pages that nobody needs now: a new one takes the browser longer than a new address

/** Open the console, signed in with a key; `key` null asks for one. Whoever is done gives the page to `done`. */
export async function open(hash = "#/", key = "all") {
  const page = idle.pop() ?? (await newPage());
  if (page.key !== key) {
    await page.goto(`${origin}/health`);
    await page.evaluate(keep, key && keys[key]);
    page.key = key;
  }
  await page.goto(`${origin}/${hash}`);
  return page;
}

/** Put a key where the console keeps it. */
function keep(secret) {
  if (secret) sessionStorage.setItem("bullmq-proxy key", secret);
  else sessionStorage.clear();
}

export const done = (page) => idle.push(page);

async function newPage() {
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  page.on("request", (request) => isHere(request.url()) || wrong.push(request.url()));
  page.on("websocket", (socket) => isHere(socket.url()) || wrong.push(socket.url()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => (wrong.push(dialog.message()), dialog.dismiss()));
  page.on("console", (message) => {
    const isExpected = EXPECTED.some((text) => message.text().includes(text));
    if (["error", "warning"].includes(message.type()) && !isExpected) wrong.push(message.text());
  });
  return page;
}

const isHere = (url) => [origin, origin.replace("http", "ws"), "data:"].some((start) => url.startsWith(start));

/** Wait until a text is to be read in an element. */
export async function reads(locator, text) {
  const wanted = text instanceof RegExp ? text : new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  await locator.filter({ hasText: wanted }).first().waitFor();
}

/** Ask until an answer is the wanted one. */
export async function until(look, wanted) {
  const end = Date.now() + TIMEOUT;
  for (;;) {
    const seen = await look();
    try {
      return assert.deepEqual(seen, wanted);
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** What axe finds in the page as it is. */
export async function violations(page, rules = null) {
  if (!(await page.evaluate(() => Boolean(window.axe)))) await page.evaluate(AXE);
  const found = await page.evaluate(
    (only) => window.axe.run(document, { resultTypes: ["violations"], ...(only && { runOnly: only }) }),
    rules,
  );
  return found.violations.map(
    ({ id, nodes }) =>
      `${id}: ${nodes
        .slice(0, 3)
        .map(({ target, failureSummary }) => `${target} ${failureSummary}`)
        .join(" | ")}`,
  );
}

export const button = (page, name) => page.getByRole("button", { name });
export const dialog = (page) => page.getByRole("dialog");
