"""Errors over the pose where labels have no yaw: by bins of the pose coefficient of the labelled points.

Fig. 5 (b) of "Pose-Aware Face Alignment based on CNN and 3DMM" (BMVC 2019) on 300-W and COFW-68, whose labels are 68
points in the picture and nothing else.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from canthus.data.balance import PoseSpace, coefficient, pose_space
from canthus.errors import LandmarkError
from canthus.evaluation.pairs import Pairs
from canthus.face.morphable import MorphableModel
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler

BINS = 8  # as the paper's axis has


class PoseBins(NamedTuple):
    """Means of errors by bin: numbers from 1, frontal first; mean of each, NaN of none; how many faces each has."""

    numbers: list[float]
    means: list[float]
    counts: list[int]


def has_poses(pairs: Pairs) -> bool:
    """Whether all 68 points of every face are labelled."""
    return pairs.scheme == "ibug68" and bool(len(pairs.truth)) and bool(np.isfinite(pairs.truth).all())


def by_pose(pairs: Pairs, errors: np.ndarray) -> PoseBins:
    """Errors (N,) by bins of the size of the pose coefficient of the true points; NaN are left out.

    The coefficient is that of `balance.coefficient` on the axis along which the mean head's points move as it turns
    from profile to profile, so that it means the same on every set. The bins are of equal width from 0 to its largest
    coefficient; what lies beyond is in the last. The coefficient grows up to some 70 degrees of yaw and falls by 8 %
    from there to the profile, so the last bins hold faces of 45 degrees and more. Raises `LandmarkError` for labels
    that lack points.
    """
    if not has_poses(pairs):
        raise LandmarkError("got labels that lack some of the 68 points, want all for bins of pose")
    space, most = _space()
    pose = np.abs(coefficient(pairs.truth[..., :2].astype(np.float64), space))
    bins = np.minimum(pose / most * BINS, BINS - 1).astype(int)
    known = np.isfinite(errors)
    here = [(bins == k) & known for k in range(BINS)]
    means = [float(errors[h].mean()) if h.any() else float("nan") for h in here]
    return PoseBins([k + 1.0 for k in range(BINS)], means, [int(h.sum()) for h in here])


@functools.cache
def _space() -> tuple[PoseSpace, float]:
    """The pose space of the mean head under yaws of -90 to 90 degrees, and its largest coefficient."""
    yaw = np.deg2rad(np.linspace(-90, 90, 91))
    rotation = matrix_from_euler(np.stack([0 * yaw, yaw, 0 * yaw], -1), "aflw")
    head = np.repeat(MorphableModel.default().landmarks().astype(np.float64), len(yaw), 0)
    shapes = project(head, rotation, np.ones(len(yaw)), np.zeros((len(yaw), 2)))[..., :2]
    space = pose_space(shapes)
    return space, float(np.abs(coefficient(shapes, space)).max())
