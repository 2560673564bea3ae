"""What a system answered for the faces of a data set, as a file: any system's answers are scored by the same code.

NPZ without objects, JSON lines with one object a face, or Parquet with one row a face. All have, a face: `id` (the name
in the set), `xyz` (L,2 or 3) image pixels, and if known `box` (4,), `sigma` (L,), `visible` (L,), `rotation` (3,3)
camera-from-head in right-handed axes with y up, `restarted` (whether a tracker had to search for the face again),
`expression` (52,) and its `expression_sigma` (52,). A face that is not there was not found. Parquet has columns of
single numbers, named as those of `io.columns` where these have the same: `x_0`, `y_0`, `z_0`, `box_x0`, `sigma_0`,
`visible_0`, `rotation_00`, `jawOpen`, `jawOpen_sigma`.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canthus.decode import decoding, fits, numbers, parse_json, read_npz, read_text
from canthus.errors import LandmarkError, amount
from canthus.face.expressions import EXPRESSIONS
from canthus.face.landmarks import scheme as find_scheme
from canthus.io.columns import Column, Rows
from canthus.io.outputs import atomic_write
from canthus.io.tables import read_rows, write_rows

ENDINGS = (".npz", ".jsonl", ".parquet")
_FIELDS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "box": lambda L: (4,), "sigma": lambda L: (L,), "visible": lambda L: (L,), "rotation": lambda L: (3, 3),
    "restarted": lambda L: (), "expression": lambda L: (len(EXPRESSIONS),),
    "expression_sigma": lambda L: (len(EXPRESSIONS),),
}  # fmt: skip
_RANGES = {
    "sigma": (0, np.inf),
    "visible": (0, 1),
    "restarted": (0, 1),
    "expression_sigma": (0, np.inf),
}


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for N faces. Arrays hold NaN where the system does not say.

    names: (N,) of the faces. xyz: (N,L,3) or (N,L,2) image pixels in `scheme`. box: (N,4) what the system was given or
    found. sigma: (N,L) pixels. visible: (N,L) 0..1. rotation: (N,3,3). restarted: (N,) 0 or 1. expression: (N,52) 0..1,
    in the order of `expressions.EXPRESSIONS`; expression_sigma: (N,52) their standard deviations. system: who answered.
    Raises `LandmarkError` for arrays that do not fit together.
    """

    names: Sequence[str]
    xyz: Any
    box: Any = None
    sigma: Any = None
    visible: Any = None
    rotation: Any = None
    restarted: Any = None
    expression: Any = None
    expression_sigma: Any = None
    scheme: str = "ibug68"
    system: str = ""

    def __post_init__(self) -> None:
        names = tuple(str(n) for n in self.names)
        xyz = np.asarray(self.xyz, np.float64)
        count = find_scheme(self.scheme).count
        if xyz.shape not in ((len(names), count, 2), (len(names), count, 3)):
            raise LandmarkError(f"got points of shape {xyz.shape} for {amount(len(names), 'face')} of {self.scheme}")
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise LandmarkError(f"got several predictions for '{twice[0]}', want one a face")
        if np.isinf(xyz).any():
            raise LandmarkError("got infinite points, want pixels, or NaN for a point that is not known")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "xyz", xyz)
        for field, shape in _FIELDS.items():
            wanted = (len(names), *shape(count))
            given = getattr(self, field)
            values = np.full(wanted, np.nan) if given is None else np.asarray(given, np.float64)
            if values.shape != wanted:
                raise LandmarkError(f"got {field} of shape {values.shape}, want {wanted}")
            low, high = _RANGES.get(field, (-np.inf, np.inf))
            if np.isinf(values).any() or ((values < low) | (values > high)).any():
                raise LandmarkError(f"got {field} that is infinite or outside {low:g} to {high:g}, want such or NaN")
            object.__setattr__(self, field, values)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, names: Sequence[str]) -> Predictions:
        """The predictions for these faces in this order, NaN for a face that is not there."""
        place = {n: k for k, n in enumerate(self.names)}
        rows = np.array([place.get(n, -1) for n in names], dtype=int)
        values: dict[str, Any] = {}
        for field in ("xyz", *_FIELDS):
            array = getattr(self, field)
            padded = np.concatenate([array, np.full((1, *array.shape[1:]), np.nan)])
            values[field] = padded[rows]
        return Predictions(names, scheme=self.scheme, system=self.system, **values)

    def write(self, path: str | Path) -> None:
        """Write .npz, .jsonl or .parquet (extra `tables`). Raises `OutputError`, and `LandmarkError` for another
        ending."""
        path = Path(path)
        if path.suffix == ".npz":
            buffer = io.BytesIO()
            arrays: dict[str, Any] = {
                f: np.asarray(getattr(self, f), np.float32) for f in _FIELDS if _known(getattr(self, f))
            }
            np.savez_compressed(
                buffer, id=np.array(self.names, dtype=np.str_), xyz=self.xyz.astype(np.float32),
                scheme=np.array(self.scheme), system=np.array(self.system), **arrays,
            )  # fmt: skip
            atomic_write(path, buffer.getvalue())
        elif path.suffix == ".jsonl":
            atomic_write(path, "".join(json.dumps(self._line(k)) + "\n" for k in range(len(self))).encode())
        elif path.suffix == ".parquet":
            rows = self._rows()
            kinds = ("str" if values.dtype == object else "float" for values in rows.values())
            write_rows(path, rows, [Column(name, kind, "", "") for name, kind in zip(rows, kinds)])
        else:
            raise LandmarkError(f"got the predictions file '{path}', want one that ends in {', '.join(ENDINGS)}")

    def _rows(self) -> Rows:
        """The columns of a table, those of a field only if it is known of some face."""
        count = len(self)
        rows: Rows = {"id": np.array(self.names, object)}
        rows |= {name: np.full(count, getattr(self, name), object) for name in ("scheme", "system")}
        for field in ("xyz", *_FIELDS):
            values = getattr(self, field)
            if field == "xyz" or _known(values):
                flat = values.reshape(count, int(np.prod(values.shape[1:])))
                rows |= dict(zip(_names(field, values.shape[1:]), flat.T))
        return rows

    def _line(self, k: int) -> dict[str, Any]:
        line: dict[str, Any] = {"id": self.names[k], "scheme": self.scheme, "system": self.system}
        for field in ("xyz", *_FIELDS):
            value = getattr(self, field)[k]
            if _known(value):
                line[field] = np.where(np.isnan(value), np.array(None), value.round(4).astype(object)).tolist()
        return line

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Read .npz, .parquet or .jsonl. Raises `LandmarkError` for a file that is none or does not fit, and
        `OutputError` where pyarrow is wanted and missing."""
        path = Path(path)
        if path.suffix == ".parquet":
            rows = read_rows(path)
            with decoding(LandmarkError, f"'{path}' is no table of predictions, with id, x_0, y_0, ..."):
                return cls._of_rows(rows)
        with decoding(LandmarkError, f"'{path}' is no file of predictions (.npz or .jsonl with id, xyz)"):
            return cls._read_npz(path) if path.suffix == ".npz" else cls._read_lines(path)

    @classmethod
    def _of_rows(cls, rows: Rows) -> Predictions:
        if not len(rows["id"]):
            return cls([], np.zeros((0, find_scheme("ibug68").count, 2)))
        found: dict[str, str] = {}
        for word, default in (("scheme", "ibug68"), ("system", "")):
            values = set(rows.get(word, [])) or {default}
            if len(values) > 1 or not fits(list(values), list[str]):
                raise ValueError(f"`{word}` is {sorted(map(str, values))}, one text is wanted")
            found[word] = values.pop()
        if not fits(rows["id"].tolist(), list[str]):
            raise ValueError("`id` is no text")
        points = find_scheme(found["scheme"]).count
        shapes = {"xyz": (points, 3 if "z_0" in rows else 2)} | {f: shape(points) for f, shape in _FIELDS.items()}
        arrays: dict[str, Any] = {}
        for field, shape in shapes.items():
            names = _names(field, shape)
            if field == "xyz" or not rows.keys().isdisjoint(names):
                if any(rows[name].dtype == object for name in names):
                    raise ValueError(f"`{names[0]}` and the like hold text; numbers are wanted")
                arrays[field] = np.stack([rows[name] for name in names], -1).reshape(len(rows["id"]), *shape)
        return cls(rows["id"].tolist(), **arrays, **found)

    @classmethod
    def _read_npz(cls, path: Path) -> Predictions:
        z = read_npz(path)
        for name in ("xyz", *(f for f in _FIELDS if f in z)):
            if z[name].dtype.kind not in "iufb" or (name == "xyz" and z[name].dtype.kind == "b"):
                raise ValueError(f"`{name}` holds {z[name].dtype}; numbers are wanted")
        words = [f for f in ("scheme", "system") if f in z]
        if (
            z["id"].ndim != 1
            or z["id"].dtype.kind not in "Uiu"
            or any(z[f].shape or z[f].dtype.kind != "U" for f in words)
        ):
            raise ValueError("`id` (N,), `scheme` or `system` is no text")
        more: dict[str, Any] = {f: z[f] for f in _FIELDS if f in z} | {f: str(z[f]) for f in words}
        return cls([str(n) for n in z["id"]], z["xyz"], **more)

    @classmethod
    def _read_lines(cls, path: Path) -> Predictions:
        rows = [parse_json(line) for line in read_text(path).splitlines() if line.strip()]
        if not fits(rows, list[dict[str, Any]]):
            raise ValueError("a line is no object of keys and values")
        for row in rows:
            if not fits([row["id"], row.get("scheme", ""), row.get("system") or ""], list[str]):
                raise ValueError("the id, scheme or system of a line is no text")
        found = [row for row in rows if row.get("xyz") is not None]
        schemes = {row.get("scheme", "ibug68") for row in found} or {"ibug68"}
        if len(schemes) > 1:
            raise LandmarkError(f"'{path}' mixes the schemes {sorted(schemes)}, want one a file")
        name = schemes.pop()
        count = find_scheme(name).count
        values: dict[str, Any] = {}
        for field, shape in _FIELDS.items():
            unknown = np.full(shape(count), np.nan)
            given = [unknown if row.get(field) is None else _numbers(row[field], shape(count)) for row in found]
            values[field] = np.array(given).reshape(len(found), *shape(count))
        xyz = numbers([row["xyz"] for row in found], (None, count, None), unknown=True)
        xyz = xyz if found else np.zeros((0, count, 2))
        system = next((row["system"] for row in found if row.get("system")), "")
        return cls([row["id"] for row in found], xyz, scheme=name, system=system, **values)


def _names(field: str, shape: tuple[int, ...]) -> list[str]:
    """The columns of a table that hold a field of one face, in the order of its numbers."""
    if field == "xyz":
        return [f"{axis}_{k}" for k in range(shape[0]) for axis in "xyz"[: shape[1]]]
    if field == "box":
        return [f"box_{side}" for side in ("x0", "y0", "x1", "y1")]
    if field in ("expression", "expression_sigma"):
        return [name + field.removeprefix("expression") for name in EXPRESSIONS]
    return ["_".join([field, *(["".join(map(str, place))] if place else [])]) for place in np.ndindex(*shape)]


def _numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of a line; a single one may be true or false."""
    return numbers(float(value) if isinstance(value, bool) and not shape else value, shape, unknown=True)


def _known(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).any())
