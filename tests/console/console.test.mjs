// Uses the console as a reader does, in Chromium, on a phone and on a desk, in both themes. Every page
// must answer without errors in the browser's log, fit its width, and pass axe's checks.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const { CHROMIUM, TRUNKLINE_BIN, TRUNKLINE_DATABASE_URL, TRUNKLINE_ENDPOINT, TRUNKLINE_HTTP_URL } = process.env;
for (const value of [CHROMIUM, TRUNKLINE_BIN, TRUNKLINE_DATABASE_URL, TRUNKLINE_ENDPOINT, TRUNKLINE_HTTP_URL]) {
  assert(value, "start this with ./run");
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const screenshots = fileURLToPath(new URL("../../target/console-screenshots/", import.meta.url));
mkdirSync(screenshots, { recursive: true });

const phone = 390;
const desk = 1440;
const topic = `console-${process.pid}-${Date.now().toString(36)}`;
const consumer = "billing";
const subscription = "resize";
/** The message that a worker of the subscription rejects. */
const rejected = 1;
const stored = 3;
/** What the message at an offset holds. The markup in it must be shown, and never be markup. */
const payload = (number) => JSON.stringify({ order: number, note: "<b>two</b> coffees" });

/** Runs the trunkline command, and fails unless it succeeds. */
async function trunkline(options, input = "") {
  const started = spawn(TRUNKLINE_BIN, ["--endpoint", TRUNKLINE_ENDPOINT, ...options], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  let said = "";
  started.stderr.on("data", (data) => { said += data; });
  started.stdin.end(input);
  const [code] = await once(started, "close");
  assert.equal(code, 0, `trunkline ${options.join(" ")}: ${said}`);
}

/** Publishes messages with the numbers from `first` on. */
async function publish(first, count, to = topic) {
  const lines = Array.from({ length: count }, (_, index) => `${payload(first + index)}\n`);
  await trunkline(["produce", to, "--producer", "web-1", "--register"], lines.join(""));
}

let browser;
before(async () => {
  await publish(0, stored);
  await trunkline(["consume", topic, "--consumer", consumer, "--register", "--until-caught-up"]);
  await trunkline(["subscription", "create", topic, subscription]);
  // The payload is the command's input: this rejects one message, and acknowledges the others.
  const reject = `grep -q '"order":${rejected},' || exit 0; echo "not a picture" >&2; exit 65`;
  await trunkline(["work", topic, "--subscription", subscription, "--until-caught-up", "--exec", reject]);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    // Chromium refuses to run as root with its sandbox.
    args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
  });
});
after(async () => {
  await browser?.close();
  await trunkline(["topic", "delete", topic]);
});

/**
 * Opens a page. When the test ends, it fails if the browser logged an error, or if a request failed
 * or was answered with an error status, apart from the statuses in `expected`.
 */
async function open(t, path, { width = desk, theme = "light", expected = [], options = {} } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: theme,
    locale: "en-GB",
    timezoneId: "Europe/Paris",
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const problems = [];
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    const status = /status of (\d+)/.exec(message.text())?.[1];
    if (!expected.includes(Number(status))) problems.push(`logged: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`thrown: ${error}`));
  page.on("response", (response) => {
    const status = response.status();
    if (status >= 400 && !expected.includes(status)) problems.push(`${status}: ${response.url()}`);
  });
  page.on("requestfailed", (request) => {
    const reason = request.failure()?.errorText;
    // A page that is left, or a tail that is paused, gives up what it was waiting for.
    if (reason !== "net::ERR_ABORTED") problems.push(`${reason}: ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(problems, []);
  });
  const response = await page.goto(new URL(path, TRUNKLINE_HTTP_URL).href, { waitUntil: "load" });
  return { page, response, problems };
}

/** Fails on what axe calls serious or critical. */
async function checkAccess(page) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const result = await axe.run(document, { resultTypes: ["violations"] });
    return result.violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ target }) => target.join(" ")) }));
  });
  assert.deepEqual(violations, []);
}

