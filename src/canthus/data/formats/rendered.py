"""Our own pictures, as `canthus synth` writes them: their truth is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canthus.data.formats.face import FaceSample, Faults, checked, interpolated, noting, some
from canthus.data.formats.folders import files_in
from canthus.decode import decoding
from canthus.errors import LandmarkError, ModelError
from canthus.face.expressions import EXPRESSIONS, arkit_from_ict
from canthus.geometry.rotation import euler_from_matrix
from canthus.io.shards import Samples, open_shard, shards_in

TRUTH = ("xyz", "visible", "rotation")
EVERY = 10  # frames between those whose labels the others' second labels are interpolated from


def read_renders(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The faces of shards of any layout: shard-NNNNN.npz, .tar, or folders; a shard is held in memory while its faces
    are. `name` is shard-NNNNN#K. Raises `LandmarkError`."""
    folder = Path(folder)
    for path in some(shards_in(folder), "shard-*.npz, shard-*.tar or shard-* folders (`canthus synth`)", folder):
        with noting(faults):
            faces = _read(path, ("image", *TRUTH))
            for k, image in enumerate(faces["image"]):
                with noting(faults):
                    yield checked(_sample(faces, k, image, f"{path.stem}#{k}"), f"{path}, face {k}")


def read_clips(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The frames of clips in order: CLIP/frame-NNNNN.jpg and CLIP/truth.npz. `name` is CLIP/frame-NNNNN.

    `relabelled` is what linear interpolation between the labels of every tenth frame gives, as the test videos of
    "Combining Local and Global Features for 3D Face Tracking" (ICCV Workshops 2017) were labelled. Raises
    `LandmarkError`.
    """
    folder = Path(folder)
    for path in some(files_in(folder, "*/truth.npz"), "CLIP/truth.npz files (`canthus synth --sequence`)", folder):
        with noting(faults):
            yield from _clip(path, faults)


def _clip(path: Path, faults: Faults | None) -> Iterator[FaceSample]:
    frames = _read(path, TRUTH)
    count = len(frames["xyz"])
    known = np.unique([*range(0, count, EVERY), count - 1])
    again = interpolated(np.arange(count), known, frames["xyz"][known, :, :2])
    for k in range(count):
        name = f"{path.parent.name}/frame-{k:05d}"
        image = path.with_name(f"frame-{k:05d}.jpg")
        with noting(faults):
            yield checked(_sample(frames, k, image, name, again[k]), f"{path}, frame {k}")


def _sample(
    truth: Samples, k: int, image: Path | np.ndarray, name: str, relabelled: np.ndarray | None = None
) -> FaceSample:
    rotation = truth["rotation"][k].astype(np.float64)
    return FaceSample(
        image, truth["xyz"][k].astype(np.float64), rotation, name=name, visible=truth["visible"][k],
        angles=euler_from_matrix(rotation, "aflw"), relabelled=relabelled,
        expression=truth["expression"][k] if "expression" in truth else None,
    )  # fmt: skip


def _read(path: Path, wanted: tuple[str, ...]) -> Samples:
    """The wanted fields, and `expression` (n,52) where it is there."""
    with decoding(LandmarkError, f"'{path}' is nothing that `canthus synth` wrote"):
        shard = open_shard(path)
        truth = shard.read([*wanted, *({"expression"} & set(shard.files))])
        if "expression" in truth and truth["expression"].shape[1] != len(EXPRESSIONS):  # of the shipped head they fit
            try:
                truth["expression"] = arkit_from_ict(truth["expression"])
            except ModelError as error:
                raise ValueError(str(error)) from error
        return truth
