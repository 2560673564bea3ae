"""Things people wear on head and nose: glasses and caps."""

from __future__ import annotations

import numpy as np

from canthus.synth.heads import Piece
from canthus.synth.solids import Mesh, grid, join, piece, tube


def glasses(rng: np.random.Generator, points: np.ndarray) -> list[Piece]:
    """Frame, temples and lenses on landmarks (68,3); clear two times in three, dark otherwise."""
    eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
    apart = np.linalg.norm(eyes[1] - eyes[0])
    front = max(points[27, 2], eyes[:, 2].max() + 0.9) + rng.uniform(0.1, 0.5)
    width, height = apart * rng.uniform(0.33, 0.45), apart * rng.uniform(0.24, 0.42)
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
        centre = np.array([eye[0] + sign * apart * 0.03, eye[1] + drop, front])
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
    left, right = (e + [s * (width - apart * 0.03), drop + height * 0.35, front - e[2]] for e, s in zip(eyes, (1, -1)))
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


def pressed(hair: np.ndarray, dome: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Hair (V,3) under a cap: what stands out of the dome of `cap` is laid inside it."""
    centre, reach = dome
    d = (hair - centre) / reach
    far = np.linalg.norm(d, axis=1, keepdims=True)
    inside = centre + d / np.maximum(far, 1e-6) * reach * 0.95
    return np.where((far > 0.95) & (d[:, 1:2] > -0.08), inside, hair).astype(np.float32)
