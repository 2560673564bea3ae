"""Reading images between pixels: an integer coordinate is a pixel's centre, and outside the image all is
0."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from canthus.geometry import Array


def sample_bilinear(image: Array, points: Array) -> Array:
    """Values (..., C, P) of `image` (..., C, H, W) at `points` (..., P, 2) = (x, y) in pixels, interpolated
    bilinearly.

    Pixels beyond the border count as 0. Both inputs are floating point with the same leading dimensions.
    """
    xp: Any = array_namespace(image, points)
    height, width = image.shape[-2:]
    flat = xp.reshape(image, (*image.shape[:-2], height * width))
    corner = xp.floor(points)
    fraction = points - corner
    total = 0.0
    for right in (0, 1):
        for down in (0, 1):
            x, y = corner[..., 0] + right, corner[..., 1] + down
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            # In integers: a large float32 image has more pixels than its coordinates can count.
            column, row = (xp.astype(xp.where(inside, k, xp.zeros_like(k)), xp.int64) for k in (x, y))
            index = row * width + column
            index = xp.broadcast_to(index[..., None, :], (*flat.shape[:-1], index.shape[-1]))
            value = xp.take_along_axis(flat, index, axis=-1)
            wx = fraction[..., 0] if right else 1 - fraction[..., 0]
            wy = fraction[..., 1] if down else 1 - fraction[..., 1]
            weight = xp.where(inside, wx * wy, xp.zeros_like(x))
            total = total + weight[..., None, :] * value
    return total


def warp(image: Array, affine_image_from_crop: Array, size: int) -> Array:
    """The crop (..., C, size, size) whose pixel (u, v) is `image` (..., C, H, W) at affine @ (u, v, 1).

    `affine_image_from_crop` is (..., 2, 3) and holds pixel coordinates on both sides. Bilinear, without
    smoothing before a shrink.
    """
    xp: Any = array_namespace(image, affine_image_from_crop)
    affine = affine_image_from_crop
    axis = xp.arange(size, dtype=affine.dtype, device=device(affine))
    v, u = xp.meshgrid(axis, axis, indexing="ij")
    grid = xp.stack([xp.reshape(u, (-1,)), xp.reshape(v, (-1,)), xp.ones_like(xp.reshape(u, (-1,)))], axis=0)
    values = sample_bilinear(image, xp.matrix_transpose(affine @ grid))
    return xp.reshape(values, (*values.shape[:-1], size, size))