async function checkFits(page) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert(content <= window, `the page is ${content} pixels wide in a window of ${window}`);
}

async function screenshot(page, name) {
  await page.screenshot({ path: `${screenshots}${name}.png`, fullPage: true });
}

/** Waits until a function of the page returns something true. */
async function eventually(page, condition, argument) {
  await page.waitForFunction(condition, argument, { timeout: 15_000 });
}

/** The offsets in the table, from top to bottom. */
const offsets = (page, table) =>
  page.locator(`${table} tbody.message`).evaluateAll((rows) => rows.map((row) => Number(row.id.slice(2))));

const pages = [
  ["overview", "/"],
  ["topics", "/topics"],
  ["topics-sorted", "/topics?q=&sort=-head&page=1"],
  ["topics-none", "/topics?q=there-is-no-such-topic"],
  ["topic-new", "/topics/new"],
  ["topic", `/topics/${topic}`],
  ["tail", `/topics/${topic}/tail`],
  ["consumers", `/topics/${topic}/consumers`],
  ["subscriptions", `/topics/${topic}/subscriptions`],
  ["subscription", `/topics/${topic}/subscriptions/${subscription}`],
  ["producers", `/topics/${topic}/producers`],
  ["settings", `/topics/${topic}/settings`],
  ["publish", `/topics/${topic}/publish`],
  ["consumer", `/topics/${topic}/consumers/${consumer}`],
  ["message", `/topics/${topic}/messages/0`],
  ["login", "/login"],
];
for (const [name, path] of pages) {
  for (const width of [phone, desk]) {
    for (const theme of ["light", "dark"]) {
      test(`${name} at ${width} pixels, ${theme}`, async (t) => {
        const { page, response } = await open(t, path, { width, theme });
        assert.equal(response.status(), 200);
        assert.equal(await page.locator("h1").count(), 1);
        assert.equal(await page.locator("main").count(), 1);
        await checkFits(page);
        await checkAccess(page);
        await screenshot(page, `${name}-${width}-${theme}`);
      });
    }
  }
}

test("pages allow no scripts or styles but the broker's own", async (t) => {
  const { response } = await open(t, "/");
  const policy = response.headers()["content-security-policy"];
  for (const rule of ["default-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"]) {
    assert(policy?.includes(rule), `${rule} is not in ${policy}`);
  }
  assert(!policy.includes("unsafe-"), policy);
});

test("a topic that does not exist has a page that says so", async (t) => {
  const { page, response } = await open(t, "/topics/there-is-no-such-topic", { expected: [404] });
  assert.equal(response.status(), 404);
  assert.match(await page.locator("h1").innerText(), /there-is-no-such-topic/);
  await checkAccess(page);
  await screenshot(page, "error-404");
});

test("the topics' filter shows those whose name contains it", async (t) => {
  const { page } = await open(t, "/topics");
  const names = page.locator("#topics-live tbody th a");
  await page.fill("#topic-filter", topic.slice(-6));
  await eventually(page, (only) => {
    const links = [...document.querySelectorAll("#topics-live tbody th a")];
    return links.length === 1 && links[0].textContent === only;
  }, topic);
  await page.waitForURL(/[?&]q=/);
  // The sections that are polled keep the filter.
  await page.waitForResponse((response) => response.url().includes(`q=${topic.slice(-6)}`));
  assert.deepEqual(await names.allInnerTexts(), [topic]);
  await page.reload();
  assert.deepEqual(await names.allInnerTexts(), [topic]);

  await page.fill("#topic-filter", "there-is-no-such-topic");
  await page.waitForFunction(() => !document.querySelector("#topics-live table"));
  assert.match(await page.locator("#topics-live").innerText(), /there-is-no-such-topic/);
});

