"""Stored faces: pictures with their truth, ready to be cropped and augmented."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from canthus.data.formats import FaceSample
from canthus.data.formats.face import at_one_place
from canthus.data.sample import Need, StoredBatch
from canthus.data.truth import whole_truth
from canthus.decode import decoding
from canthus.errors import RecipeError, amount
from canthus.face.expressions import EXPRESSIONS, as_arkit
from canthus.face.landmarks import convert
from canthus.geometry.crop import Crop, tight_boxes, within
from canthus.io.images import as_image, crop_image
from canthus.io.shards import FileShard, NpzShard, Rows, open_shard, shards_in

FIELDS = ("xyz", "visible", "rotation")
FACE = 0.52  # longer side of the landmark box / side of a picture cut from a photo: leaves room for augmentation


class StoredFaces:
    """Rendered shards of any layout (`canthus synth`). Pictures and vertices stay on disk.

    xyz (N,68,3) pixels, visible (N,68) bool, rotation (N,3,3), expression (N,52), NaN if unknown; pictures (H,W,3)
    uint8 and, if every shard has them, vertices (V,3) of `MorphableModel.default()` in the frame of xyz, one array
    (n,...) a shard. points: another scheme to turn the 68 into. Raises `RecipeError`
    for a shard that is damaged, lacks a field, or holds NaN, arrays of other shapes or of several lengths, or a face
    whose points are at one place.
    """

    def __init__(self, folders: Sequence[str | Path], points: str = "ibug68"):
        paths = [p for folder in folders for p in shards_in(folder)]
        if not paths:
            raise RecipeError(f"no shard-* in {[str(f) for f in folders]}: render some with `canthus synth`")
        parts: dict[str, list[np.ndarray]] = {f: [] for f in FIELDS}
        self.pictures: list[np.ndarray | Rows] = []
        vertices: list[np.ndarray | Rows] = []
        expressions: list[np.ndarray] = []
        for path in paths:
            with decoding(RecipeError, f"the shard '{path}' cannot be read"):
                shard = open_shard(path)
                for f, values in shard.read(FIELDS).items():
                    parts[f].append(values.astype(np.float32) if values.dtype.kind == "f" else values)
                expressions.append(_expressions(shard, len(parts["xyz"][-1])))
                self.pictures.append(shard.rows("image"))
                if "vertices" in shard.files:
                    vertices.append(shard.rows("vertices"))
                counts = [len(rows[-1]) for rows in (parts["xyz"], self.pictures, vertices) if rows]
                if counts[0] != counts[1] or ("vertices" in shard.files and counts[0] != counts[2]):
                    raise ValueError(f"its points, pictures and vertices are of {counts} faces; as many are wanted")
                if len(wrong := np.flatnonzero(at_one_place(parts["xyz"][-1]))):
                    raise ValueError(f"face {wrong[0]} has all its points at one place")
            if self.pictures[-1].shape[1:] != self.pictures[0].shape[1:]:
                raise RecipeError(f"'{path}' holds pictures of another size than '{paths[0]}'")
        self.xyz, self.visible, self.rotation = (np.concatenate(parts.pop(f)) for f in FIELDS)
        self.boxes = tight_boxes(self.xyz)
        if points != "ibug68":
            self.xyz, self.visible = in_scheme(self.xyz, self.visible, points)
        self.expression = np.concatenate(expressions)
        if len({v.shape[1:] for v in vertices}) > 1:
            raise RecipeError(f"the shards in {[str(f) for f in folders]} hold vertices of heads of several sizes")
        self.vertices = vertices if len(vertices) == len(paths) else None
        self._paths = paths
        self._starts = np.cumsum([0, *(len(p) for p in self.pictures)])

    def __len__(self) -> int:
        return len(self.xyz)

    def share(self, need: Need) -> float:
        """The share of the faces whose truth has it: renders may lack expressions and vertices alone."""
        if need == "vertices":
            return float(self.vertices is not None)
        return float(np.isfinite(self.expression).any(1).mean()) if need == "expression" else 1.0

    def seen(self) -> np.ndarray:
        """Which points (L,) are known of any face: of renders all."""
        return np.ones(self.xyz.shape[1], bool)

    def summary(self) -> str:
        """As `PhotoFaces.summary`."""
        points, told = self.xyz.shape[1], _known(self, "depth", "rotation", "expression", "vertices")
        return f"{amount(len(self), 'face')}, {points} of {points} points, {told}"

    def take(self, index: np.ndarray) -> StoredBatch:
        """The faces `index` (B,), pictures as uint8."""
        vertices = None if self.vertices is None else torch.from_numpy(self._rows(self.vertices, index)).float()
        return StoredBatch(
            torch.from_numpy(self.xyz[index]),
            torch.from_numpy(self.visible[index]),
            torch.from_numpy(self.rotation[index]),
            vertices=vertices,
            expression=torch.from_numpy(self.expression[index]),
            images=torch.from_numpy(self._rows(self.pictures, index)).permute(0, 3, 1, 2),
            boxes=torch.from_numpy(self.boxes[index]),
        )

    def _rows(self, arrays: list[np.ndarray | Rows], index: np.ndarray) -> np.ndarray:
        shards = np.searchsorted(self._starts, index, side="right") - 1
        out = np.empty((len(index), *arrays[0].shape[1:]), arrays[0].dtype)
        for k, (shard, row) in enumerate(zip(shards, index - self._starts[shards])):
            with decoding(RecipeError, f"the shard '{self._paths[shard]}' cannot be read"):
                out[k] = arrays[shard][row]
        return out


class PhotoFaces:
    """Annotated photos, read when needed and cut to squares of `size` px around the faces.

    points: the scheme of xyz (N,L,3). What the annotations do not say is guessed and masked: see `truth.whole_truth`,
    which also says what is raised.
    """

    def __init__(self, samples: Iterable[FaceSample], size: int, points: str = "ibug68"):
        found = list(samples)
        truth = whole_truth(found, points)
        self._crops = Crop.around_boxes(truth.boxes, 1 / FACE, size)
        corners = self._crops.crop_from_image(truth.boxes.reshape(-1, 2, 2).astype(np.float64))
        self.boxes = corners.reshape(-1, 4).astype(np.float32)
        self.xyz = self._crops.crop_from_image(truth.xyz).astype(np.float32)
        self._places = truth.xyz[..., :2]  # in the photos
        self.visible, self.rotation = truth.visible, truth.rotation
        self.known, self.deep, self.posed, self._marked = truth.known, truth.deep, truth.posed, truth.marked
        unknown = np.full(len(EXPRESSIONS), np.nan)
        coefficients = [unknown if s.expression is None else s.expression for s in found]
        self.expression = np.array(coefficients, np.float32).reshape(-1, len(EXPRESSIONS))
        self.modes: np.ndarray | None = None
        if found and all(s.modes is not None for s in found):
            self.modes = np.array([s.modes for s in found], np.float32)
        self._images = [s.image for s in found]
        self._readers = ThreadPoolExecutor(min(os.cpu_count() or 1, 16), "photos")

    def __len__(self) -> int:
        return len(self._images)

    def share(self, need: Need) -> float:
        """The share of the faces whose truth has it."""
        if need == "vertices":
            return 0.0
        masks = {
            "depth": self.deep, "rotation": self.posed, "points": self.known.all(1),
            "visibility": self._marked, "expression": np.isfinite(self.expression).any(1),
        }  # fmt: skip
        return float(masks[need].mean())

    def seen(self) -> np.ndarray:
        """Which points (L,) are known of any face."""
        return np.asarray(self.known.any(0))

    def summary(self) -> str:
        """How many faces there are, and what of their truth is known."""
        points = self.known.sum(1)
        few, most = points.min(), points.max()
        span = f"{few}{f' to {most}' if few != most else ''} of {self.known.shape[1]} points"
        return f"{amount(len(self), 'face')}, {span}, {_known(self, 'depth', 'rotation')}"

    def take(self, index: np.ndarray) -> StoredBatch:
        """As `StoredFaces.take`; photos have no dense truth."""
        pictures, inside = (np.stack(parts) for parts in zip(*self._readers.map(self._picture, index)))
        fields = ("xyz", "visible", "rotation", "expression", "known", "deep", "posed", "boxes")
        truth = {name: torch.from_numpy(getattr(self, name)[index]) for name in fields}
        if self.modes is not None:
            truth["modes"] = torch.from_numpy(self.modes[index])
        truth["visible"] = truth["visible"] & torch.from_numpy(inside)
        return StoredBatch(images=torch.from_numpy(pictures).permute(0, 3, 1, 2), **truth)

    def _picture(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The square of a face, and which of its points lie in the photo (L,)."""
        image = as_image(self._images[k])
        inside = within(self._places[k], (image.shape[1], image.shape[0]))
        return crop_image(image, self._crops[k : k + 1])[0], inside


