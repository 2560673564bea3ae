"""Errors over the pose coefficient of labels that have no yaw."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.evaluation.poses import BINS, by_pose
from canthus.face.morphable import MorphableModel
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler


def pairs(yaws: np.ndarray, roll: float = 0.0, scale: float = 2.0) -> SimpleNamespace:
    """The mean head's points, turned: all that `by_pose` reads of `Pairs`."""
    zero = np.zeros(len(yaws))
    rotation = matrix_from_euler(np.deg2rad(np.stack([zero, yaws, zero + roll], 1)), "opencv")  # roll is the last turn
    head = np.repeat(MorphableModel.default().landmarks().astype(float), len(yaws), 0)
    points = project(head, rotation, zero + scale, np.tile([300.0, 200.0], (len(yaws), 1)))[..., :2]
    return SimpleNamespace(scheme="ibug68", truth=points)


def test_the_bins_rise_with_the_yaw_on_either_side():
    yaws = np.arange(0, 70, 6.0)  # beyond, shapes that are scaled to one size look less turned again
    for side in (1, -1):
        found = [int(np.argmax(by_pose(pairs(side * yaws[[k]]), np.array([0.5])).counts)) for k in range(len(yaws))]
        assert found == sorted(found) and found[0] == 0 and found[-1] == BINS - 1


def test_roll_size_and_place_do_not_move_a_face_to_another_bin():
    yaws = np.array([5.0, -33, 50, 80])
    plain, moved = (by_pose(p, np.arange(4.0)) for p in (pairs(yaws), pairs(yaws, roll=35, scale=0.7)))
    assert moved.counts == plain.counts and moved.means == pytest.approx(plain.means, nan_ok=True)


def test_means_are_over_the_faces_of_a_bin_that_have_an_error():
    # three frontal faces are in the first bin; of (0.02, 0.04, NaN) the mean is 0.03
    numbers, means, counts = by_pose(pairs(np.array([0.0, 1, -1])), np.array([0.02, 0.04, np.nan]))
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8] and counts == [2, 0, 0, 0, 0, 0, 0, 0]
    assert means[0] == pytest.approx(0.03) and np.isnan(means[1:]).all()


def test_labels_that_lack_points_are_refused():
    some = pairs(np.zeros(2))
    some.truth[0, 5] = np.nan
    with pytest.raises(LandmarkError, match="lack some of the 68 points"):
        by_pose(some, np.zeros(2))