test("a column's heading sorts the topics, and sorts them the other way again", async (t) => {
  const { page } = await open(t, "/topics");
  const heading = page.getByRole("columnheader", { name: "Head" });
  const sort = async () => {
    await heading.getByRole("link").click();
    await page.locator("th[aria-sort]", { hasText: "Head" }).waitFor();
    return heading.getAttribute("aria-sort");
  };
  const first = await sort();
  assert.match(first, /^(ascending|descending)$/);
  await page.locator(`th[aria-sort="${first}"] a`).click();
  const turned = first === "ascending" ? "descending" : "ascending";
  await page.locator(`th[aria-sort="${turned}"]`, { hasText: "Head" }).waitFor();
});

test("/ goes to the search, and Escape leaves it", async (t) => {
  for (const path of ["/topics", `/topics/${topic}`, `/topics/${topic}/tail`]) {
    const { page } = await open(t, path);
    const search = page.locator("[data-search]");
    const focused = () => search.evaluate((element) => element === document.activeElement);
    assert.equal(await focused(), false, path);
    await page.keyboard.press("/");
    assert.equal(await focused(), true, path);
    assert.equal(await search.inputValue(), "", path);
    // In the field, it is a character.
    await page.keyboard.type("a/b");
    assert.equal(await search.inputValue(), "a/b", path);
    await page.keyboard.press("Escape");
    assert.equal(await focused(), false, path);
  }
});

test("a message's details open below it, as JSON and as hex", async (t) => {
  const { page } = await open(t, `/topics/${topic}?from=earliest&n=50`);
  const link = page.locator("#m-1 a[data-expand]");
  const detail = page.locator("#m-1-detail .message-detail");
  assert.equal(await link.getAttribute("aria-expanded"), "false");
  await link.click();
  await detail.waitFor();
  assert.equal(await link.getAttribute("aria-expanded"), "true");

  const show = async (view) => {
    await detail.getByRole("link", { name: view, exact: true }).click();
    const current = detail.locator(".switch [aria-current]");
    await current.filter({ hasText: view }).waitFor();
    return detail.locator("pre.payload").innerText();
  };
  assert.deepEqual(JSON.parse(await show("JSON")), JSON.parse(payload(1)));
  assert.match(await show("JSON"), /^ {2}"order": 1,$/m);
  assert.match(await show("Hex"), /^00000000 {2}7b 22 6f 72 64 65 72 22 /);
  assert.equal(await show("Text"), payload(1));
  assert.equal(await detail.locator("b").count(), 0);
  await checkAccess(page);
  await screenshot(page, "message-expanded");

  const raw = await page.request.get(new URL(await detail.locator("a[download]").getAttribute("href"), page.url()).href);
  assert.equal(await raw.text(), payload(1));

  await link.click();
  assert.equal(await detail.isVisible(), false);
});

test("a message's details also have a page of their own", async (t) => {
  const { page } = await open(t, `/topics/${topic}/messages/2?as=json`);
  assert.deepEqual(JSON.parse(await page.locator("pre.payload").innerText()), JSON.parse(payload(2)));
});

test("what is loaded can be searched", async (t) => {
  const { page } = await open(t, `/topics/${topic}?from=earliest&n=50`);
  const shown = page.locator("#messages tbody.message:visible");
  assert.equal(await shown.count(), stored);
  await page.fill("[data-filter-rows]", '"ORDER":2');
  assert.equal(await shown.count(), 1);
  assert.match(await page.locator("[data-filter-count]").innerText(), new RegExp(`^1 of ${stored} `));
  await page.fill("[data-filter-rows]", "");
  assert.equal(await shown.count(), stored);
});

