"""The 52 names, and what the 57 of ICT-FaceKit are in them."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import ModelError
from canthus.face.expressions import (
    EXPRESSIONS,
    ICT_EXPRESSIONS,
    arkit_from_ict,
    as_arkit,
    ict_name,
    mirror_expressions,
)
from canthus.face.morphable import MorphableModel


def test_the_names_are_those_of_the_shipped_head():
    assert MorphableModel.default().expression_names == EXPRESSIONS


def test_each_coefficient_of_ict_arrives_under_its_own_name():
    """One coefficient at a time: two of the 57 make half of one that has no sides here, four have no counterpart."""
    arrived = {}
    for k, name in enumerate(ICT_EXPRESSIONS):
        row = arkit_from_ict(np.eye(57)[k])
        arrived[name] = {n: v for n, v in zip(EXPRESSIONS, row) if v > 0}
    for name in EXPRESSIONS:
        if name not in ("browInnerUp", "cheekPuff", "tongueOut"):
            assert arrived[ict_name(name)] == {name: 1.0}
    assert arrived["browInnerUp_L"] == arrived["browInnerUp_R"] == {"browInnerUp": 0.5}
    assert arrived["cheekPuff_R"] == {"cheekPuff": 0.5}
    dropped = [name for name, row in arrived.items() if not row]
    assert dropped == ["PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R"]
    assert np.isnan(arkit_from_ict(np.zeros((2, 57)))[:, EXPRESSIONS.index("tongueOut")]).all()


def test_sides_and_directions_are_written_differently():
    assert [ict_name(n) for n in ("eyeBlinkLeft", "mouthSmileRight", "jawLeft", "mouthRight", "jawOpen")] == [
        "eyeBlink_L", "mouthSmile_R", "jawLeft", "mouthRight", "jawOpen",
    ]  # fmt: skip


def test_another_number_of_coefficients_is_refused():
    with pytest.raises(ModelError, match=r"got expressions of shape \(3, 52\)"):
        arkit_from_ict(np.zeros((3, 52)))


def test_a_mirrored_face_swaps_the_sides_of_its_expressions():
    other = mirror_expressions()
    assert [other[k] for k in other] == list(range(52))
    swapped = {EXPRESSIONS[k]: EXPRESSIONS[j] for k, j in enumerate(other)}
    assert swapped["eyeBlinkLeft"] == "eyeBlinkRight" and swapped["jawRight"] == "jawLeft"
    assert swapped["jawOpen"] == "jawOpen" and swapped["eyeLookInLeft"] == "eyeLookInRight"


def test_either_head_gives_the_52():
    given = np.random.default_rng(0).random((3, 52))
    np.testing.assert_array_equal(as_arkit(given), given.astype(np.float32))
    of_ict = np.random.default_rng(0).random((3, 57))
    np.testing.assert_array_equal(as_arkit(of_ict), arkit_from_ict(of_ict).astype(np.float32))
    with pytest.raises(ModelError, match="want"):
        as_arkit(np.zeros((3, 40)))
