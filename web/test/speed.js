/**
 * Times of canthus.js in Chromium on pictures with one face, on one thread, after `make web`: milliseconds of
 * the processor, which other programs do not change much, and of the clock, for each run.
 *
 *     npm run speed -- CHROMIUM
 */

import {readFile, mkdtemp, rm} from "node:fs/promises";
import {tmpdir} from "node:os";
import {extname, join} from "node:path";
import {chromium} from "playwright-core";

const dist = new URL("../dist/", import.meta.url), kinds = {".html": "text/html", ".css": "text/css", ".wasm": "application/wasm"};
const profile = await mkdtemp(join(tmpdir(), "canthus-speed-"));
const flags = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
  "disable-component-update", "disable-sync"];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.argv[2] ?? "/usr/bin/chromium", headless: true, args: flags.map(flag => `--${flag}`),
});
const page = await browser.newPage();
await page.route("http://localhost/**", async route => {  // the files of dist, without a server
  const name = new URL(route.request().url()).pathname.slice(1) || "blank.html";
  const body = name === "blank.html" ? "<!doctype html>" : await readFile(new URL(name, dist));
  await route.fulfill({body, contentType: kinds[extname(name)] ?? (/js$/.test(name) ? "text/javascript" : "application/octet-stream")});
});
await page.goto("http://localhost/");
await page.evaluate(async () => {
  const {load} = await import("/canthus.js"), {Follower} = await import("/follow.js");
  const canthus = await load("/models/"), photo = await createImageBitmap(await (await fetch("/astronaut.jpg")).blob());
  const picture = (width, height) => {
    const pen = new OffscreenCanvas(width, height).getContext("2d"), side = Math.min(width, height);
    pen.drawImage(photo, (width - side) / 2, 0, side, side);
    return pen.getImageData(0, 0, width, height);
  };
  const film = picture(1280, 720), small = picture(512, 512), large = picture(1600, 1200), follower = new Follower(canthus);
  globalThis.jobs = {
    film: () => follower.step(film),
    small: () => canthus.predict(small),
    large: () => canthus.predict(large),
  };
});
const session = await page.context().newCDPSession(page);
await session.send("Performance.enable");

/** Seconds of the processor that the page's thread has taken. */
async function processor() {
  const {metrics} = await session.send("Performance.getMetrics");
  return metrics.find(({name}) => name === "ThreadTime").value;
}

async function time(what, job, runs) {
  const run = count => page.evaluate(async ([name, times]) => {
    const began = performance.now();
    for (let k = 0; k < times; k++) await globalThis.jobs[name]();
    return (performance.now() - began) / times;
  }, [job, count]);
  await run(Math.ceil(runs / 2));
  const before = await processor(), clock = await run(runs), used = 1000 * (await processor() - before) / runs;
  console.log(`${what}: ${used.toFixed(0)} ms of the processor, ${clock.toFixed(0)} of the clock`);
}

await time("a frame of 1280 x 720 with a face that is followed", "film", 48);
await time("a photo of 512 x 512", "small", 12);
await time("a photo of 1600 x 1200", "large", 4);
await browser.close();
await rm(profile, {recursive: true, force: true});
