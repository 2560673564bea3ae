// Points of a face in a picture, by ONNX Runtime Web in Node (npm install onnxruntime-web; onnxruntime-node does as well):
//   node align.mjs picture.onnx photo.ppm 178 89 275 177 [roll in radians]
// picture.onnx comes from `canthus export swift --with-crop`; a photo becomes a PPM by `convert photo.jpg photo.ppm`.
import {readFileSync} from "node:fs";
import * as ort from "onnxruntime-web";

/** A PPM file (P6, 255) as {width, height, rgb}, row by row from the top. */
function readPpm(path) {
  const bytes = readFileSync(path);
  const head = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 100).toString("latin1"));
  if (!head) throw new Error(`got ${path}, want a PPM file (P6, 255)`);
  const [width, height] = [Number(head[1]), Number(head[2])];
  return {width, height, rgb: new Uint8Array(bytes.subarray(head[0].length, head[0].length + 3 * width * height))};
}

const [model, photo, ...numbers] = process.argv.slice(2);
if (numbers.length !== 4 && numbers.length !== 5) throw new Error("want: picture.onnx photo.ppm x0 y0 x1 y1 [roll]");
const [x0, y0, x1, y1, roll = 0] = numbers.map(Number);  // the box is tight around the landmarks

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)), {logSeverityLevel: 3});
const {width, height, rgb} = readPpm(photo);
const {xyz, sigma, visible, rotation} = await session.run({
  picture: new ort.Tensor("uint8", rgb, [height, width, 3]),
  box: new ort.Tensor("float32", Float32Array.of(x0, y0, x1, y1), [4]),
  roll: new ort.Tensor("float32", Float32Array.of(roll), [1]),
});

console.log(`# rotation: ${Array.from(rotation.data, value => value.toFixed(4)).join(" ")}`);
console.log("# x y z, standard deviation (pixels), probability that it is seen");
for (let k = 0; k < xyz.dims[0]; k++) {
  const row = [...xyz.data.subarray(3 * k, 3 * k + 3), sigma.data[k], visible.data[k]];
  console.log(row.map(value => value.toFixed(3)).join(" "));
}
