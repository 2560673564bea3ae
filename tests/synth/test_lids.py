"""Lids of rendered heads close and do not pass through each other."""

import numpy as np
import pytest

from canthus.face.measures import eye_aspect_ratio
from canthus.synth.lids import PAIRS, blinked, uncrossed
from canthus.synth.recipe import RandomStreams, SynthRecipe


def gaps(points):
    """Of upper over lower points along the face's vertical, cm (4,)."""
    up = points[[36, 39, 42, 45]].mean(0) - points[[48, 54]].mean(0)
    return np.array([(points[u] - points[low]) @ up for s in PAIRS.values() for u, low in s]) / np.linalg.norm(up)


def test_lids_of_no_head_cross(assets):
    from canthus.synth.person import sample_expression

    recipe = SynthRecipe(closed_eyes=0.5, half_closed=0.3, squints=0.3, winks=0.1)
    rng, before, shut = np.random.default_rng(0), 0, []
    for k in range(60):
        expression = sample_expression(RandomStreams(1, k), assets.expression_names, recipe)
        identity = rng.standard_normal(len(assets.identity))
        raw = assets.shape(identity, expression)
        points = uncrossed(assets.landmarks(blinked(assets, raw, expression)))
        before += (gaps(assets.landmarks(raw)) < 0).any()
        assert gaps(points).min() > -1e-5
        closed = [expression[assets.expression_names.index(f"eyeBlink{side}")] > 0.8 for side in ("_R", "_L")]
        shut += eye_aspect_ratio(points[None])[0, closed].tolist()
    assert before > 10  # of 60 heads as the model has them
    assert len(shut) > 20 and max(shut) < 0.1  # as `evaluation.movements` tells closed eyes


@pytest.mark.parametrize("blink", [0.0, 0.25, 0.6, 1.0])
def test_a_blink_closes_the_eye_of_every_head_alike(assets, blink):
    names, rng = assets.expression_names, np.random.default_rng(1)
    for _ in range(5):
        identity = rng.standard_normal(len(assets.identity))
        expression = np.zeros(len(names))
        rest = gaps(assets.landmarks(assets.shape(identity, expression)))
        expression[names.index("eyeBlink_L")] = blink
        points = assets.landmarks(blinked(assets, assets.shape(identity, expression), expression))
        right, left = gaps(points)[:2], gaps(points)[2:]
        # the eyes' corners, and so the vertical, move by a little with a blink
        np.testing.assert_allclose(right, rest[:2], atol=0.02)  # one eye does not know of the other
        assert (left <= (1 - blink) * rest[2:] + 0.02).all()
        assert np.isclose(left, (1 - blink) * rest[2:], atol=0.02).any()  # the one that closes last
        shut = eye_aspect_ratio(uncrossed(points)[None])[0, 1]
        assert shut < 0.01 if blink == 1 else shut > 0.02


def test_a_blink_adds_nothing_to_an_eye_that_a_squint_has_closed(assets):
    names, none = assets.expression_names, np.zeros(len(assets.identity))
    expression = np.zeros(len(names))
    expression[names.index("eyeSquint_L")] = 10.0
    squint = assets.shape(none, expression)
    assert gaps(assets.landmarks(squint))[2:].max() < 0
    expression[names.index("eyeBlink_L")] = 0.7
    np.testing.assert_allclose(blinked(assets, assets.shape(none, expression), expression), squint, atol=1e-4)


def test_points_that_cross_meet_in_the_middle():
    points = np.zeros((68, 3))
    points[48] = points[54] = 0, -5, 0  # the mouth is below the eyes: up is y
    points[37], points[41] = (1.0, -0.2, 3.0), (1.1, 0.2, 2.0)  # crossed by 0.4
    points[38], points[40] = (2.0, 0.3, 3.0), (2.1, 0.1, 2.0)
    met = uncrossed(points)
    np.testing.assert_allclose(met[[37, 41]], [[1.0, 0.0, 3.0], [1.1, 0.0, 2.0]], atol=1e-9)
    np.testing.assert_array_equal(met[[38, 40]], points[[38, 40]])
    assert points[37, 1] == -0.2  # what was given is left as it was
