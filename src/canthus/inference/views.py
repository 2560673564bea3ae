"""Answers of higher accuracy: each face is seen several times, and the answers are averaged."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np

from canthus.face.expressions import mirror_expressions
from canthus.face.faces import Alignment
from canthus.face.landmarks import mirror, scheme
from canthus.geometry.crop import Crop
from canthus.geometry.rotation import matrix_from_vector, nearest_rotation
from canthus.inference.predictor import Predictor
from canthus.io.images import crop_image

# Turn of a view in radians, and whether it is mirrored after that. The view of a mirrored crop at one angle is that of
# the crop at the opposite angle with the other handedness, so that a mirrored picture has the mirrored answer.
# docs/methods/swift.md has what other views brought.
TURN = np.deg2rad(15)
VIEWS = ((-TURN, False), (TURN, False), (-TURN, True), (TURN, True))

LEAST_VARIANCE = 0.25  # share of the views' mean variance that their mean has at least, however far they are apart
MIRRORED_ROTATION = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])  # diag(-1, 1, 1) R diag(-1, 1, 1), by entries


class ManyViews(Predictor):
    """What `canthus.load(accuracy="high")` gives: another predictor, asked about each crop in four views.

    The crop is turned by 15 degrees to either side, and both are mirrored. Points, rotations, visibilities, scores and
    expressions are means of the answers, brought back to the crop. sigma is that of a mean: the errors of the views
    have the mean square error^2 of the mean + variance of the views around it, so the latter is taken off the mean of
    the predicted variances. The coefficients of a head model of the method's own are left out; `Faces.mesh` then fits
    one to the points.
    """

    def __init__(self, aligner: Predictor):
        self.aligner = aligner
        self.card = replace(aligner.card, version=f"{aligner.card.version} high")
        self.threads, self.min_face, self.provider = aligner.threads, aligner.min_face, aligner.provider
        self.tells_sigma = aligner.tells_sigma

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        count = len(crops)
        views = [_crops(count, crops.shape[1], angle) for angle, _ in VIEWS]
        turned = [np.concatenate([crop_image(c, view[k : k + 1]) for k, c in enumerate(crops)]) for view in views[:2]]
        seen = self.aligner.run_batches(np.concatenate([*turned, *(pictures[:, :, ::-1] for pictures in turned)]))
        answers = []
        for k, (view, (_, mirrored)) in enumerate(zip(views, VIEWS)):
            answer = seen.map(itemgetter(slice(k * count, (k + 1) * count)))
            answers.append(_back(_mirrored(answer, view.size, self.card.scheme) if mirrored else answer, view))
        return _mean(answers)


def _crops(count: int, size: int, angle: float) -> Crop:
    """The crops of crops, turned about their middle."""
    return Crop(np.full((count, 2), (size - 1) / 2), np.full(count, float(size)), np.full(count, angle), size)


def _mirrored(answer: Alignment, size: int, points: str) -> Alignment:
    """What the answer to a mirrored crop says of the crop."""
    other_point, other_expression = scheme(points).mirror, mirror_expressions()

    def of_points(values: Any) -> Any:
        return None if values is None else values[:, other_point]

    def of_expressions(values: Any) -> Any:
        return None if values is None else values[:, other_expression]

    return Alignment(
        xyz=mirror(answer.xyz, points, size),
        sigma=of_points(answer.sigma),
        visible=of_points(answer.visible),
        rotation=None if answer.rotation is None else answer.rotation * MIRRORED_ROTATION,
        score=of_points(answer.score),
        expression=of_expressions(answer.expression),
        expression_sigma=of_expressions(answer.expression_sigma),
    )


def _back(answer: Alignment, view: Crop) -> Alignment:
    """The answer to a turned crop in pixels of the crop."""
    rotation = answer.rotation
    if rotation is not None:
        rotation = matrix_from_vector(view.angle[:, None] * [0, 0, -1]) @ rotation
    return replace(answer, xyz=view.image_from_crop(answer.xyz.astype(np.float64)), rotation=rotation)


def _mean(answers: list[Alignment]) -> Alignment:
    """The mean of answers to one and the same crops, see `ManyViews`."""

    def values(name: str) -> Any:
        given = [getattr(answer, name) for answer in answers]
        return None if given[0] is None else np.stack(given).astype(np.float64)

    def mean(name: str) -> Any:
        given = values(name)
        return None if given is None else given.mean(0)

    points, rotation, expression = values("xyz"), mean("rotation"), values("expression")
    return Alignment(
        xyz=points.mean(0).astype(np.float32),
        sigma=_sigma(values("sigma"), points[..., :2].var(0).mean(-1)),
        visible=mean("visible"),
        rotation=None if rotation is None else nearest_rotation(rotation),
        score=mean("score"),
        expression=None if expression is None else expression.mean(0),
        expression_sigma=None if expression is None else _sigma(values("expression_sigma"), expression.var(0)),
    )


def _sigma(sigma: Any, variance: np.ndarray) -> Any:
    """The sigma of a mean, from those (V,...) of the views and the variance (...) of the views around it."""
    if sigma is None:
        return None
    predicted = np.square(sigma).mean(0)
    return np.sqrt(np.maximum(predicted - np.nan_to_num(variance), LEAST_VARIANCE * predicted))
