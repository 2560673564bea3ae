"""Configurations of the methods that are small enough for tests, and trainings without chance."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from canthus.data.augment import Augmentation
from canthus.training.train import Recipe

# A method that is not named here is built as it is, but for the size of its crop.
CONFIGS: dict[str, dict[str, Any]] = {
    "jvcr": {"depths": (1, 16), "channels": 32, "levels": 3, "widths": (16, 32, 64), "voxel_loss": "bce"},
    "local_global": {
        "stacks": 2, "depth": 2, "channels": 32, "radius": 3.0, "decode": "dark", "finetune": "offset",
        "finetune_widths": (16, 32), "finetune_features": 64,
    },
    "cprfa": {
        "widths": (16, 32, 48, 48), "lookup": "reverse", "threshold": 0.04, "vertices": 64, "spacing": 2.5,
        "share": 0.03, "in_plane": "cross", "known": True, "cpr_widths": (16, 16, 32, 32, 64, 64), "hidden": 64,
        "recurrences": 2, "path_errors": "normalised", "solver": "cpr-capu", "regression": "vertices",
        "code_loss": "foreground",
    },
    "swift": {
        "widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "features": 64, "places": 8, "heatmaps": 16, "modes": 16,
    },
    "part_heatmap": {
        "landmarks": 68, "map_stride": 2, "detection_depths": (1, 1, 1, 1), "detection_width": 16, "prior": 0.01,
        "regression_width": 64, "regression_levels": 2, "last_deconv": 8, "sigma": 6.0, "decode": "dark",
        "depth_depths": (1, 1, 1), "depth_width": 16, "z_input": "redrawn", "z_loss": "sides", "flip_test": False,
    },
    # What a head model completes can be learnt by heart only as far as the points that are placed tell of it: many are.
    "pose_aware": {
        "extra": (22, 35, 45, 54, *range(9)), "jaw": "fixed", "noise": 0.01, "iterations": 5,
        "depths": (1, 1, 1, 1), "width": 16, "bottleneck": False, "gain": 16.0,
    },
}  # fmt: skip
# What a method's training by heart needs otherwise than the others. pose_aware: two networks one after the other, the
# second on frames that are shaken.
TRAININGS: dict[str, dict[str, Any]] = {
    "cprfa": {"steps": 900, "lr": 6e-3},
    "part_heatmap": {"steps": 350},
    "pose_aware": {"steps": 600, "batch": 16, "grad_clip": 1e6},
}
STILL = {
    o.name: 0.0 for o in fields(Augmentation) if isinstance(o.default, float) and o.name not in ("clip", "cover")
}  # moves nothing and covers nothing


def config(method: str, size: int = 64) -> dict[str, Any]:
    """The small configuration of a method, for crops of `size` px."""
    return {"size": size, **CONFIGS.get(method, {})}


def recipe(method: str, shards: Path, **changes: Any) -> Recipe:
    """A training that learns the few faces of `shards` by heart."""
    values: dict[str, Any] = {
        "method": method, "config": config(method), "augment": STILL, "faces": (str(shards),), "steps": 250, "batch": 8,
        "lr": 4e-3, "warmup_steps": 30, "ema_decay": 0.95, "float32": True,
    }  # fmt: skip
    return Recipe(**{**values, **TRAININGS.get(method, {}), **changes})
