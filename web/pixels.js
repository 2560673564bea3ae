/**
 * Pictures as canthus sees them: RGB bytes {width, height, data}, and Pillow's ways to resample them, byte for byte, as
 * `canthus.io.images.crop_image` and `canthus.inference.detect.reduced` use them. A picture seen in another way by even
 * half a grey level would give other landmarks than Python's.
 */

/** RGB bytes of RGBA ones that are not premultiplied (ImageData); what shines through is mid grey, as in Python. */
export function asRgb({width, height, data}) {
  if (width < 2 || height < 2) throw new RangeError(`got an image of ${width} x ${height} px, want at least 2 x 2`);
  if (data.length !== 4 * width * height) {
    throw new RangeError(`got ${data.length} bytes for ${width} x ${height} px, want 4 a pixel (RGBA)`);
  }
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    const opacity = data[from + 3], behind = 127 * (255 - opacity) + 127;
    for (let c = 0; c < 3; c++) {  // >> 0 as the division of whole numbers; most pixels let nothing through
      rgb[to + c] = opacity === 255 ? data[from + c] : (data[from + c] * opacity + behind) / 255 >> 0;
    }
  }
  return {width, height, data: rgb};
}

/** The part of a picture from (x0, y0) to before (x1, y1), whole numbers inside it. */
export function part({width, data}, x0, y0, x1, y1) {
  const out = new Uint8Array(3 * (x1 - x0) * (y1 - y0));
  for (let y = y0; y < y1; y++) {
    out.set(data.subarray(3 * (y * width + x0), 3 * (y * width + x1)), 3 * (y - y0) * (x1 - x0));
  }
  return {width: x1 - x0, height: y1 - y0, data: out};
}

/** Pillow's `Image.reduce`: the means of blocks of fx x fy pixels, of what is there of them at the far borders. */
export function reduce({width, height, data}, fx, fy) {
  if (fx === 1 && fy === 1) return {width, height, data};
  const across = Math.ceil(width / fx), down = Math.ceil(height / fy), out = new Uint8Array(3 * across * down);
  for (let v = 0, to = 0; v < down; v++) {
    const bottom = Math.min((v + 1) * fy, height);
    for (let u = 0; u < across; u++) {
      const right = Math.min((u + 1) * fx, width), count = (right - u * fx) * (bottom - v * fy);
      // Pillow divides by a multiplication with 24 bits of 1 / count, which float32 gave
      const share = Math.floor(Math.fround(2 ** 32 / (256 * count))), half = count >> 1;
      let r = half, g = half, b = half;
      for (let y = v * fy; y < bottom; y++) {
        for (let from = 3 * (y * width + u * fx), end = 3 * (y * width + right); from < end; from += 3) {
          r += data[from];
          g += data[from + 1];
          b += data[from + 2];
        }
      }
      out[to++] = Math.floor(r * share / 2 ** 24);
      out[to++] = Math.floor(g * share / 2 ** 24);
      out[to++] = Math.floor(b * share / 2 ** 24);
    }
  }
  return {width: across, height: down, data: out};
}

/** A picture at `zoom` (up to 1) times its size: Pillow's `resize` with BILINEAR and a reducing gap of 1. */
export function reduced(image, zoom) {
  if (zoom >= 1) return image;
  const width = Math.max(roundEven(image.width * zoom), 1), height = Math.max(roundEven(image.height * zoom), 1);
  if (width === image.width && height === image.height) return image;
  const fx = Math.max(1, Math.floor(image.width / width)), fy = Math.max(1, Math.floor(image.height / height));
  const small = reduce(image, fx, fy);
  const across = kernel(small.width, Math.fround(image.width / fx), width);
  const down = kernel(small.height, Math.fround(image.height / fy), height);
  const rows = resampled(small.data, small.height, 3 * small.width, 3, across);
  // as one wide row a line of pixels: the vertical pass is the horizontal one of whole lines
  return {width, height, data: resampledLines(rows, 3 * width, down)};
}

/** Python's `round`: halves go to the even neighbour. */
function roundEven(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low & 1) : Math.round(x);
}

/** For each of `size` pixels the first of the `given` ones it is made of, and their weights in 1 / 2^22; the given ones
 * that count reach up to `reach`, which need not be whole. */
function kernel(given, reach, size) {
  const scale = reach / size, support = Math.max(scale, 1);
  return Array.from({length: size}, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(given, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / support))));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {first, weights: weights.map(w => Math.floor(0.5 + w / sum * 2 ** 22))};
  });
}

