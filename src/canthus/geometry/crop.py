"""Boxes, and square crops: the one place where coordinates change between the image and a crop.

Pixels are counted from 0 and an integer is a pixel's centre, in the image and in the crop alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from canthus.errors import BoxError
from canthus.geometry import Array
from canthus.geometry.similarity import fit_similarity

MAX_BOX = 10
"""Longest side of a user's face box, in longer sides of the image: a face larger than that shows nothing of itself."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A batch of B squares of the image, each resampled to size x size pixels. NumPy or torch.

    center: (B, 2) image pixels. side: (B,) image pixels. angle: (B,) radians from the image's x axis to the
    crop's x axis, positive from x (right) to y (down). size: crop pixels, one number for the batch.

    With R = size, S = side: u = R/S * rot(-angle) (x - center) + (R - 1)/2 and z_crop = R/S * z. The crop's
    borders are at -0.5 and R - 0.5, so that flips (R - 1 - u) and strides ((u + 0.5)/s - 0.5) are unbiased.
    """

    center: Array
    side: Array
    angle: Array
    size: int

    @classmethod
    def around_boxes(cls, boxes: Array, scale: float, size: int, angle: Array | float = 0.0) -> Crop:
        """Crops centred on `boxes` (B, 4) = (x0, y0, x1, y1), with side = scale * max(width, height).

        `angle` is one number or (B,), in radians. Boxes are taken as they are; `as_boxes` checks a user's.
        """
        xp: Any = array_namespace(boxes)
        side = scale * xp.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        return cls(box_centres(boxes), side, xp.zeros_like(side) + angle, size)

    @classmethod
    def around_points(cls, points: Array, scale: float, size: int, angle: Array) -> Crop:
        """Crops turned by `angle` (B,) radians around `points` (B, L, 2): centred on the tight box along the crop's own
        axes, with side = scale * its longer side. At angle 0 that is `around_boxes` of the points' boxes."""
        xp: Any = array_namespace(points)
        turn = cls(points[:, 0], angle, angle, size)._turn()
        flat = cls.around_boxes(tight_boxes(points @ turn), scale, size, angle)
        centre = (flat.center[:, None, :] @ xp.matrix_transpose(turn))[:, 0, :]
        return cls(centre, flat.side, angle, size)

    @classmethod
    def around_shapes(cls, points: Array, mean_shape: Array, size: int) -> Crop:
        """Crops in which `points` (B, L, 2) lie as near to `mean_shape` (L, 2) as a similarity brings them.

        The mean shape is in sides of the crop, from its centre: x right, y down.
        """
        xp: Any = array_namespace(points)
        scale, rotation, shift = fit_similarity(mean_shape[None] + xp.zeros_like(points), points)
        return cls(shift, scale, xp.atan2(rotation[:, 1, 0], rotation[:, 0, 0]), size)

    def __getitem__(self, index: slice | Array) -> Crop:
        """The crops at `index` (slice, mask or numbers), again a batch."""
        return Crop(self.center[index], self.side[index], self.angle[index], self.size)

    @property
    def zoom(self) -> Array:
        """Crop pixels per image pixel, (B,)."""
        return self.size / self.side

    def crop_from_image(self, points: Array) -> Array:
        """Points (B, L, 2 or 3) from image pixels to crop pixels."""
        zoom = self.zoom[:, None, None]
        moved = (points[..., :2] - self.center[:, None, :]) @ self._turn()
        return _with_z(zoom * moved + (self.size - 1) / 2, zoom * points[..., 2:])

    def image_from_crop(self, points: Array) -> Array:
        """Points (B, L, 2 or 3) from crop pixels to image pixels, the exact inverse of `crop_from_image`."""
        xp: Any = array_namespace(points)
        zoom = self.zoom[:, None, None]
        turned = (points[..., :2] - (self.size - 1) / 2) @ xp.matrix_transpose(self._turn())
        return _with_z(turned / zoom + self.center[:, None, :], points[..., 2:] / zoom)

    def affine_image_from_crop(self) -> Array:
        """The matrices (B, 2, 3) that take (u, v, 1) in the crop to the image."""
        xp: Any = array_namespace(self.side)
        linear = self._turn() / self.zoom[:, None, None]
        middle = xp.full_like(self.center, (self.size - 1) / 2)
        return xp.concat([linear, self.center[:, :, None] - linear @ middle[:, :, None]], axis=-1)

    def _turn(self) -> Array:
        """rot(angle), (B, 2, 2): its columns are the crop's axes in the image. Points are rows, so `p @
        rot(angle)` turns them by -angle."""
        xp: Any = array_namespace(self.angle)
        c, s = xp.cos(self.angle), xp.sin(self.angle)
        return xp.stack([xp.stack([c, -s], axis=-1), xp.stack([s, c], axis=-1)], axis=-2)


