"""One batch of faces, as every loader gives it and every loss takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """B crops and their truth.

    crops: (B,3,S,S) RGB 0..1. xyz: (B,68,3) crop pixels, mean z zero. visible: (B,68) 0 or 1.
    rotation: (B,3,3) camera-from-head.
    vertices: (B,V,3) of `MorphableModel.default()` in the frame of xyz, where the data has dense truth, or None.
    """

    crops: Tensor
    xyz: Tensor
    visible: Tensor
    rotation: Tensor
    vertices: Tensor | None = None
