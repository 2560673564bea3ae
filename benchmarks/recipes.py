"""Fifty steps of each paper's recipe: that it learns by its own optimiser, rates and loss scales.

    python benchmarks/recipes.py

Eight painted faces in the layout of the data set that the recipe names, all of them in every step and nothing
augmented; networks as narrow as in tests/paper_recipes.py, whose stages get as many steps each. The same
run with rates of zero, which sees the same faces and the same chance, stands beside it. Writes
results/<version>/recipes.json and docs/images/recipes.png.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from rich.progress import track

from canthus.evaluation.report import png
from canthus.io.charts import Chart, beside, lines, rendered
from canthus.io.outputs import atomic_write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from paper_recipes import METHODS, losses  # noqa: E402

STEPS = 50
PICTURE = ROOT / "docs" / "images" / "recipes.png"


def chart(method: str, learnt: dict[str, list[float]], still: dict[str, list[float]]) -> Any:
    """Each step's loss over what the same step has without learning, a line a stage."""
    first, series = 0, {}
    for name, values in learnt.items():
        steps = list(range(first + 1, first + len(values) + 1))
        series[name] = (steps, [a / b for a, b in zip(values, still[name])])
        first += len(values)
    words = Chart(method, "step", "loss / loss without learning", (0, STEPS + 1), (0, 1.2), (360, 300))
    return rendered(lines(words, series, dots=False))


def main() -> None:
    """All five."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    results, charts = {}, []
    for method in track(METHODS, "recipes"):
        with tempfile.TemporaryDirectory() as folder:
            learnt, still = (losses(method, Path(folder), learns, STEPS) for learns in (True, False))
        charts.append(chart(method, learnt, still))
        results[method] = {
            name: {
                "loss of the last five steps": round(float(np.mean(values[-5:])), 6),
                "without learning": round(float(np.mean(still[name][-5:])), 6),
                "losses": [round(value, 6) for value in values],
            }
            for name, values in learnt.items()
        }
    print(common.write("recipes", results))
    atomic_write(PICTURE, png(beside(charts)))


if __name__ == "__main__":
    main()
