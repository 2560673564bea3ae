/**
 * What canthus.js says, for tests/web/test_canthus_js.py: reads {models, jobs} as JSON from standard input and writes a list of
 * answers. A job is a picture {pixels (a file of RGBA bytes), width, height} with `crop` or `zoom` for its bytes (base64), with
 * `seen` for what the detector sees at that zoom, with `found`, what a detector found, with `boxes` or with nothing for its
 * faces, or {frames}, a list of pictures, for the numbers of the faces in each.
 */

import {readFile} from "node:fs/promises";
import {load, ort} from "../canthus.js";
import {Follower} from "../follow.js";
import {asRgb, cut, reduced} from "../pixels.js";

ort.env.wasm.numThreads = 1;  // more would wait in loops on a busy machine

async function read(path) {
  const {buffer, byteOffset, byteLength} = await readFile(path);
  return buffer.slice(byteOffset, byteOffset + byteLength);
}

async function picture({pixels, width, height}) {
  return {width, height, data: new Uint8ClampedArray(await read(pixels))};
}

async function followed(canthus, frames) {
  const follower = new Follower(canthus), numbers = [];
  for (const frame of frames) numbers.push((await follower.step(await picture(frame))).map(({id}) => id));
  return numbers;
}

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const {models, jobs} = JSON.parse(Buffer.concat(chunks)), canthus = models && await load(models, {read}), answers = [];
for (const job of jobs) {
  const base64 = bytes => Buffer.from(bytes).toString("base64");
  if (job.frames) answers.push(await followed(canthus, job.frames));
  else if (job.crop) answers.push(base64(cut(asRgb(await picture(job)), job.crop)));
  else if (job.seen) answers.push(await canthus.detector.detectAt(asRgb(await picture(job)), job.seen));
  else if (job.found) answers.push(await canthus.aligned(asRgb(await picture(job)), job.found));
  else if (job.zoom) answers.push(base64(reduced(asRgb(await picture(job)), job.zoom).data));
  else answers.push(await canthus.predict(await picture(job), job.boxes));
}
process.stdout.write(JSON.stringify(answers));
