/**
 * Boxes [x0, y0, x1, y1], crops {x, y, side, angle, size} and rotations (rows of three), in the conventions of canthus: an
 * integer is the centre of a pixel, angles turn x (right) towards y (down), rotations are camera from head with y up.
 */

export const centre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];
export const longer = ([x0, y0, x1, y1]) => Math.max(x1 - x0, y1 - y0);
export const sizeOf = ([x0, y0, x1, y1]) => Math.sqrt((x1 - x0) * (y1 - y0));

/** The tight box around points [x, y, ...]. */
export function tightBox(points) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return box;
}

/** Intersection over union of two boxes. */
export function overlap(a, b) {
  const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);
  const shared = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  const union = area(a) + area(b) - shared;
  return shared / (union > 0 ? union : 1);
}

/** Whether a box has its centre in one of the others. */
export function centredIn(box, others) {
  const [x, y] = centre(box);
  return others.some(([x0, y0, x1, y1]) => x > x0 && x < x1 && y > y0 && y < y1);
}

/** The crop around a tight box, with a side of `scale` longer sides of it. */
export function cropAround(box, scale, size, angle = 0) {
  const [x, y] = centre(box);
  return {x, y, side: scale * longer(box), angle, size};
}

/** The crop around points, turned by `angle`, around their tight box along its own axes. */
export function cropAroundPoints(points, scale, size, angle) {
  const cos = Math.cos(angle), sin = Math.sin(angle);
  const flat = cropAround(tightBox(points.map(([x, y]) => [x * cos + y * sin, y * cos - x * sin])), scale, size, angle);
  return {...flat, x: flat.x * cos - flat.y * sin, y: flat.x * sin + flat.y * cos};
}

/** A point [x, y, z] of a crop in the image. */
export function fromCrop([u, v, w], {x, y, side, angle, size}) {
  const cos = Math.cos(angle), sin = Math.sin(angle), pixel = side / size, middle = (size - 1) / 2;
  const du = u - middle, dv = v - middle;
  return [pixel * (cos * du - sin * dv) + x, pixel * (sin * du + cos * dv) + y, pixel * w];
}

/** The rotation of a head in the image, of one in a crop that is turned by `angle`: y points up here. */
export function turned(rotation, angle) {
  const cos = Math.cos(angle), sin = Math.sin(angle), [p, q, r] = rotation;
  return [p.map((v, k) => cos * v + sin * q[k]), q.map((v, k) => cos * v - sin * p[k]), [...r]];
}

/**
 * The rotation nearest to a matrix that a network gave, by Newton's iteration to its polar factor. Throws for one that
 * is off by more than a low precision explains.
 */
export function nearestRotation(matrix) {
  let m = matrix.map(row => [...row]);
  for (let round = 0; round < 8; round++) {
    // the inverse's transpose: cross products of the rows over the determinant
    const across = [cross(m[1], m[2]), cross(m[2], m[0]), cross(m[0], m[1])];
    const determinant = m[0][0] * across[0][0] + m[0][1] * across[0][1] + m[0][2] * across[0][2];
    if (!(determinant > 0)) throw new RangeError("got weights that give matrices that are no rotations");
    m = m.map((row, i) => row.map((v, j) => (v + across[i][j] / determinant) / 2));
  }
  const off = Math.max(...matrix.flatMap((row, i) => row.map((v, j) => Math.abs(v - m[i][j]))));
  if (!(off <= 0.05)) throw new RangeError("got weights that give matrices that are no rotations");
  return m;
}

/** Pitch, yaw and roll in degrees, by the convention aflw: R = Rx(pitch) Ry(yaw) Rz(roll), all transposed. */
export function anglesOf(r) {
  const pitch = Math.atan2(r[1][2], r[2][2]), cos = Math.cos(pitch), sin = Math.sin(pitch);
  const y = r[1].map((v, k) => cos * v - sin * r[2][k]), z = r[2].map((v, k) => cos * v + sin * r[1][k]);
  const yaw = Math.atan2(-r[0][2], z[2]), roll = Math.atan2(-y[0], y[1]);
  const degrees = angle => angle * 180 / Math.PI;
  return {pitch: degrees(pitch), yaw: degrees(yaw), roll: degrees(roll)};
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}
