"""The whole truth of training: what a data set says of faces, in a method's points, and a guess for the rest.

The guess is the mean head, laid on the known points by weak perspective. It lets crops be cut around faces and shapes
be compared; masks keep it out of every loss, but for which points are visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from canthus.data.formats import FaceSample
from canthus.errors import LandmarkError
from canthus.face.landmarks import convert, scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import box_sizes, tight_boxes
from canthus.geometry.mesh import VertexNormals
from canthus.geometry.projection import fit_weak_perspective, project
from canthus.geometry.similarity import apply, fit_similarity

AT_ONCE = 4096  # faces
ENOUGH = 8  # points that tell a pose; with fewer the head looks at the camera
FLAT = 1e-4  # ratio of the least to the largest variance of points that lie in one plane
FARTHEST = 2.5  # sizes of a guessed face / of the box of the known points; beyond, the head looks at the camera


@dataclass(frozen=True, eq=False)
class Truth:
    """N faces, in pixels of their pictures.

    xyz (N,L,3), mean z zero; visible (N,L) bool; rotation (N,3,3); masks known (N,L), deep (N,), posed (N,) bool;
    boxes (N,4): see `sample.StoredBatch`. marked: (N,) bool, whether the set says of any point if it is visible.
    """

    xyz: np.ndarray
    visible: np.ndarray
    rotation: np.ndarray
    known: np.ndarray
    deep: np.ndarray
    posed: np.ndarray
    boxes: np.ndarray
    marked: np.ndarray


def whole_truth(samples: Sequence[FaceSample], target: str = "ibug68") -> Truth:
    """The truth of annotated faces of any schemes, as L points of `target`, and the guess for the rest.

    Where a set does not say which points are visible, those count as visible at which the surface of the mean head, in
    the pose of the face, looks at the camera. Raises `LandmarkError` for no face, for one with fewer than two known
    points, and for a scheme that has no map to `target`.
    """
    if not samples:
        raise LandmarkError("got no annotated face, want one or more")
    parts = [_whole_truth(samples[k : k + AT_ONCE], target) for k in range(0, len(samples), AT_ONCE)]
    return Truth(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Truth)))


def _whole_truth(samples: Sequence[FaceSample], target: str) -> Truth:
    count, wanted = len(samples), scheme(target).count
    points, reported = np.full((count, wanted, 3), np.nan), np.full((count, wanted), np.nan)
    for name, axes in {(s.scheme, s.points.shape[1]) for s in samples}:
        rows = [k for k, s in enumerate(samples) if s.scheme == name and s.points.shape[1] == axes]
        points[rows, :, :axes] = convert(np.stack([samples[k].points for k in rows]).astype(float), name, target)[0]
        unknown = np.full(scheme(name).count, np.nan)
        seen = np.stack([unknown if v is None else v.astype(float) for v in (samples[k].visible for k in rows)])
        reported[rows] = convert(seen[..., None].repeat(2, -1), name, target)[0][..., 0]
    known = np.isfinite(points[..., :2]).all(-1)
    few = np.flatnonzero(known.sum(1) < 2)
    if len(few):
        sample = samples[few[0]]
        where, found = sample.name or sample.image, known[few[0]].sum()
        raise LandmarkError(f"'{where}' has {found} of the {wanted} points; two or more are wanted to train on")
    deep = (np.isfinite(points[..., 2]) == known).all(1)
    placed_heads, turned = _laid_heads(points, known, deep, target)
    guess = convert(placed_heads, "ibug68", target)[0]
    xyz = np.where(known[..., None], np.concatenate([points[..., :2], guess[..., 2:]], -1), guess)
    xyz[deep] = np.where(known[deep, :, None], points[deep], guess[deep])
    xyz[..., 2] -= xyz[..., 2].mean(1, keepdims=True)
    outline = xyz if scheme(target).jaw != "none" else np.concatenate([placed_heads, xyz], 1)
    posed = np.array([s.rotation is not None for s in samples])
    own = [np.eye(3) if s.rotation is None else s.rotation for s in samples]
    rotation = np.where(posed[:, None, None], np.stack(own), turned).astype(np.float32)
    normals = convert(_landmark_normals(MorphableModel.default()).astype(np.float64), "ibug68", target)[0]
    facing = rotation[:, 2] @ normals.T > 0
    said = np.isfinite(reported)
    visible, marked = np.where(said, reported > 0.5, facing), said.any(1)
    return Truth(xyz.astype(np.float32), visible, rotation, known, deep, posed | deep, tight_boxes(outline), marked)


def _laid_heads(points: np.ndarray, known: np.ndarray, deep: np.ndarray, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean head's 68 landmarks (N,68,3) laid on points (N,L,3) as far as known, and its rotations (N,3,3)."""
    whole = MorphableModel.default().landmarks().astype(np.float64).repeat(len(points), 0)
    heads = convert(whole, "ibug68", target)[0]
    weights, filled = known.astype(np.float64), np.where(known[..., None], points, 0.0)
    placed_heads = _frontal(whole, heads, filled, weights)
    rotations = np.broadcast_to(np.eye(3), (len(points), 3, 3)).copy()
    for with_depth in (True, False):
        rows = np.flatnonzero((deep == with_depth) & (known.sum(1) >= ENOUGH) & (with_depth | ~_flat(heads, known)))
        if not len(rows):
            continue
        image = filled[rows] if with_depth else filled[rows, :, :2]
        rotation, scale, shift = fit_weak_perspective(heads[rows], image, weights[rows])
        placed = project(whole[rows], rotation, scale, shift)
        if with_depth:
            away = (filled[rows, :, 2] - convert(placed, "ibug68", target)[0][..., 2]) * weights[rows]
            placed[..., 2] += (away.sum(1) / weights[rows].sum(1))[:, None]
        near = _sizes(placed, np.ones(placed.shape[:2], bool)) < FARTHEST * _sizes(filled[rows], known[rows])
        placed_heads[rows[near]], rotations[rows[near]] = placed[near], rotation[near]
    return placed_heads, rotations


def _frontal(whole: np.ndarray, heads: np.ndarray, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Heads of 68 points (N,68,3) that look at the camera, moved by the similarity in the image plane that lays those
    of the scheme (N,L,3) on points (N,L,3)."""
    flat = whole * [1.0, -1.0, 1.0]
    moved = fit_similarity(heads[..., :2] * [1.0, -1.0], points[..., :2], weights)
    depth = flat[..., 2:] * np.asarray(moved.scale)[:, None, None]
    return np.concatenate([apply(moved, flat[..., :2]), depth], -1)


def _flat(heads: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether the known points of heads (N,L,3) lie nearly in one plane, (N,)."""
    w = known[..., None] / known.sum(1)[:, None, None]
    away = heads - (w * heads).sum(1, keepdims=True)
    spread = np.linalg.eigvalsh(np.swapaxes(w * away, 1, 2) @ away)
    return spread[:, 0] < FLAT * spread[:, 2]


def _sizes(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Sizes (N,) of the boxes of the known points (N,L,3)."""
    low = np.where(known[..., None], points[..., :2], np.inf).min(1)
    high = np.where(known[..., None], points[..., :2], -np.inf).max(1)
    return np.maximum(box_sizes(tight_boxes(np.stack([low, high], 1))), 1e-9)


def _landmark_normals(model: MorphableModel) -> np.ndarray:
    """Outward normals (68,3) of the mean head at its landmarks, not of unit length."""
    normals = VertexNormals(model.triangles, len(model.mean))(model.mean)
    return (normals[model.landmark_ids] * model.landmark_weights[..., None]).sum(1)
