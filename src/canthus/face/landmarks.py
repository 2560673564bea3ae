"""Landmark schemes: which point is which, how they mirror, how to draw them, and maps between them.

The schemes are data, one commented TOML file each in the folder `schemes`, and so are the maps (`maps.toml`).
Indices are 0-based. Right and left are the subject's own sides: the right eye of a frontal face lies on the
left of the image.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from canthus.errors import LandmarkError
from canthus.geometry import Array

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

QUALITIES = ("exact", "average", "approximate", "missing")
"""How well a map gives a point, best first: the same point, a mean by definition, near by, not at all."""


@dataclass(frozen=True, eq=False)
class LandmarkScheme:
    """A numbered set of L facial points. All arrays are read-only integers."""

    name: str
    title: str
    count: int
    """L, the number of points."""
    source: str
    """The publications that define the points."""
    points: tuple[str, ...]
    """L names, anatomical where the scheme has such, otherwise the part and a number."""
    parts: Mapping[str, np.ndarray]
    """Part name -> its point indices in drawing order. "right_..." is the subject's right."""
    mirror: np.ndarray
    """(L,): point i of a mirrored face is point `mirror[i]` of the original."""
    edges: np.ndarray
    """(E,2): pairs of points to join by a line."""
    eye_corners: tuple[int, int]
    """The outer eye corners (right, left), whose distance normalises errors."""
    jaw: str
    """The jaw line is "mesh points" (fixed on the skin), "visible contour" (the outline seen) or "none"."""


@cache
def scheme_names() -> tuple[str, ...]:
    """The names of all landmark schemes, in alphabetical order."""
    entries = (entry.name for entry in files("canthus.face").joinpath("schemes").iterdir())
    return tuple(sorted(name[:-5] for name in entries if name.endswith(".toml") and name != "maps.toml"))


def scheme(name: str) -> LandmarkScheme:
    """The landmark scheme called `name`, read once. Raises `LandmarkError` for an unknown name."""
    known = scheme_names()
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
        raise LandmarkError(f"got the landmark scheme {name!r}, want {nearest!r} or another of {', '.join(known)}")
    return _load_scheme(name)


def convert(points: Array, source: str, target: str) -> tuple[Array, np.ndarray]:
    """Landmarks (...,L,2 or 3) of the scheme `source` as those (...,M,2 or 3) of `target`, with M qualities.

    The qualities, an array (M,), are words of `QUALITIES`; a "missing" point has NaN coordinates. Where no
    map is stored for the pair, two are applied in turn, and each point has the worst quality that went in.
    `points` are floating point. Raises `LandmarkError` for an unknown scheme, points that do not fit `source`
    or a pair that two maps cannot join.
    """
    route = _route(_fitting(points, source).name, scheme(target).name)
    xp: Any = array_namespace(points)
    weights = xp.asarray(route.weights.copy(), dtype=points.dtype, device=device(points))
    indices = xp.asarray(route.indices.copy(), device=device(points))
    # Only the sources of a point are read: a NaN elsewhere (a point not annotated) does not spread to it.
    terms = [xp.take(points, indices[:, k], axis=-2) * weights[:, k, None] for k in range(indices.shape[1])]
    return sum(terms), route.quality


def can_convert(source: str, target: str) -> bool:
    """Whether `convert` knows a way from one scheme to another. Raises `LandmarkError` for an unknown scheme."""
    names = scheme(source).name, scheme(target).name
    try:
        _route(*names)
    except LandmarkError:
        return False
    return True


def mirror(points: Array, scheme: str, width: float) -> Array:
    """Landmarks (...,L,2 or 3) of the scheme named `scheme` in the image of `width` px flipped left-right.

    Every x becomes width - 1 - x, because an integer is a pixel centre, and each point takes the place of its
    mirror point; y and z stay. Raises `LandmarkError` for an unknown scheme or points that do not fit it.
    """
    permutation = _fitting(points, scheme).mirror
    xp: Any = array_namespace(points)
    swapped = xp.take(points, xp.asarray(permutation.copy(), device=device(points)), axis=-2)
    return xp.concat([width - 1 - swapped[..., :1], swapped[..., 1:]], axis=-1)


class _Row(NamedTuple):
    """One target point: source index -> weight, and the quality."""

    weights: dict[int, float]
    quality: str


class _Route(NamedTuple):
    """A map ready to use: target i is the sum over k of weights[i,k] * source point indices[i,k]."""

    indices: np.ndarray  # (M,K)
    weights: np.ndarray  # (M,K)
    quality: np.ndarray  # (M,) words


def _fitting(points: Array, name: str) -> LandmarkScheme:
    """The scheme called `name`, once `points` are known to fit it."""
    found = scheme(name)
    if not is_array_api_obj(points):
        raise LandmarkError(f"got points of type {type(points).__name__}, want an array, of NumPy or torch")
    if points.ndim < 2 or points.shape[-2] != found.count or points.shape[-1] not in (2, 3):
        shape = tuple(points.shape)
        raise LandmarkError(f"got points of shape {shape}, want (..., {found.count}, 2 or 3) for {found.name}")
    if not array_namespace(points).isdtype(points.dtype, "real floating"):
        raise LandmarkError(f"got points of type {points.dtype}, want floating-point coordinates")
    return found


