"""Batches of faces: stored pictures with their truth, and the crops of them that a network sees.

Where the truth of a data set is partial, points and rotation are finite all the same: the mean head stands in for what
is not known (`truth.whole_truth`), so that crops can be cut and shapes compared. Such a guess must not count in a loss:
`known`, `deep` and `posed` tell. None, as of rendered faces, means that everything is known. Only a guess of which
points are visible does count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

Need = Literal["depth", "rotation", "points", "visibility", "expression", "vertices"]
"""What a loss term may need of the truth of a face: depth, a rotation, all points, which points are visible, some
expression coefficient, the vertices of the head."""
MASKS = ("known", "deep", "posed")


@dataclass(frozen=True, eq=False)
class BatchTruth:
    """The truth of B faces, in pixels of their pictures.

    xyz: (B,68,3), mean z zero. visible: (B,68), bool or 0 and 1. rotation: (B,3,3) camera-from-head. vertices: (B,V,3)
    of `MorphableModel.default()` in the frame of xyz, or None. expression: (B,52) coefficients in the order of
    `expressions.EXPRESSIONS`, NaN if unknown, or None. known: (B,68) bool, points whose x and y are truth; deep, posed:
    (B,) bool, whether their z, and the rotation, are; each None if all are. modes: (B,K), see `FaceSample.modes`, NaN
    of mirrored faces; or None. number: (B,) int64, which face of its source each is, the same in all epochs; or None.
    """

    xyz: Tensor
    visible: Tensor
    rotation: Tensor
    vertices: Tensor | None = None
    expression: Tensor | None = None
    known: Tensor | None = None
    deep: Tensor | None = None
    posed: Tensor | None = None
    modes: Tensor | None = None
    number: Tensor | None = None

    def having(self, need: Need) -> Tensor | None:
        """Which faces (B,) have what a loss term needs; None if all have."""
        if need == "visibility":  # a guess of it counts as well
            return None
        if need == "points":
            return None if self.known is None else self.known.all(1)
        if need == "expression" and self.expression is not None:
            return torch.isfinite(self.expression).any(1)
        if need == "vertices" and self.vertices is not None:
            return None
        if need in ("expression", "vertices"):
            return self.xyz.new_zeros(len(self.xyz), dtype=torch.bool)
        return {"depth": self.deep, "rotation": self.posed}[need]

    @property
    def known_axes(self) -> Tensor | None:
        """(B,68,3) bool: coordinates of xyz that are truth; None if all are."""
        if self.known is None and self.deep is None:
            return None
        known = torch.ones_like(self.visible, dtype=torch.bool) if self.known is None else self.known
        deep = known if self.deep is None else known & self.deep[:, None]
        return torch.stack([known, known, deep], -1)


@dataclass(frozen=True, eq=False)
class StoredBatch(BatchTruth):
    """B stored pictures and their truth.

    images: (B,3,H,W) uint8 or float 0..255. boxes: (B,4) around the 68 landmarks, which the points of a scheme without
    a jaw line do not give; None: around xyz.
    """

    images: Tensor = field(kw_only=True)
    boxes: Tensor | None = field(default=None, kw_only=True)

    def to(self, device: torch.device) -> StoredBatch:
        """The same on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: None if v is None else v.to(device, non_blocking=True) for name, v in values.items()
        }
        return StoredBatch(**moved)


@dataclass(frozen=True, eq=False)
class FaceBatch(BatchTruth):
    """B crops and their truth. crops: (B,3,S,S) RGB 0..1."""

    crops: Tensor = field(kw_only=True)

    @classmethod
    def concat(cls, batches: list[FaceBatch]) -> FaceBatch:
        """Several batches as one; optional truth is kept if all have it, masks if one has them."""
        joined: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(b, f.name) for b in batches]
            if f.name in MASKS and any(v is not None for v in values):
                shape = slice(2 if f.name == "known" else 1)
                ones = [b.visible.new_ones(b.visible.shape[shape], dtype=torch.bool) for b in batches]
                values = [one if v is None else v for v, one in zip(values, ones)]
            joined[f.name] = None if any(v is None for v in values) else torch.cat(values)
        return cls(**joined)
