"""Shards of heads with regions, painted instead of rendered."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from canthus.io.shards import shard_path, write_shard

SIZE = 96
FACE, SKULL = (200, 150, 120), (60, 40, 30)


def make_heads(count: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """Heads (count,96,96): a skull, and on it a face whose skin is the ellipse around the 68 points."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    angle = rng.uniform(0, 2 * np.pi, (count, 68))
    radius = np.sqrt(rng.uniform(0, 1, (count, 68)))
    xyz = np.stack([47 + 18 * radius * np.cos(angle), 50 + 20 * radius * np.sin(angle), 5 * radius], -1)
    xyz[:, :4, :2] = [[29, 50], [65, 50], [47, 30], [47, 70]]  # so that the tight box is known
    region = np.zeros((count, SIZE, SIZE), np.uint8)
    region[:, ((x - 47) / 30) ** 2 + ((y - 46) / 34) ** 2 <= 1] = 2
    region[:, ((x - 47) / 18) ** 2 + ((y - 50) / 20) ** 2 <= 1] = 1
    image = np.full((count, SIZE, SIZE, 3), 255, np.uint8)
    image[region == 2], image[region == 1] = SKULL, FACE
    image[:, 42:46, 38:42], image[:, 42:46, 54:58], image[:, 60:63, 42:54] = 20, 20, (180, 40, 40)
    xyz[..., 2] -= xyz[..., 2].mean(1, keepdims=True)
    return {
        "image": image, "region": region, "xyz": xyz.astype(np.float32), "visible": np.ones((count, 68), bool),
        "rotation": np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
    }  # fmt: skip


def write_heads(folder: Path, **changes: np.ndarray) -> Path:
    """A folder with one shard of heads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(shard_path(folder, 0), make_heads() | changes, 0, "npz")
    return folder
