"""Makes training shards without any assets: the shipped head, painted, under random poses, on plain grounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from canthus.face.morphable import MorphableModel
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler

SPOTS = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4  # spread over a triangle
LIGHT = np.array([-0.36, 0.48, 0.8])
PAINT = {(0.25, 0.15, 0.1): range(17, 27), (0.1, 0.1, 0.2): range(36, 48), (0.75, 0.2, 0.25): range(48, 68)}
REACH = 6.0  # mm around a landmark that its paint covers


def make_faces(count: int, size: int = 112, seed: int = 0, most: float = 60.0) -> dict[str, np.ndarray]:
    """Fields of a shard: image (count,size,size,3) uint8, xyz, visible, rotation, and vertices (count,V,3) of the
    default head in the frame of xyz. |yaw| is at most `most` degrees."""
    rng, model = np.random.default_rng(seed), MorphableModel.default()
    paint = _paint(model)
    faces = [_face(rng, model, paint, size, most) for _ in range(count)]
    return {name: np.stack([face[name] for face in faces]) for name in faces[0]}


def write_shards(
    folder: Path, count: int = 64, shards: int = 1, size: int = 112, seed: int = 0, dense: bool = True
) -> Path:
    """Write `count` faces as `shards` files into a folder, without vertices unless `dense`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    faces = make_faces(count, size, seed)
    if not dense:
        del faces["vertices"]
    for number, index in enumerate(np.array_split(np.arange(count), shards)):
        part: dict[str, Any] = {name: values[index] for name, values in faces.items()}
        np.savez(folder / f"shard-{number:05d}.npz", **part)
    return folder


def _paint(model: MorphableModel) -> np.ndarray:
    """Skin, brows, eyes and lips: a colour (V,3) for every vertex."""
    colour = np.tile([0.85, 0.65, 0.55], (len(model.mean), 1))
    for paint, points in PAINT.items():
        apart = np.linalg.norm(model.mean[:, None] - model.landmarks()[0][list(points)], axis=2).min(1)
        colour[apart < REACH] = paint
    return colour


def _face(rng: np.random.Generator, model: MorphableModel, paint: np.ndarray, size: int, most: float) -> dict:
    identity, expression = rng.normal(size=(1, 10)), rng.uniform(0, 0.3, (1, len(model.expression)))
    rotation = matrix_from_euler(np.deg2rad(rng.uniform([-20, -most, -20], [20, most, 20])), "aflw")
    head, points = model.vertices(identity, expression)[0], model.landmarks(identity, expression)[0]
    flat = project(points, rotation, np.array(1.0), np.zeros(2))[:, :2]
    scale = np.array(size * 0.55 / np.ptp(flat, axis=0).max())
    shift = (size - 1) / 2 - scale * (flat.max(0) + flat.min(0)) / 2
    xyz = project(points, rotation, scale, shift)
    vertices = project(head, rotation, scale, shift)
    image, depth = _draw(rng, model, vertices, paint, size)
    x, y = np.rint(xyz[:, :2]).astype(int).T
    return {
        "image": image,
        "xyz": (xyz - [0, 0, xyz[:, 2].mean()]).astype(np.float32),
        "visible": depth[y, x] < xyz[:, 2] + 6 * scale,  # 6 mm
        "rotation": rotation.astype(np.float32),
        "expression": expression[0].astype(np.float32),
        "vertices": (vertices - [0, 0, xyz[:, 2].mean()]).astype(np.float32),
    }


def _draw(
    rng: np.random.Generator, model: MorphableModel, vertices: np.ndarray, paint: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Painter's algorithm on a cloud of spots: the picture and the z of what is seen (-inf: nothing)."""
    corners = vertices[model.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * [-1, 1, -1]  # y up
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    shade = 0.35 + 0.65 * np.clip(normal @ LIGHT, 0, 1)
    front = normal[:, 2] > 0
    colour = ((SPOTS @ paint[model.triangles[front]]) * shade[front, None, None]).reshape(-1, 3)
    spots = (SPOTS @ corners[front]).reshape(-1, 3)
    x, y = np.rint(spots[:, :2]).astype(int).T
    order = np.argsort(spots[:, 2])
    order = order[((x >= 0) & (x < size) & (y >= 0) & (y < size))[order]]
    image, depth = np.tile(rng.uniform(0, 1, 3), (size, size, 1)), np.full((size, size), -np.inf)
    image[y[order], x[order]], depth[y[order], x[order]] = colour[order], spots[order, 2]  # the last one stays
    return (image * 255).astype(np.uint8), depth
