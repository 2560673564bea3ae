"""Triangles to pixels in torch: which triangle each pixel centre sees, and where on it. CPU and GPU alike.

The pixel boxes of all triangles of a batch are laid out flat, and three edge functions (Pineda, "A Parallel Algorithm
for Polygon Rasterization", SIGGRAPH 1988) say which of those pixel centres a triangle covers. Points are first
rounded to 1/1024 px, so that the edge functions are whole numbers, exact in float64: triangles that share an edge
leave no gap between them and never cover a pixel centre twice. No gradients flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from canthus.errors import CanthusError

STEPS = 1024  # a point lies on a grid of this many steps a pixel; exact up to 16,000 px from the origin
CHUNK, GPU_CHUNK = 1 << 16, 1 << 23  # pixels of boxes laid out at once: what a CPU's cache holds, what a GPU likes


@torch.no_grad()
def rasterise(points: Tensor, triangles: Tensor, size: int, distance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest triangle at each pixel centre of square pictures, and the place on it.

    points: (B,V,3) pixels x, y and z, larger z = nearer; triangles: (F,3) vertex ids, drawn from both sides.
    distance: (B,V) of the points from the camera along its axis, for a picture in perspective: barycentric weights
        are then those on the surface, and distance decides what is nearer instead of z.
    Returns triangle ids (B,S,S) int64, -1 where there is none, and barycentric weights (B,S,S,3) float32, zero there.
    At equal depth the triangle with the lower id wins; an edge between two belongs to the one right of or below it.
    A triangle with a point that is not finite or not in front of the camera is left out.
    Raises CanthusError for shapes that disagree.
    """
    if points.ndim != 3 or points.shape[2] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise CanthusError(
            f"got points {tuple(points.shape)} and triangles {tuple(triangles.shape)}; wanted (B, V, 3) and (F, 3)"
        )
    if distance is not None and distance.shape != points.shape[:2]:
        raise CanthusError(f"got distances {tuple(distance.shape)}; wanted {tuple(points.shape[:2])}")
    batch, faces = len(points), len(triangles)
    picture = torch.arange(batch, device=points.device)
    shifted = (triangles.long() + picture[:, None, None] * points.shape[1]).flatten(0, 1)
    flat = None if distance is None else distance.flatten()
    points = points.flatten(0, 1)
    wide = _hold_a_centre(points, shifted)  # most of a fine mesh in a small picture do not
    drawn = Rasteriser(points, shifted[wide], picture.repeat_interleave(faces)[wide], (batch, size), flat)
    seen = drawn.visible()
    ids = torch.full((batch * size**2,), -1, device=points.device)
    weights = torch.zeros((len(ids), 3), device=points.device)
    if faces:
        ids[seen.pixel] = wide[seen.owner] % faces
        weights[seen.pixel] = seen.barycentric.float()
    return ids.view(-1, size, size), weights.view(-1, size, size, 3)


def _hold_a_centre(points: Tensor, triangles: Tensor) -> Tensor:
    """Ids (N,) of the triangles (F,3) whose boxes hold the centre of any pixel, or are not finite."""
    places = (points[:, :2].double() * STEPS).round() / STEPS
    first, last = places.ceil().float()[triangles], places.floor().float()[triangles]
    return (~(first.amin(1) > last.amax(1))).all(1).nonzero()[:, 0]


class Fragments(NamedTuple):
    """What triangles cover, one entry for each triangle and pixel centre."""

    owner: Tensor  # (N,) triangle id
    pixel: Tensor  # (N,) picture * S * S + row * S + column
    barycentric: Tensor  # (N,3) float64
    near: Tensor  # (N,) float64: z, or 1 / distance in perspective


