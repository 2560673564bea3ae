"""Times and points on older processors: this one, this one without VNNI, and without AVX-512 (`older_processor.py`).

    python benchmarks/processors.py --data FOLDER

Processor time on one thread, median, milliseconds: the networks of `WEIGHTS` on one face and on a face of a batch of
32, with the points of other weights that some are given; the detector on the bundled photo, and photo to faces. With
`aflw2000-3d-dev/` in FOLDER (see `accuracy.py`) the NME of the weights of `POINTS`, crops from the true boxes, and how
far their points are from those on this processor, percent of the face's size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import older_processor
from accuracy import summary
from rich.console import Console
from rich.table import Table

import canthus
from canthus.evaluation.collect import collect, true_boxes
from canthus.evaluation.protocols import protocol
from canthus.evaluation.scores import score
from canthus.geometry.crop import Crop, box_sizes
from canthus.io.images import crop_image
from canthus.io.session import MODEL_FILE

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
WEIGHTS = ("swift", "swift-int8", "pose_aware-small", "cprfa-small")
POINTS = ("swift", "swift-int8")
BATCH = 32


def processor_ms(call: Callable[[], Any], repeats: int = 30) -> float:
    """Median of the processor time of a call, after three others."""
    times = []
    for _ in range(3 + repeats):
        begin = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - begin))
    return round(float(np.median(times[3:])), 2)


def export(out: Path) -> None:
    """Those weights of `WEIGHTS` that are not stored as ONNX, each in a folder of its name."""
    from canthus.training.export import export_onnx

    for name in WEIGHTS:
        if not (common.weights()[name] / MODEL_FILE).exists():
            export_onnx(common.weights()[name], out / name)


def times(folder: Path) -> dict[str, Any]:
    """Milliseconds on the processor of this process; `folder` holds the exported weights."""
    photo = canthus.read_image(PHOTO)
    swift = canthus.load("swift", threads=1)
    boxes, *_ = swift.detector(photo)
    found: dict[str, Any] = {
        "detector": processor_ms(lambda: swift.detector(photo)),
        "photo to faces": processor_ms(lambda: swift.predict(photo)),
    }
    for name in WEIGHTS:
        one = canthus.load(folder / name if (folder / name).exists() else common.weights()[name], threads=1)
        crop = Crop.around_boxes(boxes[:1].astype(np.float64), one.card.crop_scale, one.card.crop_size)
        cut = crop_image(photo, crop)
        many = np.repeat(cut, BATCH, 0)
        found[f"{name}, one face"] = processor_ms(lambda: one.run_batches(cut))  # noqa: B023 (called at once)
        found[f"{name}, a face of {BATCH}"] = round(processor_ms(lambda: one.run_batches(many), 5) / BATCH, 2)  # noqa: B023
    return found


def points(data: Path, out: Path) -> dict[str, dict[str, float]]:
    """NME by bins of yaw; the points go into `out`, in face sizes."""
    rules, rows = protocol("aflw2000"), {}
    samples = rules.faces(data)
    sizes = box_sizes(true_boxes(samples))
    for name in POINTS:
        found = collect(canthus.load(name, threads=1), samples)
        np.save(out / f"{name}.npy", found.xyz[..., :2] / sizes[:, None, None])
        rows[name] = {k: v for k, v in summary(score(rules, samples, found)).items() if k == "mean of bins" or "-" in k}
    return rows


def measure(weights: Path, data: Path | None, out: Path) -> None:
    """Everything on the processor of this process, into the folder `out`."""
    seen = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    rows = {"instructions, by NumPy": seen, "ms": times(weights), "NME": points(data, out) if data else {}}
    (out / "measured.json").write_text(json.dumps(rows))


def compared(folders: dict[str, Path]) -> dict[str, Any]:
    """What was measured on each processor, with the distances of points from those on the first one."""
    results = {name: json.loads((folder / "measured.json").read_text()) for name, folder in folders.items()}
    first, *_ = folders.values()
    for name, folder in folders.items():
        for weights, row in results[name]["NME"].items():
            apart = 100 * np.linalg.norm(
                np.load(folder / f"{weights}.npy") - np.load(first / f"{weights}.npy"), axis=-1
            )
            row |= {"apart, mean": float(apart.mean()), "apart, worst point": float(apart.max())}
    return results


def run(command: list[str], weights: Path, out: Path, variables: dict[str, str]) -> None:
    """Measure in a process of its own, so that libraries look at the processor anew."""
    out.mkdir()
    command = [*command, "--measure", str(weights), str(out)]
    subprocess.run(command, env=variables | {"OMP_NUM_THREADS": "1"}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--measure", type=Path, nargs=2, metavar=("WEIGHTS", "OUT"), help="on this processor alone")
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], common.development(given.data), given.measure[1])
        return
    missing = older_processor.MISSING
    if reason := older_processor.reason_against():
        print(f"{reason}: this processor alone is measured")
        missing = ()
    command = [sys.executable, __file__] + (["--data", str(given.data)] if given.data else [])
    with tempfile.TemporaryDirectory() as room:
        weights, folders = Path(room, "weights"), {"as it is": Path(room, "as it is")}
        export(weights)
        run(command, weights, folders["as it is"], dict(os.environ))
        for without in missing:
            name = f"without {without}"
            folders[name] = Path(room, name)
            with older_processor.environment(without) as variables:
                run(command, weights, folders[name], variables)
        results = compared(folders)
    table = Table("ms of processor time, one thread", *results)
    for row in results["as it is"]["ms"]:
        table.add_row(row, *(f"{r['ms'][row]:.2f}" for r in results.values()))
    for row in results["as it is"]["NME"]:
        for what in ("mean of bins", "apart, mean", "apart, worst point"):
            table.add_row(f"{row}, {what}, %", *(f"{r['NME'][row][what]:.4f}" for r in results.values()))
    Console(width=120).print(table)
    print(common.write("processors", results))


if __name__ == "__main__":
    main()
