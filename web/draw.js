/** Faces over their picture: contours, points, axes of the pose. */

// Runs of the 68 points that are joined, and whether they close.
const RUNS = [[0, 16], [17, 21], [22, 26], [27, 30], [31, 35], [36, 41, true], [42, 47, true], [48, 59, true], [60, 67, true]];
const POINT = "#2ee6c5", LINE = "rgba(255, 255, 255, .75)", AXES = ["#ff5d5d", "#58d66c", "#5aa9ff"];

/**
 * Draw `faces` on a 2D context whose pixels are `zoom` times as many as theirs. `chosen`: the face that is looked at.
 * mirrored: the context is shown as in a mirror, so that texts are written the other way round.
 */
export function drawFaces(pen, faces, zoom, chosen, mirrored) {
  for (const [number, face] of faces.entries()) {
    const at = ([x, y]) => [(x + 0.5) * zoom, (y + 0.5) * zoom];
    const [x0, y0, x1, y1] = face.box, size = Math.sqrt((x1 - x0) * (y1 - y0)) * zoom, seen = k => face.visible[k] > 0.5;
    pen.lineJoin = pen.lineCap = "round";
    pen.globalAlpha = number === chosen ? 1 : 0.6;
    pen.lineWidth = Math.max(1, size / 150);
    pen.strokeStyle = LINE;
    pen.beginPath();
    for (const [first, last, closed] of RUNS) {
      pen.moveTo(...at(face.landmarks[closed ? last : first]));
      for (let k = first; k <= last; k++) pen.lineTo(...at(face.landmarks[k]));
    }
    pen.stroke();
    const radius = Math.max(1.2, size / 75);
    for (const [k, point] of face.landmarks.entries()) {
      pen.beginPath();
      pen.arc(...at(point), radius, 0, 2 * Math.PI);
      pen.fillStyle = seen(k) ? POINT : "rgba(0, 0, 0, .35)";
      pen.strokeStyle = seen(k) ? "rgba(0, 40, 34, .7)" : POINT;
      pen.lineWidth = Math.max(0.75, radius / 3);
      pen.fill();
      pen.stroke();
    }
    const from = face.landmarks[30];  // the tip of the nose
    AXES.map((colour, axis) => [colour, face.pose.matrix.map(row => row[axis])])
      .sort(([, a], [, b]) => a[2] - b[2])  // the nearest on top
      .forEach(([colour, [x, y]]) => {
        pen.strokeStyle = colour;
        pen.lineWidth = Math.max(2, size / 40);
        pen.beginPath();
        pen.moveTo(...at(from));
        pen.lineTo(...at([from[0] + 0.45 * size / zoom * x, from[1] - 0.45 * size / zoom * y]));  // the matrix has y up
        pen.stroke();
      });
    if (faces.length > 1) label(pen, String((face.id ?? number) + 1), at([x0, y0]), Math.max(11, size / 7), mirrored);
  }
  pen.globalAlpha = 1;
}

/** A text whose lower right corner is at a place. */
function label(pen, text, [x, y], size, mirrored) {
  pen.save();
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const width = pen.measureText(text).width + size * 0.7;
  pen.translate(x - width, y);
  if (mirrored) pen.transform(-1, 0, 0, 1, width, 0);
  pen.fillStyle = "rgba(0, 0, 0, .6)";
  pen.beginPath();
  pen.roundRect(0, -size * 1.3, width, size * 1.3, size / 3);
  pen.fill();
  pen.fillStyle = "#fff";
  pen.fillText(text, size * 0.35, -size * 0.3);
  pen.restore();
}
