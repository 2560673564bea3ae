"""The recipes of the papers on painted faces in the layouts of their data sets, with narrow networks, for tests and for
benchmarks/recipes.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import painted_sets
from small import STILL

from canthus.training.aligner import build
from canthus.training.recipe import Recipe
from canthus.training.train import train

# What makes the networks narrow; nothing else of the paper's configuration changes, but for cprfa's fused detector.
NARROW: dict[str, dict[str, Any]] = {
    "jvcr": {"size": 64, "depths": [1, 16], "channels": 32, "levels": 3, "widths": [16, 32, 64]},
    "local_global": {
        "size": 64, "stacks": 2, "depth": 2, "channels": 32, "finetune_widths": [16, 32], "finetune_features": 64,
    },
    "part_heatmap": {
        "size": 64, "detection_depths": [1, 1, 1, 1], "detection_width": 16, "regression_width": 64,
        "regression_levels": 2, "depth_depths": [1, 1, 1], "depth_width": 16,
    },
    "pose_aware": {"size": 64, "depths": [1, 1, 1, 1], "width": 16},
    "cprfa": {
        "size": 64, "widths": [16, 32, 48, 48], "vertices": 64, "cpr_widths": [16, 16, 32, 32, 64, 64], "hidden": 64,
        "recurrences": 2, "solver": "cpr-capu",
    },
}  # fmt: skip
SETS = {
    "jvcr": painted_sets.lp300w, "local_global": painted_sets.lp300w, "part_heatmap": painted_sets.fdaw3,
    "pose_aware": painted_sets.w300, "cprfa": painted_sets.lp300w,
}  # fmt: skip
METHODS = sorted(NARROW)


def paper_recipe(method: str, folder: Path, **changes: Any) -> Recipe:
    """The paper's recipe on `folder`, with narrow networks and batches of 8."""
    plain = Recipe.read(f"{method}-paper")
    stages = {name: {**own, **({"batch": 8} if "batch" in own else {})} for name, own in plain.stages.items()}
    config = {**plain.config, **NARROW[method]}
    faces = [str(SETS[method](folder))]
    values = {"faces": faces, "config": config, "stages": stages, "batch": 8, "save_every": 10**6, "picture_every": 0}
    return Recipe.read(f"{method}-paper", **{**values, **changes})


def stages_of_equal_length(method: str) -> dict[str, dict[str, Any]]:
    own = Recipe.read(f"{method}-paper").stages
    names = [stage.name for stage in build(method, NARROW[method]).stages()]
    return {name: {**own.get(name, {}), "share": 1.0, "batch": 4} for name in names}


def losses(method: str, folder: Path, learns: bool, steps: int = 50) -> dict[str, list[float]]:
    """The loss of each step, by stage, all eight faces in every step and nothing augmented. A run with rates of zero
    sees the same faces and the same chance in each step, so that the two can be compared step by step."""
    stages = {name: {**own, "batch": 8} for name, own in stages_of_equal_length(method).items()}
    of_run = stages if learns else {name: {**own, "lr": 0.0} for name, own in stages.items()}
    recipe = paper_recipe(method, folder / "set", steps=steps, augment=STILL, stages=of_run)
    seen: dict[str, list[float]] = {}
    for row in train(recipe, folder / f"run-{learns}"):
        seen.setdefault(row["stage"], []).append(row["loss"])
    return seen
