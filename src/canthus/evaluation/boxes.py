"""The boxes that a protocol starts from: of the true landmarks, moved about, or estimated where points are few."""

from __future__ import annotations

import numpy as np

from canthus.face.landmarks import convert, scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import box_centres, tight_boxes
from canthus.geometry.projection import fit_weak_perspective, project

SHIFTS = (0.05, 0.10, 0.15, 0.20)
SCALES = (0.8, 0.9, 1.1, 1.2)


def tight_box(points: np.ndarray, name: str) -> np.ndarray:
    """The box (4,) around the 68 landmarks of a face of which `points` (L,2 or 3) of the scheme `name` are known.

    A scheme with a jaw line gives it itself. From others the mean head is laid on the known points (weak perspective)
    and its 68 landmarks give the box; with fewer than five points, these themselves.
    """
    known = np.isfinite(points).all(axis=1)
    xy = points[known, :2].astype(np.float64)
    if scheme(name).jaw == "none" and len(xy) >= 5:
        head = MorphableModel.default().landmarks()[0].astype(np.float64)
        model, quality = convert(head, "ibug68", name)
        fits = quality[known] != "missing"
        rotation, scale, shift = fit_weak_perspective(model[known][fits], xy[fits])
        xy = np.concatenate([project(head, rotation, scale, shift)[:, :2], xy])
    return tight_boxes(xy[None])[0]


def moved(boxes: np.ndarray, shift: np.ndarray | float, scale: np.ndarray | float, seed: int) -> np.ndarray:
    """Boxes (N,4) moved by `shift` of their longer side in a random direction, and scaled about their centre.

    The direction of the k-th box is that of the k-th draw of `seed`, whatever the other arguments are.
    """
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(boxes))
    size = boxes[:, 2:] - boxes[:, :2]
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (np.broadcast_to(shift, len(boxes)) * size.max(1))[:, None]
    centre, half = box_centres(boxes) + way, size / 2 * np.broadcast_to(scale, len(boxes))[:, None]
    return np.concatenate([centre - half, centre + half], axis=1)


def jittered(boxes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Boxes (N,4) as a poor detector might give them: shift uniform in 0 to 20 %, scale uniform in 0.8 to 1.2."""
    rng = np.random.default_rng([seed, 1])
    shift = rng.uniform(0, max(SHIFTS), len(boxes))
    return moved(boxes, shift, rng.uniform(min(SCALES), max(SCALES), len(boxes)), seed)


def own(boxes: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The boxes (N,4) that a set comes with, in the measure of the true ones (N,4) around landmarks.

    A set's boxes are larger or smaller than those, and lie higher or lower, by a habit of the set: three numbers, the
    medians over its faces of the ratio of longer sides and of the way between the centres in longer sides, which are
    undone. What is left is how its boxes vary from face to face.
    """
    side, side_true = ((b[:, 2:] - b[:, :2]).max(1) for b in (boxes, true))
    ratio = np.median(side_true / side)
    way = np.median((box_centres(true) - box_centres(boxes)) / side[:, None], axis=0)
    centre, half = box_centres(boxes) + way * side[:, None], (side * ratio / 2)[:, None]
    return np.concatenate([centre - half, centre + half], axis=1)


def nearest(boxes: np.ndarray, box: np.ndarray) -> int | None:
    """Which of `boxes` (N,4) has its centre nearest to that of `box` (4,); None if none is nearer than the longer side
    of `box`: then the face was not found."""
    away = np.linalg.norm(box_centres(boxes) - box_centres(box[None]), axis=1)
    return int(away.argmin()) if len(away) and away.min() <= (box[2:] - box[:2]).max() else None
