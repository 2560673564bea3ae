"""One batch of faces, as every loader gives it and every loss takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """B crops and their truth.

    crops: (B,3,S,S) RGB 0..1. xyz: (B,68,3) crop pixels, mean z zero. visible: (B,68) 0 or 1.
    rotation: (B,3,3) camera-from-head.
    """

    crops: Tensor
    xyz: Tensor
    visible: Tensor
    rotation: Tensor
