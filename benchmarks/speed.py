"""Time of each step on the bundled photo, one thread and default threads, throughput, and cold start.

Threads are set by `canthus.load(threads=)` alone. The network's step includes what NumPy does after it.
`benchmarks/beside.py` gives memory and size, and what other systems need.
"""

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
from canthus.geometry.crop import Crop
from canthus.io.images import crop_image
from canthus.io.session import MODEL_FILE

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"


def steps(weights: Path, threads: int | None) -> dict[str, dict[str, float]]:
    """Each step on its own, and all of them; milliseconds."""
    aligner = canthus.load(weights, threads=threads)
    photo = canthus.read_image(PHOTO)
    size = photo.shape[1], photo.shape[0]
    boxes, scores, *_ = aligner.detector(photo)
    crop = Crop.around_boxes(boxes.astype(np.float64), aligner.card.crop_scale, aligner.card.crop_size)
    cut = crop_image(photo, crop)
    many = np.repeat(cut[:1], 64, 0)
    aligned = aligner.run_batches(cut)
    faces = aligner.predict(photo)
    return {
        "decode": common.milliseconds(lambda: canthus.read_image(PHOTO)),
        "detect": common.milliseconds(lambda: aligner.detector(photo)),
        "crop": common.milliseconds(lambda: crop_image(photo, crop)),
        "network": common.milliseconds(lambda: aligner.run_batches(cut), 200),
        "post": common.milliseconds(lambda: aligned.to_image(crop, size, detection_scores=scores)),
        "photo to faces": common.milliseconds(lambda: aligner.predict(photo)),
        "network, a face of a batch of 64": {
            k: round(v / 64, 3) for k, v in common.milliseconds(lambda: aligner.run_batches(many), 20, 1).items()
        },
        "mesh fit": common.milliseconds(lambda: faces.mesh()),
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
    exported = {name: folder for name, folder in common.weights().items() if (folder / MODEL_FILE).exists()}
    static = {name: folder for name, folder in exported.items() if common.tracks_for(folder) is None}
    results = {
        f"{name}, {'default' if threads is None else threads} threads": steps(folder, threads)
        for name, folder in static.items()
        for threads in (1, None)
    }
    table = Table("step, ms (median)", *results)
    for step in next(iter(results.values())):
        table.add_row(step, *(f"{r[step]['median']:.2f}" for r in results.values()))
    faces = [1e3 / r["network, a face of a batch of 64"]["median"] for r in results.values()]
    table.add_row("faces a second, batches of 64", *(f"{f:.0f}" for f in faces))
    Console(width=160).print(table)
    seconds = cold_start()
    print(f"cold start of `canthus align` on one photo: {seconds} s; canthus {canthus.__version__}")
    print(common.write("speed", {"steps_ms": results, "cold_start_s": seconds}))


if __name__ == "__main__":
    main()
