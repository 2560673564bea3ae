"""Time of each step on the bundled photo, throughput, cold start, memory and size, with peers in the same run.

    python benchmarks/speed.py [--peer PYTHON:ADAPTER[:MODEL] ...]

A peer is an adapter of `benchmarks/peers` and the interpreter of the environment that it is installed in, e.g.
`peers/bin/python:mediapipe_mesh`. canthus and each peer do the same photo, with their own detectors, each in a process of
its own, one after the other; the ratios are theirs to ours, so more than 1 is more than ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
from rich.console import Console
from rich.table import Table

import canthus
from canthus.crop import Crop
from canthus.detect import FaceDetector
from canthus.faces import Alignment
from canthus.images import crop_image, read_image
from canthus.runtime import OnnxAligner

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
COST = Path(__file__).parent / "peers" / "cost.py"
MEASURED = ("ms", "CPU ms", "cold start s", "peak MB", "installed MB")


def steps(weights: Path, threads: int | None) -> dict[str, dict[str, float]]:
    """Each step on its own, and all of them; milliseconds."""
    aligner = OnnxAligner(weights, threads)
    aligner.detector = FaceDetector(threads)
    photo = read_image(PHOTO)
    size = photo.shape[1], photo.shape[0]
    boxes, scores = aligner.detector(photo)
    crop = Crop.around_boxes(boxes.astype(np.float64), aligner.card.crop_scale, aligner.card.crop_size)
    cut = crop_image(photo, crop)
    many = np.repeat(cut[:1], 64, 0)
    faces = aligner.predict(photo)

    def network(crops: np.ndarray) -> Alignment:
        values = aligner.session.run(aligner.outputs, {"crops": crops})
        return Alignment(**dict(zip(aligner.outputs, values)))

    raw = network(cut)
    return {
        "decode": common.milliseconds(lambda: read_image(PHOTO)),
        "detect": common.milliseconds(lambda: aligner.detector(photo)),
        "crop": common.milliseconds(lambda: crop_image(photo, crop)),
        "network": common.milliseconds(lambda: network(cut), 200),
        "post": common.milliseconds(lambda: aligner.finish(raw).to_image(crop, size, detection_scores=scores)),
        "photo to faces": common.milliseconds(lambda: aligner.predict(photo)),
        "network, a face of a batch of 64": {
            k: round(v / 64, 3) for k, v in common.milliseconds(lambda: network(many), 20, 1).items()
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


def cost(python: str, adapter: str, model: str, one: bool) -> dict[str, Any]:
    """What `peers/cost.py` measures of an adapter, and its cold start: from the process to its first answer, the
    median of three."""
    command = [python, str(COST), adapter, str(PHOTO), *(["--model", model] if model else []), *(["--one"] * one)]
    cold, text = [], ""
    for _ in range(3):
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            ready = any(line == "ready\n" for line in process.stdout)
            cold.append(time.perf_counter() - begin)
            text = process.stdout.read() if ready and len(cold) == 3 else ""
            if len(cold) < 3:
                process.kill()
        if not ready:
            raise SystemExit(f"{' '.join(command)} gave no answer")
    return json.loads(text.splitlines()[-1]) | {"cold start s": round(float(np.median(cold)), 2)}


def beside(peers: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Ours and the peers, on one core and by default: what was measured, and its ratio to ours."""
    found = {}
    for title, one in (("one core", True), ("default", False)):
        rows = [cost(sys.executable, "ours", "", one)]
        for peer in peers:
            python, adapter, model = (peer.split(":") + [""])[:3]
            rows.append(cost(python, adapter, model, one))
        for row in rows:
            row["ratio to ours"] = {k: round(row[k] / rows[0][k], 2) for k in MEASURED}
        found[title] = rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", action="append", default=[], metavar="PYTHON:ADAPTER[:MODEL]")
    peers = parser.parse_args().peer
    static = {name: folder for name, folder in common.weights().items() if common.tracks_for(folder) is None}
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
    systems = beside(peers)
    for title, rows in systems.items():
        table = Table(title, *MEASURED)
        for row in rows:
            table.add_row(row["system"], *(f"{row[k]:g} ({row['ratio to ours'][k]:.2f})" for k in MEASURED))
        Console(width=160).print(table)
    print(common.write("speed", {"steps_ms": results, "cold_start_s": seconds, "systems": systems}))


if __name__ == "__main__":
    main()
