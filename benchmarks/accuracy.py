"""Accuracy of all weights of the project in one table. `benchmarks/report.py` gives more.

    python benchmarks/accuracy.py --data FOLDER [--held FOLDER] [--assets HEAD_ASSETS]

FOLDER holds `aflw2000-3d-dev/`, pairs of NAME.jpg and NAME.mat: 300 of the 2,000 images, 120 / 90 / 90 by |yaw|.
Protocol: original labels, crops from the box of the true landmarks, NME = mean 2D distance of the 68 points divided
by sqrt(w h) of that box, bins by the yaw of the fitted pose. Held-out renders: the same with exact labels, rendered
now if `--held` has none. Weights for tracking are measured by `report.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
from rich.console import Console
from rich.table import Table

from canthus.evaluation.evaluate import evaluate, predict
from canthus.evaluation.scores import Scores

COLUMNS = ("0-30", "30-60", "60-90", "mean of bins")


def summary(scores: Scores) -> dict[str, float]:
    """The row of the README's table: percent by bins of the yaw, degrees for the pose where it was predicted."""
    bins = scores.table("by yaw of the pose")
    row = {c: bins.cell("NME box", c) for c in (*COLUMNS, "mean of images")}
    if "GTE" in bins.rows:
        row["gte"] = bins.cell("GTE", "mean of images")
    if any(t.title.startswith("pose") for t in scores.tables):
        row["pose_degrees"] = scores.table("pose").cell("all", "geodesic")
    return row | {"faces": len(scores.pairs.found), "missed": int((~scores.pairs.found).sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--held", type=Path, default=Path("out/held"), help="held-out renders")
    given = parser.parse_args()
    photos, renders = common.development(given.data), common.renders(given.held, given.assets)
    kinds = [("renders", renders, "true", "renders, true boxes")]
    if photos:
        kinds = [("aflw2000", photos, "true", "true boxes"), ("aflw2000", photos, "detected", "own detector"), *kinds]
    results = {}
    for name, folder in common.weights().items():
        if common.tracks_for(folder) is None:
            aligner = common.load(folder)
            for protocol, pictures, boxes, title in kinds:
                scores = evaluate(protocol, pictures, predict(protocol, pictures, aligner, boxes))
                results[f"{name}, {title}"] = {k: round(v, 4) for k, v in summary(scores).items()}
                print(f"{name}, {title}: {results[f'{name}, {title}']['mean of bins']:.2f}", flush=True)
    columns = (*COLUMNS, "gte", "pose_degrees", "missed")
    table = Table("NME %", *columns)
    for name, row in results.items():
        table.add_row(name, *(f"{row[c]:.2f}" if c in row else "" for c in columns))
    Console().print(table)
    print(common.write("accuracy", results))


if __name__ == "__main__":
    main()
