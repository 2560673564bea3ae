/**
 * canthus-js: 3D face landmarks, head pose and expressions in the browser, by the networks of the Python package canthus and
 * with its answers. Nothing is sent anywhere: `load` reads two folders of weights, and everything else happens here.
 *
 *     import {load} from "./canthus.js";
 *     const canthus = await load("models/");
 *     const faces = await canthus.predict(imageData);        // ImageData, ImageBitmap, <canvas>, <img>, <video>
 *
 * A face has the keys of a face in canthus's JSON (faces.schema.json): box, detection_score, landmarks, sigma, score, visible,
 * pose, expression, expression_sigma; pixels count from 0, and an integer is the centre of a pixel.
 */

import * as ort from "onnxruntime-web";
import {FaceDetector} from "./detect.js";
import {EXPRESSIONS} from "./expressions.js";
import {
  anglesOf, cropAround, cropAroundPoints, fromCrop, nearestRotation, overlap, sizeOf, tightBox, turned,
} from "./geometry.js";
import {asRgb, cut} from "./pixels.js";

export {EXPRESSIONS, ort};

const LANDMARKS = 68;
const MAX_BOX = 10;  // longest side of a box that is taken, in longer sides of the picture
const SCORE_RADIUS = 0.05;  // of `score`, in face sizes
const TURN_SCORE = 0.4;  // mean score of a detected face under which its crop is turned
const TURN_GAIN = 1.5;  // times as sure has a turned answer to be
const HOPE = 0.4;  // share of the score that its detector wants of a frontal face under which one is given up early
const REFINEMENTS = 2;  // at most: a box twice as large as the face takes two
const REFINE_ROLL = 15 * Math.PI / 180, REFINE_SHIFT = 0.06, REFINE_SCALE = 0.1;
export const SAME_FACE = 0.5;  // intersection over union above which the landmarks of two detections are of one face
const MIN_UP = 0.3;  // heads whose upward axis is shorter in the image plane have no upright

/**
 * The aligner `aligner/` and the detector `detector/` of a folder, each a card.json and the networks (.onnx) it lists.
 *
 * read: what gives the bytes (ArrayBuffer) of a file of the folder, by its address; `fetch` does unless told otherwise.
 * Throws an `Error` for a file that is missing or is not the one that its card lists, and for weights that need more than
 * a network.
 */
export async function load(folder, {read = fetched} = {}) {
  const base = String(folder).replace(/\/?$/, "/");
  const [aligner, detector] = await Promise.all(["aligner", "detector"].map(name => opened(`${base}${name}/`, read)));
  const {card} = aligner;
  if (card.completion || card.start) throw new Error(`the weights '${card.name}' need more than their network`);
  return new Canthus(card, aligner.sessions["model.onnx"], new FaceDetector(ort, detector.sessions));
}

async function opened(folder, read) {
  const card = JSON.parse(new TextDecoder().decode(await read(`${folder}card.json`)));
  const names = Object.keys(card.files).filter(name => name.endsWith(".onnx"));
  const sessions = await Promise.all(names.map(async name => {
    const network = await read(folder + name);
    if (globalThis.crypto?.subtle) {  // pages that came by plain HTTP have none
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", network));
      const hex = Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
      if (hex !== card.files[name]) throw new Error(`'${folder}${name}' is not the network that its card lists`);
    }
    return [name, await ort.InferenceSession.create(new Uint8Array(network))];
  }));
  return {card, sessions: Object.fromEntries(sessions)};
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`no file at '${address}' (${answer.status})`);
  return answer.arrayBuffer();
}

/** The RGB bytes of whatever a browser shows, or of ImageData. */
export function pixelsOf(source) {
  if (source.data && source.width) return asRgb(source);
  const width = source.videoWidth ?? source.naturalWidth ?? source.width;
  const height = source.videoHeight ?? source.naturalHeight ?? source.height;
  const canvas = typeof OffscreenCanvas === "undefined" ? document.createElement("canvas") : new OffscreenCanvas(1, 1);
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.drawImage(source, 0, 0);
  return asRgb(pen.getImageData(0, 0, width, height));
}

