"""Batches of faces: stored pictures with their truth, and the crops of them that a network sees."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StoredBatch:
    """B stored pictures and their truth.

    images: (B,3,H,W) uint8 or float 0..255. xyz: (B,68,3) pixels, mean z zero. visible: (B,68) bool. rotation: (B,3,3)
    camera-from-head. vertices: (B,V,3) of `MorphableModel.default()` in the frame of xyz, or None. expression: (B,52)
    coefficients in the order of `expressions.EXPRESSIONS`, NaN if unknown, or None.
    """

    images: Tensor
    xyz: Tensor
    visible: Tensor
    rotation: Tensor
    vertices: Tensor | None = None
    expression: Tensor | None = None

    def to(self, device: torch.device) -> StoredBatch:
        """The same on a device."""
        values = [getattr(self, f.name) for f in fields(self)]
        moved: list[Any] = [None if v is None else v.to(device, non_blocking=True) for v in values]
        return StoredBatch(*moved)


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """B crops and their ground truth.

    crops: (B,3,S,S) RGB 0..1. xyz: (B,68,3) crop pixels, mean z zero. visible: (B,68) 0 or 1.
    rotation: (B,3,3) camera-from-head.
    vertices: (B,V,3) of `MorphableModel.default()` in the frame of xyz, where the data has dense truth, or None.
    expression: (B,52) coefficients in the order of `expressions.EXPRESSIONS`, NaN if unknown.
    """

    crops: Tensor
    xyz: Tensor
    visible: Tensor
    rotation: Tensor
    vertices: Tensor | None = None
    expression: Tensor | None = None

    @classmethod
    def concat(cls, batches: list[FaceBatch]) -> FaceBatch:
        """Several batches as one; optional fields are kept if all have them."""
        joined: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(b, f.name) for b in batches]
            joined[f.name] = None if any(v is None for v in values) else torch.cat(values)
        return cls(**joined)
