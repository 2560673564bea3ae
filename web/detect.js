/** Finding faces: `canthus.inference.detect` in JavaScript. */

import {centre, centredIn, longer, overlap} from "./geometry.js";
import {cut, part, reduced} from "./pixels.js";

const STRIDE = 32;  // the sides of what the network sees are multiples of this
const MAX_OVERLAP = 0.4;  // intersection over union above which the weaker of two boxes is dropped
const FINE_SIDE = 1600;  // longer side of the picture at the second look at most, px
// In pictures up to so many times as large as the first look sees, the second one is confined to what was doubted, and
// to so many sides around it.
const HINT_RATIO = 2, HINT_MARGIN = 2;

const MEAN = [104, 117, 123];  // of blue, green, red, as RetinaFace's network wants them
const ANCHORS = [[8, [16, 32]], [16, [64, 128]], [32, [256, 512]]];  // strides and sides, px
const TIGHT = [-0.014, 0.214, 0.014, 0.012];  // from RetinaFace's boxes to tight ones, in their widths and heights

/** The detector that runs networks by their files: that of `canthus train-detector` has two. */
export function detectorOf(ort, {"model.onnx": session, "refiner.onnx": refiner}) {
  return refiner ? new PyramidDetector(ort, session, refiner) : new RetinaFaceDetector(ort, session);
}

const LEAST_SCORE = 0.15;  // least mean point score of the landmarks of a detected face

/**
 * The faces of a picture, best first: {box, score, square: {x, y, side, angle}, angleKnown, leastScore}. The box is tight
 * around the landmarks, the square too, of the upright head, whose angle is a guess where it is not known; landmarks with
 * a mean score of `leastScore` confirm the face.
 */
class FaceDetector {
  // coarseSide, quickSide: longer side of the picture at the first look and at a quick one, px. near: side of a face from
  // which on the first look answers for it; reliable: largest side of a doubt, px of that look. minScore, hintScore: of a
  // face, and of a doubt.
  constructor(ort, session, sizes) {
    Object.assign(this, {ort, session, ...sizes});
  }

  /** All faces, from up to two looks at the picture. */
  async detect(image) {
    const side = Math.max(image.width, image.height);
    const zoom = Math.min(1, this.coarseSide / side), fineZoom = Math.min(1, FINE_SIDE / side);
    const seen = await this.detectAt(image, zoom, this.hintScore);
    const coarse = seen.filter(face => face.score >= this.minScore);
    const hints = seen.filter(face => face.score < this.minScore);
    const area = fineZoom > zoom ? doubtfulArea(image, hints, coarse, zoom, this.reliable / zoom) : null;
    if (!area) return coarse;
    const [x, y] = area;
    const fine = (await this.detectAt(part(image, ...area), fineZoom)).map(face => moved(face, x, y));
    return merged(coarse, fine, coarse.length ? this.near / zoom : Infinity);
  }

  /** Near faces alone, from one look: for the frames of a video. */
  quick(image) {
    return this.detectAt(image, Math.min(1, this.quickSide / Math.max(image.width, image.height)));
  }
}

const MIN_UP = 0.6;  // length of an upward axis from which on it is believed
const CANDIDATE_SCORE = 0.15;  // least score of a place that the second network looks at
const BELIEF = 0.2;  // least product of its score and the mean point score
const REFINER_SIZE = 64, REFINER_CONTEXT = 1.8;  // of its crops: px, and sides of a candidate's square

/** The two networks of `canthus train-detector`, the second for the places where the first sees something: roll as well. */
class PyramidDetector extends FaceDetector {
  constructor(ort, session, refiner) {
    super(ort, session, {coarseSide: 256, quickSide: 224, near: 40, reliable: 24, minScore: 0.6, hintScore: 0.1});
    this.refiner = refiner;
  }

