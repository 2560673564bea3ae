"""What comes after a network that places some landmarks only: a head model, fitted to those, gives the others.

Pose, identity and bounded expression are fitted by turns as in eos (Huber et al., VISAPP 2016; see
`morphable_fit`). NumPy alone, so that weights run by ONNX Runtime end in the same step as those run by torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from canthus.face.faces import Alignment
from canthus.face.jaw import JAW, visible_jaw
from canthus.face.landmarks import convert
from canthus.face.landmarks import scheme as find_scheme
from canthus.face.morphable import MorphableModel


@dataclass(frozen=True)
class Completion:
    """How to complete: `noise` and `iterations` of `MorphableModel.fit`; whether jaw landmarks are "fixed" points of
    the skin or follow the visible outline softly (see `jaw`); which landmarks are open: those of a "score" below one
    half, or "none", so that the head gives depth, rotation and coefficients alone; what the rough places of open
    landmarks weigh in the fit beside placed ones (jaw landmarks that follow the outline weigh nothing: they are no
    points of the skin); "points": the scheme of what the network gives, where that is fewer points than the 68."""

    noise: float
    iterations: int
    jaw: Literal["fixed", "soft"]
    open: Literal["score", "none"] = "score"
    evidence: float = 0.0
    points: Literal["aflw19"] | None = None


def complete(
    alignment: Alignment, how: Completion, model: MorphableModel | None = None, scheme: str = "ibug68"
) -> Alignment:
    """The alignment with its open landmarks, all z, the rotation and the coefficients taken from a fitted head.

    alignment: NumPy; xyz (B,L,3) in `scheme`; where landmarks can be open that is ibug68, and score (B,68) is 1 where
    the network placed a landmark, which then keeps its x and y, and 0 where it is open, its x and y rough. Where `how`
    names a scheme of fewer points, xyz and score are of these; the head is fitted to them, and its 68 landmarks are
    moved as little as brings the placed points to where they were placed. model: None is the shipped head. In the
    answer z has zero mean, the rotation is that of the model, the coefficients (B,K+E) are identity and expression, and
    the placement is the camera's. Raises `LandmarkError` for fewer than six placed landmarks.
    """
    model = MorphableModel.default() if model is None else model
    given, points_scheme = np.asarray(alignment.xyz[..., :2], np.float64), how.points or "ibug68"
    xy = given if how.points else convert(given, scheme, "ibug68")[0]
    placed = np.ones(xy.shape[:2], bool) if how.open == "none" else np.asarray(alignment.score) > 0.5
    weights = np.where(placed, 1.0, how.evidence)
    if how.jaw == "soft" and not how.points:
        weights[:, :JAW] *= placed[:, :JAW]
    # untrained weights may put all points on one spot, where no head can be fitted
    one_spot = np.ptp(np.where(placed[..., None], xy, xy.mean(1, keepdims=True)), axis=1).max(1) < 1e-3
    frontal = convert(model.landmarks()[0, :, :2].astype(np.float64), "ibug68", points_scheme)[0] * [1, -1]
    seen = np.where(one_spot[:, None, None], frontal, xy)
    fit = model.fit(seen, weights, noise=how.noise, iterations=how.iterations, scheme=points_scheme)
    points = fit.camera.project(model.landmarks(fit.identity, fit.expression))
    if how.jaw == "soft":
        points[:, :JAW] = visible_jaw(model, fit.identity, fit.expression, fit.camera)
    score = alignment.score
    if how.points:
        points[..., :2], score = _brought(points[..., :2], xy, placed, how.points)
    else:
        points[..., :2] = np.where(placed[..., None], xy, points[..., :2])
    if scheme != "ibug68":
        points = np.concatenate([given, _depths(points[..., 2], scheme)[..., None]], axis=-1)
    points[..., 2] -= points[..., 2].mean(1, keepdims=True)
    return replace(
        alignment, xyz=points.astype(np.float32), score=score, rotation=fit.camera.rotation.astype(np.float32),
        coefficients=np.concatenate([fit.identity, fit.expression], 1).astype(np.float32),
        placement=np.concatenate([fit.camera.scale[:, None], fit.camera.shift], 1).astype(np.float32),
    )  # fmt: skip


def _brought(points: np.ndarray, goals: np.ndarray, placed: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The 68 points (B,68,2), moved by the least squares that bring those of the scheme `name` that are `placed` (B,L)
    to their goals (B,L,2); and 1 (B,68) for each that is itself one of the placed."""
    unit = np.repeat(np.eye(points.shape[1])[..., None], 2, -1)
    means = convert(unit, "ibug68", name)[0][..., 0].T  # (L,68)
    missed, moved = goals - convert(points, "ibug68", name)[0], points.copy()
    for pattern in np.unique(placed, axis=0):
        here = (placed == pattern).all(1)
        moved[here] += np.linalg.pinv(means[pattern]) @ missed[here][:, pattern]
    return moved, (placed[..., None] & (means == 1)).any(1).astype(np.float32)


def _depths(z: np.ndarray, name: str) -> np.ndarray:
    """The z (B,L) of a scheme whose points are a finer jaw line, from the same ends, and after it the 51 inner ones of
    the 68, from the z (B,68) of these."""
    count = len(find_scheme(name).parts["jaw"])
    place = np.linspace(0, JAW - 1, count)
    jaw = np.stack([np.interp(place, np.arange(JAW), row[:JAW]) for row in z]).reshape(len(z), count)
    return np.concatenate([jaw, z[:, JAW:]], axis=1)