/** Finds and aligns faces; made by `load`. One picture at a time: wait for an answer before the next call. */
export class Canthus {
  constructor(card, session, detector) {
    this.card = card;
    this.session = session;
    this.detector = detector;
  }

  /**
   * The faces of a picture, by falling detection score. With `boxes`, tight ones [x0, y0, x1, y1] around the landmarks of
   * upright faces, nothing is detected and there is one face a box, in that order.
   */
  async predict(source, boxes = null) {
    const image = pixelsOf(source);
    if (!boxes) return this.aligned(image, await this.detector.detect(image));
    for (const box of boxes) {
      if (box.length !== 4 || !box.every(Number.isFinite) || box[2] <= box[0] || box[3] <= box[1]) {
        throw new RangeError(`got the box ${box}, want x0 < x1 and y0 < y1, in pixels`);
      }
      if (Math.max(box[2] - box[0], box[3] - box[1]) > MAX_BOX * Math.max(image.width, image.height)) {
        throw new RangeError(`got the box ${box}, want at most ${MAX_BOX} times the size of the ${image.width} x ${image.height} px picture`);
      }
      if (box[2] <= -0.5 || box[3] <= -0.5 || box[0] >= image.width - 0.5 || box[1] >= image.height - 0.5) {
        throw new RangeError(`got the box ${box}, want one that overlaps the ${image.width} x ${image.height} px picture`);
      }
    }
    const crops = boxes.map(box => cropAround(box, this.card.crop_scale, this.card.crop_size));
    return (await this.onCrops(image, crops)).map(({face}) => face);
  }

  /** The faces that a detector found in RGB bytes: those that lie otherwise than it said are aligned again. */
  async aligned(image, found) {
    const {crop_scale: scale, crop_size: size} = this.card;
    const first = await this.onCrops(image, found.map(({square}) => ({...square, side: square.side * scale, size})));
    await this.turn(image, first, found);
    const hopeful = numbersOf(first, ({trust}, k) => trust >= HOPE * found[k].facingScore);
    const answers = hopeful.map(k => first[k]), detected = hopeful.map(k => found[k]);
    await this.refine(image, answers);
    answers.forEach(({face}, k) => { face.detection_score = detected[k].score; });
    const believed = answers.filter(({face, trust}, k) => {
      const {leastScore: least, facingScore: facing} = detected[k];
      return trust >= least + (facing - least) * Math.sqrt(1 - Math.min(face.pose.matrix[2][0] ** 2, 1));
    }).map(({face}) => face), faces = [];
    for (const face of believed) if (faces.every(other => overlap(other.box, face.box) <= SAME_FACE)) faces.push(face);
    return faces;
  }

  /**
   * Of faces that are not believed and whose detector does not know how they lie, the surest of four answers on crops that
   * differ by quarter turns, if it is clearly surer than the first; in place.
   */
  async turn(image, answers, found) {
    const doubtful = numbersOf(answers, ({trust}, k) => trust < TURN_SCORE && !found[k].angleKnown);
    const upright = doubtful.map(k => answers[k].crop);
    const best = doubtful.map(k => TURN_GAIN * answers[k].trust);
    for (let quarter = 1; quarter < 4; quarter++) {
      const again = upright.map(crop => ({...crop, angle: crop.angle + quarter * Math.PI / 2}));
      (await this.onCrops(image, again)).forEach((answer, j) => {
        if (answer.trust > best[j]) {
          best[j] = answer.trust;
          answers[doubtful[j]] = answer;
        }
      });
    }
  }

