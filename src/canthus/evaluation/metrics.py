"""Errors as the field reports them, on NumPy arrays: one value per image, and tables and curves of those.

An error is named after what it is divided by, because that is what published tables differ in. Errors are
fractions (0.03, not 3 %), angles radians. Points are (N, L, 2 or 3); index defaults are those of the 68-point
scheme of iBUG. A true point of NaN is not annotated: means are over the others, of which each face needs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from canthus.errors import LandmarkError, amount
from canthus.geometry.rotation import geodesic
from canthus.geometry.similarity import apply, fit_similarity

Floats = NDArray[np.floating[Any]]

OUTER_CORNERS = (36, 45)
EYES = (tuple(range(36, 42)), tuple(range(42, 48)))
YAW_EDGES = (np.deg2rad(30.0), np.deg2rad(60.0))
POSE_LIMIT = np.deg2rad(99.0)

__all__ = [
    "TableRow", "auc", "ced", "correlation", "cvgtce", "failure_rate", "geodesic", "gte", "jitter", "nme_box",
    "nme_box_3d", "nme_diagonal", "nme_interocular", "nme_interpupil", "pose_kept", "pose_mae", "roc_auc", "table_row",
    "yaw_bins",
]  # fmt: skip


def nme_box(prediction: ArrayLike, truth: ArrayLike, boxes: ArrayLike | None = None) -> Floats:
    """Mean 2D distance (N,) over the root of the box's area, the measure of AFLW2000-3D and of LS3D-W.

    The box is the tight one of the true landmarks in the plane. `boxes` (N, 4) as x0, y0, x1, y1 replaces it
    where fewer than the 68 points are compared, as on AFLW with 21.
    """
    prediction, truth = _paired(prediction, truth)
    return _plane_distance(prediction, truth) / _box_side(truth, boxes)


def nme_box_3d(prediction: ArrayLike, truth: ArrayLike) -> Floats:
    """Mean 3D distance (N,), both shapes at the same mean z, over the root of the box's area."""
    prediction, truth = _paired(prediction, truth, dimensions=3)
    return _mean_distance(_at_mean_z(prediction, truth), truth) / _box_side(truth, None)


def nme_diagonal(prediction: ArrayLike, truth: ArrayLike, boxes: ArrayLike | None = None) -> Floats:
    """Mean 2D distance (N,) over the box's diagonal, the measure of Menpo 2D; `boxes` as in `nme_box`."""
    prediction, truth = _paired(prediction, truth)
    return _plane_distance(prediction, truth) / np.linalg.norm(_box_size(truth, boxes), axis=-1)


def nme_interocular(prediction: ArrayLike, truth: ArrayLike, corners: tuple[int, int] = OUTER_CORNERS) -> Floats:
    """Mean 2D distance (N,) over the 2D distance of the outer eye corners, the measure of 300-W and WFLW."""
    prediction, truth = _paired(prediction, truth)
    return _plane_distance(prediction, truth) / _corner_distance(truth[..., :2], corners)


def nme_interpupil(prediction: ArrayLike, truth: ArrayLike, eyes: tuple[Sequence[int], Sequence[int]] = EYES) -> Floats:
    """Mean 2D distance (N,) over that of the eye centres, each the mean of its eye's points."""
    prediction, truth = _paired(prediction, truth)
    left, right = (truth[:, list(eye), :2].mean(axis=1) for eye in eyes)
    return _plane_distance(prediction, truth) / np.linalg.norm(left - right, axis=-1)


def gte(
    prediction: ArrayLike,
    truth: ArrayLike,
    corners: tuple[int, int] = OUTER_CORNERS,
    axes: Sequence[int] = (0, 1, 2),
) -> Floats:
    """Ground truth error of 3DFAW (N,): mean 3D distance over the 3D distance of the outer eye corners.

    The prediction is first moved to the truth's mean z, which weak perspective leaves open. `axes` measures
    the distance along some of x, y, z only, over the same eye distance (Bulat and Tzimiropoulos, ECCV
    Workshops 2016).
    """
    prediction, truth = _paired(prediction, truth, dimensions=3)
    kept = list(axes)
    distance = _mean_distance(_at_mean_z(prediction, truth)[..., kept], truth[..., kept])
    return distance / _corner_distance(truth, corners)


