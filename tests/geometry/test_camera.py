"""The camera: fit, project, and the way from a crop to the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.crop import Crop
from canthus.geometry.rotation import matrix_from_euler, matrix_from_quaternion


def random_camera(xp, count=4, seed=0):
    rng = np.random.default_rng(seed)
    R = np.asarray(matrix_from_quaternion(rng.normal(size=(count, 4))))
    return WeakPerspective(xp(R), xp(rng.uniform(20, 90, count)), xp(rng.uniform(100, 150, (count, 2))))


def head(count=4):
    return np.random.default_rng(1).normal(size=(count, 68, 3))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fit_finds_the_camera_that_projected(xp, dimensions):
    camera, points = random_camera(xp), xp(head())
    found = WeakPerspective.fit(points, camera.project(points)[..., :dimensions], xp(np.ones((4, 68))))
    np.testing.assert_allclose(found.rotation, camera.rotation, atol=1e-12)
    np.testing.assert_allclose(found.scale, camera.scale)
    np.testing.assert_allclose(found.shift, camera.shift)


def test_to_image_projects_where_the_crop_says(xp):
    camera, points = random_camera(xp), xp(head())
    rng = np.random.default_rng(2)
    crop = Crop(xp(rng.uniform(0, 900, (4, 2))), xp(rng.uniform(50, 900, 4)), xp([0, 0.4, -2.0, 3.0]), 256)
    image = camera.to_image(crop)
    np.testing.assert_allclose(image.project(points), crop.image_from_crop(camera.project(points)), atol=1e-9)
    np.testing.assert_allclose(image.rotation[0], camera.rotation[0], atol=1e-15)  # no angle, same rotation


def test_a_turned_crop_turns_the_roll_only(xp):
    # Frontal in a crop whose x axis points 0.3 rad down: in the image the head's top leans to the
    # right, which is an aflw roll of +0.3.
    frontal = WeakPerspective(xp(np.eye(3)[None]), xp([1]), xp([[0, 0]]))
    turned = frontal.to_image(Crop(xp([[0, 0]]), xp([64]), xp([0.3]), 64))
    np.testing.assert_allclose(turned.euler("aflw"), [[0, 0, 0.3]], atol=1e-15)


def test_euler_is_pitch_yaw_roll_in_radians(xp):
    angles = [[0.1, -0.7, 0.3]]
    camera = WeakPerspective(matrix_from_euler(xp(angles), "openface"), xp([1]), xp([[0, 0]]))
    np.testing.assert_allclose(camera.euler("openface"), angles, atol=1e-14)


def test_it_is_a_value():
    camera = random_camera(np.asarray)
    with pytest.raises(dataclasses.FrozenInstanceError):
        camera.scale = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model", "image", "weights", "message"),
    [
        ((68, 3), (68, 2), None, r"want model points \(B, L, 3\)"),
        ((1, 68, 2), (1, 68, 2), None, r"want model points \(B, L, 3\)"),
        ((1, 68, 3), (1, 66, 2), None, "as many image points"),
        ((1, 68, 3), (1, 68, 4), None, "as many image points"),
        ((1, 68, 3), (1, 68, 2), (68,), "one a point"),
    ],
)
def test_shapes_that_do_not_match_are_refused(xp, model, image, weights, message):
    weights = None if weights is None else xp(np.ones(weights))
    with pytest.raises(LandmarkError, match=message):
        WeakPerspective.fit(xp(np.ones(model)), xp(np.ones(image)), weights)
