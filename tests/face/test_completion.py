"""Completing landmarks by a fitted head: NumPy only."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.completion import Completion, complete
from canthus.face.faces import Alignment
from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.rotation import geodesic, matrix_from_euler

MODEL = MorphableModel.default()
SEMIFACE = [*range(17, 22), *range(27, 34), *range(36, 42), *range(48, 52), *range(57, 63), 66, 67]
STABLE = np.isin(np.arange(68), [*SEMIFACE, 22, 35, 45, 54])
INNER = np.arange(68) >= 17


def random_faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (count,68,3) of random heads that look to the picture's right, 0 to 60 degrees; their rotations."""
    rng = np.random.default_rng(seed)
    identity, expression = rng.normal(size=(count, 10)), rng.uniform(0, 0.3, (count, len(MODEL.expression)))
    rotation = matrix_from_euler(np.deg2rad(rng.uniform([-20, -60, -20], [20, 0, 20], (count, 3))), "aflw")
    camera = WeakPerspective(rotation, np.full(count, 0.9), rng.uniform(90, 130, (count, 2)))
    xyz = camera.project(MODEL.landmarks(identity, expression))
    return xyz - [0, 0, 1] * xyz.mean(1, keepdims=True), rotation


def placed(xyz: np.ndarray, which: np.ndarray = STABLE, noise: float = 0.0) -> Alignment:
    """What a network would say that places the points `which` and has no idea of the others."""
    rng = np.random.default_rng(1)
    said = np.where(which[:, None], xyz + noise * rng.normal(size=xyz.shape), 7.0) * [1, 1, 0]
    return Alignment(said.astype(np.float32), score=np.broadcast_to(which.astype(np.float32), xyz.shape[:2]))


def sizes(xyz: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(np.ptp(xyz[..., :2], axis=1), axis=1))[:, None]


def test_open_points_of_a_face_of_the_model_come_back():
    xyz, rotation = random_faces(40)
    out = complete(placed(xyz), Completion(noise=0.003, iterations=30, jaw="fixed"))
    error = np.linalg.norm((out.xyz - xyz)[..., :2], axis=-1) / sizes(xyz)
    assert error[:, INNER].mean() < 0.005  # exact points on one half tell of the other half of the face
    assert error[:, ~INNER].mean() < 0.04  # but less of the jaw
    assert np.abs(out.xyz[..., 2] - xyz[..., 2]).mean() / sizes(xyz).mean() < 0.015
    assert np.rad2deg(geodesic(out.rotation, rotation)).mean() < 2
    assert out.coefficients.shape == (40, len(MODEL.identity) + len(MODEL.expression))


def test_the_four_points_of_the_other_half_help():
    xyz, _ = random_faces(60)
    how = Completion(noise=0.01, iterations=5, jaw="fixed")
    errors = []
    for which in (np.isin(np.arange(68), SEMIFACE), STABLE, STABLE | (np.arange(68) < 9)):
        difference = complete(placed(xyz, which, 1.0), how).xyz - xyz
        errors.append((np.linalg.norm(difference[..., :2], axis=-1) / sizes(xyz))[:, ~STABLE].mean())
    assert errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2]  # and so does the near side of the jaw


def test_placed_points_keep_their_place_and_z_has_zero_mean():
    xyz, _ = random_faces(3)
    network = placed(xyz, noise=2.0)
    out = complete(network, Completion(0.05, 5, "soft"))
    np.testing.assert_allclose(out.xyz[:, STABLE, :2], network.xyz[:, STABLE, :2], atol=1e-5)
    np.testing.assert_allclose(out.xyz[..., 2].mean(1), 0, atol=1e-4)
    np.testing.assert_array_equal(out.score, network.score)
    assert out.xyz.dtype == np.float32


def test_what_the_network_says_of_open_points_does_not_matter():
    xyz, _ = random_faces(2)
    network, how = placed(xyz), Completion(0.01, 5, "fixed")
    other = Alignment(np.where(STABLE[:, None], network.xyz, 300.0).astype(np.float32), score=network.score)
    np.testing.assert_array_equal(complete(network, how).xyz, complete(other, how).xyz)


def test_a_soft_jaw_differs_on_the_side_turned_away_only():
    xyz, rotation = random_faces(30)
    fixed, soft = (complete(placed(xyz), Completion(0.01, 5, jaw)) for jaw in ("fixed", "soft"))
    far = rotation[:, 0, 2] > 0.5  # the nose points to the picture's right by more than 30 degrees
    apart = np.linalg.norm((fixed.xyz - soft.xyz)[..., :2], axis=-1)[far]
    assert far.sum() > 5
    assert apart[:, 17:].max() < 1e-4 and apart[:, :8].max() < 0.5
    assert (apart[:, 10:16].max(1) > 5).all()  # px; a face is some 140 px


def test_any_model_serves():
    """A head of other units and axes' origin says the same."""
    metres = MorphableModel(
        "metres", MODEL.mean / 1000 + [0, 0.2, 0], MODEL.identity / 1000, MODEL.expression / 1000,
        MODEL.expression_bounds, MODEL.expression_names, MODEL.triangles, MODEL.landmark_ids,
        MODEL.landmark_weights, unit="m",
    )  # fmt: skip
    xyz, _ = random_faces(3)
    how = Completion(0.01, 5, "soft")
    np.testing.assert_allclose(complete(placed(xyz), how, metres).xyz, complete(placed(xyz), how).xyz, atol=0.5)


def test_too_few_placed_points_are_refused():
    xyz, _ = random_faces(1)
    with pytest.raises(LandmarkError, match="fewer than 6"):
        complete(placed(xyz, np.arange(68) < 5), Completion(0.01, 5, "fixed"))


def test_no_faces_are_no_error():
    out = complete(placed(np.zeros((0, 68, 3))), Completion(0.01, 5, "soft"))
    assert out.xyz.shape == (0, 68, 3)
