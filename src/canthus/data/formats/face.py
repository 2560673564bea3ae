"""One annotated face, whatever set it is from, and the checks that every reader makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from canthus.decode import decoding
from canthus.errors import CanthusError, LandmarkError, NoFilesError
from canthus.face.landmarks import scheme

Faults = list[CanthusError]
"""What is wrong with single faces of a set: given to a reader, it is filled instead of the first being raised."""

Part = Literal["train", "test"]

_ENDINGS = (".jpg", ".png", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
PICTURES = (*_ENDINGS, *(ending.upper() for ending in _ENDINGS))
LEAST = 1.0  # px: longer side of the box of points that can be those of a face


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One annotated face.

    image: path of the picture, or (H,W,3) uint8 where the set keeps pictures inside another file.
    points: (L,3) or (L,2) pixels in `scheme`, NaN where a point is not annotated; z nearer = larger with mean zero.
    rotation: (3,3) camera-from-head, or None. scheme: name of the landmark scheme.
    name: tells the face from the others of its set: its path below the set's folder without the ending, with "#k"
    where a picture has several.
    box: (4,) the box that the set comes with, or None.
    visible: (L,) bool, or None where the set does not say.
    angles: (3,) pitch, yaw, roll in radians by the "aflw" convention exactly as the set stores them (not wrapped), or
    None. yaw: radians, a second label of the yaw, or None. groups: names of the subsets that the face is in.
    relabelled: (L,2) a later annotation of the same points, or None.
    expression: (52,) coefficients in the order of `expressions.EXPRESSIONS`, NaN where unknown, or None.
    modes: (K,) coefficients of the head model that the label is a fit of, identity and then expression, as lengths:
    each times the length (root of the sum of squares) of its mode at the 68 landmarks, in the model's unit; or None. So
    they do not depend on how a file scales the modes.
    """

    image: Path | np.ndarray
    points: np.ndarray
    rotation: np.ndarray | None = None
    scheme: str = "ibug68"
    name: str = ""
    box: np.ndarray | None = None
    visible: np.ndarray | None = None
    angles: np.ndarray | None = None
    yaw: float | None = None
    groups: frozenset[str] = frozenset()
    relabelled: np.ndarray | None = None
    expression: np.ndarray | None = None
    modes: np.ndarray | None = None


@contextmanager
def noting(faults: Faults | None) -> Iterator[None]:
    """Add an error of the block to `faults` and go on after it; without, it is raised."""
    try:
        yield
    except CanthusError as error:
        if faults is None:
            raise
        faults.append(error)


def checked(sample: FaceSample, where: str | Path, reach: float = 1.0) -> FaceSample:
    """The sample itself. Raises `LandmarkError` that names `where` for a picture that is missing, a wrong number of
    points, no annotated point, infinities, points at one place, or a point farther outside than `reach` times the
    picture's size."""
    count = scheme(sample.scheme).count
    points = sample.points
    if points.shape not in ((count, 2), (count, 3)):
        raise LandmarkError(f"'{where}' has landmarks of shape {points.shape}; ({count}, 2 or 3) is wanted")
    if np.isinf(points).any():
        raise LandmarkError(f"'{where}' has infinite landmarks; finite pixels are wanted")
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        raise LandmarkError(f"'{where}' has no annotated point (all are NaN or hidden)")
    if known.sum() > 1 and at_one_place(points[known]):
        raise LandmarkError(f"'{where}' has all its points at one place; those of a face are wanted")
    size = np.array(picture_size(sample.image, where))
    inside = (points[known, :2] > -reach * size) & (points[known, :2] < (1 + reach) * size)
    if not inside.all():
        far = points[known, :2][~inside.all(axis=1)][0]
        raise LandmarkError(
            f"'{where}' has a point at ({far[0]:.0f}, {far[1]:.0f}), far outside its picture of {size[0]}x{size[1]} px"
        )
    return sample


def at_one_place(points: np.ndarray) -> np.ndarray:
    """Whether the points (...,L,2 or 3) lie within a pixel: of each face, (...)."""
    return np.asarray(np.ptp(points[..., :2], axis=-2).max(-1) < LEAST)


def complete(points: np.ndarray, where: str | Path) -> np.ndarray:
    """The points themselves. Raises `LandmarkError` if one is NaN."""
    if not np.isfinite(points).all():
        raise LandmarkError(f"'{where}' has NaN or infinite landmarks; finite pixels are wanted")
    return points


def picture_size(image: Path | np.ndarray, where: str | Path) -> tuple[int, int]:
    """Width and height, px; only the header of a file is read. Raises `LandmarkError` that names `where`."""
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    if not image.is_file():
        raise LandmarkError(f"'{where}' has no picture '{image.name}' beside it")
    with decoding(LandmarkError, f"'{where}' belongs to the picture '{image}', which cannot be read"):
        with Image.open(image) as opened:
            return opened.size


def picture_at(path: Path) -> Path | None:
    """The picture at a path, whose ending is that of a picture instead of its own; None where there is none."""
    return next((p for p in map(path.with_suffix, PICTURES) if p.is_file()), None)


def picture_of(annotation: Path, at: Path | None = None) -> Path:
    """The picture of an annotation file, as `picture_at` of `at`, or beside it. Raises `LandmarkError`."""
    at = at or annotation
    picture = picture_at(at)
    if picture is None:
        where = "beside it" if at.parent == annotation.parent else f"in '{at.parent}'"
        raise LandmarkError(f"'{annotation}' has no picture '{at.stem}.jpg', .png or the like {where}")
    return picture


def interpolated(frames: np.ndarray, known: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (F,L,D) at `frames` (F,), linear between `points` (K,L,D) at the rising frames `known` (K,)."""
    columns = points.reshape(len(known), -1).T
    return np.stack([np.interp(frames, known, c) for c in columns], axis=1).reshape(len(frames), *points.shape[1:])


def name_of(path: Path, folder: Path) -> str:
    """The name of a face: its path below `folder` without the ending, with forward slashes."""
    return path.relative_to(folder).with_suffix("").as_posix()


def some(paths: Iterable[Path], wanted: str, folder: Path) -> list[Path]:
    """The paths in order. Raises `NoFilesError` if there is none."""
    found = sorted(paths)
    if not found:
        raise NoFilesError(f"no {wanted} in '{folder}'")
    return found