  /** Once more, on crops from their first answers, the faces that lie turned or that a box did not fit; in place. */
  async refine(image, answers) {
    for (let poor = [...answers.keys()], look = 0; look < REFINEMENTS; look++) {
      const better = answers.map(({face}) => this.uprightCrop(face));
      poor = poor.filter(k => {
        const crop = better[k], was = answers[k].crop, turn = crop.angle - was.angle;
        const roll = Math.abs(Math.atan2(Math.sin(turn), Math.cos(turn)));
        const shift = Math.hypot(crop.x - was.x, crop.y - was.y) / was.side;
        return roll > REFINE_ROLL || shift > REFINE_SHIFT || Math.abs(Math.log(crop.side / was.side)) > REFINE_SCALE;
      });
      const again = await this.onCrops(image, poor.map(k => better[k]));
      poor.forEach((k, j) => { answers[k] = again[j]; });
    }
  }

  /** The crop in which a face found before stands upright. */
  uprightCrop({landmarks, pose: {matrix}}) {
    const x = matrix[0][1], y = matrix[1][1];  // of the head's upward axis
    const angle = Math.hypot(x, y) > MIN_UP ? Math.atan2(x, y) : 0;
    const crop = cropAroundPoints(landmarks, this.card.crop_scale, this.card.crop_size, angle);
    return {...crop, side: Math.max(crop.side, 1)};
  }

  /**
   * What the network says of crops of RGB bytes, in one call: {face, crop, trust}, the face in pixels of the image. trust:
   * how sure the network is, 0..1, the mean of the points' scores in the crop.
   */
  async onCrops(image, crops) {
    if (!crops.length) return [];
    const size = this.card.crop_size, each = 3 * size * size, bytes = new Uint8Array(each * crops.length);
    crops.forEach((crop, k) => bytes.set(cut(image, crop), k * each));
    const answer = await this.session.run({crops: new ort.Tensor("uint8", bytes, [crops.length, size, size, 3])});
    return crops.map((crop, k) => answerOf(answer, k, crop, image));
  }
}

/** Face k of a network's answer, see `Canthus.onCrops`. */
function answerOf(answer, k, crop, {width, height}) {
  const row = (name, length) => Array.from(answer[name].data.subarray(k * length, (k + 1) * length));
  const rows = (name, count) => {
    const flat = row(name, 3 * count);
    return Array.from({length: count}, (_, j) => flat.slice(3 * j, 3 * j + 3));
  };
  const points = rows("xyz", LANDMARKS), sigma = row("sigma", LANDMARKS), seen = sizeOf(tightBox(points));
  const trust = sigma.reduce((sum, value) => sum + scoreOf(value, seen), 0) / LANDMARKS;
  const landmarks = points.map(point => fromCrop(point, crop)), pixel = crop.side / crop.size;
  const depth = landmarks.reduce((sum, point) => sum + point[2], 0) / LANDMARKS;
  for (const point of landmarks) point[2] -= depth;
  const box = tightBox(landmarks);
  const inside = ([x, y]) => x >= -0.5 && x < width - 0.5 && y >= -0.5 && y < height - 0.5;
  const matrix = turned(nearestRotation(rows("rotation", 3)), crop.angle);
  const named = (name, change) => answer[name] &&
    Object.fromEntries(row(name, EXPRESSIONS.length).map((value, j) => [EXPRESSIONS[j], isNaN(value) ? null : change(value)]));
  const face = {
    box,
    detection_score: null,
    landmarks,
    sigma: sigma.map(value => value * pixel),
    score: sigma.map(value => scoreOf(value * pixel, sizeOf(box))),
    visible: row("visible", LANDMARKS).map((value, j) => inside(landmarks[j]) ? value : 0),
    pose: {matrix, euler_degrees: {aflw: anglesOf(matrix)}},
    expression: named("expression", value => Math.min(Math.max(value, 0), 1)),
    expression_sigma: named("expression_sigma", value => value),
  };
  return {face, crop, trust};
}

/** The mass of the radial Laplace density of `sigma` within 5 % of a face's size. */
function scoreOf(sigma, size) {
  const a = Math.sqrt(3) * SCORE_RADIUS * size / Math.max(sigma, 1e-6);
  return 1 - (1 + a) * Math.exp(-a);
}

function numbersOf(items, holds) {
  return items.flatMap((item, k) => holds(item, k) ? [k] : []);
}
