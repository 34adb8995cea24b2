// The console in a real browser: what each view shows, and that everything on it works. A word as the second argument chooses
// tests by their names.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Worker } from "../../gateway/pages/client.js";
import {
  browser,
  button,
  call,
  dialog,
  done,
  keys,
  NARROW,
  open,
  origin,
  reads,
  until,
  violations,
  WIDE,
  wrong,
} from "./browser.mjs";

after(async () => {
  await browser.close();
  assert.deepEqual(wrong, []);
});

const AT_ONCE = 3; // tests; they mostly wait
const HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
const href = (...parts) => `#/queue/${parts.map(encodeURIComponent).join("/")}`;
const state = (queue, id) => call(queue, "getJobState", id);

/** Take a job and fail it, or complete it. */
async function work(queue, { result, error, ...more } = {}) {
  const job = await call(queue, "getNextJob", "t1");
  for (const row of more.logs ?? []) await call(queue, "addJobLog", job.id, row, null, "t1");
  if (more.progress !== undefined) await call(queue, "updateJobProgress", job.id, more.progress, "t1");
  if (error)
    await call(
      queue,
      "moveJobToFailed",
      job.id,
      { message: error, stack: `Error: ${error}\n at ${HTML}`, unrecoverable: true },
      "t1",
    );
  else if (result !== undefined) await call(queue, "moveJobToCompleted", job.id, result, "t1");
  return job;
}

