"""Where the faces of a training come from: the sources, their shares of a batch, and the order of the faces.

The faces of a step are a function of (seed, step) alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from canthus.data.augment import Augmenter
from canthus.data.datasets import FACE, PhotoFaces, StoredFaces, in_scheme
from canthus.data.formats import recognise
from canthus.data.sample import FaceBatch, Need, StoredBatch
from canthus.errors import LandmarkError, NoFilesError, RecipeError
from canthus.face.expressions import as_arkit
from canthus.geometry.crop import tight_boxes
from canthus.io.shards import shards_in
from canthus.synth.live import LiveFaces

LIVE = "synth:"


class Source(Protocol):
    """Stored faces: `StoredFaces` or `PhotoFaces`."""

    xyz: np.ndarray
    boxes: np.ndarray

    def share(self, need: Need) -> float:
        """The share of the faces whose truth has it."""

    def seen(self) -> np.ndarray:
        """Which points (L,) bool are known of any face."""

    def __len__(self) -> int: ...  # noqa: D105

    def take(self, index: np.ndarray) -> StoredBatch:
        """The faces `index` (B,)."""


class FaceMix:
    """The sources of a recipe.

    faces: folders (every stored face once an epoch), or folder -> weight (drawn with replacement, so that each folder
    has its share of every batch). A folder holds shards or a data set in a layout that `formats.recognise` knows;
    `synth:ASSETS` renders faces. size, crop_scale: of the crops that will be cut. device: of the training; if it is a
    GPU, it also renders. head_model: see `formats.recognise`. points: the scheme of the faces' points.
    """

    def __init__(
        self,
        faces: Sequence[str] | Mapping[str, float],
        size: int,
        crop_scale: float,
        seed: int,
        device: torch.device | None = None,
        head_model: str = "",
        points: str = "ibug68",
    ):
        weights = faces if isinstance(faces, Mapping) else dict.fromkeys(faces, 1.0)
        # a tenth more pixels than the crops have, as augmentation enlarges some faces
        pixels = round(1.1 * size / (crop_scale * FACE))
        live, stored = ([n for n in weights if n.startswith(LIVE) == kind] for kind in (True, False))
        if live and len(weights) > 1 and not isinstance(faces, Mapping):
            raise RecipeError(f"`faces` has '{live[0]}', which is endless, beside others: give weights, folder: weight")
        self.seed, self.points_scheme = seed, points
        self.live = [(_live(n, pixels, seed, device), weights[n] / sum(weights.values())) for n in live]
        self.stored = [_open(n, pixels, head_model, points) for n in stored]
        self._starts = np.cumsum([0, *(len(s) for s in self.stored)])
        self._density: np.ndarray | None = None  # cumulative, of the stored faces; None: all alike
        if isinstance(faces, Mapping) and len(stored) > 1:
            each = [np.full(len(s), weights[n] / len(s)) for n, s in zip(stored, self.stored)]
            self._density = np.cumsum(np.concatenate(each))

    def __len__(self) -> int:
        """How many faces are stored."""
        return int(self._starts[-1])

    @property
    def xyz(self) -> Tensor:
        """Points (N,L,3) of the stored faces, in pixels of their pictures."""
        return torch.from_numpy(np.concatenate([s.xyz for s in self.stored]))

    def share(self, need: Need) -> float:
        """The share of all faces whose truth has what a loss term may need."""
        live = sum(share for _, share in self.live)
        rest, total = 1 - live, 0.0
        for source, start, end in zip(self.stored, self._starts, self._starts[1:]):
            part = len(source) / len(self)
            if self._density is not None:
                ends = np.concatenate([[0.0], self._density])
                part = (ends[end] - ends[start]) / ends[-1]
            total += part * source.share(need)
        return (0.0 if need == "vertices" else live) + rest * total

    def unseen(self) -> list[int]:
        """The points that are known of no face."""
        if self.live:
            return []
        return np.flatnonzero(~np.any([source.seen() for source in self.stored], axis=0)).tolist()

    def weigh(self, weights: Tensor) -> None:
        """Draw stored faces by these weights (N,); the share of each source stays the same. Raises `RecipeError` for
        weights of another shape, and for any that are negative, not finite or 0 for a whole source."""
        values = weights.detach().cpu().double().numpy()
        parts = np.split(values, self._starts[1:-1]) if values.shape == (len(self),) else []
        if not parts or not (np.isfinite(values).all() and (values >= 0).all() and all(p.sum() > 0 for p in parts)):
            raise RecipeError(f"got sampling weights of shape {values.shape}; {len(self)} numbers >= 0 are wanted")
        if self._density is not None:
            share = np.diff(self._density, prepend=0.0)
            sums = [share[a:b].sum() for a, b in zip(self._starts, self._starts[1:])]
            values = np.concatenate([total * p / p.sum() for total, p in zip(sums, parts)])
        self._density = np.cumsum(values)

    def fetch(self, seen: int, count: int, step: int, rank: int = 0, world: int = 1) -> list[StoredBatch]:
        """The faces of one step, by source: `count` faces after the first `seen` ones, of which process `rank` of
        `world` gets its share."""
        parts: list[StoredBatch] = []
        before, after = seen, seen + count  # of the stored faces alone
        for faces, share in self.live:
            first, last = int(share * seen), int(share * (seen + count))
            before, after, size = before - first, after - last, last - first
            mine = first + size * rank // world, first + size * (rank + 1) // world
            if mine[0] < mine[1]:
                parts.append(replace(_as_batch(faces.take(*mine), self.points_scheme), number=torch.arange(*mine)))
        if self.stored:
            index = np.sort(self._order(before, after - before, step))[rank::world]
            for source, start, end in zip(self.stored, self._starts, self._starts[1:]):
                rows = index[(index >= start) & (index < end)] - start
                if len(rows):
                    parts.append(replace(source.take(rows), number=torch.from_numpy(rows)))
        return parts

    def shapes(self, count: int) -> tuple[Tensor, Tensor]:
        """Points (count,L,3) and boxes (count,4) of a random sample of faces, in pixels of their pictures; no stored
        picture is read."""
        points, boxes = [], []
        for faces, share in self.live:
            batch = _as_batch(faces.take(0, max(round(share * count), 1)), self.points_scheme)
            points.append(batch.xyz)
            boxes.append(tight_boxes(batch.xyz) if batch.boxes is None else batch.boxes)
        if self.stored:
            index = np.sort(self._order(0, count - sum(map(len, points)), -1))
            points.append(self.xyz[torch.from_numpy(index)])
            boxes.append(torch.from_numpy(np.concatenate([s.boxes for s in self.stored])[index]))
        return torch.cat(points), torch.cat(boxes)

    def close(self) -> None:
        """End the processes that render."""
        for faces, _ in self.live:
            faces.close()

    def _order(self, seen: int, count: int, step: int) -> np.ndarray:
        if self._density is None:
            places = np.arange(seen, seen + count)
            order = {e: _permutation(self.seed, e, len(self)) for e in np.unique(places // len(self)).tolist()}
            return np.array([order[p // len(self)][p % len(self)] for p in places.tolist()])
        # One draw in each of `count` equal parts of the cumulative weights: shares are exact to one face a batch.
        even = (np.arange(count) + np.random.default_rng([self.seed, 1, step + 1]).random(count)) / count
        return np.searchsorted(self._density, even * self._density[-1], side="right").clip(max=len(self) - 1)


def batch_of(parts: list[StoredBatch], augmenter: Augmenter, rng: torch.Generator) -> FaceBatch:
    """The augmented crops of a step, on the generator's device; with vertices if every part has them."""
    return FaceBatch.concat([augmenter(part.to(rng.device), rng) for part in parts])


