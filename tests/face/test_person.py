"""One head for all frames of a video: nearer to the true one than what a single frame says."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import ModelError
from canthus.face.faces import Faces
from canthus.face.morphable import MorphableModel
from canthus.face.person import MOST_FRAMES, pooled_identity
from canthus.face.pose import Pose
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler


def turning(count: int, identity: np.ndarray, noise: float) -> Faces:
    """One person without expression who turns from -50 to 50 degrees, 1 px a mm, with noise in px."""
    model, rng = MorphableModel.default(), np.random.default_rng(1)
    yaw = np.linspace(-50, 50, count)
    rotation = matrix_from_euler(np.deg2rad(np.stack([0 * yaw, yaw, 0 * yaw], 1)), "aflw")
    points = np.repeat(model.landmarks(identity[None]).astype(np.float64), count, axis=0)
    xyz = project(points, rotation, np.ones(count), np.full((count, 2), 200.0)) + rng.normal(0, noise, (count, 68, 3))
    nan = np.full((count, 68), np.nan)
    return Faces(xyz - [0, 0, 1] * xyz.mean(1, keepdims=True), nan[:, 0], nan, nan, Pose(rotation), (400, 400))


def test_many_frames_tell_more_of_a_head_than_one() -> None:
    model = MorphableModel.default()
    identity = np.r_[1.5, -1.0, 0.8, 1.2, -0.6, np.zeros(75)]
    faces = turning(60, identity, noise=2.0)
    pooled = pooled_identity(list(faces))
    truth = model.landmarks(identity[None])[0]

    def error(one: np.ndarray) -> float:
        found = model.landmarks(np.asarray(one, np.float32)[None])[0]
        return float(np.linalg.norm((found - found.mean(0)) - (truth - truth.mean(0)), axis=1).mean())

    single = [error(face.mesh().identity[0]) for face in (faces[0], faces[30], faces[59])]
    assert error(pooled) < 0.7 * min(single) < error(np.zeros(80))


def test_a_model_of_one_person_has_no_identity_left() -> None:
    model = MorphableModel.default()
    person = model.of_person(np.array([1.0, -2.0]))
    np.testing.assert_allclose(person.mean, model.vertices(np.array([[1.0, -2.0]]))[0], atol=1e-4)
    assert person.identity.shape == (0, *model.mean.shape) and person.vertices().shape == (1, *model.mean.shape)
    with pytest.raises(ModelError):
        model.of_person(np.zeros(81))


def test_of_many_frames_some_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = MorphableModel.fit
    monkeypatch.setattr(
        MorphableModel, "fit", lambda self, xyz, *a, **k: seen.append(len(xyz)) or fit(self, xyz, *a, **k)
    )
    faces = turning(3, np.zeros(80), 0.0)
    pooled_identity(list(faces))
    pooled_identity(list(faces) * 40)
    assert seen == [3, MOST_FRAMES]
