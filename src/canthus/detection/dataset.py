"""Composites on the disk: drawn once by several processes, then read in any order, turned and mirrored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from canthus.decode import decoding
from canthus.detection.composites import Composer, CutOuts, FaceTruth
from canthus.detection.loss import FacesTruth
from canthus.detection.network import load_network
from canthus.errors import RecipeError
from canthus.io.outputs import atomic_open, make_folder, remove_leftovers
from canthus.io.shards import NpzShard
from canthus.synth.light import Environment, procedural_environments
from canthus.workers import Workers

PART = 256  # pictures in a file
MOST_FACES = 48  # of a picture
FIELDS = ("image", *FaceTruth._fields, "there")

# folders of heads, of environment maps, of photos, of objects; weights of a detector that mines hard negatives
Sources = tuple[tuple[str, ...], str | None, str | None, str | None, str | None]


def part_path(folder: Path, number: int) -> Path:
    """Where file `number` of the composites lies."""
    return folder / f"part-{number:05d}.npz"


def draw_composites(folder: Path, sources: Sources, parts: int, side: int, seed: int, workers: int) -> Iterator[int]:
    """Draw the files that are missing; yields how many there are, as each is done. Raises `RecipeError` where a source
    cannot be read (`ModelError` for an environment map), `OutputError`."""
    make_folder(folder)
    remove_leftovers(folder)
    missing = [n for n in range(parts) if not os.path.exists(part_path(folder, n))]
    if not missing:
        return
    composer_of(sources, side)  # says here what is wrong with them
    pool = Workers(workers)
    try:
        jobs = [pool.submit(_draw, folder, sources, side, seed, number) for number in missing]
        for done, job in enumerate(as_completed(jobs), parts - len(missing) + 1):
            job.result()
            yield done
    finally:
        pool.stop()


@lru_cache(1)
def composer_of(sources: Sources, side: int) -> Composer:
    """What draws from these folders. Without environment maps there are procedural ones."""
    heads, environments, photos, objects, weights = sources
    maps = procedural_environments()
    with decoding(RecipeError, f"the environment maps in '{environments}' cannot be read"):
        if environments is not None:
            maps = [Environment.load(path) for path in sorted(Path(environments).glob("*.exr"))]
            if not maps:
                raise ValueError("there is no .exr")
    pictures = []
    with decoding(RecipeError, f"the photos in '{photos}' cannot be read"):
        if photos is not None:
            pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path(photos).iterdir())]
    things = []
    with decoding(RecipeError, f"the objects in '{objects}' cannot be read"):
        if objects is not None:
            things = sorted(Path(objects).iterdir())
            if not things:
                raise ValueError("there is no picture")
            for path in things:
                with Image.open(path):
                    pass
    return Composer(CutOuts(heads), maps, pictures, things, side, None if weights is None else _judge(weights))


def _judge(weights: str) -> Callable[[np.ndarray], np.ndarray]:
    """The highest score that a detector gives anywhere in pictures (N,S,S,3), as (N,)."""
    network = load_network(weights).eval()

    @torch.inference_mode()
    def judge(pictures: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(pictures)).score.amax(1).numpy()

    return judge


def _draw(folder: Path, sources: Sources, side: int, seed: int, number: int) -> None:
    composer = composer_of(sources, side)
    images, truths = zip(*(composer.compose(seed, number * PART + k) for k in range(PART)))
    columns: dict[str, Any] = {"image": np.stack(images)}
    for name in FaceTruth._fields:
        columns[name] = np.stack([_padded(getattr(truth, name)) for truth in truths])
    columns["there"] = np.stack([np.arange(MOST_FACES) < len(truth.box) for truth in truths])
    with atomic_open(part_path(folder, number)) as file:
        np.savez(file, **columns)


def _padded(values: np.ndarray) -> np.ndarray:
    """Values (F,...) of at most MOST_FACES faces as (MOST_FACES,...), float32 or bool."""
    out = np.zeros((MOST_FACES, *values.shape[1:]), bool if values.dtype == bool else np.float32)
    out[: len(values)] = values
    return out


class Composites:
    """The files of `draw_composites`; memory-mapped. Raises `RecipeError` if one is damaged."""

    def __init__(self, folder: Path, parts: int):
        with decoding(RecipeError, f"the composites in '{folder}' cannot be read; draw them anew"):
            shards = [NpzShard(part_path(folder, number)) for number in range(parts)]
            self._rows = [tuple(shard.rows(name) for name in FIELDS) for shard in shards]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, FacesTruth]:
        """`count` random pictures (B,S,S,3) uint8, each as it is or mirrored, turned by quarters, brighter or darker,
        and their faces."""
        items = [_varied(rng, *self.row(int(k))) for k in rng.integers(len(self), size=count)]
        images, *truth, there = (np.stack(values) for values in zip(*items))
        most = max(int(there.sum(1).max()), 1)
        box, upright, up, wanted = (torch.from_numpy(values[:, :most]) for values in truth)
        return torch.from_numpy(images), FacesTruth(box, upright, up, wanted, torch.from_numpy(there[:, :most]))

    def __len__(self) -> int:
        return len(self._rows) * PART

    def row(self, number: int) -> tuple[np.ndarray, ...]:
        """Picture `number` and its padded truth: FIELDS."""
        return tuple(np.array(rows[number % PART]) for rows in self._rows[number // PART])


def _varied(
    rng: np.random.Generator,
    image: np.ndarray, box: np.ndarray, upright: np.ndarray, up: np.ndarray, wanted: np.ndarray, there: np.ndarray,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """A picture and its truth, half of the time mirrored, a quarter of it turned by quarters, half of it dimmed."""
    last = len(image) - 1
    if rng.random() < 0.5:
        image = image[:, ::-1]
        box = np.stack([last - box[:, 2], box[:, 1], last - box[:, 0], box[:, 3]], 1)
        upright = upright * np.array([-1, 1, 1], np.float32) + np.array([last, 0, 0], np.float32)
        up = up * np.array([-1, 1], np.float32)
    for _ in range(int(rng.integers(1, 4)) if rng.random() < 0.25 else 0):  # clockwise: x, y becomes last - y, x
        image = np.rot90(image, -1)
        box = np.stack([last - box[:, 3], box[:, 0], last - box[:, 1], box[:, 2]], 1)
        upright = np.stack([last - upright[:, 1], upright[:, 0], upright[:, 2]], 1)
        up = np.stack([-up[:, 1], up[:, 0]], 1)
    if rng.random() < 0.5:
        image = np.clip(image * np.float32(np.exp(rng.normal(0, 0.2))), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image), box, upright, up, wanted, there
