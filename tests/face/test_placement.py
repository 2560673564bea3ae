"""Millimetres in front of the camera, compared with heads that a pinhole camera of known place sees."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.faces import Faces
from canthus.face.morphable import MorphableModel
from canthus.face.placement import assumed_focal_length, head_poses, head_scales
from canthus.face.pose import Pose
from canthus.geometry.rotation import geodesic, matrix_from_euler, matrix_from_vector

ANGLES = [(0, 0, 0), (10, -40, 5), (-15, 70, -20)]
FOCAL, CENTRE = 800.0, np.array([319.5, 239.5])


def seen(distance: float) -> tuple[Faces, np.ndarray, np.ndarray]:
    """The mean head in three places as a pinhole camera sees it; its true rotations (3,3,3) and translations (3,3).

    The pose of the faces is what a camera that is turned towards them would say, as crops are cut and labelled.
    """
    points = MorphableModel.default().landmarks()[0].astype(np.float64)
    posed = matrix_from_euler(np.deg2rad(np.array(ANGLES, float)), "aflw")
    middle = distance * np.array([[0.0, 0, -1], [0.4, -0.1, -1], [-0.3, 0.2, -1]])  # of the landmarks
    turned = []
    for ray in middle / np.linalg.norm(middle, axis=1, keepdims=True):
        axis = np.cross([0, 0, -1], ray)
        turned.append(matrix_from_vector(axis / max(np.linalg.norm(axis), 1e-9) * np.arccos(-ray[2])))
    rotation = np.array(turned) @ posed
    translation = middle - rotation @ points.mean(0)
    camera = points @ np.swapaxes(rotation, 1, 2) + translation[:, None]
    flat = CENTRE + FOCAL * camera[..., :2] * [1, -1] / -camera[..., 2:]
    depth = FOCAL / distance * (points - points.mean(0)) @ np.swapaxes(posed, 1, 2)
    nan = np.full((3, 68), np.nan)
    faces = Faces(np.concatenate([flat, depth[..., 2:]], -1), nan[:, 0], nan, nan, Pose(posed), (640, 480))
    return faces, rotation, translation


@pytest.mark.parametrize("distance", [600.0, 1500.0])
def test_heads_are_where_a_camera_saw_them(distance: float) -> None:
    """What is neglected is perspective inside the face: the nearer half of it is larger, and the mean is taken; and
    away from the axis a picture is wider than the head. Both are some percent at arm's length."""
    faces, rotation, translation = seen(distance)
    found = head_poses(faces, np.full(3, FOCAL), np.tile(CENTRE, (3, 1)))
    assert np.rad2deg(geodesic(found.rotation, rotation)).max() < 1
    np.testing.assert_allclose(found.translation, translation, atol=0.05 * distance)
    np.testing.assert_allclose(head_scales(faces), FOCAL / distance, rtol=0.05)


def test_a_larger_head_is_farther_away() -> None:
    faces, _, translation = seen(1500.0)
    larger = 1.1 * MorphableModel.default().landmarks()[0]
    found = head_poses(faces, np.full(3, FOCAL), np.tile(CENTRE, (3, 1)), larger)
    np.testing.assert_allclose(found.translation[:, 2], 1.1 * translation[:, 2], rtol=0.05)


def test_the_assumed_camera_is_65_degrees_wide() -> None:
    assert assumed_focal_length(640, 480) == 500
    assert 2 * np.degrees(np.arctan(320 / 500)) == pytest.approx(65.2, abs=0.1)
    for focal_length in (0, -500, np.nan, np.inf):
        with pytest.raises(LandmarkError, match="not positive and finite"):
            head_poses(seen(600.0)[0], np.full(3, focal_length), np.tile(CENTRE, (3, 1)))
