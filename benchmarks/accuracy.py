"""Accuracy of all weights of the project in one table. `benchmarks/report.py` gives more.

    python benchmarks/accuracy.py --data FOLDER [--held DIR] [--expressions DIR] [--extremes DIR] [--assets ASSETS]
        [--only NAME ...]

FOLDER holds `aflw2000-3d-dev/`, pairs of NAME.jpg and NAME.mat: 300 of the 2,000 images, 120 / 90 / 90 by |yaw|.
Protocol: original labels, crops from the box of the true landmarks, NME = mean 2D distance of the 68 points divided
by sqrt(w h) of that box, bins by the yaw of the fitted pose; GTE as the mean of images, of bins, and weighted as the
full set. Held-out renders: the same with exact labels, rendered now if `--held` has none. Expressions: renders by
held_expressions.yaml; eyes, mouth, brows and the 52 coefficients against exact truth. Extremes: the same of renders by
held_extremes.yaml, in which single coefficients reach their ends. Weights for tracking are measured
by `report.py`. With `--only` the rows of other weights stay as they were, with the versions that they are of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
from rich.console import Console
from rich.table import Table

import canthus
from canthus.evaluation.evaluate import evaluate, predict
from canthus.evaluation.protocols import HALVES
from canthus.evaluation.scores import Scores
from canthus.weights import DEFAULT

HIGH = "high"  # in the names of rows: with canthus.load(accuracy="high")
COLUMNS = ("0-30", "30-60", "60-90", "mean of bins")


# of the tables that `evaluation.movements` makes: title, row, column -> what it is called here
MOVEMENTS = {
    "eye aspect ratio correlation": ("eyes", "eye aspect ratio", "correlation"),
    "closed eyes AUC %": ("closed eyes", "eye aspect ratio", "AUC, %"),
    "closed eyes mean": ("closed eyes", "eye aspect ratio", "predicted mean, closed"),
    "open eyes mean": ("closed eyes", "eye aspect ratio", "predicted mean, open"),
    "mouth opening correlation": ("eyes", "mouth opening", "correlation"),
    "brow height correlation": ("eyes", "brow height", "correlation"),
    "eyeBlink AUC %": ("closed eyes", "eyeBlink", "AUC, %"),
    "expressions median correlation": ("expressions", "median, face", "correlation"),
    "gaze median correlation": ("expressions", "median, gaze", "correlation"),
}
NAMED = ("eyeBlink", "jawOpen", "mouthSmile", "browInnerUp")  # coefficients that have a number of their own


def movements(scores: Scores) -> dict[str, float]:
    """How well eyes, mouth, brows and expressions are told, as far as the set and the answers allow."""
    found = {}
    for name, (title, row, column) in MOVEMENTS.items():
        for table in scores.tables:
            if table.title.startswith(title) and row in table.rows:
                found[name] = table.cell(row, column)
    for table in (t for t in scores.tables if t.title == "expressions"):
        for name in NAMED:
            sides = [n for n in (name, f"{name}Left", f"{name}Right") if n in table.rows]
            if sides:
                found[f"{name} correlation"] = sum(table.cell(n, "correlation") for n in sides) / len(sides)
    return {name: value for name, value in found.items() if value == value}


def summary(scores: Scores) -> dict[str, float]:
    """The row of the README's table: percent by bins of the yaw, degrees for the pose where it was predicted; what is
    known of halves and movements."""
    bins = scores.table("by yaw of the pose")
    row = {c: bins.cell("NME box", c) for c in (*COLUMNS, "mean of images")}
    if "GTE" in bins.rows:
        row["gte"], row["gte, bins"] = (bins.cell("GTE", c) for c in ("mean of images", "mean of bins"))
        if "weighted as the full set" in bins.columns:
            row["gte, full set"] = bins.cell("GTE", "weighted as the full set")
    row |= {f"{c}, {h}": bins.cell(f"NME box, {h}", c) for h in HALVES if f"NME box, {h}" in bins.rows for c in COLUMNS}
    if any(t.title.startswith("pose") for t in scores.tables):
        row["pose_degrees"] = scores.table("pose").cell("all", "geodesic")
    return row | movements(scores) | {"faces": len(scores.pairs.found), "missed": int((~scores.pairs.found).sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--held", type=Path, default=Path("out/held"), help="held-out renders")
    parser.add_argument("--expressions", type=Path, default=Path("out/held_expressions"), help="renders of expressions")
    parser.add_argument("--extremes", type=Path, default=Path("out/held_extremes"), help="of single ones up to the end")
    parser.add_argument("--only", nargs="+", choices=list(common.weights()), help="measure these weights alone")
    given = parser.parse_args()
    photos, renders = common.development(given.data), common.renders(given.held, given.assets)
    kinds = [
        ("renders", renders, "true", "renders, true boxes"),
        ("renders", common.expressions(given.expressions, given.assets), "true", "expressions"),
        ("renders", common.extremes(given.extremes, given.assets), "true", "extremes"),
    ]
    if photos:
        kinds = [("aflw2000", photos, "true", "true boxes"), ("aflw2000", photos, "detected", "own detector"), *kinds]
    names = given.only or [n for n, f in common.weights().items() if common.tracks_for(f) is None]
    before = common.record("accuracy") if given.only else None
    versions = (before["weights"] if before else {}) | {n: common.versions()[n] for n in names}
    results = dict(before["results"]) if before else {}
    aligners = {name: common.load(common.weights()[name]) for name in names}
    if DEFAULT in names:
        aligners[f"{DEFAULT} {HIGH}"] = canthus.load(accuracy="high")
    for name, aligner in aligners.items():
        for protocol, pictures, boxes, title in kinds:
            scores = evaluate(protocol, pictures, predict(protocol, pictures, aligner, boxes))
            results[f"{name}, {title}"] = {k: round(v, 4) for k, v in summary(scores).items()}
            print(f"{name}, {title}: {results[f'{name}, {title}']['mean of bins']:.2f}", flush=True)
    columns = (*COLUMNS, "gte", "pose_degrees", "missed")
    table = Table("NME %", *columns)
    for name, row in results.items():
        table.add_row(name, *(f"{row[c]:.2f}" if c in row else "" for c in columns))
    Console().print(table)
    print(common.write("accuracy", results, versions))


if __name__ == "__main__":
    main()
