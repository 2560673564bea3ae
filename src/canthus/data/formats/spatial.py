"""Sets measured in space: 3DFAW, Menpo-3D, BIWI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from canthus.data.formats.face import (
    FaceSample,
    Faults,
    Part,
    checked,
    complete,
    name_of,
    noting,
    picture_at,
    picture_of,
    some,
)
from canthus.data.formats.files import read_ljson
from canthus.data.formats.folders import files_in
from canthus.decode import decoding, read_text
from canthus.errors import LandmarkError, amount
from canthus.geometry.rotation import euler_from_matrix

_OURS = np.diag([1.0, -1.0, -1.0])  # from x right, y down, z away to x right, y up, z towards the camera
HEAD = 75.0  # mm: half the side of the box that stands for a face of BIWI, which has none


def read_3dfaw(folder: str | Path, faults: Faults | None = None, part: Part | None = None) -> Iterator[FaceSample]:
    """3DFAW (2016): NAME.jpg with 66 lines "x,y,z" in NAME_lm.csv, NAME.csv or .txt beside it, or in a folder called
    ..._lm beside ..._img.

    part: "train" for the faces of folders whose names begin so, "test" for the others; all, where there are none of
    the part. Pixels are taken as they are. The sign of z is read off all faces that are read: the nose is nearer than
    the ends of the jaw. Raises `LandmarkError`.
    """
    folder = Path(folder)
    files = files_in(folder, "**/*.csv", "**/*.txt")
    # another text is a label too, of a form that is wrong, where it has a picture
    labels = some((p for p in files if is_shape(p) or picture_at(_picture_path(p))), "files of 66 lines x,y,z", folder)
    of_part = [p for p in labels if part == ("train" if is_training(p.parent.relative_to(folder)) else "test")]
    samples = []
    for path in of_part or labels:
        with noting(faults):
            points = _numbers(path, (66, 3))
            image = picture_of(path, _picture_path(path))
            samples.append((FaceSample(image, points, scheme="3dfaw66", name=name_of(image, folder)), path))
    yield from _nose_first(samples, faults)


def is_training(place: Path) -> bool:
    """Whether a folder of 3DFAW, given by its path below the set's own, is of the training part."""
    return any(part.lower().startswith("train") for part in place.parts)


def _picture_path(path: Path) -> Path:
    """Where the picture of a label of 3DFAW lies, but for its ending."""
    home = path.parent
    if home.name.endswith("_lm"):
        home = home.with_name(home.name.removesuffix("_lm") + "_img")
    return home / (path.stem.removesuffix("_lm") + path.suffix)


def read_menpo3d(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """Menpo-3D: NAME.ljson with 84 points, or 68, beside NAME.jpg or .png; in the plane, or with depth.

    The sign of z is read off the whole set as in `read_3dfaw`. Raises `LandmarkError`.
    """
    folder = Path(folder)
    samples = []
    for path in some(files_in(folder, "**/*.ljson"), ".ljson files", folder):
        with noting(faults):
            points = complete(read_ljson(path), path)
            if len(points) not in (84, 68):
                raise LandmarkError(f"'{path}' has {amount(len(points), 'point')}; 84 or 68 are wanted")
            scheme = {84: "menpo84", 68: "ibug68"}[len(points)]
            samples.append((FaceSample(picture_of(path), points, scheme=scheme, name=name_of(path, folder)), path))
    yield from _nose_first(samples, faults)


def read_biwi(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """BIWI: NN/frame_NNNNN_rgb.png (or .jpg) with frame_NNNNN_pose.txt, a rotation and the head's centre in mm.

    The matrix is camera-from-head with x right, y down, z away from the camera. There are no landmarks (all NaN) and no
    boxes: `box` is a square of 150 mm around the head's centre as `rgb.cal` projects it, good enough to tell which
    detected face is meant. Raises `LandmarkError`.
    """
    folder = Path(folder)
    for path in some(files_in(folder, "*/frame_*_pose.txt"), "NN/frame_NNNNN_pose.txt", folder):
        with noting(faults):
            yield _biwi(path, folder)


def _biwi(path: Path, folder: Path) -> FaceSample:
    values = _numbers(path, (4, 3))
    image = picture_of(path, path.with_name(path.name.replace("_pose.txt", "_rgb.txt")))
    rotation = _OURS @ values[:3] @ _OURS
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2):
        raise LandmarkError(f"'{path}' begins with a matrix that is no rotation")
    return FaceSample(
        image, np.full((68, 2), np.nan), rotation, name=name_of(path, folder).removesuffix("_pose"),
        box=_projected_box(path.parent / "rgb.cal", values[3]), angles=euler_from_matrix(rotation, "aflw"),
        groups=frozenset({path.parent.name}),
    )  # fmt: skip


def _projected_box(path: Path, centre: np.ndarray) -> np.ndarray:
    """The box (4,) of a head centred at `centre` (3,) mm of the depth camera, by the calibration of the colour one:
    a matrix of 3 lines, a line of distortion, a rotation of 3 lines, a shift."""
    with decoding(LandmarkError, f"'{path}' is no calibration of BIWI's colour camera"):
        lines = [[float(w) for w in line.split()] for line in read_text(path).splitlines() if line.strip()]
        matrix, turn, shift = np.array(lines[:3]), np.array(lines[4:7]), np.array(lines[7])
        place = turn @ centre + shift
        middle = (matrix @ place)[:2] / place[2]
        half = matrix[0, 0] * HEAD / place[2]
        return complete(np.concatenate([middle - half, middle + half]), path)


def _nose_first(samples: list[tuple[FaceSample, Path]], faults: Faults | None) -> Iterator[FaceSample]:
    """The samples with z such that noses are nearer than the ends of jaws, mean zero, each checked."""
    ends = {"3dfaw66": (30, 0, 16), "ibug68": (30, 0, 16), "menpo84": (46, 0, 32)}
    deep = [s for s, _ in samples if s.points.shape[1] == 3]
    nose = [s.points[a, 2] - (s.points[b, 2] + s.points[c, 2]) / 2 for s in deep for a, b, c in [ends[s.scheme]]]
    sign = [1, 1, -1 if np.sum(nose) < 0 else 1]
    for sample, path in samples:
        points = sample.points
        if points.shape[1] == 3:
            points = points * sign
            points = points - [0, 0, points[:, 2].mean()]
        with noting(faults):
            yield checked(replace(sample, points=points), path)


def is_shape(path: Path) -> bool:
    """Whether a text file begins with three numbers on a line."""
    if not path.is_file():
        return False
    with open(path, errors="replace") as file:
        words = file.readline().replace(",", " ").split()
    try:
        return len([float(w) for w in words]) == 3
    except ValueError:
        return False


def _numbers(path: Path, shape: tuple[int, int]) -> np.ndarray:
    with decoding(LandmarkError, f"'{path}' is no table of numbers"):
        lines = [line.replace(",", " ").split() for line in read_text(path).splitlines() if line.strip()]
        values = np.array([[float(w) for w in line] for line in lines])
    if values.shape != shape:
        raise LandmarkError(f"'{path}' has numbers of shape {values.shape}; {shape} is wanted")
    return complete(values, path)
