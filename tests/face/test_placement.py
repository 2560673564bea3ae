"""Millimetres in front of the camera, compared with heads that a pinhole camera of known place sees."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.faces import Faces, Pose
from canthus.face.morphable import MorphableModel
from canthus.face.placement import assumed_focal_length, head_scales, head_translations
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler

ANGLES = [(0, 0, 0), (10, -40, 5), (-15, 70, -20)]
FOCAL, CENTRE = 800.0, np.array([319.5, 239.5])


def seen(distance: float) -> tuple[Faces, np.ndarray]:
    """The mean head under three rotations as a weak perspective camera sees it; and its true translations (3,3)."""
    model = MorphableModel.default()
    rotation = matrix_from_euler(np.deg2rad(np.array(ANGLES, float)), "aflw")
    points = model.landmarks()[0].astype(np.float64)
    middle = np.array([[0.0, 0, -distance], [120, -60, -distance], [-80, 90, -distance]])  # of the landmarks
    translations = middle - rotation @ points.mean(0)
    scale = np.full(3, FOCAL / distance)
    origin = CENTRE + scale[:, None] * translations[:, :2] * [1, -1]
    xyz = project(np.tile(points, (3, 1, 1)), rotation, scale, origin)
    xyz[..., 2] -= xyz[..., 2].mean(1, keepdims=True)
    unknown = np.full((3, 68), np.nan)
    return Faces(xyz, np.full(3, np.nan), unknown, unknown, Pose(rotation), (640, 480)), translations


@pytest.mark.parametrize("distance", [400.0, 1500.0])
def test_translations_are_those_of_the_camera(distance: float) -> None:
    faces, translations = seen(distance)
    found = head_translations(faces, np.full(3, FOCAL), np.tile(CENTRE, (3, 1)))
    np.testing.assert_allclose(found, translations, atol=1e-3 * distance)
    np.testing.assert_allclose(head_scales(faces), FOCAL / distance, rtol=1e-5)


def test_a_perspective_camera_at_arms_length_is_met_within_a_few_percent() -> None:
    """Weak perspective is an approximation: the nearer half of a face is larger, and the mean of both is taken."""
    faces, translations = seen(600.0)
    points = MorphableModel.default().landmarks()[0].astype(np.float64)
    camera = points @ np.swapaxes(faces.pose.matrix, 1, 2) + translations[:, None]
    flat = CENTRE + FOCAL * camera[..., :2] * [1, -1] / -camera[..., 2:]
    near = Faces(
        np.concatenate([flat, faces.xyz[..., 2:]], -1), faces.detection_scores, faces.sigma, faces.visible, faces.pose,
        (640, 480),
    )  # fmt: skip
    found = head_translations(near, np.full(3, FOCAL), np.tile(CENTRE, (3, 1)))
    np.testing.assert_allclose(found[:, 2], translations[:, 2], rtol=0.05)


def test_the_assumed_camera_is_65_degrees_wide() -> None:
    assert assumed_focal_length(640, 480) == 500
    assert 2 * np.degrees(np.arctan(320 / 500)) == pytest.approx(65.2, abs=0.1)
    with pytest.raises(LandmarkError, match="not positive"):
        head_translations(seen(600.0)[0], np.zeros(3), np.tile(CENTRE, (3, 1)))