def within(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether points (...,2 or more) lie in a picture of size (width, height), whose borders are half a pixel beyond
    the centres of its first and last pixels; NaN does not."""
    places = points[..., :2]
    return np.asarray(((places >= -0.5) & (places < np.array(size) - 0.5)).all(-1))


def tight_boxes(points: Array) -> Array:
    """The boxes (B, 4) = (x0, y0, x1, y1) around `points` (B, L, 2 or 3)."""
    xp: Any = array_namespace(points)
    return xp.concat([xp.min(points[..., :2], axis=1), xp.max(points[..., :2], axis=1)], axis=-1)


def box_centres(boxes: Array) -> Array:
    """The centres (B, 2) of `boxes` (B, 4)."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def box_sizes(boxes: Array) -> Array:
    """What errors and scores are measured in: sqrt(width * height) (B,) of `boxes` (B, 4)."""
    xp: Any = array_namespace(boxes)
    return xp.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def box_overlaps(a: Array, b: Array) -> Array:
    """Intersection over union (N, M) of boxes a (N, 4) and b (M, 4)."""
    xp: Any = array_namespace(a, b)
    low, high = xp.maximum(a[:, None, :2], b[None, :, :2]), xp.minimum(a[:, None, 2:], b[None, :, 2:])

    def area(extent: Array) -> Array:
        extent = xp.where(extent > 0, extent, 0.0)
        return extent[..., 0] * extent[..., 1]

    shared = area(high - low)
    union = area(a[:, 2:] - a[:, :2])[:, None] + area(b[:, 2:] - b[:, :2])[None] - shared
    return shared / xp.where(union > 0, union, 1.0)


def as_boxes(boxes: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Checked face boxes as float32 (B, 4) = (x0, y0, x1, y1) in pixels; one box may also come as (4,).

    `image_size` is (width, height). Raises `BoxError` for anything but numbers, the wrong shape, NaN or
    infinity, masked numbers, x1 <= x0 or y1 <= y0, and for a box that lies entirely outside the image or is over
    MAX_BOX times as long as it. An empty list is no boxes.
    """
    wanted = "want numbers (4,) or (B, 4) = (x0, y0, x1, y1)"
    if np.ma.is_masked(boxes):
        raise BoxError(f"got boxes with masked numbers, {wanted}")
    try:
        given = np.asarray(boxes)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise BoxError(f"got boxes that are not an array ({error}), {wanted}") from error
    if given.dtype.kind not in "iuf":
        raise BoxError(f"got boxes of type {given.dtype}, {wanted}")
    if given.shape == (0,):
        return np.zeros((0, 4), np.float32)
    if given.ndim not in (1, 2) or given.shape[-1] != 4:
        raise BoxError(f"got boxes of shape {given.shape}, {wanted}")
    with np.errstate(over="ignore"):
        result = given.astype(np.float32).reshape(-1, 4)
    width, height = image_size
    for box in result:
        x0, y0, x1, y1 = (float(value) for value in box)
        text = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not np.isfinite(box).all():
            raise BoxError(f"got box {text}, want finite numbers")
        if x1 <= x0 or y1 <= y0:
            raise BoxError(f"got box {text}, want x0 < x1 and y0 < y1 in (x0, y0, x1, y1)")
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise BoxError(f"got box {text}, want one that overlaps the {width} x {height} px image")
        if max(x1 - x0, y1 - y0) > MAX_BOX * max(width, height):
            raise BoxError(f"got box {text}, want at most {MAX_BOX} times the size of the {width} x {height} px image")
    return result


def _with_z(xy: Array, z: Array) -> Array:
    return array_namespace(xy).concat([xy, z], axis=-1)
