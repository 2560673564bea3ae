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
    points of the skin)."""

    noise: float
    iterations: int
    jaw: Literal["fixed", "soft"]
    open: Literal["score", "none"] = "score"
    evidence: float = 0.0


def complete(
    alignment: Alignment, how: Completion, model: MorphableModel | None = None, scheme: str = "ibug68"
) -> Alignment:
    """The alignment with its open landmarks, all z, the rotation and the coefficients taken from a fitted head.

    alignment: NumPy; xyz (B,L,3) in `scheme`; where landmarks can be open that is ibug68, and score (B,68) is 1 where
    the network placed a landmark, which then keeps its x and y, and 0 where it is open, its x and y rough. model: None
    is the shipped head. In the answer z has zero mean, the rotation is that of the model, the coefficients (B,K+E) are
    identity and expression, and the placement is the camera's. Raises `LandmarkError` for fewer than six placed
    landmarks.
    """
    model = MorphableModel.default() if model is None else model
    given = np.asarray(alignment.xyz[..., :2], np.float64)
    xy = convert(given, scheme, "ibug68")[0]
    placed = np.ones(xy.shape[:2], bool) if how.open == "none" else np.asarray(alignment.score) > 0.5
    weights = np.where(placed, 1.0, how.evidence)
    if how.jaw == "soft":
        weights[:, :JAW] *= placed[:, :JAW]
    # untrained weights may put all points on one spot, where no head can be fitted
    one_spot = np.ptp(np.where(placed[..., None], xy, xy.mean(1, keepdims=True)), axis=1).max(1) < 1e-3
    frontal = model.landmarks()[0, :, :2].astype(np.float64) * [1, -1]
    fit = model.fit(np.where(one_spot[:, None, None], frontal, xy), weights, noise=how.noise, iterations=how.iterations)
    points = fit.camera.project(model.landmarks(fit.identity, fit.expression))
    if how.jaw == "soft":
        points[:, :JAW] = visible_jaw(model, fit.identity, fit.expression, fit.camera)
    points[..., :2] = np.where(placed[..., None], xy, points[..., :2])
    if scheme != "ibug68":
        points = np.concatenate([given, _depths(points[..., 2], scheme)[..., None]], axis=-1)
    points[..., 2] -= points[..., 2].mean(1, keepdims=True)
    return replace(
        alignment, xyz=points.astype(np.float32), rotation=fit.camera.rotation.astype(np.float32),
        coefficients=np.concatenate([fit.identity, fit.expression], 1).astype(np.float32),
        placement=np.concatenate([fit.camera.scale[:, None], fit.camera.shift], 1).astype(np.float32),
    )  # fmt: skip


def _depths(z: np.ndarray, name: str) -> np.ndarray:
    """The z (B,L) of a scheme whose points are a finer jaw line, from the same ends, and after it the 51 inner ones of
    the 68, from the z (B,68) of these."""
    count = len(find_scheme(name).parts["jaw"])
    place = np.linspace(0, JAW - 1, count)
    jaw = np.stack([np.interp(place, np.arange(JAW), row[:JAW]) for row in z]).reshape(len(z), count)
    return np.concatenate([jaw, z[:, JAW:]], axis=1)