test("times are in the reader's zone, with UTC to be seen on hover", async (t) => {
  const { page } = await open(t, `/topics/${topic}?from=earliest&n=50`);
  const time = page.locator("#m-0 time");
  const published = await time.getAttribute("datetime");
  assert.match(published, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
  const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", hourCycle: "h23", timeZone: "Europe/Paris" });
  assert.equal((await time.innerText()).slice(11, 13), hour.format(new Date(published)));
  assert((await time.getAttribute("title")).startsWith(published.replace("T", " ").replace("Z", " UTC")));
});

test("the tail shows messages as they come, pauses, and resumes where it stood", async (t) => {
  const tailed = `${topic}-tail`;
  await publish(0, 1, tailed);
  t.after(() => trunkline(["topic", "delete", tailed]));
  const { page } = await open(t, `/topics/${tailed}/tail`);
  const state = page.locator("[data-tail-state]");
  const inState = (wanted) =>
    eventually(page, (name) => document.querySelector("[data-tail-state]").dataset.state === name, wanted);
  const shows = async (wanted) => {
    await eventually(page, (count) => document.querySelectorAll("#tail-rows tbody.message").length >= count, wanted.length);
    assert.deepEqual(await offsets(page, "#tail-rows"), wanted);
  };

  await inState("live");
  assert.equal(await state.innerText(), "live");
  await publish(1, 3, tailed);
  await shows([3, 2, 1]);
  await publish(4, 2, tailed);
  await shows([5, 4, 3, 2, 1]);
  assert.equal(await page.locator("[data-tail-count]").innerText(), "5");

  const toggle = page.locator("[data-tail-toggle]");
  await toggle.click();
  await inState("paused");
  await publish(6, 3, tailed);
  await page.waitForTimeout(500);
  assert.deepEqual(await offsets(page, "#tail-rows"), [5, 4, 3, 2, 1]);
  assert.equal(await toggle.innerText(), "Resume");

  await toggle.click();
  await inState("live");
  await shows([8, 7, 6, 5, 4, 3, 2, 1]);
  await checkAccess(page);
  await screenshot(page, "tail-live");

  await publish(9, 300, tailed);
  await eventually(page, () => document.querySelector("#tail-rows tbody.message")?.id === "m-308");
  assert.equal((await offsets(page, "#tail-rows")).length, 200);
  assert.equal(await page.locator("[data-tail-count]").innerText(), "308");
});

test("a tail that loses the broker says so, and continues where it stood", async (t) => {
  const tailed = `${topic}-lost`;
  await publish(0, 1, tailed);
  t.after(() => trunkline(["topic", "delete", tailed]));
  const { page, problems } = await open(t, `/topics/${tailed}/tail`);
  const inState = (wanted) =>
    eventually(page, (name) => document.querySelector("[data-tail-state]").dataset.state === name, wanted);
  await inState("live");
  await publish(1, 1, tailed);
  await page.locator("#m-1").waitFor();

  // Pausing and resuming makes a new request, which is refused as if nobody listened.
  const events = /\/tail\/events/;
  await page.route(events, (route) => route.abort("connectionrefused"));
  await page.locator("[data-tail-toggle]").click();
  await page.locator("[data-tail-toggle]").click();
  await inState("connecting");
  await eventually(page, () => /no connection/.test(document.querySelector("[data-tail-state]").textContent));
  await publish(2, 2, tailed);
  await page.unroute(events);
  await page.locator("#m-3").waitFor();
  await inState("live");
  assert.deepEqual(await offsets(page, "#tail-rows"), [3, 2, 1]);
  problems.splice(0, problems.length, ...problems.filter((problem) => !problem.includes("ERR_CONNECTION_REFUSED")));
});

test("a tail shows what the broker has to say, and does not go on after its end", async (t) => {
  const { page } = await open(t, "/");
  let asked = 0;
  await page.route(/\/tail\/events/, (route) => {
    asked += 1;
    const events = ["ready\ndata: 7", "notice\ndata: 12 messages are left out", "end\ndata: The topic was deleted"];
    const body = events.map((event) => `event: ${event}\n\n`).join("");
    return route.fulfill({ status: 200, contentType: "text/event-stream", body });
  });
  await page.goto(new URL(`/topics/${topic}/tail`, TRUNKLINE_HTTP_URL).href);
  await page.locator('[data-tail-state][data-state="ended"]').waitFor();
  assert.equal(await page.locator("[data-tail-notice]").innerText(), "The topic was deleted");
  assert.equal(await page.locator("[data-tail-toggle]").isDisabled(), true);
  await page.waitForTimeout(1500);
  assert.equal(asked, 1);
});

test("a command can be copied", async (t) => {
  const permissions = ["clipboard-read", "clipboard-write"];
  const { page } = await open(t, `/topics/${topic}/tail`, { options: { permissions } });
  const button = page.locator("[data-tail-empty] [data-copy]").first();
  await button.click();
  await eventually(page, () => document.querySelector("[data-tail-empty] [data-copy]").textContent === "Copied");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, await button.getAttribute("data-copy"));
  assert.match(copied, /^trunkline produce /);
});

