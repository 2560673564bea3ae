"""Faces held in memory: stored pictures with their truth, ready to be cropped and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from canthus.errors import RecipeError

FIELDS = ("image", "xyz", "visible", "rotation")


class StoredFaces:
    """Rendered shards (`canthus synth`) read into memory.

    image (N,H,W,3) uint8, xyz (N,68,3) pixels, visible (N,68) bool, rotation (N,3,3).
    """

    def __init__(self, folders: Sequence[str | Path]):
        paths = [p for folder in folders for p in sorted(Path(folder).glob("shard-*.npz"))]
        if not paths:
            raise RecipeError(f"no shard-*.npz in {[str(f) for f in folders]}: render some with `canthus synth`")
        parts: dict[str, list[np.ndarray]] = {f: [] for f in FIELDS}
        for path in paths:
            with np.load(path, allow_pickle=False) as shard:
                for f in FIELDS:
                    parts[f].append(shard[f])
        self.image, self.xyz, self.visible, self.rotation = (np.concatenate(parts.pop(f)) for f in FIELDS)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images (B,3,H,W) uint8, xyz, visible and rotation of the faces `index` (B,)."""
        image = torch.from_numpy(self.image[index]).permute(0, 3, 1, 2)
        xyz, visible, rotation = (torch.from_numpy(a[index]) for a in (self.xyz, self.visible, self.rotation))
        return image, xyz, visible, rotation
