/**
 * Opens the page in Chromium, for tests/web/test_page.py: `node page.js CHROMIUM PROFILE ADDRESS PHOTO`, with a film (y4m) as
 * the fifth argument in place of a camera. Writes what the page shows, and what it asked for, as JSON.
 */

import {chromium} from "playwright-core";

const [executablePath, profile, address, photo, film] = process.argv.slice(2);
const flags = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
  "disable-component-update", "disable-sync", "enable-unsafe-swiftshader"];
if (film) flags.push("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", `use-file-for-fake-video-capture=${film}`);
const browser = await chromium.launchPersistentContext(profile, {
  executablePath, headless: true, args: flags.map(flag => `--${flag}`), viewport: {width: 1280, height: 800}, colorScheme: "dark",
});
const page = await browser.newPage(), requests = [], problems = [];
page.on("request", request => requests.push(request.url()));
page.on("pageerror", error => problems.push(error.message));
page.on("console", message => message.type() === "error" && problems.push(message.text()));

async function shown() {
  const text = async id => (await page.textContent(`#${id}`)).trim();
  const values = {};
  for (const id of ["status", "pitch", "yaw", "roll", "confidence"]) values[id] = await text(id);
  values.bars = await page.$$eval("#bars .bar", bars => bars.map(bar => bar.title));
  values.head = await page.isVisible("#head");
  return values;
}

async function until(pattern) {
  await page.waitForFunction(source => {
    const {className, textContent} = document.getElementById("status");
    return className || new RegExp(source).test(textContent);
  }, pattern.source, {timeout: 120_000});
  return shown();
}

const answer = {};
await page.goto(address);
await until(/^$/);
answer.isolated = await page.evaluate(() => crossOriginIsolated);
await page.context().setOffline(true);  // all that is needed has come by now
await page.setInputFiles("#photo", photo);
answer.photo = await until(/faces? ·/);
if (film) {
  await page.click("#camera");
  await page.waitForTimeout(8000);
  answer.camera = await until(/frames\/s/);
}
await browser.close();
process.stdout.write(JSON.stringify({...answer, requests, problems}));
