"""Predicted and true points of the same faces, in one scheme; the errors that are taken of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from canthus.data.formats import FaceSample
from canthus.errors import LandmarkError
from canthus.evaluation import metrics
from canthus.evaluation.collect import true_boxes
from canthus.evaluation.predictions import Predictions
from canthus.face.landmarks import can_convert, convert, scheme
from canthus.geometry.crop import box_sizes


@dataclass(frozen=True, eq=False)
class Pairs:
    """N faces, L compared points.

    prediction, truth: (N,L,D), D = 3 if both have depth, else 2; of the truth, points that are not annotated or that
    the predicted scheme cannot give are NaN. found: (N,) bool, whether all points compared were predicted. boxes:
    (N,4) of the true landmarks. relabelled: (N,L,2) second labels or None. scheme: that of the points.
    """

    samples: Sequence[FaceSample]
    predictions: Predictions
    prediction: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    boxes: np.ndarray
    scheme: str
    relabelled: np.ndarray | None

    def part(self, chosen: np.ndarray) -> Pairs:
        """The faces where `chosen` (N,) is true."""
        samples = [s for s, c in zip(self.samples, chosen) if c]
        again = None if self.relabelled is None else self.relabelled[chosen]
        return Pairs(
            samples, self.predictions.of([s.name for s in samples]), self.prediction[chosen], self.truth[chosen],
            self.found[chosen], self.boxes[chosen], self.scheme, again,
        )  # fmt: skip

    @property
    def distance(self) -> np.ndarray:
        """Distances in the plane (N,L) over the root of the true box's area; NaN where not compared."""
        distance = np.linalg.norm(self.prediction[..., :2] - self.truth[..., :2], axis=-1)
        return distance / box_sizes(self.boxes)[:, None]


def pair(samples: Sequence[FaceSample], predictions: Predictions) -> Pairs:
    """Samples of one set and the predictions for them.

    Points are compared in the scheme of the labels where the predicted points can be turned into it, else in the
    predicted scheme, to which the labels are then turned; where both can be, in the one of fewer points. Raises
    `LandmarkError` if neither can be.
    """
    names = {s.scheme for s in samples}
    if len(names) != 1:
        raise LandmarkError(f"got faces of the schemes {sorted(names)}, want one")
    (labelled,) = names
    answers = predictions.of([s.name for s in samples])
    depth = min(answers.xyz.shape[2], *(s.points.shape[1] for s in samples))
    truth = np.stack([s.points[:, :depth] for s in samples]).astype(np.float64)
    prediction = answers.xyz[..., :depth]
    again = None
    if all(s.relabelled is not None for s in samples):
        again = np.stack([np.asarray(s.relabelled, np.float64) for s in samples])
    compared = labelled
    if _fits_better(answers.scheme, labelled):
        compared = answers.scheme
        truth, _ = convert(truth, labelled, compared)
        again = None if again is None else convert(again, labelled, compared)[0]
    else:
        prediction, quality = convert(prediction, answers.scheme, labelled)
        truth[:, quality == "missing"] = np.nan
    known = np.isfinite(truth).all(axis=-1)
    found: np.ndarray = (np.isfinite(prediction).all(axis=-1) | ~known).all(axis=1)
    if not known.any():  # a set of poses: what counts is that there is an answer
        found = np.isfinite(answers.rotation).all(axis=(1, 2))
    return Pairs(samples, answers, prediction, truth, found, true_boxes(samples), compared, again)


def _fits_better(predicted: str, labelled: str) -> bool:
    """Whether points are to be compared in the predicted scheme."""
    to_labels, to_predicted = can_convert(predicted, labelled), can_convert(labelled, predicted)
    return to_predicted and (not to_labels or scheme(predicted).count < scheme(labelled).count)


Error = Callable[[Pairs], np.ndarray]


def nme_box(p: Pairs) -> np.ndarray:
    """2D distance / sqrt(w h) of the box around the true 68 landmarks."""
    return metrics.nme_box(p.prediction, p.truth, p.boxes)


def nme_diagonal(p: Pairs) -> np.ndarray:
    """2D distance / diagonal of that box."""
    return metrics.nme_diagonal(p.prediction, p.truth, p.boxes)


def nme_own_box(p: Pairs) -> np.ndarray:
    """2D distance / sqrt(w h) of the box that comes with the set."""
    boxes = [p.boxes[k] if s.box is None else s.box for k, s in enumerate(p.samples)]
    return metrics.nme_box(p.prediction, p.truth, boxes)


def nme_relabelled(p: Pairs) -> np.ndarray:
    """2D distance to the second labels / sqrt(w h) of the box around these."""
    assert p.relabelled is not None
    return metrics.nme_box(p.prediction[..., :2], p.relabelled)


def labels_apart(p: Pairs) -> np.ndarray:
    """2D distance between first and second labels / sqrt(w h) of the first's box: how well labels agree."""
    assert p.relabelled is not None
    return metrics.nme_box(p.relabelled, p.truth[..., :2])


def nme_3d(p: Pairs) -> np.ndarray:
    """3D distance, both shapes at the same mean z, / sqrt(w h) of the true box."""
    return metrics.nme_box_3d(p.prediction, p.truth)


def gte(p: Pairs, axes: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """3D distance, mean z of the prediction moved to the truth's, / 3D distance of the true outer eye corners."""
    return metrics.gte(p.prediction, p.truth, scheme(p.scheme).eye_corners, axes)


def cvgtce(p: Pairs) -> np.ndarray:
    """3D distance after the best similarity onto the truth / 3D distance of the true outer eye corners."""
    return metrics.cvgtce(p.prediction, p.truth, scheme(p.scheme).eye_corners)


def interocular(p: Pairs) -> np.ndarray:
    """2D distance / 2D distance of the true outer eye corners."""
    return metrics.nme_interocular(p.prediction, p.truth, scheme(p.scheme).eye_corners)


def interocular_inner(p: Pairs) -> np.ndarray:
    """As `interocular`, over the points that are not of the jaw line: 51 of 68."""
    inner = _inner(p)
    corners = np.searchsorted(inner, scheme(p.scheme).eye_corners)
    return metrics.nme_interocular(p.prediction[:, inner], p.truth[:, inner], (int(corners[0]), int(corners[1])))


def nme_box_inner(p: Pairs) -> np.ndarray:
    """As `nme_box`, divided by the same box, over the points that are not of the jaw line: 51 of 68."""
    inner = _inner(p)
    return metrics.nme_box(p.prediction[:, inner], p.truth[:, inner], p.boxes)


def _inner(p: Pairs) -> np.ndarray:
    chosen = scheme(p.scheme)
    return np.setdiff1d(np.arange(chosen.count), chosen.parts.get("jaw", []))


def interpupil(p: Pairs) -> np.ndarray:
    """2D distance / 2D distance of the pupils, where the scheme has them, else of the means of the eyes' points."""
    parts = scheme(p.scheme).parts
    eyes = [parts.get(f"{side}_pupil", parts[f"{side}_eye"]).tolist() for side in ("right", "left")]
    return metrics.nme_interpupil(p.prediction, p.truth, (eyes[0], eyes[1]))
