"""Things people wear, built from a few curves: glasses and caps."""

from __future__ import annotations

import numpy as np

from canthus.synth.heads import NormalOperator, Piece


def _piece(
    name: str, vertices: np.ndarray, triangles: np.ndarray, colour: np.ndarray, gloss: float, alpha: float = 1.0
) -> Piece:
    v = np.asarray(vertices, np.float32)
    normals = NormalOperator(triangles.astype(np.int64), len(v))(v)
    return Piece(
        name,
        v,
        normals,
        np.zeros((len(v), 2), np.float32),
        np.ones_like(v) * colour,
        triangles.astype(np.int32),
        None,
        gloss,
        alpha,
    )


def _tube(path: np.ndarray, radius: float, closed: bool, sides: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A tube of `sides` facets along path (P,3): vertices (P*sides,3) and triangles."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.cross(tangent, np.where(np.abs(tangent[:, 2:]) > 0.9, [[0, 1.0, 0]], [[0, 0, 1.0]]))
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    up = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    rows = len(path) if closed else len(path) - 1
    i, j = np.meshgrid(np.arange(rows), np.arange(sides), indexing="ij")
    a, b = i * sides + j, i * sides + (j + 1) % sides
    c, d = ((i + 1) % len(path)) * sides + j, ((i + 1) % len(path)) * sides + (j + 1) % sides
    return vertices, np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])


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
    frame: list[tuple[np.ndarray, np.ndarray]] = []
    out: list[Piece] = []
    for eye, sign in zip(eyes, (-1, 1)):
        centre = np.array([eye[0] + sign * apart * 0.03, eye[1] + drop, front])
        bend = -0.08 * sign * outline[:, 0] - 0.02 * outline[:, 0] ** 2
        rim = centre + np.column_stack([outline, bend])
        frame.append(_tube(rim, radius, closed=True))
        fan = np.vstack([rim.mean(0), rim])
        k = np.arange(36)
        out.append(
            _piece("lens", fan, np.stack([np.zeros(36, int), 1 + k, 1 + (k + 1) % 36], 1), lens_colour, 2.0, lens_alpha)
        )
        hinge = centre + [sign * width, height * 0.4, -0.3]
        ear = points[0 if sign < 0 else 16] + [0, 1.2, -1.0]
        frame.append(_tube(np.linspace(hinge, [ear[0] + sign * 0.4, ear[1], ear[2]], 12), radius * 0.8, closed=False))
    left, right = (e + [s * (width - apart * 0.03), drop + height * 0.35, front - e[2]] for e, s in zip(eyes, (1, -1)))
    frame.append(_tube(np.linspace(left, right, 6) + np.array([0, 0.1, 0.15]), radius, closed=False))
    start = np.cumsum([0] + [len(v) for v, _ in frame[:-1]])
    vertices = np.vstack([v for v, _ in frame])
    triangles = np.vstack([f + s for (_, f), s in zip(frame, start)])
    return [_piece("frame", vertices, triangles, colour, 1.0), *out]


def cap(rng: np.random.Generator, skull: np.ndarray, points: np.ndarray) -> Piece:
    """A beanie or a cap with a brim over the skull vertices (V,3)."""
    brow = points[17:27].mean(0)
    edge = brow[1] + rng.uniform(1.0, 3.0)
    above = skull[skull[:, 1] > edge]
    centre = np.array([0.0, edge, (above[:, 2].max() + above[:, 2].min()) / 2])
    reach = np.array(
        [np.abs(above[:, 0]).max(), above[:, 1].max() - edge, (above[:, 2].max() - above[:, 2].min()) / 2]
    ) * rng.uniform(1.12, 1.25)
    rows, columns = 10, 40
    polar, turn = np.meshgrid(
        np.linspace(np.pi / 2 + 0.15, 0, rows), np.linspace(0, 2 * np.pi, columns, endpoint=False), indexing="ij"
    )
    dome = centre + np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], -1) * reach
    if rng.random() < 0.5:  # a brim grows out of the front of the lowest two rows
        forward = np.clip(np.cos(turn[0]), 0, 1)[:, None] ** 0.5
        dome[0] += forward * np.array([0, -0.8, rng.uniform(4, 8)])
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    triangles = np.concatenate(
        [np.stack(t, -1).reshape(-1, 3) for t in ((a, b, a + columns), (b, b + columns, a + columns))]
    )
    return _piece("cap", dome.reshape(-1, 3), triangles, rng.uniform(0.02, 0.9, 3), 0.05)
