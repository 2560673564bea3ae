"""Hair and brows: colours, and cuts that stay on the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rendering import ASSETS, need_assets

from canthus.synth.hairdo import Brows, Cut, sample_brows, sample_cut, sample_hair_colour, thickened
from canthus.synth.heads import HeadAssets
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.shipped import ShippedHead

HEAD = ShippedHead()
POINTS = HEAD.landmarks(HEAD.mean)
EARS, BROWS = POINTS[[0, 16], 1].mean(), POINTS[17:27, 1].mean()


def test_no_cut_is_no_change():
    hair = np.random.default_rng(0).normal(0, 8, (50, 3)).astype(np.float32)
    np.testing.assert_allclose(Cut()(hair, POINTS), hair, atol=1e-5)


def test_a_cut_changes_what_it_says():
    hair = np.array([[4.0, EARS - 10, -5], [4.0, EARS + 6, -5], [1.0, BROWS + 1, POINTS[17, 2] + 2]])
    np.testing.assert_allclose(Cut(flip=True)(hair, POINTS), hair * [-1, 1, 1], atol=1e-5)
    short = Cut(length=0.5)(hair, POINTS)
    np.testing.assert_allclose(short[0], [4.0, EARS - 5, -5], atol=1e-5)  # 10 cm below the ears becomes 5
    np.testing.assert_allclose(short[1:], hair[1:], atol=1e-5)
    open_ = Cut(fringe=0.5)(hair, POINTS)
    np.testing.assert_allclose(open_[2, 1], BROWS + 2.25, atol=1e-5)  # half way to the line 3.5 cm above the brows
    np.testing.assert_allclose(open_[:2], hair[:2], atol=1e-5)
    full = Cut(volume=0.1)(hair, POINTS)
    assert abs(full[1, 0]) > 4 and full[1, 1] > hair[1, 1]
    np.testing.assert_allclose(full[0], hair[0], atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_hair_faces_outwards_after_a_cut(flip):
    from canthus.synth.person import pose_head, sample_person

    person = sample_person(RandomStreams(0, 1), HEAD, SynthRecipe(hair=1.0, headwear=0.0))
    none = np.zeros(len(HEAD.expression_names))
    head, _ = pose_head(HEAD, replace(person, hair="full", cut=Cut(flip=flip)), none)
    (hair,) = (p for p in head.pieces if p.role == "hair")
    a, b, c = (hair.vertices[hair.triangles[:, k]] for k in range(3))
    assert ((np.cross(b - a, c - a) * hair.normals[hair.triangles[:, 0]]).sum(1) > 0).mean() > 0.95


def test_thicker_brows_keep_their_line():
    line = POINTS[17:27]
    brows = np.concatenate([line, line + [0, 0.3, 0], line - [0, 0.2, 0]])
    thick = thickened(brows, POINTS, 1.5)
    np.testing.assert_allclose(thick, np.concatenate([line, line + [0, 0.45, 0], line - [0, 0.3, 0]]), atol=1e-6)


def test_hair_is_of_all_colours_and_brows_are_no_lighter():
    recipe = SynthRecipe(mixed_brows=0.0)
    hair, brows = [], []
    for k in range(300):
        streams = RandomStreams(2, k)
        hair.append(sample_hair_colour(streams, recipe))
        brows.append(sample_brows(streams, HEAD, recipe, hair[-1]))
    hair = np.array(hair)
    assert (hair.mean(1) < 0.02).mean() > 0.15 and (hair.mean(1) > 0.2).mean() > 0.1
    assert all((b.colour <= h + 1e-9).all() and len(b.styles) == 1 for b, h in zip(brows, hair))
    greying = SynthRecipe(grey_hair=1.0, dyed_hair=0.0)
    grey = np.array([sample_hair_colour(RandomStreams(2, k), greying) for k in range(300)])
    assert np.median(grey.max(1) / grey.min(1)) < np.median(hair.max(1) / hair.min(1))


def test_what_is_not_wanted_is_not_drawn():
    recipe = SynthRecipe(hair_cuts=0.0, mixed_brows=0.0)
    for k in range(5):
        assert sample_cut(RandomStreams(0, k), recipe) == Cut()
        brows = sample_brows(RandomStreams(0, k), HEAD, recipe, np.full(3, 0.1))
        assert isinstance(brows, Brows) and len(brows.styles) == 1 and brows.thickness == 1


def test_textures_of_strands_have_no_colour_of_their_own():
    need_assets()
    assets = HeadAssets(ASSETS)
    for kind in ("hair", "brows"):
        for style in assets.wearables[kind]:
            texels = np.asarray(assets.textures[style]).reshape(-1, 4)
            assert (texels[:, :1] == texels[:, :3]).all()
            strands = texels[texels[:, 3] > 128, 0]
            assert abs(np.median(strands) - 128) < 3 and np.percentile(strands, 95) < 1.6 * 128 + 3, style
