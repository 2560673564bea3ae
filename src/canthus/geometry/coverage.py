"""Triangles to pixels in NumPy, for textures of single heads: which pixel centres triangles cover, and how deep.

`geometry.raster` draws batches in torch, exactly and with rules for shared edges; the base installation has no torch.
Here a pixel centre on an edge is covered by both triangles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 18  # pixels of the boxes of triangles that are looked at together
ON_EDGE = 1e-9  # share of a triangle by which a pixel centre may lie outside


class Fragments(NamedTuple):
    """What triangles cover, one entry for each triangle and pixel centre.

    owner: (N,) triangle. pixel: (N,) row * width + column. weights: (N,3) barycentric, of the triangle's corners.
    """

    owner: np.ndarray
    pixel: np.ndarray
    weights: np.ndarray


def fragments(points: np.ndarray, triangles: np.ndarray, shape: tuple[int, int]) -> Iterator[Fragments]:
    """All that triangles (T,3) over points (V,2), pixels x and y, cover of a picture of `shape` (height, width), a
    portion at a time in the order of the triangles."""
    corners = points.astype(np.float64)[triangles]
    height, width = shape
    low = np.clip(np.ceil(corners.min(1)), 0, [width, height]).astype(int)
    high = np.clip(np.floor(corners.max(1)), -1, [width - 1, height - 1]).astype(int)
    extent = np.maximum(high - low + 1, 0)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    owners = np.flatnonzero((extent.prod(1) > 0) & (np.abs(area) > 1e-12))
    ends = np.cumsum(extent[owners].prod(1))
    for now in np.split(owners, np.flatnonzero(np.diff(ends // CHUNK)) + 1):
        boxes = extent[now].prod(1)
        owner = np.repeat(now, boxes)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(boxes) - boxes, boxes)
        row, column = np.divmod(place, extent[owner, 0])
        row, column = row + low[owner, 1], column + low[owner, 0]
        away = corners[owner] - np.stack([column, row], 1)[:, None]
        parts = [_cross(away[:, a], away[:, b]) for a, b in ((1, 2), (2, 0), (0, 1))]
        weights = np.stack(parts, 1) / area[owner, None]
        inside = (weights >= -ON_EDGE).all(1)
        yield Fragments(owner[inside], (row * width + column)[inside], weights[inside])


def nearest(points: np.ndarray, triangles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The largest z (height, width) of triangles (T,3) over points (V,3) at each pixel centre, -inf where none is."""
    depth = np.full(shape[0] * shape[1], -np.inf)
    for owner, pixel, weights in fragments(points[:, :2], triangles, shape):
        np.maximum.at(depth, pixel, (weights * points[triangles[owner], 2]).sum(1))
    return depth.reshape(shape)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
