"""How far points of other schemes lie from where they should, on rendered heads that no weights learnt from.

    canthus synth --assets FOLDER --count 256 --recipe benchmarks/held_expressions.yaml --set dense=true --out HELD
    python tools/ask_mediapipe.py HELD ANSWERS.npz            # by a Python with mediapipe 0.10.14
    python benchmarks/schemes.py HELD --mediapipe ANSWERS.npz

The default weights, true boxes. Errors are mean 2D distances in percent of the face's size, by |yaw|:

- `own`: the 68 points of the network from the true ones, to compare with;
- `head`: the points on the fitted head from the same places on the true vertices, the visible contour left out;
- `contour`: the 33 points of the visible contour from the outline that the renderer tells, both at equal steps;
- `fixed`: the same of the network's own jaw points, which stay on the skin;
- `mediapipe`: the 478 points from MediaPipe's own, where it found a face, and `mediapipe_truth` those of the true
  vertices: what part is MediaPipe's scatter.

The places were measured on other renders. There are no photos with such labels here: how the annotators of WFLW and
LaPa see a brow's edges or a contour is not measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
import numpy as np

import canthus
from canthus.face.landmarks import scheme
from canthus.face.surface import resampled, surface_map, surface_schemes
from canthus.geometry.crop import box_sizes, tight_boxes
from canthus.geometry.rotation import euler_from_matrix
from canthus.io.shards import read_shard, shards_in

BINS = ((0, 30), (30, 60), (60, 90))
POINTS = "mediapipe478"


def main(held: Path, answers: Path | None) -> dict:
    """The table of the module, as JSON."""
    shards = [read_shard(path) for path in shards_in(held)]
    truth = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    yaw = np.abs(np.rad2deg(euler_from_matrix(truth["rotation"], "aflw"))[:, 1])
    boxes = tight_boxes(truth["xyz"])
    aligner = canthus.load()
    faces = [aligner.predict(image, [box]) for image, box in zip(truth["image"], boxes)]

    def row(got: np.ndarray, wanted: np.ndarray) -> list[float]:
        errors = np.linalg.norm((got - wanted)[..., :2], axis=-1).mean(1) / box_sizes(boxes)
        inside = [(yaw >= low) & (yaw < high) & np.isfinite(errors) for low, high in BINS]
        return [round(100 * float(errors[chosen].mean()), 2) for chosen in inside]

    def points(name: str) -> np.ndarray:
        return np.concatenate([face.landmarks(name) for face in faces]).astype(np.float64)

    table = {"own ibug68": row(points("ibug68"), truth["xyz"])}
    for name in surface_schemes():
        contour = scheme(name).parts["jaw"] if scheme(name).jaw == "visible contour" else []
        rest = np.setdiff1d(np.arange(scheme(name).count), contour)
        true = surface_map(name).at(truth["vertices"].astype(np.float64))
        table[f"head {name}"] = row(points(name)[:, rest], true[:, rest])
        for part, indices in scheme(name).parts.items():
            if part != "jaw":
                table[f"head {name} {part}"] = row(points(name)[:, indices], true[:, indices])
    outline = resampled(truth["contour"].astype(np.float64), 33)
    table["contour wflw98"] = row(points("wflw98")[:, :33], outline)
    table["fixed wflw98"] = row(resampled(points("ibug68")[:, :17], 33), outline)
    if answers is not None:
        theirs = np.load(answers)["points"]
        table["mediapipe"] = row(points(POINTS), theirs)
        table["mediapipe_truth"] = row(surface_map(POINTS).at(truth["vertices"].astype(np.float64)), theirs)
        table["mediapipe found"] = [int(np.isfinite(theirs[:, 0, 0]).sum())]
    counts = [int(((yaw >= low) & (yaw < high)).sum()) for low, high in BINS]
    return {"bins": BINS, "faces": counts, "percent of the face's size": table}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held", type=Path)
    parser.add_argument("--mediapipe", type=Path)
    given = parser.parse_args()
    result = main(given.held, given.mediapipe)
    for name, values in result["percent of the face's size"].items():
        print(f"{name:36s}", *values)
    print(common.write("schemes", result))
