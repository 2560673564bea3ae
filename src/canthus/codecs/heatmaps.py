"""Heatmaps: one map per landmark, drawn around a real-valued centre, and five ways to read a centre back.

Maps are (..., H, W), centres (..., 2) are (x, y) in the map's own pixels, an integer being a pixel centre.
Decoders compute in float32 at least: bfloat16 steps by a whole pixel above 128.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from canthus.geometry import Array


def map_from_crop(points: Array, stride: float) -> Array:
    """Points (..., 2 or 3) of a crop in pixels of a map `stride` times smaller; z scales alike."""
    return points / stride + _half_pixel(points, 0.5 / stride - 0.5)


def crop_from_map(points: Array, stride: float) -> Array:
    """Points (..., 2 or 3) of a map in pixels of the crop `stride` times larger: undoes `map_from_crop`."""
    return points * stride + _half_pixel(points, 0.5 * stride - 0.5)


def encode_gaussian(centers: Array, size: int, sigma: float, radius: float | None = None) -> Array:
    """Gaussians of peak 1 around `centers` (..., 2), as maps (..., size, size).

    `sigma` is the standard deviation in map pixels. The centre is not rounded, so decoding by `decode_dark`
    is exact. `radius` in map pixels cuts the Gaussian to zero beyond that distance.
    """
    xp: Any = array_namespace(centers)
    dx2, dy2 = _squared_offsets(centers, size)
    maps = xp.exp(dx2 / (-2 * sigma**2)) * xp.exp(dy2 / (-2 * sigma**2))
    return maps if radius is None else xp.where(dx2 + dy2 <= radius**2, maps, xp.zeros_like(maps))


def encode_disc(centers: Array, size: int, radius: float | Array) -> Array:
    """Discs, 1 within `radius` map pixels of `centers` (..., 2) and 0 beyond, as maps (..., size, size).

    `radius` is one number or an array that broadcasts against the maps, such as (B, 1, 1, 1), one a face.
    Target of the part detection network of Bulat and Tzimiropoulos, ECCV Workshops 2016.
    """
    dx2, dy2 = _squared_offsets(centers, size)
    return array_namespace(centers).astype(dx2 + dy2 <= radius**2, centers.dtype)


def decode_argmax(maps: Array) -> Array:
    """The highest pixel (..., 2) of `maps` (..., H, W), in float; the first one where several tie."""
    maps = _at_least_float32(maps)
    x, y = _peak(maps)
    return _points(x, y, maps.dtype)


def decode_quarter(maps: Array) -> Array:
    """The highest pixel (..., 2) of `maps` (..., H, W), moved by 1/4 pixel to the higher neighbour.

    Per axis; not moved where neighbours tie or one lies outside. Newell et al., ECCV 2016.
    """
    maps = _at_least_float32(maps)
    xp: Any = array_namespace(maps)
    height, width = maps.shape[-2:]
    x, y = _peak(maps)
    x_in, y_in = xp.clip(x, 1, width - 2), xp.clip(y, 1, height - 2)
    right = _read(maps, x_in + 1, y) - _read(maps, x_in - 1, y)
    down = _read(maps, x, y_in + 1) - _read(maps, x, y_in - 1)
    inside = xp.astype(xp.stack([x == x_in, y == y_in], axis=-1), maps.dtype)
    return _points(x, y, maps.dtype) + 0.25 * inside * xp.sign(xp.stack([right, down], axis=-1))


def decode_dark(maps: Array) -> Array:
    """The summit (..., 2) of the parabola through the log of `maps` (..., H, W) around their highest pixel.

    One Newton step on the log map, exact for a Gaussian, also where its centre lies just outside the map.
    Zhang et al., "Distribution-aware coordinate representation" (DARK), CVPR 2020, with unit-step differences
    and without smoothing the map first. The step ends within one pixel of the highest; where the log map has
    no summit, as on a plateau, it is not taken. `maps` are probabilities or Gaussians; values below 1e-10
    count as 1e-10.
    """
    maps = _at_least_float32(maps)
    xp: Any = array_namespace(maps)
    height, width = maps.shape[-2:]
    x, y = _peak(maps)
    x0, y0 = xp.clip(x, 1, width - 2), xp.clip(y, 1, height - 2)

    def f(dx: int, dy: int) -> Array:
        return xp.log(xp.clip(_read(maps, x0 + dx, y0 + dy), min=1e-10))

    fx, fy = (f(1, 0) - f(-1, 0)) / 2, (f(0, 1) - f(0, -1)) / 2
    fxx, fyy = f(1, 0) - 2 * f(0, 0) + f(-1, 0), f(0, 1) - 2 * f(0, 0) + f(0, -1)
    fxy = (f(1, 1) - f(1, -1) - f(-1, 1) + f(-1, -1)) / 4
    determinant = fxx * fyy - fxy**2
    summit = (determinant > 1e-6 * fxx * fyy) & (fxx < 0) & (fyy < 0)
    safe = xp.where(summit, determinant, xp.ones_like(determinant))
    step = xp.stack([(fxy * fy - fyy * fx) / safe, (fxy * fx - fxx * fy) / safe], axis=-1)
    highest = _points(x, y, maps.dtype)
    offset = xp.clip(_points(x0, y0, maps.dtype) + step - highest, -1, 1)
    return highest + xp.where(summit[..., None], offset, xp.zeros_like(offset))


def decode_local_soft_argmax(maps: Array, window: int = 7, temperature: float = 1.0) -> Array:
    """Soft-argmax (..., 2) of `maps` (..., H, W) over the `window` by `window` pixels around the highest one.

    The window (odd) is shifted to fit into the map. For `temperature` see `decode_soft_argmax`.
    """
    maps = _at_least_float32(maps)
    xp: Any = array_namespace(maps)
    height, width = maps.shape[-2:]
    x, y = _peak(maps)
    left, top = xp.clip(x - window // 2, 0, width - window), xp.clip(y - window // 2, 0, height - window)
    rows, columns = (i.reshape(-1) for i in _grid(maps, window, window, left.dtype))
    flat = xp.reshape(maps, (*maps.shape[:-2], height * width))
    corner = (top * width + left)[..., None]
    values = _take(flat, corner + (rows * width + columns))
    inside = decode_soft_argmax(xp.reshape(values, (*maps.shape[:-2], window, window)), temperature)
    return _points(left, top, maps.dtype) + inside


def decode_soft_argmax(maps: Array, temperature: float = 1.0) -> Array:
    """Mean pixel (..., 2) of `maps` (..., H, W), each weighted by softmax(map / temperature).

    `maps` are scores of any sign, such as logits; for maps that peak at 1 a temperature of 0.1 suits. Sun et
    al., "Integral human pose regression", ECCV 2018.
    """
    maps = _at_least_float32(maps)
    xp: Any = array_namespace(maps)
    weights = xp.exp((maps - xp.max(maps, axis=(-2, -1), keepdims=True)) / temperature)
    weights = weights / xp.sum(weights, axis=(-2, -1), keepdims=True)
    height, width = maps.shape[-2:]
    rows, columns = _grid(maps, height, width, maps.dtype)
    mean_x, mean_y = xp.sum(weights * columns, axis=(-2, -1)), xp.sum(weights * rows, axis=(-2, -1))
    return xp.stack([mean_x, mean_y], axis=-1)


def _squared_offsets(centers: Array, size: int) -> tuple[Array, Array]:
    """(x - cx)^2 (..., 1, size) and (y - cy)^2 (..., size, 1)."""
    xp: Any = array_namespace(centers)
    pixels = xp.arange(size, dtype=centers.dtype, device=device(centers))
    dx2 = (pixels - centers[..., 0, None]) ** 2
    dy2 = (pixels - centers[..., 1, None]) ** 2
    return dx2[..., None, :], dy2[..., :, None]


def _half_pixel(points: Array, shift: float) -> Array:
    """`shift` for x and y, 0 for z: (2 or 3,)."""
    values = [shift, shift, 0.0][: points.shape[-1]]
    return array_namespace(points).asarray(values, dtype=points.dtype, device=device(points))


def _peak(maps: Array) -> tuple[Array, Array]:
    """x and y (...) of the highest pixel, as integers."""
    xp: Any = array_namespace(maps)
    width = maps.shape[-1]
    index = xp.argmax(xp.reshape(maps, (*maps.shape[:-2], maps.shape[-2] * width)), axis=-1)
    return index % width, index // width


def _read(maps: Array, x: Array, y: Array) -> Array:
    """Values (...) of `maps` (..., H, W) at the pixels x, y (...)."""
    xp: Any = array_namespace(maps)
    height, width = maps.shape[-2:]
    flat = xp.reshape(maps, (*maps.shape[:-2], height * width))
    return _take(flat, (y * width + x)[..., None])[..., 0]


def _take(values: Array, index: Array) -> Array:
    """Values (..., K) at `index` (..., K) of `values` (..., N)."""
    if hasattr(values, "gather"):  # torch, whose take_along_dim fixes the batch size when a network is exported
        return values.gather(-1, index)
    xp: Any = array_namespace(values)
    return xp.take_along_axis(values, index, axis=-1)


def _grid(maps: Array, height: int, width: int, dtype: Any) -> tuple[Array, Array]:
    """Row and column numbers (height, width) on the device of `maps`."""
    xp: Any = array_namespace(maps)
    rows = xp.arange(height, dtype=dtype, device=device(maps))
    columns = xp.arange(width, dtype=dtype, device=device(maps))
    return xp.broadcast_to(rows[:, None], (height, width)), xp.broadcast_to(columns, (height, width))


def _points(x: Array, y: Array, dtype: Any) -> Array:
    xp: Any = array_namespace(x)
    return xp.astype(xp.stack([x, y], axis=-1), dtype)


def _at_least_float32(maps: Array) -> Array:
    xp: Any = array_namespace(maps)
    return xp.astype(maps, xp.float32) if xp.finfo(maps.dtype).bits < 32 else maps