  /** The faces that the networks see in the picture at `zoom` (up to 1) times its size, in pixels of the picture. */
  async detectAt(image, zoom, minScore = this.minScore) {
    const looked = await this.refined(image, await this.candidates(image, zoom));
    return suppressed(looked.filter(face => face.score >= minScore));
  }

  async candidates(image, zoom) {
    const small = reduced(image, zoom), [rows, columns] = padded(small), bytes = new Uint8Array(3 * rows * columns);
    for (let row = 0; row < small.height; row++) {
      bytes.set(small.data.subarray(3 * row * small.width, 3 * (row + 1) * small.width), 3 * row * columns);
    }
    const pictures = new this.ort.Tensor("uint8", bytes, [1, rows, columns, 3]);
    const answer = await this.session.run({pictures});
    const scores = answer.score.data, scaleX = image.width / small.width, scaleY = image.height / small.height;
    const found = [];
    for (let k = 0; k < scores.length; k++) {
      if (!(scores[k] >= CANDIDATE_SCORE)) continue;
      const [x, y, side] = row(answer.upright, 3, k);
      const square = {x: (x + 0.5) * scaleX - 0.5, y: (y + 0.5) * scaleY - 0.5, side: side * scaleX};
      found.push({
        box: row(answer.box, 4, k).map((v, axis) => (v + 0.5) * (axis % 2 ? scaleY : scaleX) - 0.5),
        score: scores[k],
        square: {...square, angle: roll(row(answer.up, 2, k))},
      });
    }
    return suppressed(found);
  }

  /** What the second network says of the candidates. */
  async refined(image, candidates) {
    if (!candidates.length) return candidates;
    const count = candidates.length, size = REFINER_SIZE, bytes = new Uint8Array(count * size * size * 3);
    candidates.forEach(({square}, k) => {
      bytes.set(cut(image, {...square, side: REFINER_CONTEXT * square.side, size}), k * size * size * 3);
    });
    const crops = new this.ort.Tensor("uint8", bytes, [count, size, size, 3]);
    const answer = await this.refiner.run({crops});
    return candidates.map(({box, square}, k) => {
      const [right, down, growth] = row(answer.move, 3, k), ratio = Math.exp(growth);
      const cos = Math.cos(square.angle), sin = Math.sin(square.angle);
      const dx = square.side * (cos * right - sin * down), dy = square.side * (sin * right + cos * down);
      const [x, y] = centre(box), width = (box[2] - box[0]) / 2 * ratio, height = (box[3] - box[1]) / 2 * ratio;
      const up = row(answer.up, 2, k);
      return {
        box: [x + dx - width, y + dy - height, x + dx + width, y + dy + height],
        score: answer.score.data[k],
        leastScore: Math.max(LEAST_SCORE, BELIEF / Math.max(answer.score.data[k], 1e-6)),
        square: {x: square.x + dx, y: square.y + dy, side: square.side * ratio, angle: square.angle + roll(up)},
        angleKnown: sure(up),
      };
    });
  }
}

/** Row k of a tensor's numbers, `width` a row. */
function row(tensor, width, k) {
  return Array.from(tensor.data.subarray(width * k, width * (k + 1)));
}

/** The angle of an upward axis; an axis is short where a network is unsure of it. */
function roll([x, y]) {
  return sure([x, y]) ? Math.atan2(x, -y) : 0;
}

function sure(up) {
  return Math.hypot(...up) >= MIN_UP;
}

/** RetinaFace, the shipped detector: its faces are taken to stand upright. */
class RetinaFaceDetector extends FaceDetector {
  constructor(ort, session) {
    super(ort, session, {coarseSide: 320, quickSide: 224, near: 48, reliable: 32, minScore: 0.6, hintScore: 0.01});
  }

