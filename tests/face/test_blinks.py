"""Blinks: which dips of the eye's opening are one, and when they begin and end."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.blinks import eye_closure, find_blinks
from canthus.face.measures import eye_aspect_ratio
from canthus.face.morphable import MorphableModel

RATE = 25


def opened(seconds: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and ratios of two open eyes, 0.30 and 0.26."""
    times = np.arange(int(seconds * RATE)) / RATE
    return times, np.tile([0.30, 0.26], (len(times), 1))


def test_a_blink_of_one_eye_has_its_frames() -> None:
    times, ratios = opened()
    # closures 0.2, 0.6, 0.9, 0.5, 0.1 of the right eye: half of the peak, 0.45, is passed in frames 51 to 53
    ratios[50:55, 0] *= 1 - np.array([0.2, 0.6, 0.9, 0.5, 0.1])
    (blink,) = find_blinks(times, ratios)
    assert blink[:4] == ("right", 51, 52, 53) and blink.depth == pytest.approx(0.9)


def test_both_eyes_are_told_apart_and_in_order() -> None:
    times, ratios = opened()
    ratios[100:103] *= 0.2
    ratios[150, 1] = 0
    assert [(b.eye, b.peak) for b in find_blinks(times, ratios)] == [("right", 100), ("left", 100), ("left", 150)]


def test_what_is_no_blink() -> None:
    times, ratios = opened()
    ratios[:4] *= 0.1  # closed at the start: nobody knows since when
    ratios[40 : 40 + RATE] *= 0.1  # closed for a second
    ratios[150:154] *= 0.7  # a squint
    ratios[-3:] *= 0.1
    assert find_blinks(times, ratios) == []


def test_a_wide_eye_that_narrows_does_not_blink() -> None:
    times, ratios = opened(20)
    ratios[200:260] *= 1.3
    assert find_blinks(times, ratios) == []


def test_nothing_is_said_across_a_gap() -> None:
    times, ratios = opened()
    ratios[80:83] *= 0.1
    assert len(find_blinks(times, ratios)) == 2
    times[82:] += 1.0  # the face was gone from the middle of it on
    assert find_blinks(times, ratios) == []


def test_the_coefficient_counts_as_much_as_the_ratio() -> None:
    times, ratios = opened()
    coefficients = np.full_like(ratios, 0.2)
    ratios[90], coefficients[90, 0] = ratios[90] * 0.5, 0.6
    # right: 1 - 0.5 = 0.5 and (0.6 - 0.2) / (1 - 0.2) = 0.5; left: 0.5 and 0, in the mean 0.25
    assert eye_closure(times, ratios[:, 0], coefficients[:, 0])[90] == pytest.approx(0.5)
    assert [b.eye for b in find_blinks(times, ratios, coefficients)] == ["right"]
    assert [b.eye for b in find_blinks(times, ratios, np.full_like(ratios, np.nan))] == ["right", "left"]


def test_a_head_that_blinks_is_seen_to() -> None:
    model = MorphableModel.default()
    times = np.arange(100) / RATE
    weight = np.exp(-(((times - 2.0) / 0.06) ** 2))  # above a half within 0.05 s: frames 49 to 51
    expression = np.zeros((100, 52))
    expression[:, [model.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = weight[:, None]
    ratios = eye_aspect_ratio(model.landmarks(None, expression))
    found = find_blinks(times, ratios)
    assert [(b.eye, b.peak) for b in found] == [("right", 50), ("left", 50)]
    assert all(b.depth > 0.6 and 48 <= b.start <= 50 <= b.end <= 52 for b in found)


def test_series_of_other_lengths_are_refused() -> None:
    with pytest.raises(LandmarkError, match="one length"):
        eye_closure(np.arange(3), np.ones(4))
    assert find_blinks(np.zeros(0), np.zeros((0, 2))) == []


def test_ratios_and_coefficients_are_of_two_eyes_and_as_many_times():
    times = np.arange(20) / 10
    for given in ((np.ones((30, 2)),), (np.ones(20),), (np.ones((20, 2)), np.ones((20, 1)))):
        with pytest.raises(LandmarkError, match=r"want \(20, 2\)"):
            find_blinks(times, *given)