def _read(name: str) -> dict[str, Any]:
    file = files("canthus.face").joinpath("schemes").joinpath(f"{name}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _expand(runs: str) -> list[int]:
    """The indices that runs stand for: "0-2 8 12-10" -> [0, 1, 2, 8, 12, 11, 10]."""
    indices: list[int] = []
    for run in runs.split():
        first, _, last = run.partition("-")
        start, stop = int(first), int(last or first)
        step = 1 if start <= stop else -1
        indices += range(start, stop + step, step)
    return indices


def _frozen(values: Any, dtype: Any = np.intp) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@cache
def _load_scheme(name: str) -> LandmarkScheme:
    data = _read(name)
    parts = {part: _expand(runs) for part, runs in data["parts"].items()}
    points = [f"point {index}" for index in range(data["count"])]
    for part, indices in parts.items():
        numbered = [f"{part.replace('_', ' ')} {k}" for k in range(1, len(indices) + 1)]
        for index, point in zip(indices, data.get("names", {}).get(part, numbered), strict=True):
            points[index] = point
    permutation = np.full(data["count"], -1)
    midline = _expand(data["midline"])
    permutation[midline] = midline
    for one, other in data["mirror"]:
        permutation[_expand(one)] = _expand(other)
        permutation[_expand(other)] = _expand(one)
    paths = [_expand(data["parts"].get(line, line)) for line in data["edges"]["lines"]]
    for loop in data["edges"]["loops"]:
        path = _expand(data["parts"].get(loop, loop))
        paths.append([*path, path[0]])
    right, left = data["outer_eye_corners"]
    return LandmarkScheme(
        name=data["name"],
        title=data["title"],
        count=data["count"],
        source=" ".join(data["source"].split()),
        points=tuple(points),
        parts=MappingProxyType({part: _frozen(indices) for part, indices in parts.items()}),
        mirror=_frozen(permutation),
        edges=_frozen([edge for path in paths for edge in pairwise(path)]),
        eye_corners=(right, left),
        jaw=data["jaw"],
    )


@cache
def _load_maps() -> dict[tuple[str, str], list[_Row]]:
    maps = {}
    for entry in _read("maps")["maps"]:
        rows = [_Row({}, "missing") for _ in range(scheme(entry["target"]).count)]
        for item in entry["rows"]:
            targets = _expand(item["to"])
            if "blend" in item:
                blend = _expand(item["blend"])
                mixes = [dict(zip(blend, item.get("weights", [1 / len(blend)] * len(blend)), strict=True))]
            else:
                mixes = [{index: 1.0} for index in _expand(item["from"])]
            for target, mix in zip(targets, mixes, strict=True):
                rows[target] = _Row(mix, item["quality"])
        maps[entry["source"], entry["target"]] = rows
    return maps


@cache
def _route(source: str, target: str) -> _Route:
    rows = _rows(source, target)
    width = max(len(row.weights) for row in rows)
    indices = np.zeros((len(rows), width), dtype=np.intp)
    weights = np.zeros((len(rows), width))
    for i, row in enumerate(rows):
        if row.quality == "missing":
            weights[i] = np.nan
            continue
        indices[i] = next(iter(row.weights))  # padding reads a point of the same row, with weight 0
        indices[i, : len(row.weights)] = list(row.weights)
        weights[i, : len(row.weights)] = list(row.weights.values())
    return _Route(_frozen(indices), _frozen(weights, float), _frozen([row.quality for row in rows], str))


def _rows(source: str, target: str) -> list[_Row]:
    """The rows of a stored map, or of the first pair of stored maps that leads from `source` to `target`."""
    maps = _load_maps()
    if source == target:
        return [_Row({index: 1.0}, "exact") for index in range(scheme(source).count)]
    if (source, target) in maps:
        return maps[source, target]
    near = [end for start, end in maps if start == source]
    for middle in near:
        if (middle, target) in maps:
            return [_compose(maps[source, middle], row) for row in maps[middle, target]]
    far = [end for start, end in maps if start in near and end != source]
    reach = ", ".join(dict.fromkeys(near + far)) or "no other scheme"
    raise LandmarkError(
        f"There is no map from {source} to {target}; from {source} the maps lead to {reach}. "
        "`Faces.landmarks` also gives schemes that have places on a fitted head."
    )


def _compose(inner: list[_Row], outer: _Row) -> _Row:
    used = [inner[index] for index in outer.weights]
    quality = max([outer.quality, *(row.quality for row in used)], key=QUALITIES.index)
    weights: dict[int, float] = {}
    for row, share in zip(used, outer.weights.values(), strict=True):
        for index, weight in row.weights.items():
            weights[index] = weights.get(index, 0.0) + share * weight
    return _Row(weights, quality)