test("before a position is moved, the message that comes next is shown", async (t) => {
  const { page } = await open(t, `/topics/${topic}/consumers/${consumer}`);
  await page.selectOption("#seek-form select[name=to]", "earliest");
  await eventually(page, (text) => document.querySelector("#seek-preview").textContent.includes(text), payload(0));
  assert.equal(await page.locator("#seek-preview b").count(), 0);
  await checkAccess(page);
});

test("parked messages are discarded once that is confirmed", async (t) => {
  const { page } = await open(t, `/topics/${topic}/subscriptions/${subscription}`);
  const box = page.getByLabel(`Message ${rejected}`);
  await box.check();
  await page.getByRole("button", { name: "Replay chosen" }).click();
  await page.getByRole("heading", { name: "Replay messages?" }).waitFor();
  await checkAccess(page);
  await checkFits(page);
  await screenshot(page, "subscription-replay");
  await page.getByRole("link", { name: "Cancel" }).click();
  await box.check();
  await page.getByRole("button", { name: "Discard chosen" }).click();
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  await page.getByText("There are none.").waitFor();
  assert.equal(await box.count(), 0);
});

test("a topic's head follows what is published", async (t) => {
  const followed = `${topic}-head`;
  await publish(0, 1, followed);
  t.after(() => trunkline(["topic", "delete", followed]));
  const { page } = await open(t, `/topics/${followed}`);
  await publish(1, 41, followed);
  await eventually(page, () => {
    const facts = [...document.querySelectorAll("#topic-live dt")];
    return facts.find((fact) => fact.textContent === "Head")?.nextElementSibling.textContent.trim() === "42";
  });
});

test("a poll without an answer is told, until there is one", async (t) => {
  const { page, problems } = await open(t, "/", { expected: [503] });
  const banner = page.locator("#banner");
  assert.equal(await banner.isVisible(), false);
  const polled = (request) => request.headers()["hx-request"] === "true";
  for (const fail of [
    (route) => route.abort("connectionrefused"),
    (route) => route.fulfill({ status: 503, body: "" }),
  ]) {
    const handler = (route) => (polled(route.request()) ? fail(route) : route.fallback());
    await page.route("**/*", handler);
    await banner.waitFor({ state: "visible" });
    assert.equal(await banner.innerText(), "The broker does not answer; retrying");
    await page.unroute("**/*", handler);
    await banner.waitFor({ state: "hidden" });
  }
  // Both the failed request and htmx's own line about it are what this test is about.
  const about = /ERR_CONNECTION_REFUSED|htmx:(sendError|responseError|afterRequest)|Response Status Error Code 503/;
  problems.splice(0, problems.length, ...problems.filter((problem) => !about.test(problem)));
});

test("a poll keeps the focus where it is", async (t) => {
  const { page } = await open(t, "/topics");
  const link = page.locator("#topics-live thead a").first();
  await link.focus();
  const href = await link.getAttribute("href");
  for (let polls = 0; polls < 2; polls += 1) {
    await page.waitForResponse((response) => response.request().headers()["hx-request"] === "true");
  }
  await page.waitForTimeout(200);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), href);
});

