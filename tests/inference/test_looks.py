"""Cuts between shots, and what faces look like."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.inference.looks import difference, glance, is_cut, looks, says_something


def wall(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    """Coloured squares of 10 px."""
    squares = np.random.default_rng(seed).integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    return squares.repeat(10, 0).repeat(10, 1)[:height, :width]


def test_a_glance_is_the_mean_of_cells():
    # 90 x 160 px: cells of 10 x 10, whose 4 x 4 pixels all have the square's colour
    squares = wall(0)[::10, ::10].astype(float)
    np.testing.assert_allclose(glance(wall(0)), squares - squares.mean((0, 1)))
    np.testing.assert_allclose(glance(wall(0).repeat(3, 0).repeat(3, 1)), glance(wall(0)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (91, 163), (40, 1000)])
def test_pictures_of_any_size_can_be_glanced_at(shape):
    seen = glance(wall(1, *shape))
    assert seen.shape == (9, 16, 3) and abs(seen.mean()) < 1e-9


def test_another_wall_is_a_cut_and_other_light_is_none():
    one, other = glance(wall(1)), glance(wall(2))
    assert is_cut(one, other)
    dim = glance((wall(1) // 9).astype(np.uint8))
    noisy = np.random.default_rng(0).normal(0, 4, wall(1).shape) + wall(1) // 9
    assert not is_cut(one, dim) and not is_cut(dim, glance(np.clip(noisy, 0, 255).astype(np.uint8)))
    assert not is_cut(one, glance(np.roll(wall(1), 3, 1)))


def test_what_leaps_in_front_of_an_even_wall_is_no_cut():
    pictures = np.full((2, 90, 160, 3), 100, np.uint8)
    pictures[0, 20:70, 10:50] = pictures[1, 20:70, 100:140] = 200  # 14 % of the picture each
    assert not is_cut(*map(glance, pictures))


def test_an_even_picture_says_nothing():
    assert says_something(glance(wall(1)))
    assert not says_something(glance(np.zeros((90, 160, 3), np.uint8)))
    noise = np.random.default_rng(0).integers(0, 8, (900, 1600, 3), np.uint8)
    assert not says_something(glance(noise))


def test_looks_are_cells_of_a_crop_whatever_the_light():
    # 83 px, every second one: cells of 5 such pixels, the last two are left out; of 8 x 8 cells the inner 6 x 6
    crop = wall(3, 83, 83)
    (seen,) = looks(crop[None])
    inner = crop[10:70:10, 10:70:10].astype(float)
    np.testing.assert_allclose(seen, inner / inner.mean())
    half = (crop // 2).astype(np.uint8)
    assert difference(seen, looks(half[None])[0]) < 0.02
    # two colours that are alike but for one channel, 1.5 / 1 / 0.5 and 1 / 1 / 1: 0.5, 0 and 0.5 differ
    two = np.full((2, 80, 80, 3), 100, np.uint8)
    two[0] = 150, 100, 50
    assert difference(*looks(two)) == pytest.approx(1 / 3)
    assert np.isfinite(looks(np.zeros((1, 80, 80, 3), np.uint8))).all()