def cvgtce(prediction: ArrayLike, truth: ArrayLike, corners: tuple[int, int] = OUTER_CORNERS) -> Floats:
    """Cross-view consistency error of 3DFAW (N,): `gte` after the best similarity onto the truth.

    The true shapes of one face in several views are similar to each other, so each image's own truth serves.
    Jeni et al., "The first 3D face alignment in the wild (3DFAW) challenge", ECCV Workshops 2016.
    """
    prediction, truth = _paired(prediction, truth, dimensions=3)
    known = np.isfinite(truth).all(axis=-1, keepdims=True)
    source, target = (np.where(known, points, 0.0) for points in (prediction, truth))
    aligned = apply(fit_similarity(source, target, known.astype(float)[..., 0]), prediction)
    return _mean_distance(aligned, truth) / _corner_distance(truth, corners)


def yaw_bins(yaw: ArrayLike) -> NDArray[np.int64]:
    """Bin (N,) of each yaw (N,) in radians: 0 to 30 degrees, above 30 to 60, above 60 (AFLW2000-3D).

    The sign is ignored, both edges belong to the lower bin, and angles are taken as stored, without wrapping.
    """
    return np.searchsorted(YAW_EDGES, np.abs(yaw), side="left")


class TableRow(NamedTuple):
    """One row of a table by bins. Published "mean" columns are `mean_of_bins`, not `mean_of_images`."""

    bins: Floats
    """Mean error of each bin (K,), NaN where it is empty, and so then are the three values that follow."""
    mean_of_bins: float
    std: float
    """Standard deviation of the bin means, ddof = 1."""
    std_population: float
    """The same with ddof = 0; published tables hold both kinds."""
    mean_of_images: float
    counts: NDArray[np.int64]

    def weighted(self, counts: Sequence[int]) -> float:
        """The mean over the images of a set with the given counts (K,) in its bins, estimated from the bin means."""
        return float(self.bins @ np.asarray(counts, float) / np.sum(counts))


def table_row(errors: ArrayLike, bins: ArrayLike, count: int = 3) -> TableRow:
    """The means of `errors` (N,) by their `bins` (N,), from 0 to `count` - 1, and the means of those."""
    errors, bins = np.asarray(errors, float), np.asarray(bins)
    counts = np.bincount(bins, minlength=count)
    sums = np.bincount(bins, weights=errors, minlength=count)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    of_images = errors.mean() if errors.size else np.nan
    return TableRow(means, means.mean(), means.std(ddof=1), means.std(), of_images, counts)