def _as_batch(face: dict[str, Any], points: str) -> StoredBatch:
    """Rendered samples, each array (B,...), as a batch in the scheme `points`."""
    boxes = torch.as_tensor(tight_boxes(face["xyz"]))
    if points != "ibug68":
        face = face | dict(zip(("xyz", "visible"), in_scheme(face["xyz"], face["visible"], points)))
    image, xyz, visible, rotation = (torch.as_tensor(face[k]) for k in ("image", "xyz", "visible", "rotation"))
    vertices = torch.from_numpy(face["vertices"]).float() if "vertices" in face else None
    expression = torch.from_numpy(as_arkit(face["expression"])) if "expression" in face else None
    pictures = image.permute(0, 3, 1, 2)
    return StoredBatch(xyz, visible, rotation, vertices, expression, images=pictures, boxes=boxes)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def _open(folder: str, pixels: int, head_model: str, points: str) -> Source:
    log = logging.getLogger(__name__)
    if shards_in(folder):
        shards = StoredFaces([folder], points)
        log.info("%s: rendered shards, %s", folder, shards.summary())
        return shards
    layout = recognise(folder, head_model)
    if layout.part == "test":
        log.warning("%s: %s, there is no other: what learns from it must not be measured on it", folder, layout.title)
    try:
        samples = list(layout.read(Path(folder)))
        if not samples:
            raise LandmarkError(f"'{folder}' holds no face with landmarks")
        photos = PhotoFaces(samples, pixels, points)
    except NoFilesError:
        raise
    except LandmarkError as error:
        raise LandmarkError(f"{error}; `canthus data check {folder}` lists all that is wrong") from error
    log.info("%s: %s, %s", folder, layout.title, photos.summary())
    return photos


def _live(name: str, pixels: int, seed: int, device: torch.device | None) -> LiveFaces:
    """On a CPU, workers that render; on a GPU, workers that prepare heads and the GPU, which draws them."""
    from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator  # needs the synth extra
    from canthus.synth.recipe import SynthRecipe

    assets, recipe = name.removeprefix(LIVE) or None, SynthRecipe(size=pixels, seed=seed)
    if device is None or device.type == "cpu":
        return LiveFaces(functools.partial(SynthGenerator, assets, recipe), VIEWS_PER_HEAD)
    from canthus.synth.batch_renderer import render_live

    return render_live(device, assets, recipe)
