"""Linear morphable head models: coefficients to vertices and landmarks, and landmarks to coefficients.

A head is `mean + sum_k a_k identity_k + sum_e b_e expression_e`: identity modes have one standard deviation
as their unit, expression modes are blendshapes with weights inside `expression_bounds` (Blanz and Vetter, "A
Morphable Model for the Synthesis of 3D Faces", SIGGRAPH 1999; Cao et al., "FaceWarehouse", TVCG 2014).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np

from canthus.decode import decoding, fits, listed, parse_json, read_npz
from canthus.errors import LandmarkError, ModelError
from canthus.face.landmarks import convert
from canthus.face.morphable_fit import MorphableFit, fit_landmarks
from canthus.geometry import Array
from canthus.threads import blas_threads

SCHEMA = "canthus.morphable/1"
LANDMARKS = 68
_ARRAYS = (
    "mean",
    "identity",
    "expression",
    "expression_bounds",
    "triangles",
    "landmark_ids",
    "landmark_weights",
)
_UV = ("uv", "uv_triangles")
_ABOUT = {"name": str, "expression_names": list[str], "unit": str, "licence": str, "card": dict[str, Any]}


class _Basis(NamedTuple):
    """Mean (P, 3), identity (K, P, 3) and expression (E, P, 3) of some points of the head."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class MorphableModel:
    """A linear head model with its 68 landmarks (scheme ibug68), in the head frame: x to the subject's left,
    y up, z forward.

    name: what the model is called.
    mean: vertices of the mean head, (V, 3), in `unit`.
    identity: displacements of one standard deviation, (K, V, 3).
    expression: displacements at weight 1, (E, V, 3).
    expression_bounds: lowest and highest weight of each expression, (E, 2); zero lies between them. A lower
        bound of zero marks a blendshape, a negative one a mode of unit standard deviation.
    expression_names: E names.
    triangles: vertex ids, (T, 3), anticlockwise seen from outside.
    landmark_ids, landmark_weights: each landmark as three vertex ids and weights that sum to one, (68, 3)
        both.
    uv, uv_triangles: texture coordinates (U, 2), v up, and their ids at the triangle corners (T, 3), or None.
    unit: unit of length.
    licence: name or text of the licence.
    card: anything else worth knowing, JSON values only.

    Raises ModelError where shapes disagree, an index is out of range or a number is not finite.
    """

    name: str
    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_bounds: np.ndarray
    expression_names: tuple[str, ...]
    triangles: np.ndarray
    landmark_ids: np.ndarray
    landmark_weights: np.ndarray
    uv: np.ndarray | None = None
    uv_triangles: np.ndarray | None = None
    unit: str = "mm"
    licence: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fix the number types and check that the parts belong together."""
        # numbers too large for the type become infinite here, and are then refused
        with decoding(ModelError, f"model {self.name!r} has parts of other types"), np.errstate(all="ignore"):
            for key in ("mean", "identity", "expression", "expression_bounds", "landmark_weights", "uv"):
                self._set(key, np.float32)
            for key in ("triangles", "landmark_ids", "uv_triangles"):
                self._set(key, np.int32)
            object.__setattr__(self, "expression_names", tuple(str(name) for name in self.expression_names))
            self._check()

    def __repr__(self) -> str:
        """Name and sizes."""
        sizes = f"{len(self.mean)} vertices, {len(self.identity)} identity, {len(self.expression)} expression"
        return f"MorphableModel({self.name!r}: {sizes}; {self.unit}, {self.licence})"

    def _set(self, key: str, dtype: type) -> None:
        if getattr(self, key) is not None:
            object.__setattr__(self, key, np.ascontiguousarray(getattr(self, key), dtype=dtype))

    def _check(self) -> None:
        v, e, t = len(self.mean), len(self.expression), len(self.triangles)
        wanted = {
            "mean": (v, 3), "identity": (len(self.identity), v, 3), "expression": (e, v, 3),
            "expression_bounds": (e, 2), "expression_names": (e,), "triangles": (t, 3),
            "landmark_ids": (LANDMARKS, 3), "landmark_weights": (LANDMARKS, 3),
        }  # fmt: skip
        if (self.uv is None) != (self.uv_triangles is None):
            raise ModelError(f"model {self.name!r} has one of uv and uv_triangles; wanted both or none")
        if self.uv is not None:
            wanted |= {"uv": (len(self.uv), 2), "uv_triangles": (t, 3)}
        for key, shape in wanted.items():
            got = np.shape(getattr(self, key))
            if got != shape:
                raise ModelError(f"{key} of model {self.name!r} has shape {got}; wanted {shape}")
        for key in ("mean", "identity", "expression", "expression_bounds", "landmark_weights", "uv"):
            if getattr(self, key) is not None and not np.isfinite(getattr(self, key)).all():
                raise ModelError(f"{key} of model {self.name!r} holds numbers that are not finite")
        limits = {"triangles": v, "landmark_ids": v, "uv_triangles": 0 if self.uv is None else len(self.uv)}
        for key, limit in limits.items():
            ids = getattr(self, key)
            if ids is not None and ids.size and not 0 <= ids.min() <= ids.max() < limit:
                raise ModelError(f"{key} of model {self.name!r} runs from {ids.min()} to {ids.max()} of {limit} points")
        low, high = self.expression_bounds.T
        if not ((low <= 0) & (high >= 0) & (low < high)).all():
            raise ModelError(f"expression_bounds of model {self.name!r} must each hold zero and leave room to move")
        if np.abs(self.landmark_weights.sum(axis=1) - 1).max() > 1e-3:
            raise ModelError(f"landmark_weights of model {self.name!r} must sum to one for every landmark")

    # files

    @classmethod
    def load(cls, path: str | Path) -> MorphableModel:
        """Read a model that `save` wrote.

        Raises ModelError for a file that is not such an npz, is damaged, of another version or lacks an
        array.
        """
        with decoding(ModelError, f"{path} is not a readable morphable-model npz"):
            data = read_npz(path)
        schema = str(data.get("schema", "none"))
        if schema != SCHEMA:
            raise ModelError(f"{path} has schema {schema!r}; wanted {SCHEMA!r}")
        missing = [key for key in (*_ARRAYS, "about") if key not in data]
        missing += [f"{k}_scale" for k in _ARRAYS if _is_quantised(data.get(k)) and f"{k}_scale" not in data]
        if missing:
            raise ModelError(f"{path} lacks {', '.join(missing)}")
        with decoding(ModelError, f"{path} holds a damaged description"):
            fields: dict[str, Any] = parse_json(str(data["about"]))
            if set(fields) != set(_ABOUT) or not all(fits(fields[key], kind) for key, kind in _ABOUT.items()):
                raise ModelError(f"{path} is not described by {', '.join(_ABOUT)} of the right types")
            arrays: dict[str, Any] = {key: data.get(key) for key in (*_ARRAYS, *_UV)}
            for key, array in arrays.items():
                whole = key in ("triangles", "landmark_ids", "uv_triangles")
                if array is not None and array.dtype.kind not in ("iu" if whole else "iuf"):
                    raise ModelError(f"{key} of {path} holds {array.dtype}; numbers are wanted")
            for key in ("identity", "expression"):
                if _is_quantised(arrays[key]):
                    arrays[key] = arrays[key] * data[f"{key}_scale"].astype(np.float32)[:, None, None]
            return cls(**fields, **arrays)

    def save(self, path: str | Path, quantised: bool = False) -> None:
        """Write the model as one npz, whole or not at all. Raises `ModelError` where that fails.

        quantised: store the bases as int16 with one scale a mode, so that no displacement is off by more than
            half of 1/32767 of the largest one of its mode.
        """
        arrays = {key: getattr(self, key) for key in (*_ARRAYS, *_UV)}
        if quantised:
            for key in ("identity", "expression"):
                arrays[key], arrays[f"{key}_scale"] = _quantise(arrays[key])
        about = {key: getattr(self, key) for key in _ABOUT if key != "card"}
        arrays |= {
            "schema": np.array(SCHEMA),
            "about": np.array(json.dumps(about | {"card": dict(self.card)})),
        }
        part = Path(f"{path}.part")
        try:
            with open(part, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **{k: v for k, v in arrays.items() if v is not None})
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise ModelError(f"'{path}' cannot be written: {error.strerror or error}") from error

    @classmethod
    @functools.cache
    def default(cls) -> MorphableModel:
        """The head that comes with canthus: MakeHuman data, CC0, millimetres; read once. Raises ModelError if its file
        is not the one that its card lists."""
        with resources.as_file(resources.files("canthus") / "weights" / "head") as folder:
            return cls.load(listed(folder, "head.npz", ModelError))

    # evaluation

    def vertices(self, identity: Array | None = None, expression: Array | None = None) -> Array:
        """Vertices (B, V, 3) in the head frame, in `unit`.

        identity: (B, k) standard deviations of the first k <= K modes, or None for the mean.
        expression: (B, e) weights of the first e <= E expressions, or None for none.
        Takes NumPy arrays or torch tensors and answers with the same kind, dtype and device; gradients flow
        through. One of the two may have B = 1. With None for both, B is 1. Raises ModelError for a wrong
        shape.
        """
        return _evaluate(_Basis(self.mean, self.identity, self.expression), identity, expression)

    def landmarks(self, identity: Array | None = None, expression: Array | None = None) -> Array:
        """The 68 landmarks (B, 68, 3) in the head frame; arguments and errors as for `vertices`."""
        return _evaluate(self._landmark_basis, identity, expression)

    def of_person(self, identity: np.ndarray) -> MorphableModel:
        """The model of one person: its mean is the head of `identity` (k,), k <= K, and it has no identity modes, so
        that a fit finds camera and expression alone. Raises ModelError for a wrong shape."""
        person = self.vertices(np.asarray(identity, np.float32)[None])[0]
        return replace(self, mean=person, identity=np.zeros((0, *self.mean.shape), np.float32))

    def at_landmarks(self, values: np.ndarray) -> np.ndarray:
        """What vertices (..., V, C) are or move by, at the 68 landmarks: (..., 68, C)."""
        return np.einsum("...lkc,lk->...lc", values[..., self.landmark_ids, :], self.landmark_weights)

    def frontal_shape(self, crop_scale: float) -> np.ndarray:
        """The mean head's 68 landmarks (68, 2) from the front, y down, in sides of a crop around their box of which it
        is `crop_scale` times the longer side, from its centre: the mean shape of `Crop.around_shapes`."""
        xy = self.landmarks()[0, :, :2] * [1, -1]
        low, high = xy.min(0), xy.max(0)
        return (xy - (low + high) / 2) / (crop_scale * (high - low).max())

    @functools.cached_property
    def _landmark_basis(self) -> _Basis:
        return _Basis(*(self.at_landmarks(points) for points in (self.mean, self.identity, self.expression)))

    def _basis(self, scheme: str) -> _Basis:
        """That of the points of a scheme."""
        known = self._landmark_basis
        return known if scheme == "ibug68" else _Basis(*(convert(a.astype(float), "ibug68", scheme)[0] for a in known))

    @functools.cached_property
    def parts(self) -> dict[str, slice]:
        """The triangles of each part, such as skin and eyes, by name; of a model that tells no parts all are skin.

        Raises ModelError for a card whose triangle_ranges are none.
        """
        with decoding(ModelError, f"model {self.name!r} has a card whose triangle_ranges are not names and ranges"):
            ranges = self.card.get("triangle_ranges", {"skin": [0, len(self.triangles)]})
            if not fits(ranges, dict[str, list[int]]):
                raise ValueError("other types")
            return {name: slice(first, end) for name, (first, end) in ranges.items()}

    @functools.cached_property
    def mirror(self) -> np.ndarray:
        """For every vertex the one at its place on the other side of the mean head, (V,) int.

        Raises ModelError for a head that is not symmetric: pairs must answer each other.
        """
        # |a - b|^2 without |a|^2, which is the same for all b; in parts, as V x V numbers may be many
        rest = self.mean.astype(np.float64)
        square = (rest**2).sum(axis=1)
        nearest = [(square - 2 * part @ rest.T).argmin(axis=1) for part in np.array_split(rest * [-1, 1, 1], 16)]
        found = np.concatenate(nearest)
        if (found[found] != np.arange(len(found))).any():
            raise ModelError(f"model {self.name!r} is not symmetric: its vertices cannot be mirrored")
        return found

    # fitting

    def fit(
        self,
        points: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        noise: float = 0.01,
        depth_noise: float = 0.02,
        iterations: int = 5,
        scheme: str = "ibug68",
    ) -> MorphableFit:
        """Camera, identity and expression of faces from their landmarks; see `morphable_fit`.

        points: (B, L, 2) image pixels, or (B, L, 3) with z in pixels, larger nearer, any offset.
        scheme: of the L points, 68 or others that follow from these.
        weights: (B, L), zero or more; a point of weight zero is ignored and may be anything, even NaN.
        noise, depth_noise: standard deviation of a coordinate x, y and of z, as a share of the face size
            (square root of the area of the frontal landmark box). Less noise: a closer fit, a bolder shape.
        iterations: rounds of camera and shape.
        Raises LandmarkError for a wrong shape, NaN, or fewer than six points with weight.
        """
        points, basis = np.asarray(points, dtype=float), self._basis(scheme)
        count = len(basis.mean)
        if points.ndim != 3 or points.shape[1] != count or points.shape[2] not in (2, 3):
            wanted = f"(B, {count}, 2) or (B, {count}, 3)"
            raise LandmarkError(f"landmarks to fit have shape {points.shape}; wanted {wanted}")
        weights = np.ones(points.shape[:2]) if weights is None else np.asarray(weights, dtype=float)
        if weights.shape != points.shape[:2]:
            raise LandmarkError(f"landmark weights have shape {weights.shape}; wanted {points.shape[:2]}")
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise LandmarkError("landmark weights must be finite and not negative")
        points = np.where(weights[..., None] > 0, points, 0.0)
        if not np.isfinite(points).all():
            raise LandmarkError("landmarks to fit hold numbers that are not finite; give those points the weight zero")
        if len(points) and (weights > 0).sum(axis=1).min() < 6:
            raise LandmarkError("a face has fewer than 6 landmarks with weight; a camera and a shape need 6 or more")
        if noise <= 0 or depth_noise <= 0:
            raise LandmarkError(f"noise levels must be positive, got {noise} and {depth_noise}")
        width, height = np.ptp(self._landmark_basis.mean[:, :2], axis=0)
        sigma = np.array([noise, noise, depth_noise])[: points.shape[2]] * np.sqrt(width * height)
        with blas_threads(1):  # on systems this small more threads only get in each other's way
            return fit_landmarks(basis, self.expression_bounds, points, weights, sigma, iterations)


def _is_quantised(array: np.ndarray | None) -> bool:
    return array is not None and array.dtype == np.int16


def _quantise(modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Modes (K, V, 3) as int16 (K, V, 3) and scales (K,)."""
    largest = np.abs(modes).max(axis=(1, 2), initial=0.0)
    scale = np.where(largest > 0, largest / 32767, 1.0).astype(np.float32)
    return np.rint(modes / scale[:, None, None]).clip(-32767, 32767).astype(np.int16), scale


