"""Eye aspect ratio, mouth opening and brow height of points whose distances are plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.landmarks import convert
from canthus.face.measures import brow_height, eye_aspect_ratio, mouth_opening
from canthus.geometry.rotation import matrix_from_euler


def points68(depth: bool = True) -> np.ndarray:
    """(1,68,3) image axes, y down: eye corners on the line y = 0, 30 px apart, mouth corners 40 px apart on y = 80."""
    at = {
        36: (0, 0), 37: (10, -6), 38: (20, -4), 39: (30, 0), 40: (20, 2), 41: (10, 3),
        42: (60, 0), 43: (70, 1), 44: (80, 2), 45: (90, 0), 46: (80, -1), 47: (70, -2),
        48: (25, 80), 54: (65, 80), 61: (35, 78), 62: (45, 76), 63: (55, 78), 65: (55, 84), 66: (45, 88), 67: (35, 82),
    }  # fmt: skip
    points = np.zeros((1, 68, 3))
    for index, (x, y) in at.items():
        points[0, index, :2] = x, y
    points[0, 17:22, 1], points[0, 22:27, 1] = -18, [-27, -27, -27, -36, -18]
    points[0, 17:22, 0], points[0, 22:27, 0] = np.arange(0, 35, 7), np.arange(60, 95, 7)
    points[0, [30, 33], 2] = 30  # a nose, so that turning the head turns something
    return points if depth else points[..., :2]


@pytest.mark.parametrize("depth", [True, False])
def test_distances_are_taken_along_the_face_and_divided_by_a_width(depth):
    points = points68(depth)
    # right eye: lids 9 and 6 px apart, 7.5 / 30; the left eye's upper lid lies below the lower one: closed
    assert eye_aspect_ratio(points) == pytest.approx(np.array([[0.25, 0.0]]))
    # lips 4, 12 and 6 px apart: 22 / 3 / 40
    assert mouth_opening(points) == pytest.approx([22 / 3 / 40])
    # brows 18 and 27 px above the line of the corners, which lie 90 px apart
    assert brow_height(points) == pytest.approx(np.array([[0.2, 0.3]]))


def test_a_turned_head_keeps_its_values_in_space_and_not_in_the_plane():
    turn = matrix_from_euler(np.deg2rad([10.0, 60.0, -25.0]), "aflw")
    straight = points68()
    turned = 1.7 * straight @ turn.T + [100, 50, 3]
    for measure in (eye_aspect_ratio, mouth_opening, brow_height):
        np.testing.assert_allclose(measure(turned), measure(straight), atol=1e-9)
    assert mouth_opening(turned[..., :2])[0] > 1.1 * mouth_opening(straight)[0]  # the width shrinks more


def test_other_schemes_are_measured_where_they_have_the_points():
    points = points68()
    narrow, _ = convert(points, "ibug68", "cofw29")  # one lid pair an eye, the mean of the two; the middle of the lips
    assert eye_aspect_ratio(narrow, "cofw29") == pytest.approx(np.array([[0.25, 0.0]]))
    assert mouth_opening(narrow, "cofw29") == pytest.approx([12 / 40])
    # three brow points: outer end, upper middle, inner end, of -27, -27 and -18
    assert brow_height(narrow, "cofw29") == pytest.approx(np.array([[0.2, 24 / 90]]))
    assert mouth_opening(convert(points, "ibug68", "3dfaw66")[0], "3dfaw66") == pytest.approx([22 / 3 / 40])
    with pytest.raises(LandmarkError, match="without lids and lips"):
        eye_aspect_ratio(np.ones((1, 21, 2)), "aflw21")
    with pytest.raises(LandmarkError, match=r"shape \(1, 60, 2\), want \(N, 68, 2 or 3\)"):
        eye_aspect_ratio(np.ones((1, 60, 2)))


def test_unknown_points_give_unknown_values():
    points = points68()
    points[0, 37] = np.nan
    ratio = eye_aspect_ratio(points)
    assert np.isnan(ratio[0, 0]) and ratio[0, 1] == 0
    assert mouth_opening(points) == pytest.approx([22 / 3 / 40])
