"""Accuracy of the shipped weights on development images of AFLW2000-3D. `canthus evaluate --report` gives more.

    python benchmarks/accuracy.py --data FOLDER

FOLDER holds `aflw2000-3d-dev/`, pairs of NAME.jpg and NAME.mat: 300 of the 2,000 images, 120 / 90 / 90 by |yaw|.
Protocol: original labels, crops from the box of the true landmarks, NME = mean 2D distance of the 68 points divided
by sqrt(w h) of that box, bins by the yaw of the pose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
from rich.console import Console
from rich.table import Table

import canthus
from canthus.benchmark.scores import Scores
from canthus.evaluate import evaluate, predict


def summary(scores: Scores) -> dict[str, float]:
    """The row of the README's table: percent by bins of the fitted yaw, degrees for the pose."""
    bins = scores.table("by yaw of the pose")
    row = {c: bins.cell("NME box", c) for c in ("0-30", "30-60", "60-90", "mean of bins", "mean of images")}
    pose = scores.table("pose")
    return row | {
        "gte": bins.cell("GTE", "mean of images"),
        "pose_degrees": pose.cell("all", "geodesic"),
        "faces": len(scores.pairs.found),
        "missed": int((~scores.pairs.found).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "aflw2000-3d-dev"
    results = {}
    for name in ("swift", "swift-int8"):
        for boxes, title in (("true", "true boxes"), ("detected", "own detector")):
            scores = evaluate("aflw2000", folder, predict("aflw2000", folder, canthus.load(name), boxes))
            tenths = [{"score": round(a, 3), "measured": round(b, 3)} for a, b in scores.calibration]
            results[f"{name}, {title}"] = summary(scores) | {"calibration": tenths}
    columns = ("0-30", "30-60", "60-90", "mean of bins", "gte", "pose_degrees", "missed")
    table = Table("NME %", *columns)
    for name, row in results.items():
        table.add_row(name, *(f"{row[c]:.2f}" for c in columns))
    Console().print(table)
    print(common.write("accuracy", results))


if __name__ == "__main__":
    main()
