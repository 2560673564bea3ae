"""Cloth over the lower face: masks below the bridge of the nose and scarves, draped on the head they lie on."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from canthus.synth.heads import Piece
from canthus.synth.solids import grid, join, piece, tube


def _radii(skin: np.ndarray, axis: np.ndarray, turn: np.ndarray, height: np.ndarray) -> np.ndarray:
    """How far the skin (V,3) reaches from a vertical axis through (x,z) at angles `turn` from +z and at heights."""
    d = skin[:, [0, 2]] - axis
    far = np.hypot(*d.T)
    place = np.column_stack([np.arctan2(d[:, 0], d[:, 1]) * 8, skin[:, 1]])  # a head has a radius of some 8 cm
    near = cKDTree(place).query(np.column_stack([turn.ravel() * 8, height.ravel()]), 6)[1]
    return far[near].max(1).reshape(turn.shape)


def _tightened(radius: np.ndarray, wraps: bool, passes: int) -> np.ndarray:
    """Cloth does not follow into hollows: smoothed, but never below the skin."""
    out = radius
    for _ in range(passes):
        wide = np.pad(out, ((1, 1), (0, 0)), "edge")
        wide = np.pad(wide, ((0, 0), (1, 1)), "wrap" if wraps else "edge")
        smooth = (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]) / 4
        out = np.maximum(smooth, radius)
    return out


def _colours(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Linear colours (rows*columns,3) of cloth: plain, or striped along the rows."""
    plain = rng.random() < 0.7
    pale = rng.random() < 0.6
    base = np.array([0.55, 0.68, 0.75]) * rng.uniform(0.8, 1.25, 3) if pale else rng.uniform(0.01, 0.7, 3)
    other = base if plain else rng.uniform(0.02, 0.8, 3)
    stripe = (np.arange(rows) // rng.integers(2, 4) % 2)[:, None, None]
    return np.clip(np.where(stripe, base, other) + np.zeros((rows, columns, 1)), 0, 1).reshape(-1, 3)


def mask(rng: np.random.Generator, skin: np.ndarray, points: np.ndarray) -> list[Piece]:
    """A mask with its loops, from the nose or below it to the chin; vertices of the skin (V,3), landmarks (68,3)."""
    rows, columns = 18, 29
    axis = np.array([0.0, points[[0, 16], 2].mean() + 1.5])
    reach = np.radians(rng.uniform(62, 80))
    u, v = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(0, 1, rows))
    top = points[28 if rng.random() < 0.85 else 33, 1] + rng.uniform(-0.8, 0.3)  # a few wear it below the nose
    side_top, bottom = points[[2, 14], 1].mean() + rng.uniform(0.3, 1.6), points[8, 1] - rng.uniform(0.2, 0.8)
    side_bottom = points[[5, 11], 1].mean()
    above = side_top + (top - side_top) * np.cos(u * np.pi / 2) ** 1.5
    below = side_bottom + (bottom - side_bottom) * np.cos(u * np.pi / 2)
    height = above + (below - above) * v
    turn = u * reach
    radius = _tightened(_radii(skin, axis, turn, height), False, 25) + rng.uniform(0.2, 0.45)
    radius += 0.06 * np.sin(v * np.pi * rng.integers(3, 9) * 2) * np.cos(u * np.pi / 2)  # pleats
    radius -= 1.2 * np.clip((v - 0.85) / 0.15, 0, 1) ** 2 * np.cos(u * np.pi / 2)  # under the chin
    sheet = np.stack([axis[0] + radius * np.sin(turn), height, axis[1] + radius * np.cos(turn)], -1)
    loops = []
    for side, ear in ((0, points[0]), (-1, points[16])):
        behind = ear + [np.sign(ear[0]) * 0.6, 0.5, -2.5]
        for corner in (sheet[0, side], sheet[-1, side]):
            loops.append(tube(np.linspace(corner, behind, 8), 0.09, sides=5))
    cloth = _colours(rng, rows, columns)
    return [
        piece("mask", grid(sheet, around=False), cloth, 0.05),
        piece("mask", join(loops), cloth.mean(0), 0.05),
    ]


def scarf(rng: np.random.Generator, skin: np.ndarray, points: np.ndarray) -> list[Piece]:
    """A scarf around the neck, up to the chin, the mouth or the nose; arguments as of `mask`."""
    rows, columns = 16, 56
    axis = np.array([0.0, points[[0, 16], 2].mean() - 0.5])
    top = points[rng.choice([33, 51, 62, 57, 8], p=[0.25, 0.2, 0.2, 0.2, 0.15]), 1] + rng.uniform(-0.4, 0.2)
    v, turn = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-np.pi, np.pi, columns, endpoint=False), indexing="ij")
    nape = rng.uniform(0.5, 2.5)
    upper = top - nape * (1 - np.cos(turn)) / 2
    height = upper + (skin[:, 1].min() + 1.0 - upper) * v
    radius = _tightened(_radii(skin, axis, turn, height), True, 40)
    folds = sum(
        rng.uniform(0.1, 0.35) * np.sin(k * turn + 2 * np.pi * m * v + rng.uniform(0, 2 * np.pi))
        for k, m in ((1, 2.0), (2, 3.0), (5, 4.0), (3, 6.0))
    )
    radius = radius + rng.uniform(0.6, 1.4) + np.maximum(folds, -0.4)
    rim = np.concatenate([radius[:1] - 0.7, radius])  # a rolled upper edge
    heights = np.concatenate([height[:1] - 0.5, height])
    turns = np.concatenate([turn[:1], turn])
    sheet = np.stack([axis[0] + rim * np.sin(turns), heights, axis[1] + rim * np.cos(turns)], -1)
    return [piece("scarf", grid(sheet, around=True), _colours(rng, rows + 1, columns), 0.05)]
