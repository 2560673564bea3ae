"""Configurations of the methods that are small enough for tests, and trainings without chance."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from canthus.data.augment import Augmentation
from canthus.train import Recipe

# A method that is not named here is built as it is, but for the size of its crop.
CONFIGS: dict[str, dict[str, Any]] = {
    "cprfa": {
        "widths": (16, 32, 48, 48), "lookup": "reverse", "threshold": 0.04, "vertices": 64, "spacing": 2.5,
        "share": 0.03, "in_plane": "cross", "known": True, "cpr_widths": (16, 16, 32, 32, 64, 64), "hidden": 64,
        "recurrences": 2, "path_errors": "relative", "solver": "cpr-capu", "regression": "vertices",
        "code_loss": "foreground",
    },  # fmt: skip
    "swift": {"widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "features": 64, "places": 8},
}
# What of the training by heart is otherwise for a method.
TRAININGS: dict[str, dict[str, Any]] = {"cprfa": {"steps": 600, "rate": 6e-3}}
STILL = {option.name: 0.0 for option in fields(Augmentation)}  # moves nothing and covers nothing


def config(method: str, size: int = 64) -> dict[str, Any]:
    """The small configuration of a method, for crops of `size` px."""
    return {"size": size, **CONFIGS.get(method, {})}


def recipe(method: str, shards: Path, **changes: Any) -> Recipe:
    """A training that learns the few faces of `shards` by heart."""
    values: dict[str, Any] = {
        "method": method, "config": config(method), "augment": STILL, "faces": (str(shards),), "steps": 250, "batch": 8,
        "rate": 4e-3, "warm_up": 30, "average": 0.95, "bf16": False,
    }  # fmt: skip
    return Recipe(**{**values, **TRAININGS.get(method, {}), **changes})