const tests = {
  async "a key is asked for, kept in the tab alone, and forgotten"() {
    const page = await open("#/", null);
    await page.getByLabel("Key").fill("nonsense");
    await page.keyboard.press("Enter");
    await reads(page.getByRole("alert"), "key");
    await page.getByLabel("Key").fill(keys.all);
    await button(page, "Sign in").click();
    await reads(page.getByRole("heading"), "Queues");
    assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie]), [0, ""]);
    await page.reload();
    await reads(page.getByRole("heading"), "Queues");
    for (const theme of ["light", "dark", "system"]) {
      await page.locator(".theme").click();
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
      await reads(page.locator(".theme"), `Theme: ${theme}`);
    }
    await page.locator(".who summary").click();
    await page.keyboard.press("Escape");
    await button(page, "Sign out").waitFor({ state: "hidden" });
    await page.locator(".who summary").click();
    await button(page, "Sign out").click();
    await page.getByLabel("Key").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem("bullmq-proxy key")), null);
    done(page);
  },

  async "the queues change by their events"() {
    await call("live", "add", "a", {}, { delay: 3_600_000 });
    const page = await open();
    const cell = (label) => page.locator(`tr[data-name=live] [data-label="${label}"]`);
    await reads(cell("Delayed"), /^1$/);
    await call("live", "add", "b");
    await reads(cell("Waiting"), /^1$/);
    await work("live", { result: 1 });
    await reads(cell("Completed"), /^1$/);
    await reads(cell("per second"), /^0\.\d/);
    await call("live", "pause");
    await reads(page.locator("tr[data-name=live] .badge"), "paused");
    await page.getByLabel("Filter queues by name").fill("nothing");
    await reads(page.locator(".empty"), "No queue has such a name");
    await page.getByLabel("Name of a queue to open").fill("brand new");
    await page.keyboard.press("Enter");
    await reads(page.getByRole("heading"), "brand new");
    done(page);
  },

  async "a queue is paused, resumed, retried, promoted, cleaned and drained"() {
    for (let n = 0; n < 2; n++) {
      await call("acts", "add", "a");
      await work("acts", { error: "no" });
    }
    await call("acts", "add", "later", {}, { delay: 3_600_000, jobId: "later" });
    const page = await open(href("acts", "failed"));
    await reads(page.locator(".job .tells"), "no");
    await button(page, "Pause").click();
    await until(() => call("acts", "isPaused"), true);
    await button(page, "Resume").click();
    await until(() => call("acts", "isPaused"), false);

    await button(page, "Retry failed").click();
    await page.keyboard.press("Escape");
    await dialog(page).waitFor({ state: "detached" });
    assert.equal(await call("acts", "getFailedCount"), 2);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Retry failed…");
    await button(page, "Retry failed").click();
    await dialog(page).getByRole("button", { name: "Retry" }).click();
    await until(() => call("acts", "getWaitingCount"), 2);
    await button(page, "Promote delayed").click();
    await dialog(page).getByRole("button", { name: "Promote" }).click();
    await until(() => state("acts", "later"), "waiting");

    await work("acts", { result: 1 });
    await button(page, "Clean").click();
    await dialog(page).getByLabel("Older than").fill("0");
    await dialog(page).getByRole("button", { name: "Remove them" }).click();
    await until(() => call("acts", "getCompletedCount"), 0);
    await reads(page.getByRole("status"), "1 job removed");

    await call("acts", "add", "later", {}, { delay: 3_600_000 });
    await button(page, "Drain").click();
    await dialog(page).getByLabel("The delayed ones").check();
    await dialog(page).getByRole("button", { name: "Remove them" }).click();
    await until(() => call("acts", "getJobCountByTypes"), 0);
    done(page);
  },

  async "a job is put off, brought forward, ranked, cancelled, retried and removed"() {
    await call("one", "add", "a", {}, { delay: 3_600_000, jobId: "job" });
    const page = await open(href("one", "job", "job"));
    await button(page, "Change delay").click();
    await dialog(page).getByLabel("Seconds").fill("7200");
    await page.keyboard.press("Enter");
    await until(async () => (await call("one", "getJob", "job")).delay, 7_200_000);
    await page.getByRole("button", { name: "Promote", exact: true }).click();
    await until(() => state("one", "job"), "waiting");
    await button(page, "Change priority").click();
    await dialog(page).getByLabel("Priority").fill("7");
    await page.keyboard.press("Enter");
    await until(async () => (await call("one", "getJob", "job")).priority, 7);
    await call("one", "getNextJob", "t1");
    await button(page, "Cancel…").click();
    await dialog(page).getByRole("button", { name: "Cancel the job" }).click();
    await until(() => state("one", "job"), "failed");
    await reads(page.locator(".reason"), "Cancelled in the console");
    await page.getByRole("button", { name: "Retry", exact: true }).click();
    await until(() => state("one", "job"), "prioritized");
    await button(page, "Remove…").click();
    await dialog(page).getByRole("button", { name: "Cancel" }).click();
    await button(page, "Remove…").click();
    await dialog(page).getByRole("button", { name: "Remove" }).click();
    await until(() => state("one", "job"), "unknown");
    await until(() => new URL(page.url()).hash, href("one"));
    done(page);
  },

  async "a job is shown with all that is known of it, and none of it is run"() {
    const queue = `html ${HTML.replaceAll(":", "")}`.slice(0, 60);
    await call(queue, "add", HTML, { html: HTML }, { jobId: HTML, attempts: 3 });
    await work(queue, { logs: ["first row", HTML], progress: 40, error: HTML });
    const page = await open(href(queue, "job", HTML));
    for (const text of ["first row", HTML, "Why it failed", "Stack of failure 1", '"attempts": 3', "40 %", "1 of 3"]) {
      await reads(page.locator("main"), text);
    }
    assert.equal(await page.locator("main img, main script").count(), 0);
    for (const view of [href(queue, "failed"), "#/"]) {
      await page.goto(`${origin}/${view}`);
      await reads(page.locator("main"), HTML.slice(0, 20));
    }
    assert.deepEqual(await violations(page, ["document-title", "list"]), []);
    done(page);
  },

  async "a job's parent and children are a tree"() {
    const flow = {
      name: "report",
      queueName: "tops",
      opts: { jobId: "top" },
      children: [
        {
          name: "sum",
          queueName: "parts",
          opts: { jobId: "mid" },
          children: [{ name: "load", queueName: "parts", opts: { jobId: "low" } }],
        },
      ],
    };
    await fetch(`${origin}/flows/add`, {
      method: "POST",
      body: JSON.stringify([flow]),
      headers: { Authorization: `Bearer ${keys.all}` },
    });
    const page = await open(href("parts", "job", "mid"));
    await reads(page.locator(".tree > li > a"), "top report in tops");
    await reads(page.locator(".tree [aria-current]"), "mid sum");
    await page.getByRole("link", { name: "low load in parts" }).click();
    await reads(page.locator(".tree [aria-current]"), "low load");
    assert.equal(await page.locator(".tree a").count(), 2);
    done(page);
  },

  async "schedulers are shown with their next times, and removed"() {
    await call("clock", "upsertJobScheduler", "nightly", { pattern: "0 3 * * *", tz: "Europe/Rome" }, { name: "report" });
    const page = await open(href("clock", "schedulers"));
    await reads(page.locator("tbody tr"), /nightly.*0 3 \* \* \* Europe\/Rome.*in \d+/);
    await button(page, "Remove").click();
    await dialog(page).getByRole("button", { name: "Remove" }).click();
    await until(() => call("clock", "getJobSchedulersCount"), 0);
    await reads(page.locator(".empty"), "No job scheduler");
    done(page);
  },

  async "a job is added, and a function is called by hand"() {
    const page = await open(href("made", "add"));
    await page.getByLabel("Name", { exact: true }).fill("resize");
    await page.getByLabel("Data").fill("{wrong");
    await button(page, "Add").click();
    await reads(page.getByRole("alert"), "Data:");
    await page.getByLabel("Data").fill('{"width": 80}');
    await page.getByLabel("Delay").fill("1.5");
    await page.getByLabel("Id", { exact: true }).fill("mine");
    await page.getByLabel("More options").fill('{"attempts": 3}');
    await button(page, "Add").click();
    await reads(page.locator(".done"), "Added job mine");
    const { name, data, opts } = await call("made", "getJob", "mine");
    assert.deepEqual([name, data, opts.delay, opts.attempts], ["resize", { width: 80 }, 1500, 3]);
    await page.getByLabel("More options").fill('{"delai": 3}');
    await button(page, "Add").click();
    await reads(page.getByRole("alert"), "did you mean `delay`");

    await page.getByRole("link", { name: "Try a call" }).click();
    await reads(page.locator(".signature"), "getJobCounts(...types)");
    await page.getByLabel("Arguments").fill("");
    await button(page, "Call").click();
    await reads(page.getByLabel("Answer"), '"completed": 0');
    await page.getByLabel("Function").selectOption("getJob");
    await page.getByLabel("Arguments").fill("[]");
    await button(page, "Call").click();
    await reads(page.getByLabel("Answer"), "Expected an array of at least length 1");
    await page.getByLabel("Function").selectOption("obliterate");
    await page.getByLabel("Arguments").fill("[]");
    await button(page, "Call").click();
    await dialog(page).getByRole("button", { name: "Call" }).click();
    await until(() => state("made", "mine"), "unknown");
    done(page);
  },

  async "connections are shown, drained and closed"() {
    const worker = new Worker("busy", () => {}, { url: origin, key: keys.all, concurrency: 3 });
    after(() => worker.close());
    const page = await open("#/connections");
    const row = page.locator("tr", { hasText: "busy" }).filter({ hasText: "worker" });
    await reads(row, "0 of 3");
    const drained = new Promise((resolve) => worker.on("draining", resolve));
    await row.getByRole("button", { name: "Drain" }).click();
    await dialog(page).getByRole("button", { name: "Drain" }).click();
    await drained;
    const closed = new Promise((resolve) => worker.on("disconnected", resolve));
    await row.getByRole("button", { name: "Close" }).click();
    await dialog(page).getByRole("button", { name: "Close" }).click();
    await closed;
    done(page);
  },

  async "the last hour is drawn"() {
    await call("drawn", "add", "a");
    await work("drawn", { result: 1 });
    const page = await open(href("drawn", "history"));
    await reads(page.locator(".key.completed strong"), /\d/);
    assert.match(
      await page.locator("svg title").first().textContent(),
      /^Jobs per second over the last hour: Added .* at most/,
    );
    done(page);
  },

  async "what the key may not do is shown with the reason, and does nothing"() {
    const needed = {
      Pause: "manage",
      Resume: "manage",
      "Retry failed…": "manage",
      "Promote delayed…": "manage",
      "Clean…": "manage",
      "Drain…": "manage",
      Add: "produce",
    };
    await call("rights", "add", "a", {}, { jobId: "job" });
    for (const key of ["produce", "consume", "observe", "manage"]) {
      const page = await open(href("rights", "add"), key);
      await reads(page.locator("main"), "More options");
      if (key === "produce") {
        await button(page, "Add").click();
        await reads(page.locator(".done"), "Added job");
      } else if (key === "manage") {
        await page.getByRole("button", { name: "Pause", exact: true }).click();
        await until(() => call("rights", "isPaused"), true);
        await page.getByRole("button", { name: "Resume", exact: true }).click();
        await until(() => call("rights", "isPaused"), false);
      }
      const told = await page.evaluate(() =>
        [...document.querySelectorAll("main button[aria-disabled]:not([hidden])")].map((each) => {
          each.click();
          return [each.firstChild.textContent, document.getElementById("said").textContent];
        }),
      );
      const isShown = (name) => name !== "Resume" || key !== "observe"; // who sees that the queue is not paused
      const expected = Object.entries(needed).filter(([name, permission]) => permission !== key && isShown(name));
      assert.deepEqual(
        told,
        expected.map(([name, permission]) => [name, `${name}: The key ${key} needs the permission ${permission}`]),
      );
      assert.equal(await page.locator("dialog").count(), 0);
      await page.goto(`${origin}/${href("rights", "job", "job")}`);
      if (key === "observe")
        await reads(page.locator("button[aria-disabled]"), "Remove… – The key observe needs the permission manage");
      else await reads(page.locator("main"), "needs the permission observe");
      await page.goto(`${origin}/#/connections`);
      await reads(page.locator("main"), key === "manage" ? "Address" : "needs the permission manage");
      await page.goto(`${origin}/#/`);
      await reads(page.locator("main"), key === "observe" ? "Watchers" : "needs the permission observe");
      done(page);
    }
    assert.deepEqual([await call("rights", "isPaused"), await state("rights", "job")], [false, "waiting"]);
    const page = await open("#/", "some");
    await reads(page.locator("tbody"), "rights");
    assert.equal(await page.locator("tbody tr").count(), 1);
    await until(() => page.locator(".charts:visible").count(), 0);
    done(page);
  },

  async "of 10,000 jobs only those that are seen are in the page"() {
    for (let at = 0; at < 10; at++)
      await call(
        "many",
        "addBulk",
        Array.from({ length: 1000 }, (_, n) => ({ name: "x", data: { n: at * 1000 + n } })),
      );
    const page = await open(href("many", "waiting"));
    const table = page.getByRole("table", { name: "Waiting jobs" });
    await reads(page.locator(".spacer .tells"), '{"n":0}');
    let most = 0;
    for (const part of [0.5, 1]) {
      await table.evaluate((element, at) => (element.scrollTop = at * (element.scrollHeight - element.clientHeight)), part);
      await reads(page.locator(".spacer .tells"), `{"n":${part === 1 ? 9999 : 5000}}`);
      most = Math.max(most, await page.locator(".spacer [role=row]").count());
    }
    assert.ok(most <= 45, `${most} rows`);
    assert.equal(await table.getAttribute("aria-rowcount"), "10001");
    await table.evaluate((element) => (element.scrollTop = 0));
    await reads(page.locator(".spacer .tells"), '{"n":0}');
    await table.focus();
    for (let n = 0; n < 40; n++) await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await reads(page.locator("pre").first(), '"n": 39');
    done(page);
  },

  async "axe finds nothing, in light, dark and narrow"() {
    await call("axe", "add", "a", { a: 1 }, { jobId: "job", attempts: 2 });
    await work("axe", { logs: ["a row"], progress: 5, error: "no" });
    await call("axe", "upsertJobScheduler", "each", { every: 3_600_000 }, {});
    const page = await open();
    const views = [
      ["#/", "axe"],
      [href("axe", "failed"), "no"],
      [href("axe", "job", "job"), "a row"],
      [href("axe", "schedulers"), "each"],
      [href("axe", "add"), "More options"],
      [href("axe", "call"), "getJobCounts"],
      [href("axe", "history"), "Jobs per second"],
      ["#/connections", "Address"],
    ];
    for (const [view, text] of views) {
      await page.goto(`${origin}/${view}`);
      await reads(page.locator("main"), text);
      assert.deepEqual(await violations(page), [], view);
      await page.emulateMedia({ colorScheme: "dark" });
      assert.deepEqual(await violations(page, ["color-contrast"]), [], `${view}, dark`);
      await page.emulateMedia({ colorScheme: "light" });
      await page.setViewportSize(NARROW);
      assert.deepEqual(
        await violations(page, ["target-size", "scrollable-region-focusable", "color-contrast"]),
        [],
        `${view}, narrow`,
      );
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 390), `${view} is wider than the screen`);
      await page.setViewportSize(WIDE);
    }
    await page.setViewportSize(NARROW);
    await page.goto(`${origin}/${href("axe", "failed")}`);
    await page.waitForFunction(() => {
      const [count, tab] = [".count", "[aria-current]"].map((each) => document.querySelector(`.tabs ${each}`));
      const { left, right } = tab.getBoundingClientRect();
      return count.textContent && left >= 0 && right <= innerWidth; // in sight, though counts have made the others wider
    });
    await page.setViewportSize(WIDE);
    await page.goto(`${origin}/${href("axe")}`);
    await button(page, "Clean").click();
    await dialog(page).waitFor();
    assert.deepEqual(await violations(page), [], "a dialog");
    await page.keyboard.press("Escape");
    done(page);
    const outside = await open("#/", null);
    await outside.getByLabel("Key").waitFor();
    assert.deepEqual(await violations(outside), [], "signing in");
    done(outside);
  },
};

const chosen = Object.entries(tests).filter(([name]) => name.includes(process.argv[3] ?? ""));
test("the console", { concurrency: AT_ONCE }, (all) => Promise.all(chosen.map(([name, run]) => all.test(name, run))));
