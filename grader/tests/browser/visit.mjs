// Visits pages from file:// in Debian's Chromium and tells, as JSON, what a reader would meet there.
// Usage: node visit.mjs CHROMIUM PAGE...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(import.meta.url);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [executablePath, ...pages] = process.argv.slice(2);
// As root, and inside most containers, Chromium has no sandbox of its own.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

// A page in a context of its own; `said` takes whatever it should not have done.
async function open(url, said, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { said.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (request.url().split("#")[0] !== url.split("#")[0]) said.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

const openAll = (page) => page.evaluate(() => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});

async function violations(url, colorScheme, said) {
  const page = await open(url, said, { colorScheme });
  await openAll(page);
  await page.evaluate(axe);
  // Without preload: axe would fetch the style sheets, and there are none to fetch.
  const found = await page.evaluate(() => axe.run(document, { preload: false }));
  await page.context().close();
  return found.violations.flatMap((each) =>
    each.nodes.map((node) => `${each.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`));
}

async function narrow(url, said) {
  const page = await open(url, said, { viewport: { width: 360, height: 740 } });
  await openAll(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.context().close();
  return width;
}

async function withoutScript(url, said) {
  const page = await open(url, said, { javaScriptEnabled: false });
  const text = await page.locator("body").innerText();
  const first = page.locator(".check > summary").first();
  const before = await page.locator(".check[open]").count();
  const wasOpen = (await first.locator("..").getAttribute("open")) !== null;
  await first.click();
  const after = await page.locator(".check[open]").count();
  const result = {
    text,
    opens: after - before === (wasOpen ? -1 : 1),
    tools: await page.locator(".tools").isVisible(),
  };
  await page.context().close();
  return result;
}

async function keys(url, said) {
  const page = await open(url, said);
  const focused = () => page.evaluate(() => document.activeElement.parentElement?.id ?? "");
  const result = {};
  await page.keyboard.press("j");
  result.first = await focused();
  await page.keyboard.press("j");
  result.second = await focused();
  await page.keyboard.press("k");
  result.back = await focused();
  await page.locator("#keys").click();
  await page.keyboard.press("j");
  result.off = await focused();
  const packets = page.locator(".check[open] svg [tabindex='0']");
  if (await packets.count() > 1) {
    await page.locator("#keys").click();
    await packets.first().focus();
    await page.keyboard.press("j");
    result.packet = await packets.nth(1).evaluate((each) => each === document.activeElement);
  }
  await page.context().close();
  return result;
}

async function theme(url, said) {
  const page = await open(url, said, { colorScheme: "light" });
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const colours = [await colour()];
  for (let times = 0; times < 2; times += 1) {
    await page.locator("#theme").click();
    colours.push(await colour());
  }
  const stored = await page.evaluate(() => localStorage.length + sessionStorage.length);
  await page.context().close();
  return { colours, stored };
}

async function linked(url, said) {
  const page = await open(url, said);
  const id = await page.locator(".check:not([open])").last().getAttribute("id").catch(() => null);
  await page.context().close();
  if (id === null) return true;
  const again = await open(`${url}#${id}`, said);
  const opened = await again.locator(`[id="${id}"]`).evaluate((each) => each.open);
  await again.context().close();
  return opened;
}

// What is said here is said on purpose: the policy refuses each deed, and tells which rule did.
async function refused(url) {
  const page = await open(url, []);
  const result = await page.evaluate(async () => {
    const rules = [];
    const all = new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => {
        if (rules.push(event.effectiveDirective) === 3) resolve();
      });
      setTimeout(resolve, 10000);
    });
    const script = document.createElement("script");
    script.textContent = "window.injected = true";
    document.body.append(script);
    const element = document.createElement("button");
    element.setAttribute("onclick", "window.injected = true");
    document.body.append(element);
    element.click();
    await fetch("http://127.0.0.1:9/").catch(() => {});
    await all;
    return { injected: "injected" in window, rules: rules.sort() };
  });
  await page.context().close();
  return result;
}

async function printed(url, said) {
  const page = await open(url, said);
  await page.emulateMedia({ media: "print" });
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  const result = {
    tools: await page.locator(".tools").isVisible(),
    closed: await page.locator(".check.fail:not([open])").count(),
  };
  await page.context().close();
  return result;
}

const results = [];
for (const path of pages) {
  const url = pathToFileURL(path).href;
  const said = [];
  results.push({
    light: await violations(url, "light", said),
    dark: await violations(url, "dark", said),
    width: await narrow(url, said),
    plain: await withoutScript(url, said),
    keys: await keys(url, said),
    theme: await theme(url, said),
    linked: await linked(url, said),
    printed: await printed(url, said),
    refused: await refused(url),
    said,
  });
}
await browser.close();
process.stdout.write(JSON.stringify(results));