class Rasteriser:
    """Triangles laid out for drawing into several square pictures at once, each into its own.

    points: (V,3) and distance (V,) as for `rasterise`; triangles: (F,3) vertex ids; picture: (F,) what each is drawn
    into; shape: how many pictures, and their side in px.
    edges: (F,3,3) float64: coefficients of x, y and 1 of the function that is zero on the edge opposite each corner
    and positive inside; the three sum to area (F,), twice the triangle's in steps squared.
    front: (F,), whether the corners run anticlockwise as seen in the picture.
    """

    def __init__(
        self,
        points: Tensor,
        triangles: Tensor,
        picture: Tensor,
        shape: tuple[int, int],
        distance: Tensor | None = None,
    ):
        self.picture, (self.pictures, size) = picture, shape
        self.size, self.perspective = size, distance is not None
        corners = points.double()[triangles]  # (F,3,3)
        near = corners[..., 2] if distance is None else 1 / distance.double()[triangles]
        good = corners[..., :2].isfinite().all(-1).all(-1) & near.isfinite().all(-1)
        if self.perspective:
            good &= (near > 0).all(-1)
        self.near = torch.where(good[:, None], near, 0)
        xy = torch.where(good[:, None, None], corners[..., :2] * STEPS, 0).round()
        start, end = xy.roll(-1, -2), xy.roll(-2, -2)
        dx, dy = (end - start).unbind(-1)
        area = dx[:, 0] * dy[:, 1] - dy[:, 0] * dx[:, 1]
        dx, dy = dx * area.sign()[:, None], dy * area.sign()[:, None]
        self.edges = torch.stack([-dy * STEPS, dx * STEPS, dy * start[..., 0] - dx * start[..., 1]], -1)
        self.area, self.front = area.abs(), area < 0
        self.above = torch.where((dy < 0) | ((dy == 0) & (dx > 0)), -0.5, 0.0)  # left and top edges own their centres
        low = (xy.amin(1) / STEPS).ceil().clamp(0, size).long()
        high = (xy.amax(1) / STEPS).floor().clamp(-1, size - 1).long()
        self.low, self.extent = low, (high - low + 1).clamp(min=0) * (area != 0)[:, None]

    def fragments(self) -> Iterator[Fragments]:
        """All that is covered, hidden or not, a portion at a time, in the order of the triangles."""
        count = self.extent.prod(1)
        owners = count.nonzero()[:, 0]
        count = count[owners]
        chunk = CHUNK if count.device.type == "cpu" else GPU_CHUNK
        portion = count.cumsum(0).div(chunk, rounding_mode="floor")
        for length in portion.unique_consecutive(return_counts=True)[1].tolist():
            now, owners = owners[:length], owners[length:]
            boxes, count = count[:length], count[length:]
            owner = now.repeat_interleave(boxes)
            place = torch.arange(len(owner), device=owner.device) - (boxes.cumsum(0) - boxes).repeat_interleave(boxes)
            width = self.extent[owner, 0]
            row = place.div(width, rounding_mode="floor")
            x, y = self.low[owner, 0] + place - row * width, self.low[owner, 1] + row
            inside = (self._edge_values(owner, x, y) > self.above[owner]).all(1).nonzero()[:, 0]
            owner, x, y = owner[inside], x[inside], y[inside]
            pixel = (self.picture[owner] * self.size + y) * self.size + x
            yield Fragments(owner, pixel, *self._weights(owner, x, y))

    def nearest(self) -> Tensor:
        """Nearness (pictures*S*S,) float64 of what is nearest at each pixel centre, -inf where there is nothing."""
        near = self.edges.new_full((self.pictures * self.size**2,), -torch.inf)
        for f in self.fragments():
            near.scatter_reduce_(0, f.pixel, f.near, "amax")
        return near

    def visible(self) -> Fragments:
        """What is nearest at each covered pixel centre, in the order of the pixels."""
        lowest = torch.iinfo(torch.int64).min
        best = torch.full((self.pictures * self.size**2,), lowest, dtype=torch.int64, device=self.edges.device)
        for f in self.fragments():
            # One number that sorts by nearness, then by lower id: the bits of a float32 sort as whole numbers do,
            # those of negative ones once turned over.
            bits = (f.near.float() + 0.0).view(torch.int32)
            rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
            best.scatter_reduce_(0, f.pixel, (rank << 32) + (0x7FFFFFFF - f.owner), "amax")
        pixel = (best != lowest).nonzero()[:, 0]
        owner, place = 0x7FFFFFFF - (best[pixel] & 0x7FFFFFFF), pixel % self.size**2
        x, y = place % self.size, place.div(self.size, rounding_mode="floor")
        return Fragments(owner, pixel, *self._weights(owner, x, y))

    def _edge_values(self, owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
        c = self.edges[owner]
        return c[..., 0] * x[:, None] + c[..., 1] * y[:, None] + c[..., 2]

    def _weights(self, owner: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Barycentric weights (N,3) and nearness (N,) of triangles at pixel centres that they cover."""
        share = self._edge_values(owner, x, y) / self.area[owner, None]
        parts = share * self.near[owner]
        near = parts.sum(1)
        return (parts / near[:, None] if self.perspective else share), near
