"""What people wear: glasses, caps, and cloth over the lower face (masks and scarves), draped on the head."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from canthus.synth.scene import Piece
from canthus.synth.solids import Mesh, grid, join, piece, tube


def glasses(rng: np.random.Generator, points: np.ndarray) -> list[Piece]:
    """Frame, temples and lenses on landmarks (68,3); clear two times in three, dark otherwise."""
    eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
    eye_distance = np.linalg.norm(eyes[1] - eyes[0])
    front = max(points[27, 2], eyes[:, 2].max() + 0.9) + rng.uniform(0.1, 0.5)
    width, height = eye_distance * rng.uniform(0.33, 0.45), eye_distance * rng.uniform(0.24, 0.42)
    power = rng.uniform(2, 5)  # superellipse: from round to boxy
    drop = rng.uniform(-0.5, 0.2)
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    outline = np.stack(
        [
            np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power) * width,
            np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power) * height,
        ],
        1,
    )
    radius = rng.uniform(0.05, 0.22)
    colour = rng.uniform(0.0, 0.35, 3) if rng.random() < 0.8 else rng.uniform(0.2, 0.9, 3)
    dark = rng.random() < 1 / 3
    lens_colour, lens_alpha = (
        (rng.uniform(0.0, 0.12, 3), rng.uniform(0.75, 1.0)) if dark else (np.full(3, 0.9), rng.uniform(0.02, 0.15))
    )
    frame: list[Mesh] = []
    out: list[Piece] = []
    for eye, sign in zip(eyes, (-1, 1)):
        centre = np.array([eye[0] + sign * eye_distance * 0.03, eye[1] + drop, front])
        bend = -0.08 * sign * outline[:, 0] - 0.02 * outline[:, 0] ** 2
        rim = centre + np.column_stack([outline, bend])
        frame.append(tube(rim, radius, closed=True))
        fan = np.vstack([rim.mean(0), rim])
        k = np.arange(36)
        disc = fan, np.stack([np.zeros(36, int), 1 + k, 1 + (k + 1) % 36], 1)
        out.append(piece("lens", disc, lens_colour, 2.0, lens_alpha))
        hinge = centre + [sign * width, height * 0.4, -0.3]
        ear = points[0 if sign < 0 else 16] + [0, 1.2, -1.0]
        frame.append(tube(np.linspace(hinge, [ear[0] + sign * 0.4, ear[1], ear[2]], 12), radius * 0.8))
    left, right = (
        e + [s * (width - eye_distance * 0.03), drop + height * 0.35, front - e[2]] for e, s in zip(eyes, (1, -1))
    )
    frame.append(tube(np.linspace(left, right, 6) + np.array([0, 0.1, 0.15]), radius))
    return [piece("frame", join(frame), colour, 1.0), *out]


def cap(rng: np.random.Generator, skull: np.ndarray, points: np.ndarray) -> tuple[Piece, tuple[np.ndarray, np.ndarray]]:
    """A beanie or a cap with a brim over the skull vertices (V,3); centre (3,) and half axes (3,) of its dome."""
    brow = points[17:27].mean(0)
    edge = brow[1] + rng.uniform(1.0, 3.0)
    above = skull[skull[:, 1] > edge]
    centre = np.array([0.0, edge, (above[:, 2].max() + above[:, 2].min()) / 2])
    reach = np.array(
        [np.abs(above[:, 0]).max(), above[:, 1].max() - edge, (above[:, 2].max() - above[:, 2].min()) / 2]
    ) * rng.uniform(1.1, 1.2)
    rows, columns = 10, 40
    polar, turn = np.meshgrid(
        np.linspace(np.pi / 2 + 0.15, 0, rows), np.linspace(0, 2 * np.pi, columns, endpoint=False), indexing="ij"
    )
    bulge = np.abs(np.sin(polar)) ** 0.8  # fuller than an ellipsoid, as foreheads are
    dome = centre + np.stack([bulge * np.sin(turn), np.cos(polar), bulge * np.cos(turn)], -1) * reach
    if rng.random() < 0.5:  # a brim grows out of the front of the lowest two rows
        forward = np.clip(np.cos(turn[0]), 0, 1)[:, None] ** 0.5
        dome[0] += forward * np.array([0, -0.8, rng.uniform(4, 8)])
    return piece("cap", grid(dome, around=True), rng.uniform(0.02, 0.9, 3), 0.05), (centre, reach)


def press_under_cap(hair: np.ndarray, dome: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Hair (V,3) under a cap: what stands outside the dome of `cap` is moved inside it."""
    centre, reach = dome
    d = (hair - centre) / reach
    far = np.linalg.norm(d, axis=1, keepdims=True)
    inside = centre + d / np.maximum(far, 1e-6) * reach * 0.95
    return np.where((far > 0.95) & (d[:, 1:2] > -0.08), inside, hair).astype(np.float32)


def _radii(skin: np.ndarray, axis: np.ndarray, turn: np.ndarray, height: np.ndarray) -> np.ndarray:
    """How far the skin (V,3) reaches from a vertical axis through (x,z) at angles `turn` from +z and at heights."""
    d = skin[:, [0, 2]] - axis
    far = np.hypot(*d.T)
    place = np.column_stack([np.arctan2(d[:, 0], d[:, 1]) * 8, skin[:, 1]])  # a head has a radius of some 8 cm
    near = cKDTree(place).query(np.column_stack([turn.ravel() * 8, height.ravel()]), 6)[1]
    return far[near].max(1).reshape(turn.shape)


def _tightened(radius: np.ndarray, wraps: bool, passes: int) -> np.ndarray:
    """The radius of cloth, which does not follow hollows: smoothed, but never below the skin."""
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