def ced(errors: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Cumulative error distribution (T,): the share of `errors` (N,) up to each of `thresholds` (T,).

    Here and in `auc` and `failure_rate`, an image without a result counts as a failure if its error is inf or
    NaN.
    """
    ordered = np.sort(np.asarray(errors, float))
    return np.searchsorted(ordered, thresholds, side="right") / len(ordered)


def auc(errors: ArrayLike, limit: float) -> float:
    """Area under `ced` from 0 to `limit`, over `limit`: 1 if every error is 0. Exact, not sampled."""
    return float(np.mean(np.fmax(0.0, 1 - np.asarray(errors, float) / limit)))


def failure_rate(errors: ArrayLike, limit: float) -> float:
    """Share of `errors` (N,) above `limit`."""
    return float(np.mean(~(np.asarray(errors, float) <= limit)))


def correlation(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Pearson's correlation of two series (N,), over the places where both are finite: 0 where the truth varies and the
    prediction does not, as it then tells nothing; NaN where the truth does not vary or there are fewer than three."""
    prediction, truth = np.asarray(prediction, float), np.asarray(truth, float)
    known = np.isfinite(prediction) & np.isfinite(truth)
    if known.sum() < 3:
        return float("nan")
    a, b = (values[known] - values[known].mean() for values in (prediction, truth))
    of_a, of_b = (float(np.linalg.norm(values)) for values in (a, b))
    if of_b < 1e-9:
        return float("nan")
    return float(a @ b) / (of_a * of_b) if of_a >= 1e-9 else 0.0


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve: the share of pairs, one `positive` and one not, of which the positive one has the
    higher score; ties count half (Mann-Whitney). Both are arrays of one shape, `positive` of booleans. NaN where all or
    none are positive."""
    scores, positive = np.asarray(scores, float).reshape(-1), np.asarray(positive, bool).reshape(-1)
    order, rank = np.unique(scores, return_inverse=True)
    yes, no = (np.bincount(rank.reshape(-1)[t], minlength=len(order)) for t in (positive, ~positive))
    below = np.concatenate([[0], np.cumsum(no)])[:-1]
    pairs = yes.sum() * no.sum()
    return float((yes * (below + no / 2)).sum() / pairs) if pairs else float("nan")


def jitter(sequence: ArrayLike) -> float:
    """Noise of a track (T, L, D) between frames: its standard deviation per coordinate, in the track's unit.

    Taken from second differences, so motion at constant speed counts nothing: for independent noise of
    variance s^2 they have the variance (1 + 4 + 1) s^2. Raises `LandmarkError` for fewer than three frames.
    """
    second = np.diff(np.asarray(sequence, float), n=2, axis=0)
    if second.shape[0] == 0:
        raise LandmarkError(f"got a track of {amount(len(np.asarray(sequence)), 'frame')}, want at least 3")
    return float(np.sqrt(np.mean(second**2) / 6))


def pose_kept(truth: ArrayLike) -> NDArray[np.bool_]:
    """Which true poses (N, 3) in radians AFLW2000-3D's protocol keeps (N,): no angle beyond 99 degrees."""
    return np.all(np.abs(truth) <= POSE_LIMIT, axis=-1)


def pose_mae(prediction: ArrayLike, truth: ArrayLike) -> Floats:
    """Mean absolute error (3,) of each Euler angle, in radians, over the images that `pose_kept` keeps.

    Both are (N, 3) in the same order and convention, that of AFLW2000-3D being "aflw". Differences are taken
    around the circle. The "MAE" of published tables is the mean of the three. Ruiz et al., "Fine-grained head
    pose estimation without keypoints", CVPR Workshops 2018.
    """
    prediction, truth = np.asarray(prediction, float), np.asarray(truth, float)
    kept = pose_kept(truth)
    difference = (prediction - truth)[kept]
    return np.abs((difference + np.pi) % (2 * np.pi) - np.pi).mean(axis=0)


def _paired(prediction: ArrayLike, truth: ArrayLike, dimensions: int = 2) -> tuple[Floats, Floats]:
    """Both as float64 arrays of one shape (N, L, at least `dimensions`)."""
    prediction, truth = np.asarray(prediction, float), np.asarray(truth, float)
    if prediction.shape != truth.shape or truth.ndim != 3 or not dimensions <= truth.shape[-1] <= 3:
        wanted = "(N, L, 3)" if dimensions == 3 else "(N, L, 2 or 3)"
        raise LandmarkError(f"got landmarks {prediction.shape} with truth {truth.shape}, want both {wanted}")
    return prediction, truth


def _mean_distance(prediction: Floats, truth: Floats) -> Floats:
    known = np.isfinite(truth).all(axis=-1)
    distance = np.where(known, np.linalg.norm(prediction - truth, axis=-1), 0.0)
    return distance.sum(axis=-1) / known.sum(axis=-1)


def _plane_distance(prediction: Floats, truth: Floats) -> Floats:
    return _mean_distance(prediction[..., :2], truth[..., :2])


def _at_mean_z(prediction: Floats, truth: Floats) -> Floats:
    known = np.isfinite(truth).all(axis=-1, keepdims=True)
    lift = np.where(known, truth[..., 2:] - prediction[..., 2:], 0.0)
    shift = lift.sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    return np.concatenate([prediction[..., :2], prediction[..., 2:] + shift], axis=-1)


def _corner_distance(truth: Floats, corners: tuple[int, int]) -> Floats:
    return np.linalg.norm(truth[:, corners[0]] - truth[:, corners[1]], axis=-1)


def _box_side(truth: Floats, boxes: ArrayLike | None) -> Floats:
    return np.sqrt(_box_size(truth, boxes).prod(axis=-1))


def _box_size(truth: Floats, boxes: ArrayLike | None) -> Floats:
    """Width and height (N, 2)."""
    if boxes is None:
        return np.nanmax(truth[..., :2], axis=1) - np.nanmin(truth[..., :2], axis=1)
    boxes = np.asarray(boxes, float)
    return boxes[:, 2:] - boxes[:, :2]
