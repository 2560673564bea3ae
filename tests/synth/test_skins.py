"""Skins of people: blends of those that there are, and what age, sun and beard add; nothing moves a point."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canthus.synth import skins
from canthus.synth.recipe import RandomStreams, SynthRecipe

NOTHING = {"blended_skins": 0.0, "pigment": 0.0, "wrinkles": 0.0, "blemishes": 0.0, "beard": 0.0}
BLACK = np.full(3, 0.01)


def painted(assets, number=0, skin=0, **shares):
    recipe = SynthRecipe(**{**NOTHING, **shares})
    picture = skins.skin_picture(RandomStreams(0, number), assets, recipe, assets.skins[skin], BLACK)
    assert picture.dtype == np.uint8 and picture.shape == (skins.SIDE, skins.SIDE, 4) and picture[..., 3].min() == 255
    return picture[..., :3].astype(float)


def original(assets, skin):
    image = assets.textures[f"{assets.skins[skin]}/M_Face"].convert("RGB")
    return np.asarray(image.resize((skins.SIDE, skins.SIDE), Image.Resampling.BOX), float)


def coarse(picture):
    """Means of 64 x 64 texels: blocks five times as wide as the blur that divides coarse from fine."""
    return picture.reshape(8, 64, 8, 64, 3).mean((1, 3))


def waves(picture):
    """What differs between neighbours in green, relative to the colour around: the finest detail."""
    green = picture[..., 1]
    return (np.diff(green, axis=1) / np.maximum(green[:, 1:], 8))[80:430, 80:430]


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_without_any_share_the_skin_is_as_it_was(assets):
    for skin in (0, len(assets.skins) - 1):
        error = np.abs(painted(assets, skin=skin) - original(assets, skin))
        assert error.mean() < 2 and np.percentile(error, 99) < 8  # levels: two products of 8 bits


def test_a_blend_has_the_coarse_colours_of_one_and_the_detail_of_others(assets, monkeypatch):
    monkeypatch.setattr(skins, "_mixed", lambda rng, first, second: first)  # of one other in place of two
    monkeypatch.setattr(skins, "_blended", lambda rng, at, coarse, middle, other: coarse)
    for number in range(20):
        drawn = RandomStreams(0, number).maybe("blended skins", 1.0).integers(len(assets.skins), size=3)
        if drawn[1] != 0:
            break
    mine, other = original(assets, 0), original(assets, drawn[1])
    blend = painted(assets, number, blended_skins=1.0)
    np.testing.assert_allclose(coarse(blend), coarse(mine), rtol=0.06, atol=3)
    assert alike(waves(blend), waves(other)) > 0.8 > 2 * abs(alike(waves(blend), waves(mine)))


def test_the_border_of_a_blended_face_is_that_of_the_back_of_the_head(assets):
    at, plain = skins.layout(assets), skins.split_skin(assets, assets.skins[0])
    rng = np.random.default_rng(0)
    blend = skins._blended(rng, at, plain.coarse, plain.middle, skins.split_skin(assets, assets.skins[1]))
    border, face = at.inside == 0, at.inside == 1
    assert border.any()
    np.testing.assert_allclose(blend[border], plain.coarse[border], rtol=1e-5)
    assert np.abs(blend - plain.coarse)[face].max() > 1
    assert np.abs(skins._pigment(rng, at)[border] - 1).max() < 0.02


def test_two_details_are_mixed_by_soft_regions():
    first, second = np.full((512, 512, 3), 64, np.uint8), np.full((512, 512, 3), 192, np.uint8)
    mix = skins._mixed(np.random.default_rng(0), first, second).astype(int)
    assert mix.min() < 80 and mix.max() > 175
    assert np.abs(np.diff(mix, axis=0)).max() < 8 and np.abs(np.diff(mix, axis=1)).max() < 8  # no seams


@pytest.mark.parametrize("share", sorted(NOTHING))
def test_a_share_paints_and_the_same_person_alike(assets, share):
    plain, more, again = (painted(assets, 1, **{share: amount}) for amount in (0.0, 1.0, 1.0))
    np.testing.assert_array_equal(more, again)
    assert np.abs(more - plain).max() > 8
    assert not np.array_equal(more, painted(assets, 2, **{share: 1.0}))


def test_beards_leave_lips_nose_and_eyes_free(assets):
    at = skins.layout(assets)
    points = at.points
    covered = np.zeros((skins.SIDE, skins.SIDE))
    for k in range(40):
        covered = np.maximum(covered, skins._beard(np.random.default_rng(k), at))
    texel = np.rint(at.texels(points[:, :2])).astype(int)

    def most(ids):
        x, y = texel[ids].T
        return np.array([covered[b - 3 : b + 4, a - 3 : a + 4].max() for a, b in zip(x, y)])

    assert most(range(5, 12)).min() > 60  # the jaw line
    assert most([27, 28, 29, 30, *range(36, 48)]).max() < 5  # nose and eyes
    under = np.rint(at.texels((points[57:58, :2] + points[8:9, :2]) / 2)).astype(int)[0]
    assert covered[under[1], under[0]] > 60


def test_wrinkles_lie_where_they_belong(assets):
    at = skins.layout(assets)
    lines = at.wrinkles
    uv = {name: np.concatenate(x) for name, x in lines.items()}
    points = at.texels(at.points[:, :2])
    assert uv["forehead"][:, 1].max() < points[17:27, 1].min()  # rows count from the top
    assert (uv["under"][:, 1] > points[36:48, 1].min()).all() and (uv["under"][:, 1] < points[33, 1]).all()
    nose, corners = points[[31, 35], 1].mean(), points[[48, 54], 1].mean()
    assert nose - 40 < uv["cheeks"][:, 1].min() and uv["cheeks"][:, 1].max() < corners + 40
    for name in ("eyes", "cheeks", "under"):
        right, left = np.array(lines[name][::2]), np.array(lines[name][1::2])
        middle = points[27, 0]
        np.testing.assert_allclose((right + left)[..., 0] / 2, middle, atol=8)  # both sides alike


def test_tones_reach_from_pale_to_dark():
    tones = np.array([skins.sample_tone(np.random.default_rng(k)) for k in range(400)])
    assert (np.diff(tones, axis=1) < 0).mean() > 0.97  # skin reflects red most and blue least
    assert (tones[:, 0] > 0.6).mean() > 0.08 and (tones[:, 0] < 0.15).mean() > 0.08
    assert tones.max() < 1


def test_the_darkest_tones_are_less_red_than_brown_ones():
    tones = np.array([skins.sample_tone(np.random.default_rng(k)) for k in range(4000)])
    red, redness = tones[:, 0], tones[:, 0] / tones[:, 1]
    # red over green of the table is 2.0 at the brown tones and 1.6 at the darkest; 0.05 is its deviation (of the log)
    assert 1.85 < np.median(redness[(red > 0.18) & (red < 0.24)]) < 2.15
    assert 1.5 < np.median(redness[red < 0.075]) < 1.75
    assert redness.min() > 1.2 and redness.max() < 2.5
