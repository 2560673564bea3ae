"""Lids that close: the blink of a head model is one motion for all heads, however far their eyes are open."""

from __future__ import annotations

import numpy as np

from canthus.face.measures import vertical
from canthus.synth.heads import HeadAssets

# upper and lower lid's points over each other, by side of the subject
PAIRS = {"_R": ((37, 41), (38, 40)), "_L": ((43, 47), (44, 46))}


def blinked(assets: HeadAssets, vertices: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Vertices (V,3) of a head with an expression (E,), in which a blink closes what is open: eyeBlink b leaves 1 - b
    of the opening that the head has without it, where it closes last.

    By the model alone a blink of 1 lets the lids of one head cross by half a centimetre and leaves those of another
    half open, so that the coefficient would say little of the picture.
    """
    points = assets.landmarks(vertices)
    up = vertical(points[None])[0]
    for side, pairs in PAIRS.items():
        unit = assets.expression_names.index(f"eyeBlink{side}")
        if (blink := float(expression[unit])) > 0:
            mode = assets.expression[unit].reshape(-1, 3)
            closes = -_gaps(assets.landmarks(mode), pairs, up)  # cm, by a blink of 1 as the model has it
            opening = _gaps(points, pairs, up) + blink * closes  # without the blink
            needed = max((opening / closes).max(), 0)  # 0: other units have closed the eye
            vertices = vertices + np.float32(blink * (needed - 1)) * mode
    return vertices


def uncrossed(points: np.ndarray) -> np.ndarray:
    """Landmarks (68,3) of a head, upper lids' points not below those of the lower lid: where they are, both move to the
    height in the middle, so that a closed eye has an aspect ratio of 0."""
    points, up = points.copy(), vertical(points[None])[0]
    for pairs in PAIRS.values():
        for (upper, lower), gap in zip(pairs, _gaps(points, pairs, up)):
            half = min(gap, 0) / 2 * up
            points[upper], points[lower] = points[upper] - half, points[lower] + half
    return points


def _gaps(points: np.ndarray, pairs: tuple[tuple[int, int], ...], up: np.ndarray) -> np.ndarray:
    """How far upper points are over lower ones (P,), of (68,3) along `up` (3,)."""
    upper, lower = np.transpose(pairs)
    return (points[upper] - points[lower]) @ up
