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
from canthus.face.morphable import MorphableModel


@dataclass(frozen=True)
class Completion:
    """How to complete: `noise` and `iterations` of `MorphableModel.fit`; whether jaw landmarks are "fixed" points of
    the skin or follow the visible outline softly (see `jaw`)."""

    noise: float
    iterations: int
    jaw: Literal["fixed", "soft"]


def complete(alignment: Alignment, how: Completion, model: MorphableModel | None = None) -> Alignment:
    """The alignment with its open landmarks, all z, the rotation and the coefficients taken from a fitted head.

    alignment: NumPy; xyz (B,68,3); score (B,68) is 1 where the network placed a landmark, which then keeps its x and y,
    and 0 where it is open. model: None is the shipped head. In the answer z has zero mean, the rotation is
    that of the model, and the coefficients (B,K+E) are identity and expression. Raises `LandmarkError` for fewer than
    six placed landmarks.
    """
    model = MorphableModel.default() if model is None else model
    placed = np.asarray(alignment.score) > 0.5
    xy = np.asarray(alignment.xyz[..., :2], np.float64)
    fit = model.fit(xy, placed.astype(float), noise=how.noise, iterations=how.iterations)
    points = fit.camera.project(model.landmarks(fit.identity, fit.expression))
    if how.jaw == "soft":
        points[:, :JAW] = visible_jaw(model, fit.identity, fit.expression, fit.camera)
    points[..., :2] = np.where(placed[..., None], xy, points[..., :2])
    points[..., 2] -= points[..., 2].mean(1, keepdims=True)
    return replace(
        alignment, xyz=points.astype(np.float32), rotation=fit.camera.rotation.astype(np.float32),
        coefficients=np.concatenate([fit.identity, fit.expression], 1).astype(np.float32),
    )  # fmt: skip