test("a topic can be deleted only after its name is typed", async (t) => {
  const { page } = await open(t, `/topics/${topic}/settings`);
  const button = page.getByRole("button", { name: "Delete", exact: true });
  assert.equal(await button.isDisabled(), true);
  await page.fill("#delete-confirm", topic.slice(0, -1));
  assert.equal(await button.isDisabled(), true);
  await page.fill("#delete-confirm", topic);
  assert.equal(await button.isDisabled(), false);
});

test("a topic is made, published to, read again from elsewhere, trimmed and deleted", async (t) => {
  const made = `${topic}-made`;
  const { page } = await open(t, "/topics/new", { expected: [400] });
  const press = (name) => page.getByRole("button", { name, exact: true }).click();
  const at = (path) => page.waitForURL(new URL(path, TRUNKLINE_HTTP_URL).href);

  // What is wrong is said at its field, and the rest of the form is kept.
  await page.fill("[name=topic]", made);
  await page.fill("[name=retention_age]", "a while");
  await press("Create");
  const wrong = page.locator("[name=retention_age][aria-invalid=true]");
  await wrong.waitFor();
  const about = await wrong.getAttribute("aria-describedby");
  assert.match(await page.locator(`#${about.split(" ")[0]}`).innerText(), /such as 7d/);
  assert.equal(await page.inputValue("[name=topic]"), made);
  await checkAccess(page);
  await page.fill("[name=retention_age]", "7d");
  await press("Create");
  await at(`/topics/${made}`);

  for (const [index, text] of ["first", "second", "third"].entries()) {
    await page.goto(new URL(`/topics/${made}/publish`, TRUNKLINE_HTTP_URL).href);
    await page.fill("[name=payload]", text);
    await press("Publish");
    assert.match(await page.locator("p.notice.is-ok").innerText(), new RegExp(`offset ${index}\\b`));
  }

  await trunkline(["consume", made, "--consumer", consumer, "--register", "--until-caught-up"]);
  await page.goto(new URL(`/topics/${made}/consumers/${consumer}`, TRUNKLINE_HTTP_URL).href);
  const positionIs = (wanted) => eventually(page, (position) => {
    const facts = [...document.querySelectorAll("#consumer-live dt")];
    return facts.find((fact) => fact.textContent === "Position")?.nextElementSibling.textContent.trim() === position;
  }, wanted);
  await positionIs("3");
  await page.selectOption("#seek-form select[name=to]", "by");
  await page.fill("#seek-form [name=by]", "-2");
  await eventually(page, () => document.querySelector("#seek-preview").textContent.includes("second"));
  await press("Seek");
  await positionIs("1");

  await page.goto(new URL(`/topics/${made}/settings`, TRUNKLINE_HTTP_URL).href);
  assert.equal(await page.inputValue("[name=retention_age]"), "7days");
  const notice = page.locator("p.notice.is-ok");
  await page.fill("[name=description]", "Orders of the shop");
  await press("Save");
  await notice.filter({ hasText: "stored as shown" }).waitFor();
  assert.equal(await page.inputValue("[name=description]"), "Orders of the shop");
  await page.fill("[name=before]", "2");
  await page.fill("#trim-confirm", made);
  await press("Trim");
  await notice.filter({ hasText: "starts at offset 2" }).waitFor();
  await page.goto(new URL(`/topics/${made}?from=earliest&n=50`, TRUNKLINE_HTTP_URL).href);
  assert.deepEqual(await offsets(page, "#messages"), [2]);

  await page.goto(new URL(`/topics/${made}/settings`, TRUNKLINE_HTTP_URL).href);
  await page.fill("#delete-confirm", made);
  await press("Delete");
  await at("/topics");
  const gone = await page.request.get(new URL(`/topics/${made}`, TRUNKLINE_HTTP_URL).href);
  assert.equal(gone.status(), 404);
});