def in_scheme(xyz: np.ndarray, visible: np.ndarray, points: str) -> tuple[np.ndarray, np.ndarray]:
    """68 points (N,68,3), with which are visible (N,68) bool, as those of another scheme; a point between others is
    visible where most of these are."""
    seen = np.repeat(visible[..., None].astype(np.float32), 2, -1)
    in_target = convert(seen, "ibug68", points)[0][..., 0] > 0.5
    mapped = convert(xyz, "ibug68", points)[0]
    return (mapped - [0, 0, 1] * mapped.mean(1, keepdims=True)).astype(np.float32), in_target


def _known(faces: StoredFaces | PhotoFaces, *needs: Need) -> str:
    """In words, which of the needs the truth of how many faces has."""
    shares = {need: faces.share(need) for need in needs}
    return ", ".join(n if s == 1 else f"{n} of {s:.0%}" if s else f"no {n}" for n, s in shares.items())


def _expressions(shard: NpzShard | FileShard, count: int) -> np.ndarray:
    """Coefficients (count,52) float32 in the order of `EXPRESSIONS`; NaN if a shard has none."""
    if "expression" not in shard.files:
        return np.full((count, len(EXPRESSIONS)), np.nan, np.float32)
    return as_arkit(shard.read(["expression"])["expression"])
