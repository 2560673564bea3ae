"""How far eyes and mouth are open and how high the brows are, from landmarks, in the face's own units.

Distances between lids, lips, and brow and eye are taken along the face's own vertical, from the middle of the mouth's
corners to the middle of the eyes' corners, and divided by a width of the same face. With points (N,L,3), z in the unit
of x and y, all of this is done in space, so that a turned head keeps its values; with points (N,L,2) in the plane,
where a turned head has narrower eyes and a narrower mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canthus.errors import LandmarkError
from canthus.face.landmarks import convert
from canthus.face.landmarks import scheme as find_scheme


@dataclass(frozen=True)
class _Layout:
    """Where a scheme has what is measured; right before left, upper before lower."""

    corners: tuple[tuple[int, int], tuple[int, int]]  # of each eye
    lids: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]  # points over each other, of each eye
    lips: tuple[tuple[int, int], ...]  # inner edges, points over each other
    mouth: tuple[int, int]  # outer corners
    brows: tuple[tuple[int, ...], tuple[int, ...]]


_LAYOUTS = {
    "ibug68": _Layout(
        ((36, 39), (42, 45)), (((37, 41), (38, 40)), ((43, 47), (44, 46))), ((61, 67), (62, 66), (63, 65)), (48, 54),
        (tuple(range(17, 22)), tuple(range(22, 27))),
    ),
    "cofw29": _Layout(
        ((8, 10), (11, 9)), (((12, 13),), ((14, 15),)), ((25, 26),), (22, 23), ((0, 4, 2), (1, 6, 3))
    ),
}  # fmt: skip


def eye_aspect_ratio(points: np.ndarray, scheme: str = "ibug68") -> np.ndarray:
    """Opening of the right and left eye over its width (N,2): about 0.3 open, 0 closed.

    With the points p1..p6 of an eye, (|p2 - p6| + |p3 - p5|) / (2 |p1 - p4|) of Soukupova and Cech, "Real-time eye
    blink detection using facial landmarks", CVWW 2016. Other than there, lid distances are taken along the face's
    vertical and are 0 where an upper lid's point lies below the lower lid's, as a distance would grow again once the
    lids of a head model cross. points: (N,L,2 or 3). NaN where a point that is needed is not known. Raises
    `LandmarkError` for points that do not fit the scheme, and for a scheme without lids and lips.
    """
    points, at = _measurable(points, scheme)
    up = _vertical(points, at)
    return np.stack([_opening(points, up, pairs, ends) for pairs, ends in zip(at.lids, at.corners)], axis=-1)


def mouth_opening(points: np.ndarray, scheme: str = "ibug68") -> np.ndarray:
    """Mean distance of the inner lips, at their middle and beside it, over the width of the mouth between its outer
    corners (N,); 0 closed. Arguments and errors as of `eye_aspect_ratio`, and signed alike."""
    points, at = _measurable(points, scheme)
    return _opening(points, _vertical(points, at), at.lips, at.mouth)


def brow_height(points: np.ndarray, scheme: str = "ibug68") -> np.ndarray:
    """Height of the right and left brow's mean point over the middle of its eye's corners, over the distance of the
    outer eye corners (N,2). The lids do not enter. Arguments and errors as of `eye_aspect_ratio`."""
    points, at = _measurable(points, scheme)
    up, (right, left) = _vertical(points, at), at.corners
    width = np.maximum(np.linalg.norm(points[:, right[0]] - points[:, left[1]], axis=-1), 1e-9)
    rise = [points[:, list(b)].mean(axis=1) - points[:, list(eye)].mean(axis=1) for b, eye in zip(at.brows, at.corners)]
    return np.stack([(r * up).sum(axis=-1) / width for r in rise], axis=-1)


def _measurable(points: np.ndarray, scheme: str) -> tuple[np.ndarray, _Layout]:
    points, count = np.asarray(points, np.float64), find_scheme(scheme).count
    if points.ndim != 3 or points.shape[1] != count or points.shape[2] not in (2, 3):
        raise LandmarkError(f"got points of shape {points.shape}, want (N, {count}, 2 or 3)")
    if scheme not in _LAYOUTS:
        points, qualities = convert(points, scheme, "ibug68")
        at, scheme = _LAYOUTS["ibug68"], "ibug68"
        if all(qualities[k] == "missing" for pairs in (*at.lids, at.lips) for pair in pairs for k in pair):
            raise LandmarkError(f"got points without lids and lips, want those of a scheme with them, such as {scheme}")
    return points, _LAYOUTS[scheme]


def vertical(points: np.ndarray) -> np.ndarray:
    """The face's own vertical (N,D) of 68 points (N,68,D): unit vectors from the mouth to the eyes."""
    return _vertical(points, _LAYOUTS["ibug68"])


def _vertical(points: np.ndarray, at: _Layout) -> np.ndarray:
    eyes = points[:, [i for eye in at.corners for i in eye]].mean(axis=1)
    up = eyes - points[:, list(at.mouth)].mean(axis=1)
    return up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-9)


def _opening(
    points: np.ndarray, up: np.ndarray, pairs: tuple[tuple[int, int], ...], ends: tuple[int, int]
) -> np.ndarray:
    upper, lower = (points[:, list(side)] for side in zip(*pairs))
    gap = np.maximum(((upper - lower) * up[:, None]).sum(axis=-1), 0.0).mean(axis=1)
    return gap / np.maximum(np.linalg.norm(points[:, ends[0]] - points[:, ends[1]], axis=-1), 1e-9)
