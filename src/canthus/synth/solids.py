"""Meshes from a few curves: tubes, surfaces of revolution, boxes. Centimetres, head frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canthus.geometry.mesh import VertexNormals
from canthus.synth.scene import Piece

Mesh = tuple[np.ndarray, np.ndarray]  # vertices (V,3), triangles (T,3)


def piece(name: str, mesh: Mesh, colour: np.ndarray, gloss: float, alpha: float = 1.0) -> Piece:
    """A drawable surface of one colour, or one a vertex: colour (3,) or (V,3), linear."""
    v, triangles = np.asarray(mesh[0], np.float32), mesh[1]
    normals = VertexNormals(triangles.astype(np.int64), len(v))(v)
    paint = np.ones_like(v) * np.asarray(colour, np.float32)
    uv = np.zeros((len(v), 2), np.float32)
    return Piece(name, v, normals, uv, paint, triangles.astype(np.int32), None, gloss, alpha)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Several surfaces as one."""
    start = np.cumsum([0] + [len(v) for v, _ in meshes[:-1]])
    return np.vstack([v for v, _ in meshes]), np.vstack([f + s for (_, f), s in zip(meshes, start)])


def grid(vertices: np.ndarray, around: bool, back: bool = False) -> Mesh:
    """The surface through rows of points (R,C,3); around: the last column meets the first, back: the last row too."""
    rows, columns = vertices.shape[:2]
    cells = np.indices((rows if back else rows - 1, columns if around else columns - 1))
    i, j = cells.reshape(2, -1)
    below, right = (i + 1) % rows, (j + 1) % columns
    a, b, c, d = i * columns + j, i * columns + right, below * columns + j, below * columns + right
    return vertices.reshape(-1, 3), np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def tube(path: np.ndarray, radius: np.ndarray | float, closed: bool = False, sides: int = 6) -> Mesh:
    """A tube along path (P,3) with a radius, one for all or (P,): a rounded end is a radius that falls to 0."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent = tangent / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.empty_like(path)
    last = np.eye(3)[np.abs(tangent[0]).argmin()]
    for k, t in enumerate(tangent):  # carried along without twisting
        last = last - (last @ t) * t
        last = side[k] = last / max(float(np.linalg.norm(last)), 1e-9)
    up = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    reach = np.broadcast_to(radius, (len(path),))[:, None, None]
    return grid(path[:, None] + reach * ring, around=True, back=closed)


def capsule_radii(count: int, radius: np.ndarray | float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Places 0..1 along a path of `length` and radii there, so that a tube is round at both ends."""
    r = np.broadcast_to(np.asarray(radius, float), (2,))
    cap = np.sin(np.linspace(0, np.pi / 2, 4))
    share = np.minimum(r / length, 0.45)
    first, last = share[0] * (1 - np.sqrt(1 - cap**2)), 1 - share[1] * (1 - np.sqrt(1 - cap[::-1] ** 2))
    middle = np.linspace(first[-1], last[0], count)[1:-1]
    at = np.concatenate([first, middle, last])
    return at, np.concatenate([r[0] * cap, np.interp(middle, [0, 1], r), r[1] * cap[::-1]])


def lathe(profile: np.ndarray, sides: int = 24) -> Mesh:
    """The surface of revolution about y of a profile (P,2) of radius and height."""
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    r, y = profile[:, :1], np.repeat(profile[:, 1:], sides, 1)
    return grid(np.stack([r * np.sin(turn), y, r * np.cos(turn)], -1), around=True)


def slab(width: float, height: float, depth: float, power: float = 6.0) -> Mesh:
    """A flat box with rounded corners, its large faces towards +z and -z."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    outline = np.stack([np.cos(t), np.sin(t)], 1)
    outline = np.sign(outline) * np.abs(outline) ** (2 / power) * np.array([width, height]) / 2
    rows = [(0.0, -1.0), (0.94, -1.0), (1.0, -0.6), (1.0, 0.6), (0.94, 1.0), (0.0, 1.0)]
    points = [np.column_stack([outline * shrink, np.full(40, z * depth / 2)]) for shrink, z in rows]
    return grid(np.stack(points), around=True)


def place(mesh: Mesh, origin: np.ndarray, up: np.ndarray, towards: np.ndarray) -> Mesh:
    """Move a mesh made about the origin: its +y along `up` as far as its +z along `towards` allows."""
    z = towards / np.linalg.norm(towards)
    y = up - (up @ z) * z
    y = y / np.linalg.norm(y)
    return mesh[0] @ np.stack([np.cross(y, z), y, z]) + origin, mesh[1]
