"""Time of each step on the bundled photo, one thread and default threads, beside cold start and install size."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.table import Table

import canthus
from canthus.crop import Crop
from canthus.detect import FaceDetector
from canthus.images import crop_image, read_image
from canthus.runtime import OnnxAligner
from canthus.weights import find

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"


def steps(weights: str, threads: int | None) -> dict[str, dict[str, float]]:
    aligner = OnnxAligner(find(weights), threads)
    aligner.detector = FaceDetector(threads)
    photo = read_image(PHOTO)
    boxes, _ = aligner.detector(photo)
    crop = Crop.around_boxes(boxes.astype(np.float64), aligner.card.crop_scale, aligner.card.crop_size)
    cut = crop_image(photo, crop)
    many = np.repeat(cut, 64, 0)
    faces = aligner.predict(photo)
    return {
        "decode": common.milliseconds(lambda: read_image(PHOTO)),
        "detect": common.milliseconds(lambda: aligner.detector(photo)),
        "crop": common.milliseconds(lambda: crop_image(photo, crop)),
        "landmarks": common.milliseconds(lambda: aligner.run(cut), 200),
        "landmarks, a face of a batch of 64": {
            k: round(v / 64, 3) for k, v in common.milliseconds(lambda: aligner.run(many), 20, 3).items()
        },
        "mesh fit": common.milliseconds(lambda: faces.mesh()),
        "photo to faces": common.milliseconds(lambda: aligner.predict(photo)),
    }


def cold_start() -> float:
    """Seconds of `canthus align` on one photo in a new process, median of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        command = [sys.executable, "-m", "canthus", "align", str(PHOTO), "--out", "out/bench"]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)), 2)


def main() -> None:
    results = {
        f"{weights}, {'default' if threads is None else threads} threads": steps(weights, threads)
        for weights in ("swift", "swift-int8")
        for threads in (1, None)
    }
    table = Table("step, ms (median)", *results)
    for step in next(iter(results.values())):
        table.add_row(step, *(f"{r[step]['median']:.2f}" for r in results.values()))
    Console().print(table)
    seconds = cold_start()
    print(f"cold start of `canthus align` on one photo: {seconds} s; canthus {canthus.__version__}")
    print(common.write("speed", {"steps_ms": results, "cold_start_s": seconds}))


if __name__ == "__main__":
    main()
