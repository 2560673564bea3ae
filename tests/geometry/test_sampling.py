"""Bilinear sampling against a plain loop and against torch's own."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.geometry import sampling


def slow_sample(image, x, y):
    """The four neighbours, one by one; those outside count as 0."""
    total = np.zeros(len(image))
    for j in (int(np.floor(y)), int(np.floor(y)) + 1):
        for i in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= j < image.shape[1] and 0 <= i < image.shape[2]:
                total += (1 - abs(x - i)) * (1 - abs(y - j)) * image[:, j, i]
    return total


def test_sample_equals_the_plain_loop(xp):
    rng = np.random.default_rng(0)
    image, points = rng.normal(size=(2, 3, 5, 7)), rng.uniform(-2, 9, size=(2, 200, 2))
    expected = [[slow_sample(im, x, y) for x, y in ps] for im, ps in zip(image, points, strict=True)]
    np.testing.assert_allclose(sampling.sample_bilinear(xp(image), xp(points)), np.moveaxis(expected, 2, 1), atol=1e-14)


def test_an_integer_is_a_pixel_centre(xp):
    image = xp(np.arange(12.0).reshape(1, 3, 4))
    # Row 1, column 2 holds 6; halfway to column 3 is 6.5; halfway over the left border is half of 4.
    values = sampling.sample_bilinear(image, xp([[2, 1], [2.5, 1], [-0.5, 1], [3, 2], [3.75, 2], [-1, 0], [1e30, 0]]))
    np.testing.assert_allclose(values, [[6, 6.5, 2, 11, 11 / 4, 0, 0]])


def test_warp_with_the_identity_and_a_shift(xp):
    image = xp(np.random.default_rng(1).normal(size=(2, 6, 6)))
    same = sampling.warp(image, xp([[1, 0, 0], [0, 1, 0]]), 6)
    np.testing.assert_allclose(same, image)
    moved = sampling.warp(image, xp([[1, 0, 2], [0, 1, 1]]), 4)
    np.testing.assert_allclose(moved, image[:, 1:5, 2:6])


def test_warp_is_batched_and_reads_at_the_affine_of_each_pixel(xp):
    rng = np.random.default_rng(2)
    image, affine = rng.normal(size=(3, 2, 8, 9)), rng.normal(size=(3, 2, 3))
    warped = np.asarray(sampling.warp(xp(image), xp(affine), 5))
    assert warped.shape == (3, 2, 5, 5)
    for n, v, u in [(0, 0, 0), (1, 4, 2), (2, 1, 3)]:
        np.testing.assert_allclose(warped[n, :, v, u], slow_sample(image[n], *(affine[n] @ [u, v, 1])), atol=1e-14)


def test_same_as_torch_grid_sample():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    image, points = (
        torch.as_tensor(rng.normal(size=(2, 3, 6, 9))),
        torch.as_tensor(rng.uniform(-3, 12, (2, 50, 2))),
    )
    # align_corners=False counts from -1 at the left border (-0.5 px) to 1 at the right one (W - 0.5 px).
    grid = (points + 0.5) * 2 / torch.tensor([9.0, 6.0]) - 1
    expected = torch.nn.functional.grid_sample(image, grid[:, :, None], align_corners=False)[..., 0]
    torch.testing.assert_close(sampling.sample_bilinear(image, points), expected)


def test_gradients():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    image = torch.as_tensor(rng.normal(size=(2, 1, 4, 5))).requires_grad_()
    points = torch.as_tensor(rng.integers(-1, 5, (2, 9, 2)) + rng.uniform(0.1, 0.9, (2, 9, 2))).requires_grad_()
    assert torch.autograd.gradcheck(sampling.sample_bilinear, (image, points))
