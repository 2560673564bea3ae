"""Completing landmarks by a fitted head: NumPy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.completion import Completion, complete
from canthus.face.faces import Alignment
from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.crop import Crop
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


def test_rough_open_points_are_weak_evidence_where_they_are_asked():
    """The rough points are true here: the more they weigh, the nearer are the open ones. A jaw that follows the outline
    is no evidence for points of the skin."""
    xyz, _ = random_faces(8)
    rng = np.random.default_rng(2)
    network = placed(xyz)
    rough = np.where(STABLE[:, None], network.xyz + rng.normal(0, 2, network.xyz.shape), xyz).astype(np.float32)
    network = Alignment(rough, score=network.score)
    errors = [
        np.linalg.norm(
            (complete(network, Completion(0.01, 5, "fixed", evidence=e)).xyz - xyz)[:, ~STABLE, :2], axis=-1
        ).mean()
        for e in (0.0, 0.05, 1.0)
    ]
    assert errors[2] < 0.7 * errors[1] < 0.7 * errors[0]
    jaw = np.arange(68) < 17
    moved = Alignment(np.where(jaw[:, None], 300.0, network.xyz).astype(np.float32), score=network.score)
    how = Completion(0.01, 5, "soft", evidence=0.5)
    np.testing.assert_array_equal(complete(network, how).xyz, complete(moved, how).xyz)


def test_the_mesh_is_the_head_that_was_fitted_and_no_fit_to_an_outline():
    """Landmarks on the mesh are the fixed points of the skin, whatever outline the jaw follows, in the picture as in
    the crop."""
    xyz, _ = random_faces(6)
    fixed, soft = (complete(placed(xyz), Completion(0.01, 5, jaw)) for jaw in ("fixed", "soft"))
    crop = Crop(np.full((6, 2), 80.0), np.full(6, 128.0), np.linspace(-1, 1, 6), 256)
    model = MorphableModel.default()
    faces = soft.to_image(crop, (400, 400))
    on_mesh = model.at_landmarks(faces.mesh().vertices)
    wanted = crop.image_from_crop(fixed.xyz.astype(np.float64))
    open_points = ~STABLE & (np.arange(68) < 17)
    np.testing.assert_allclose(on_mesh[:, open_points, :2], wanted[:, open_points, :2], atol=0.02)
    assert np.abs(on_mesh - faces.xyz)[:, open_points].max() > 2  # px: the outline is elsewhere
    np.testing.assert_allclose(faces.mesh().identity, soft.coefficients[:, : len(model.identity)])
    half = faces[2].scaled(0.5, (10.0, -4.0), (200, 200))
    np.testing.assert_allclose(half.mesh().vertices[0], faces[2].mesh().vertices[0] * 0.5 + [10, -4, 0], atol=1e-3)
    other = replace(model, identity=model.identity[:9])
    assert faces.mesh(other).identity.shape == (6, 9)  # fitted to the landmarks


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
