"""Cuts between shots, and what faces look like."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.inference.appearance import difference, face_descriptors, frame_descriptor, has_contrast, is_cut


def wall(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    """Coloured squares of 10 px."""
    squares = np.random.default_rng(seed).integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    return squares.repeat(10, 0).repeat(10, 1)[:height, :width]


def test_a_frame_descriptor_is_the_mean_of_cells():
    # 90 x 160 px: cells of 10 x 10, whose 4 x 4 pixels all have the square's colour
    squares = wall(0)[::10, ::10].astype(float)
    np.testing.assert_allclose(frame_descriptor(wall(0)), squares - squares.mean((0, 1)))
    np.testing.assert_allclose(frame_descriptor(wall(0).repeat(3, 0).repeat(3, 1)), frame_descriptor(wall(0)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (91, 163), (40, 1000)])
def test_pictures_of_any_size_have_a_descriptor(shape):
    seen = frame_descriptor(wall(1, *shape))
    assert seen.shape == (9, 16, 3) and abs(seen.mean()) < 1e-9


def test_another_wall_is_a_cut_and_other_light_is_none():
    one, other = frame_descriptor(wall(1)), frame_descriptor(wall(2))
    assert is_cut(one, other)
    dim = frame_descriptor((wall(1) // 9).astype(np.uint8))
    noisy = np.random.default_rng(0).normal(0, 4, wall(1).shape) + wall(1) // 9
    assert not is_cut(one, dim) and not is_cut(dim, frame_descriptor(np.clip(noisy, 0, 255).astype(np.uint8)))
    assert not is_cut(one, frame_descriptor(np.roll(wall(1), 3, 1)))


def test_what_leaps_in_front_of_an_even_wall_is_no_cut():
    pictures = np.full((2, 90, 160, 3), 100, np.uint8)
    pictures[0, 20:70, 10:50] = pictures[1, 20:70, 100:140] = 200  # 14 % of the picture each
    assert not is_cut(*map(frame_descriptor, pictures))


def test_an_even_picture_says_nothing():
    assert has_contrast(frame_descriptor(wall(1)))
    assert not has_contrast(frame_descriptor(np.zeros((90, 160, 3), np.uint8)))
    noise = np.random.default_rng(0).integers(0, 8, (900, 1600, 3), np.uint8)
    assert not has_contrast(frame_descriptor(noise))


def test_face_descriptors_are_cells_of_a_crop_whatever_the_light():
    # 83 px, every second one: cells of 5 such pixels, the last two are left out; of 8 x 8 cells the inner 6 x 6
    crop = wall(3, 83, 83)
    (seen,) = face_descriptors(crop[None])
    inner = crop[10:70:10, 10:70:10].astype(float)
    np.testing.assert_allclose(seen, inner / inner.mean())
    half = (crop // 2).astype(np.uint8)
    assert difference(seen, face_descriptors(half[None])[0]) < 0.02
    # two colours that are alike but for one channel, 1.5 / 1 / 0.5 and 1 / 1 / 1: 0.5, 0 and 0.5 differ
    two = np.full((2, 80, 80, 3), 100, np.uint8)
    two[0] = 150, 100, 50
    assert difference(*face_descriptors(two)) == pytest.approx(1 / 3)
    assert np.isfinite(face_descriptors(np.zeros((1, 80, 80, 3), np.uint8))).all()