/** A way to the database of the tests that can be closed, and opened again. */
async function passage() {
  const url = new URL(TRUNKLINE_DATABASE_URL.replace("@/", "@localhost/"));
  const folder = mkdtempSync(join(tmpdir(), "trunkline-console-"));
  const name = ".s.PGSQL.5432";
  const inside = join(url.searchParams.get("host"), name);
  const pairs = new Set();
  let closed = false;
  const server = createServer((near) => {
    if (closed) {
      near.destroy();
      return;
    }
    const far = connect(inside);
    const pair = [near, far];
    pairs.add(pair);
    for (const [one, other] of [[near, far], [far, near]]) {
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        other.destroy();
        pairs.delete(pair);
      });
    }
  });
  server.listen(join(folder, name));
  await once(server, "listening");
  const cut = () => {
    closed = true;
    pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
  };
  return {
    url: TRUNKLINE_DATABASE_URL.replace(url.searchParams.get("host"), folder),
    cut,
    restore() { closed = false; },
    end() {
      cut();
      server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Starts one more broker for a database, and returns where its console is. */
async function serve(t, database) {
  const options = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--database-url", database];
  const broker = spawn(TRUNKLINE_BIN, ["serve", "--log", "error", ...options], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = once(broker, "close");
  t.after(async () => {
    broker.kill("SIGTERM");
    await ended;
  });
  for await (const line of createInterface({ input: broker.stdout })) {
    const url = /^console on (.*)$/.exec(line)?.[1];
    if (url) return url;
  }
  throw new Error("the broker ended before it was ready");
}

test("a database that goes away and comes back is shown by open pages", async (t) => {
  const followed = `${topic}-away`;
  await publish(0, 1, followed);
  t.after(() => trunkline(["topic", "delete", followed]));
  const database = await passage();
  t.after(() => database.end());
  const home = await serve(t, database.url);
  const { page, problems } = await open(t, home, { expected: [503] });
  const other = async (path) => {
    const opened = await page.context().newPage();
    const response = await opened.goto(new URL(path, home).href);
    return { opened, response };
  };
  const { opened: topics } = await other("/topics");
  const { opened: tail } = await other(`/topics/${followed}/tail`);
  const tailIs = (wanted) =>
    eventually(tail, (name) => document.querySelector("[data-tail-state]").dataset.state === name, wanted);
  await tailIs("live");
  assert.equal(await page.getByText("The database does not answer").count(), 0);

  database.cut();
  await page.getByText("The database does not answer").first().waitFor();
  await topics.getByText("The database does not answer").first().waitFor();
  await tail.locator("[data-tail-notice]", { hasText: "The database does not answer" }).waitFor();
  await checkAccess(page);
  await screenshot(page, "database-away");
  const { opened, response } = await other(`/topics/${followed}`);
  assert.equal(response.status(), 503);
  assert.match(await opened.locator("h1").innerText(), /The database does not answer/);
  await checkAccess(opened);

  database.restore();
  await page.getByText("The database does not answer").first().waitFor({ state: "detached" });
  await topics.locator("#topics-live tbody a", { hasText: followed }).waitFor();
  await publish(1, 1, followed);
  await tail.locator("#m-1").waitFor();
  await tailIs("live");
  await opened.reload();
  assert.equal(await opened.locator("h1").innerText(), followed);
  // The polls that were answered with an error are what this test is about.
  problems.splice(0, problems.length, ...problems.filter((problem) => !/htmx:responseError|Response Status Error Code 503/.test(problem)));
});

test("the theme can be chosen, and is kept", async (t) => {
  const { page } = await open(t, "/", { theme: "light" });
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  const toggle = page.locator("[data-theme-toggle]");
  await toggle.click();
  await toggle.click();
  assert.match(await toggle.innerText(), /dark/);
  const dark = await background();
  assert.notEqual(dark, light);
  await page.reload();
  assert.equal(await background(), dark);
  await toggle.click();
  assert.equal(await background(), light);
});

test("the keyboard reaches the content first", async (t) => {
  const { page } = await open(t, "/topics");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});
