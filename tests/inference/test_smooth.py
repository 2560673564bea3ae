"""Smoothing of tracked faces: parts of a face for themselves, and without delay where the whole video is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from canthus.evaluation.metrics import jitter
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces, TrackedFaces
from canthus.face.measures import eye_aspect_ratio
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.face.series import TrackedFrame
from canthus.geometry.projection import project
from canthus.geometry.rotation import euler_from_matrix, matrix_from_euler
from canthus.inference.smooth import Smoother, smoothed

RATE = 25


def clip(count: int, yaw, blink=lambda t: 0 * t, noise: float = 0.0) -> list[TrackedFrame]:
    """The mean head, 2 px a millimetre, turned by `yaw` of the seconds and with eyes closed by `blink` of them."""
    model, times, rng = MorphableModel.default(), np.arange(count) / RATE, np.random.default_rng(0)
    expression = np.zeros((count, 52), np.float32)
    for side in ("Left", "Right"):
        expression[:, model.expression_names.index(f"eyeBlink{side}")] = blink(times)
    angles = np.stack([0 * times, yaw(times), 0 * times], 1)
    rotation = matrix_from_euler(np.deg2rad(angles), "aflw")
    points = model.landmarks(None, expression).astype(np.float64)
    xyz = project(points, rotation, np.full(count, 2.0), np.full((count, 2), 300.0))
    xyz = xyz - [0, 0, 1] * xyz.mean(1, keepdims=True) + rng.normal(0, noise, xyz.shape)
    nan = np.full((count, 68), np.nan)
    faces = Faces(xyz, nan[:, 0], nan, nan, Pose(rotation), (640, 640), expression=expression)
    return [TrackedFrame(k, t, TrackedFaces(faces[k], [0], [k > 0])) for k, t in enumerate(times.tolist())]


def points(frames: list[TrackedFrame]) -> np.ndarray:
    return np.concatenate([frame.tracked.faces.xyz for frame in frames])


def online(frames: list[TrackedFrame]) -> list[TrackedFrame]:
    smooth = Smoother()
    return [frame._replace(tracked=smooth(frame.tracked, frame.time)) for frame in frames]


def yaw_of(frames: list[TrackedFrame]) -> np.ndarray:
    matrices = np.concatenate([frame.tracked.faces.pose.matrix for frame in frames])
    return np.rad2deg(euler_from_matrix(matrices, "aflw")[:, 1])


def still(times):
    return 0 * times


@pytest.mark.parametrize("smooth", [online, lambda frames: list(smoothed(frames))])
def test_a_still_face_is_calmer_and_stays_where_it_is(smooth) -> None:
    raw, truth = clip(80, still, noise=0.5), points(clip(80, still))
    calm = points(smooth(raw))
    assert jitter(calm[20:]) < 0.5 * jitter(points(raw)[20:])
    assert np.abs(calm[20:].mean(0) - truth[20:].mean(0)).max() < 0.5


def test_a_whole_video_is_not_delayed() -> None:
    """A head that turns to and fro by 30 degrees in a second: what is late is off by its speed times the delay."""
    frames = clip(100, lambda t: 30 * np.sin(2 * np.pi * t))
    truth = yaw_of(frames)

    def delay(found: np.ndarray) -> float:
        """Seconds, by the part of the motion that is a quarter of a turn behind."""
        phase = 2 * np.pi * np.arange(25, 75) / RATE
        return float(
            np.arctan2(-(found[25:75] * np.cos(phase)).sum(), (found[25:75] * np.sin(phase)).sum()) / (2 * np.pi)
        )

    assert abs(delay(truth)) < 1e-9
    assert delay(yaw_of(online(frames))) > 0.01
    assert abs(delay(yaw_of(list(smoothed(frames))))) < 0.001


def test_played_backwards_it_is_the_same() -> None:
    frames = clip(40, lambda t: 20 * np.sin(5 * t), noise=0.5)
    back = [TrackedFrame(k, k / RATE, frame.tracked) for k, frame in enumerate(reversed(frames))]
    np.testing.assert_allclose(points(list(smoothed(back)))[::-1], points(list(smoothed(frames))), atol=2e-3)


@pytest.mark.parametrize("smooth", [online, lambda frames: list(smoothed(frames))])
def test_a_blink_is_not_smoothed_away(smooth) -> None:
    frames = clip(60, still, lambda t: np.exp(-(((t - 1.2) / 0.08) ** 2)))
    opened, closed = (eye_aspect_ratio(points(smooth(frames)))[k].mean() for k in (5, slice(29, 32)))
    raw_open, raw_closed = (eye_aspect_ratio(points(frames))[k].mean() for k in (5, slice(29, 32)))
    assert opened - closed > 0.8 * (raw_open - raw_closed)


def test_a_turning_head_does_not_smear_the_face() -> None:
    """In the head's own frame nothing moves, so the shape of the face stays to the last digit."""
    frames = clip(50, lambda t: 60 * t - 60)
    for smooth in (online(frames), list(smoothed(frames))):
        found = points(smooth)
        apart = np.linalg.norm(found[:, 36] - found[:, 45], axis=1)
        np.testing.assert_allclose(apart, apart[0], rtol=1e-5)


def test_a_face_that_was_gone_starts_anew() -> None:
    frames = clip(40, still)
    moved = [
        f._replace(
            number=f.number + 50,
            time=f.time + 2,
            tracked=replace(f.tracked, faces=f.tracked.faces.scaled(1, (99, 0), (640, 640))),
        )
        for f in frames[20:]
    ]
    calm = points(list(smoothed(frames[:20] + moved)))
    np.testing.assert_allclose(calm[20:, :, 0], calm[:20, :, 0] + 99, atol=1e-3)
    nobody = TrackedFrame(0, 0.0, TrackedFaces(Faces.empty((64, 64)), np.zeros(0, int), np.zeros(0, bool)))
    assert [len(f.tracked) for f in smoothed([nobody])] == [0] and list(smoothed([])) == []


def test_faces_that_are_gone_are_forgotten() -> None:
    smoother, frames = Smoother(), clip(3, still)
    for number, frame in enumerate(frames):  # three people, one after the other, ten seconds apart
        smoother(replace(frame.tracked, ids=np.array([number])), 10.0 * number)
    assert list(smoother._tracks) == [2]


def test_slow_videos_are_smoothed_and_pauses_are_no_gaps() -> None:
    """Three frames a second: the times between them are longer than a face may be gone."""
    frames = [frame._replace(time=k / 3) for k, frame in enumerate(clip(40, still, noise=0.5))]
    calm = points(list(smoothed(frames)))
    assert jitter(calm[10:]) < 0.9 * jitter(points(frames)[10:])
    apart = [frame._replace(number=10 * k) for k, frame in enumerate(frames)]  # frames between, without the face
    np.testing.assert_allclose(points(list(smoothed(apart)))[..., :2], points(frames)[..., :2], atol=1e-3)


def test_expressions_are_smoothed():
    blink = EXPRESSIONS.index("eyeBlinkLeft")
    frames = clip(60, still, lambda t: (t >= 1).astype(float))
    for smooth in (online(frames), list(smoothed(frames))):
        values = np.array([frame.tracked.faces.expression[0, blink] for frame in smooth])
        assert ((values[22:28] > 0) & (values[22:28] < 1)).any()  # a step is no step any more
