/** Finding faces: `canthus.inference.detect` in JavaScript. */

import {centre, centredIn, longer, overlap} from "./geometry.js";
import {cut, part, reduced} from "./pixels.js";

const STRIDE = 32;  // the sides of what the network sees are multiples of this
const MAX_OVERLAP = 0.4;  // intersection over union above which the weaker of two boxes is dropped
const FINE_SIDE = 1600;  // longer side of the picture at the second look at most, px
// In pictures up to so many times as large as the first look sees, the second one is confined to what was doubted, and
// to so many sides around it.
const HINT_RATIO = 2, HINT_MARGIN = 2;

// Longer side of the picture at the first look and at a quick one, px. Side of a face from which on the first look
// answers for it, and largest side of a doubt, px of that look.
const COARSE_SIDE = 256, QUICK_SIDE = 224, NEAR = 40, RELIABLE = 24;
const MIN_SCORE = 0.65, HINT_SCORE = 0.2;  // of a face, and of a doubt
// Least score of a place that the second network looks at, and in a coarse look of one that is not near.
const CANDIDATE_SCORE = 0.15, FAR_CANDIDATE_SCORE = 0.25;
const MIN_UP = 0.6;  // length of an upward axis from which on it is believed
const REFINER_SIZE = 64, REFINER_CONTEXT = 1.8;  // of its crops: px, and sides of a candidate's square

// Least product of a score and of the mean point score of the landmarks: of a face that looks at the camera, of a profile.
const BELIEF = 0.44, PROFILE_BELIEF = 0.25;

/**
 * The two networks of a detector, by their files; the second looks at the places where the first sees something.
 *
 * The faces of a picture come best first: {box, score, square: {x, y, side, angle}, angleKnown, leastScore, facingScore}.
 * The box is tight around the landmarks, the square too, of the upright head, whose angle is a guess where it is not
 * known; landmarks with a mean score of `leastScore` confirm a profile, with one of `facingScore` a face that looks at
 * the camera.
 */
export class FaceDetector {
  constructor(ort, {"model.onnx": session, "refiner.onnx": refiner}) {
    Object.assign(this, {ort, session, refiner});
  }

  /** All faces, from up to two looks at the picture. */
  async detect(image) {
    const side = Math.max(image.width, image.height);
    const zoom = Math.min(1, COARSE_SIDE / side), fineZoom = Math.min(1, FINE_SIDE / side);
    const seen = await this.detectAt(image, zoom, true);
    const coarse = seen.filter(face => face.score >= MIN_SCORE);
    const hints = seen.filter(face => face.score < MIN_SCORE);
    const area = fineZoom > zoom ? doubtfulArea(image, hints, coarse, zoom) : null;
    if (!area) return coarse;
    const [x, y] = area;
    const fine = (await this.detectAt(part(image, ...area), fineZoom)).map(face => moved(face, x, y));
    return merged(coarse, fine, coarse.length ? NEAR / zoom : Infinity);
  }

  /** Near faces alone, from one look: for the frames of a video. */
  async quick(image) {
    const found = await this.detectAt(image, Math.min(1, QUICK_SIDE / Math.max(image.width, image.height)), true);
    return found.filter(face => face.score >= MIN_SCORE);
  }

  /**
   * The faces that the networks see in the picture at `zoom` (up to 1) times its size, in pixels of the picture. A coarse
   * look also gives doubts, and may pass over what a fine one finds.
   */
  async detectAt(image, zoom, coarse = false) {
    let candidates = await this.candidates(image, zoom);
    if (coarse) {
      candidates = candidates.filter(({square, score}) => square.side * zoom >= NEAR || score >= FAR_CANDIDATE_SCORE);
    }
    const least = coarse ? HINT_SCORE : MIN_SCORE;
    return this.turned(image, suppressed((await this.refined(image, candidates)).filter(face => face.score >= least)));
  }

  /**
   * Faces whose roll is not known as the second network sees them where they stand most upright, of four quarter turns,
   * unless it sees none there.
   */
  async turned(image, found) {
    const unknown = found.filter(({angleKnown, score}) => !angleKnown && score >= MIN_SCORE);
    const quarter = (square, k) => ({...square, angle: square.angle + k * Math.PI / 2});
    const turns = unknown.flatMap(face => [0, 1, 2, 3].map(k => ({...face, square: quarter(face.square, k)})));
    const looks = await this.refined(image, turns);
    const best = unknown.map((face, k) => {
      const look = looks.slice(4 * k, 4 * k + 4).reduce((a, b) => b.upright > a.upright ? b : a);
      return look.score >= MIN_SCORE ? look : face;
    });
    return [...found.filter(face => !unknown.includes(face)), ...best].sort((a, b) => b.score - a.score);
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

  /** What the second network says of the candidates; `upright` is 1 if a head stands so in its crop, -1 upside down. */
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
      const up = row(answer.up, 2, k), doubt = 1 / Math.max(answer.score.data[k], 1e-6);
      return {
        box: [x + dx - width, y + dy - height, x + dx + width, y + dy + height],
        score: answer.score.data[k],
        leastScore: PROFILE_BELIEF * doubt,
        facingScore: BELIEF * doubt,
        square: {x: square.x + dx, y: square.y + dy, side: square.side * ratio, angle: square.angle + roll(up)},
        angleKnown: sure(up),
        upright: -up[1],
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

/** Rows and columns of what a network is given. */
function padded({width, height}) {
  return [Math.ceil(height / STRIDE) * STRIDE, Math.ceil(width / STRIDE) * STRIDE];
}

/** The part [x0, y0, x1, y1] of the picture that is worth a second look, or null. */
function doubtfulArea({width, height}, doubts, found, zoom) {
  if (zoom * HINT_RATIO < 1 || !found.length) return [0, 0, width, height];
  const sure = found.map(face => face.box);
  const hints = doubts.filter(({box}) => longer(box) < RELIABLE / zoom && !centredIn(box, sure));
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