def _evaluate(basis: _Basis, identity: Array | None, expression: Array | None) -> Array:
    """Points (B, P, 3) = mean + coefficients times displacements."""
    given = {"identity": identity, "expression": expression}
    arrays: dict[str, Any] = {
        k: x if api.is_array_api_obj(x) else np.asarray(x, np.float32) for k, x in given.items() if x is not None
    }
    if not arrays:
        return basis.mean[None].copy()
    xp = api.array_namespace(*arrays.values())
    first = next(iter(arrays.values()))
    if len({len(coefficients) for coefficients in arrays.values()} - {1}) > 1:
        raise ModelError(f"got coefficients of {[len(c) for c in arrays.values()]} heads; as many of each are wanted")
    dtype = first.dtype if xp.isdtype(first.dtype, "real floating") else xp.float32
    place = api.device(first)
    points = xp.asarray(basis.mean, dtype=dtype, device=place)[None]
    for key, coefficients in arrays.items():
        modes = getattr(basis, key)
        if coefficients.ndim != 2 or coefficients.shape[1] > len(modes):
            raise ModelError(f"{key} has shape {tuple(coefficients.shape)}; wanted (B, k) with k up to {len(modes)}")
        faces, k = coefficients.shape
        flat = xp.reshape(xp.asarray(modes[:k], dtype=dtype, device=place), (k, basis.mean.size))
        points = points + xp.reshape(xp.astype(coefficients, dtype) @ flat, (faces, *basis.mean.shape))
    return points
