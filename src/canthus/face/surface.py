"""Landmarks of other schemes as places on the shipped head: what a fitted head says of points that the 68 do not tell.

`schemes/surface.npz` says for each point of a scheme the corners of a triangle of the shipped head and their weights,
made by `tools/build_surface.py`. A point on the fitted head is then moved as the landmarks around it are off the head,
so that it lies among them; those that are landmarks by the same definition are the network's own.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np

from canthus.decode import decoding, read_npz
from canthus.errors import LandmarkError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.jaw import JAW, jaw_lines, march
from canthus.face.landmarks import scheme
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel

GAZE = [name.startswith("eyeLook") for name in EXPRESSIONS]
SOFTENING = 1.0
"""Distance, mm on the mean head, below which a landmark's own offset is taken whole."""


class SurfaceMap(NamedTuple):
    """Places of the M points of a scheme on the shipped head.

    ids, weights: (M,3), vertices and their shares, which sum to one. landmark: (M,), the landmark of the 68 that is the
    same point by the same definition, or -1. quality: (M,) words of `landmarks.QUALITIES`.
    """

    ids: np.ndarray
    weights: np.ndarray
    landmark: np.ndarray
    quality: np.ndarray

    def at(self, values: np.ndarray) -> np.ndarray:
        """What vertices (..., V, C) are, at the points: (..., M, C)."""
        return np.einsum("...mkc,mk->...mc", values[..., self.ids, :], self.weights)


def surface_schemes() -> tuple[str, ...]:
    """The schemes whose points have places on the shipped head."""
    return tuple(sorted(_maps()))


def surface_map(name: str) -> SurfaceMap:
    """The places of a scheme's points. Raises `LandmarkError` for a scheme that has none."""
    try:
        return _maps()[scheme(name).name]
    except KeyError:
        raise LandmarkError(f"got the scheme {name}, want one of {', '.join(surface_schemes())}") from None


def landmarks_on_heads(meshes: FaceMeshes, xyz: np.ndarray, name: str, expression: np.ndarray) -> np.ndarray:
    """The points (N,M,3) of the scheme `name`, image pixels.

    meshes: heads of the shipped topology, fitted to the landmarks xyz (N,68,3). expression: (N,52) of the network,
    whose gaze turns the pupils; where it is NaN that of the fitted head does. The jaw of a scheme that follows the
    visible contour does so (`jaw.march`). Raises `LandmarkError` for a scheme without a map.
    """
    model, places = meshes.model, surface_map(name)
    points = places.at(meshes.vertices.astype(np.float64))
    points += meshes.camera.project(_turned_eyes(places, meshes, expression)) - _origin(meshes)
    off = xyz - model.at_landmarks(meshes.vertices)
    points += np.einsum("ml,nlc->nmc", _nearness(name), off)
    own = places.landmark >= 0
    points[:, own] = xyz[:, places.landmark[own]]
    jaw = scheme(name).parts.get("jaw")
    if jaw is not None and scheme(name).jaw == "visible contour":
        ids = jaw_lines(model)
        lines = meshes.vertices[:, ids.ravel()].reshape(len(xyz), *ids.shape, 3) + off[:, :JAW, None]
        seen = march(xyz[:, :JAW].astype(np.float64), lines, meshes.camera.rotation)
        points[:, jaw] = resampled(seen, len(jaw))
    return points


def _turned_eyes(places: SurfaceMap, meshes: FaceMeshes, expression: np.ndarray) -> np.ndarray:
    """By how much (N,M,3), in the head frame, the network's gaze moves the points beyond that of the fitted head."""
    model = meshes.model
    balls = np.isin(places.ids[:, 0], np.unique(model.triangles[model.parts["eyes"]]))
    more = np.nan_to_num(expression - meshes.expression)[:, GAZE]
    return np.einsum("ne,emc->nmc", more, places.at(model.expression[GAZE]) * balls[:, None])


def _origin(meshes: FaceMeshes) -> np.ndarray:
    return meshes.camera.project(np.zeros((len(meshes), 1, 3)))


@functools.cache
def _nearness(name: str) -> np.ndarray:
    """How much each landmark's offset counts at each point, (M,68), rows sum to one: by the inverse square of their
    distance on the mean head (Shepard, "A two-dimensional interpolation function for irregularly-spaced data", ACM
    1968)."""
    model = MorphableModel.default()
    between = surface_map(name).at(model.mean)[:, None] - model.landmarks()[0]
    weights = 1 / ((between.astype(np.float64) ** 2).sum(-1) + SOFTENING**2)
    return weights / weights.sum(1, keepdims=True)


def resampled(line: np.ndarray, count: int) -> np.ndarray:
    """`count` points (N,count,3) on lines (N,P,3), equally spaced in the image along each half: the chin stays."""
    out = np.empty((len(line), count, 3))
    middle, half = line.shape[1] // 2, count // 2
    for row, points in zip(out, line):
        for part, target in ((points[: middle + 1], row[: half + 1]), (points[middle:], row[half:])):
            steps = np.linalg.norm(np.diff(part[:, :2], axis=0), axis=1)
            along = np.concatenate([[0.0], np.cumsum(steps)])
            at = np.linspace(0, along[-1], len(target))
            target[:] = np.stack([np.interp(at, along, part[:, axis]) for axis in range(3)], axis=-1)
    return out


@functools.cache
def _maps() -> dict[str, SurfaceMap]:
    with resources.as_file(resources.files("canthus.face") / "schemes" / "surface.npz") as file:
        with decoding(LandmarkError, f"{file} is not a readable table of places"):
            stored = read_npz(file)
    names = sorted({key.split("/")[0] for key in stored})
    maps = {}
    for name in names:
        landmark = stored[f"{name}/landmark"]
        quality = np.where(landmark >= 0, "exact", "approximate")
        maps[name] = SurfaceMap(stored[f"{name}/ids"], stored[f"{name}/weights"], landmark, quality)
    return maps
