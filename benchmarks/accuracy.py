"""Accuracy of the shipped weights: AFLW2000-3D development images and, where there are any, held-out renders.

    python benchmarks/accuracy.py --data FOLDER

FOLDER holds `aflw2000-3d-dev/`, pairs of NAME.jpg and NAME.mat: 300 of the 2,000 images, 120 / 90 / 90 by |yaw|.
Protocol: original labels, crops from the box of the true landmarks, NME = mean 2D distance of the 68 points divided
by sqrt(w h) of that box, bins by the yaw of the fitted pose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.table import Table

import canthus
from canthus.evaluate import Evaluation, evaluate_aflw2000
from canthus.faces import SCORE_RADIUS


def calibration(result: Evaluation) -> list[dict[str, float]]:
    """Tenths of the points by score: the mean score, and the share that really lies within the radius."""
    order = np.argsort(result.scores.ravel())
    hit = (result.distance.ravel() < SCORE_RADIUS)[order]
    return [
        {"score": round(float(s.mean()), 3), "measured": round(float(h.mean()), 3)}
        for s, h in zip(np.array_split(result.scores.ravel()[order], 10), np.array_split(hit, 10))
    ]


def detector_row(name: str, folder: Path) -> dict[str, float]:
    """The same faces found by our own detector: the face whose centre is nearest to the true one's."""
    from canthus import metrics
    from canthus.data.formats import read_300wlp
    from canthus.geometry.rotation import euler_from_matrix

    aligner = canthus.load(name)
    errors, yaws, missed = [], [], 0
    for sample in read_300wlp(folder):
        faces = aligner.predict(sample.image)
        truth = sample.xyz
        middle = (truth[:, :2].max(0) + truth[:, :2].min(0)) / 2
        side = (truth[:, :2].max(0) - truth[:, :2].min(0)).max()
        away = np.linalg.norm((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - middle, axis=1)
        if not len(away) or away.min() > side:
            missed += 1
            continue
        errors.append(metrics.nme_box(faces.xyz[[away.argmin()]], truth[None])[0])
        yaws.append(euler_from_matrix(sample.rotation, "aflw")[1])
    row = metrics.table_row(np.array(errors), metrics.yaw_bins(np.array(yaws)))
    near, half, far = (100 * float(b) for b in row.bins)
    return {"0-30": near, "30-60": half, "60-90": far, "mean of bins": 100 * float(row.mean_of_bins), "missed": missed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "aflw2000-3d-dev"
    results = {}
    for name in ("swift", "swift-int8"):
        result = evaluate_aflw2000(canthus.load(name), folder)
        results[f"{name}, true boxes"] = {**result.row(), "calibration": calibration(result)}
        results[f"{name}, own detector"] = detector_row(name, folder)
    columns = ("0-30", "30-60", "60-90", "mean of bins", "gte", "pose_degrees", "missed")
    table = Table("NME %", *columns)
    for name, row in results.items():
        table.add_row(name, *(f"{row[c]:.2f}" if c in row else "" for c in columns))
    Console().print(table)
    print(common.write("accuracy", results))


if __name__ == "__main__":
    main()