  /** See `PyramidDetector`. */
  async detectAt(image, zoom, minScore = this.minScore) {
    const small = reduced(image, zoom), [rows, columns] = padded(small), plane = rows * columns;
    const values = new Float32Array(3 * plane);
    for (let y = 0, from = 0; y < small.height; y++) {
      for (let x = 0; x < small.width; x++, from += 3) {
        for (let c = 0; c < 3; c++) values[c * plane + y * columns + x] = small.data[from + 2 - c] - MEAN[c];
      }
    }
    const input = new this.ort.Tensor("float32", values, [1, 3, rows, columns]);
    const {loc: {data: offsets}, conf: {data: scores}} = await this.session.run({input});
    const scale = [image.width / small.width, image.height / small.height], found = [];
    let k = 0;
    for (const [stride, sides] of ANCHORS) for (let row = 0; row < rows / stride; row++) {
      for (let column = 0; column < columns / stride; column++) for (const side of sides) {
        const score = scores[2 * k + 1], o = offsets.subarray(4 * k, 4 * k++ + 4);
        if (!(score >= minScore)) continue;
        const x = (column + 0.5) * stride + 0.1 * side * o[0], y = (row + 0.5) * stride + 0.1 * side * o[1];
        const width = side * Math.exp(0.2 * o[2]), height = side * Math.exp(0.2 * o[3]);
        found.push({score, box: [x - width / 2, y - height / 2, x + width / 2, y + height / 2]});
      }
    }
    return suppressed(found).map(({score, box}) => {
      const whole = box.map((v, axis) => v * scale[axis % 2] - 0.5);
      const extent = [whole[2] - whole[0], whole[3] - whole[1]];
      const tight = whole.map((v, axis) => v + TIGHT[axis] * extent[axis % 2]), [x, y] = centre(tight);
      return {box: tight, score, square: {x, y, side: longer(tight), angle: 0}, angleKnown: false, leastScore: LEAST_SCORE};
    });
  }
}

/** Rows and columns of what a network is given. */
function padded({width, height}) {
  return [Math.ceil(height / STRIDE) * STRIDE, Math.ceil(width / STRIDE) * STRIDE];
}

/** The part [x0, y0, x1, y1] of the picture that is worth a second look, or null; `reliable` in its pixels. */
function doubtfulArea({width, height}, doubts, found, zoom, reliable) {
  if (zoom * HINT_RATIO < 1 || !found.length) return [0, 0, width, height];
  const sure = found.map(face => face.box);
  const hints = doubts.filter(({box}) => longer(box) < reliable && !centredIn(box, sure));
  if (!hints.length) return null;
  const edges = hints.map(({box}) => box.map((v, k) => v + (k < 2 ? -1 : 1) * HINT_MARGIN * longer(box)));
  const low = axis => Math.max(0, Math.floor(Math.min(...edges.map(edge => edge[axis]))));
  const high = (axis, most) => Math.min(most, Math.ceil(Math.max(...edges.map(edge => edge[axis]))));
  return [low(0), low(1), high(2, width), high(3, height)];
}

/** The faces of two looks: of those of `near` px and more only the coarse ones count, and nothing seen inside them. */
function merged(coarse, fine, near) {
  const sure = coarse.filter(face => longer(face.box) >= near), boxes = sure.map(face => face.box);
  const far = coarse.filter(face => !sure.includes(face));
  const added = fine.filter(({box}) => longer(box) < near && !centredIn(box, boxes));
  return [...sure, ...suppressed([...far, ...added])].sort((a, b) => b.score - a.score);
}

/** What greedy non-maximum suppression keeps, best first. */
function suppressed(faces) {
  const kept = [];
  for (const face of [...faces].sort((a, b) => b.score - a.score)) {
    if (kept.every(better => overlap(better.box, face.box) <= MAX_OVERLAP)) kept.push(face);
  }
  return kept;
}

function moved({box, square, ...rest}, x, y) {
  const shifted = {...square, x: square.x + x, y: square.y + y};
  return {...rest, box: box.map((v, k) => v + (k % 2 ? y : x)), square: shifted};
}