/** Lines of pixels, each resampled along itself. */
function resampled(data, lines, length, channels, kernels) {
  const out = new Uint8Array(lines * kernels.length * channels);
  for (let line = 0, to = 0; line < lines; line++) {
    for (const {first, weights} of kernels) {
      for (let c = 0; c < channels; c++) {
        let sum = 1 << 21, from = line * length + first * channels + c;
        for (const weight of weights) {
          sum += weight * data[from];
          from += channels;
        }
        out[to++] = Math.min(sum >> 22, 255);
      }
    }
  }
  return out;
}

/** Lines of `length` bytes, resampled across. */
function resampledLines(data, length, kernels) {
  const out = new Uint8Array(kernels.length * length), sums = new Int32Array(length);
  kernels.forEach(({first, weights}, k) => {
    sums.fill(1 << 21);
    weights.forEach((weight, j) => {
      const from = (first + j) * length;
      for (let x = 0; x < length; x++) sums[x] += weight * data[from + x];
    });
    for (let x = 0; x < length; x++) out[k * length + x] = Math.min(sums[x] >> 22, 255);
  });
  return out;
}

/**
 * The pixels of a crop (see geometry.js) as size * size * 3 bytes, black outside the picture: bilinear, after a mean over
 * whole blocks where the crop shrinks the picture by 2 or more.
 */
export function cut(image, {x, y, side, angle, size}) {
  const out = new Uint8Array(3 * size * size), zoom = size / side, middle = (size - 1) / 2;
  // image = [a b; c d] crop + (left, top)
  const a = Math.cos(angle) / zoom, b = -Math.sin(angle) / zoom, c = -b, d = a;
  const left = x - (a * middle + b * middle), top = y - (c * middle + d * middle);
  const longer = Math.max(image.width, image.height);
  const block = Math.min(Math.max(1, Math.floor(Math.hypot(a, c) + 1e-9)), longer);
  const ends = [0, size - 1], xs = [], ys = [];
  for (const u of ends) for (const v of ends) {
    xs.push(a * u + b * v + left);
    ys.push(c * u + d * v + top);
  }
  const within = (value, extent) => Math.min(Math.max(value, 0), extent);
  const x0 = within(Math.floor(Math.min(...xs)) - block, image.width);
  const y0 = within(Math.floor(Math.min(...ys)) - block, image.height);
  const x1 = within(Math.ceil(Math.max(...xs)) + 1 + block, image.width);
  const y1 = within(Math.ceil(Math.max(...ys)) + 1 + block, image.height);
  if (x0 >= x1 || y0 >= y1) return out;
  const inner = reduce(part(image, x0, y0, x1, y1), block, block);
  // A black rim of one pixel, on which the border fades out.
  const width = inner.width + 2, height = inner.height + 2, data = new Uint8Array(3 * width * height);
  for (let row = 0; row < inner.height; row++) {
    data.set(inner.data.subarray(3 * row * inner.width, 3 * (row + 1) * inner.width), 3 * ((row + 1) * width + 1));
  }
  // Pillow counts from the corner of a pixel on both sides.
  const startX = (left - (a + b) / 2 + 0.5 - x0) / block + 1, startY = (top - (c + d) / 2 + 0.5 - y0) / block + 1;
  const stepXX = a / block, stepXY = b / block, stepYX = c / block, stepYY = d / block;
  for (let v = 0, to = 0; v < size; v++) {
    for (let u = 0; u < size; u++, to += 3) {
      const px = stepXX * (u + 0.5) + stepXY * (v + 0.5) + startX;
      const py = stepYX * (u + 0.5) + stepYY * (v + 0.5) + startY;
      if (!(px >= 0 && px < width && py >= 0 && py < height)) continue;
      const col = Math.floor(px - 0.5), row = Math.floor(py - 0.5), fx = px - 0.5 - col, fy = py - 0.5 - row;
      const c0 = 3 * Math.min(Math.max(col, 0), width - 1), c1 = 3 * Math.min(Math.max(col + 1, 0), width - 1);
      const upper = 3 * width * Math.min(Math.max(row, 0), height - 1);
      const lower = row + 1 >= 0 && row + 1 < height ? 3 * width * (row + 1) : upper;
      for (let k = 0; k < 3; k++) {
        const above = data[upper + c0 + k] * (1 - fx) + data[upper + c1 + k] * fx;
        const below = data[lower + c0 + k] * (1 - fx) + data[lower + c1 + k] * fx;
        out[to + k] = above * (1 - fy) + below * fy;
      }
    }
  }
  return out;
}
