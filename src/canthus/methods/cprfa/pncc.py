"""Normalised coordinate codes: a colour for each vertex of a face, painted into an image and looked up.

A vertex's code is its place on the mean face, scaled to [0, 1] along each axis, so it stays the same under
any identity, expression and pose (Zhu et al., "Face alignment across large poses: a 3D solution", CVPR 2016).
Nearest vertices are found among codes as in Wu et al., "Convolutional point-set representation", arXiv
1803.06542.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from array_api_compat import array_namespace, device

from canthus.geometry import Array

CHUNK = 2**24
"""Distances held at once: 64 MiB in float32."""
CHUNK_OF_A_FACE = 2**20
"""The same for each face of a batch, of whatever size it is."""
OUTSIDE = 1e4
"""Squared distance of pixels that do not count; those of codes are less than 3."""


def encode_vertices(mean_shape: Array) -> Array:
    """Codes (V, 3) of the vertices of a mean face (V, 3): each axis scaled to run from 0 to 1."""
    xp: Any = array_namespace(mean_shape)
    low, high = xp.min(mean_shape, axis=0), xp.max(mean_shape, axis=0)
    return (mean_shape - low) / (high - low)


def lookup_forward(images: Array, masks: Array, codes: Array, threshold: float = 0.01) -> tuple[Array, Array]:
    """Where each vertex is seen, by the vertex nearest to each pixel.

    Every pixel of the code images (B, 3, H, W) inside `masks` (B, H, W, bool) is given to the nearest of the
    vertex `codes` (V, 3), if closer than `threshold`. Returns the mean pixel (B, V, 2) of each vertex, 0
    where there is none, and whether there is one (B, V). A vertex between the pixels is missed;
    `lookup_reverse` finds it.
    """
    xp: Any = array_namespace(images, codes)
    batch, count = images.shape[0], codes.shape[0]
    face, y, x = xp.nonzero(masks)
    pixels, places = xp.permute_dims(images, (0, 2, 3, 1))[face, y, x], xp.stack([x, y], axis=-1)
    nearest = nearest_code(pixels, codes, threshold)
    vertex = xp.where(nearest < 0, xp.full_like(nearest, -1), face * count + nearest)
    # Sum per face and vertex: sort the pixels by both, then take differences of the running sum.
    order, ids = xp.argsort(vertex), xp.arange(batch * count, device=device(codes))
    vertex = xp.take(vertex, order, axis=0)
    first, last = xp.searchsorted(vertex, ids, side="left"), xp.searchsorted(vertex, ids, side="right")
    running = xp.cumulative_sum(xp.take(places, order, axis=0), axis=0, include_initial=True)
    sums = xp.take(running, last, axis=0) - xp.take(running, first, axis=0)
    points = xp.astype(sums, images.dtype) / xp.clip(last - first, min=1)[:, None]
    return xp.reshape(points, (batch, count, 2)), xp.reshape(last > first, (batch, count))


def lookup_reverse(images: Array, masks: Array, codes: Array, threshold: float = 0.01) -> tuple[Array, Array]:
    """Where each vertex is seen, by the pixel nearest to each vertex; takes what `lookup_forward` takes.

    Returns the pixel (B, V, 2) whose code is nearest to that of each vertex, 0 where none is closer than
    `threshold`, and whether there is one (B, V). One pixel may serve several vertices.
    """
    xp: Any = array_namespace(images, codes)
    batch, width = images.shape[0], images.shape[3]
    parts = [xp.argmin(part, axis=-1) for part in _apart(images, masks, codes)]
    nearest = xp.concat(parts, axis=1)  # (B, V)
    face, y, x = xp.arange(batch, device=device(codes))[:, None], nearest // width, nearest % width
    there = xp.permute_dims(images, (0, 2, 3, 1))[face, y, x]
    found = (xp.sum((there - codes) ** 2, axis=-1) < threshold**2) & masks[face, y, x]
    points = xp.astype(xp.stack([x, y], axis=-1), images.dtype)
    return xp.where(found[..., None], points, xp.zeros_like(points)), found


def lookup_soft(
    images: Array, masks: Array, codes: Array, threshold: float = 0.01, softness: float = 0.05
) -> tuple[Array, Array]:
    """Where each vertex is seen, by all pixels of like codes; takes and returns what `lookup_reverse` does.

    A vertex lies at the mean pixel, weighted by exp(-d^2 / 2 softness^2) with d the distance of the codes: the errors
    of single codes average out. It is found where one pixel is closer than `threshold`. Large images are looked at in
    steps, at 64 x 64 pixels or more.
    """
    xp: Any = array_namespace(images, codes)
    height, width = images.shape[2:]
    step = max(1, min(height, width) // 64)
    first = step // 2
    images, masks = images[:, :, first::step, first::step], masks[:, first::step, first::step]
    rows, columns = images.shape[2:]
    y = xp.arange(rows, dtype=images.dtype, device=device(images))[:, None] * step + first
    x = xp.arange(columns, dtype=images.dtype, device=device(images))[None] * step + first
    ones = xp.ones((rows, columns), dtype=images.dtype, device=device(images))
    places = xp.reshape(xp.stack([x * ones, y * ones, ones], axis=-1), (rows * columns, 3))
    points, found = [], []
    wide = 2 * softness**2  # distances come divided by it, which saves a pass over all of them
    for part, own in zip(_apart(images, masks, codes, 1 / wide), _in_steps(codes, rows * columns)):
        nearest = xp.min(part, axis=-1, keepdims=True)
        sums = xp.exp(nearest - part) @ places  # (B, v, 3)
        points.append(sums[..., :2] / sums[..., 2:])
        found.append(nearest[..., 0] * wide + xp.sum((own - 0.5) ** 2, axis=-1) < threshold**2)
    there = xp.concat(found, axis=1)
    where = xp.concat(points, axis=1)
    return xp.where(there[..., None], where, xp.zeros_like(where)), there


def _apart(images: Array, masks: Array, codes: Array, scale: float = 1.0) -> Iterator[Array]:
    """`scale` times squared distances (B, v, H W) between codes and pixels, less the squares of the codes about the
    middle of the cube; OUTSIDE and more for pixels that do not count. Some codes at a time."""
    xp: Any = array_namespace(images, codes)
    batch, _, height, width = images.shape
    pixels = xp.reshape(images, (batch, 3, height * width)) - 0.5  # see `nearest_code`
    norms = xp.sum(pixels**2, axis=1)
    norms = xp.where(xp.reshape(masks, (batch, height * width)), norms, xp.full_like(norms, OUTSIDE))
    # |p|^2 - 2 p c as one product
    pixels = scale * xp.concat([norms[:, None], pixels], axis=1)
    queries = xp.concat([xp.ones_like(codes[:, :1]), -2 * (codes - 0.5)], axis=1)
    return (part @ pixels for part in _in_steps(queries, height * width))


def _in_steps(codes: Array, pixels: int) -> list[Array]:
    step = max(1, CHUNK_OF_A_FACE // pixels)
    return [codes[i : i + step] for i in range(0, codes.shape[0], step)]


def nearest_code(queries: Array, codes: Array, threshold: float) -> Array:
    """Index (Q,) of the nearest of `codes` (N, 3) to each query (Q, 3), -1 if not within `threshold`.

    In float32 and outside autocast: bfloat16 steps by 0.004, the distance between neighbouring vertices.
    """
    xp: Any = array_namespace(queries, codes)
    if codes.shape[0] == 0:
        return xp.full((queries.shape[0],), -1, dtype=xp.int64, device=device(queries))
    # Codes lie in [0, 1]: about their middle the expanded square loses the fewest digits.
    centered = xp.matrix_transpose(codes - 0.5)
    norms = xp.sum(centered**2, axis=0)
    step = max(1, CHUNK // codes.shape[0])
    index = [
        xp.argmin(norms - 2 * ((queries[start : start + step] - 0.5) @ centered), axis=1)
        for start in range(0, queries.shape[0], step)
    ]
    nearest = xp.concat(index) if index else xp.zeros((0,), dtype=xp.int64, device=device(queries))
    distance2 = xp.sum((queries - xp.take(codes, nearest, axis=0)) ** 2, axis=1)
    return xp.where(distance2 < threshold**2, nearest, xp.full_like(nearest, -1))
