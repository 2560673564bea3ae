"""Sets whose labels are fits of a head model: 300W-LP and AFLW2000-3D."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from canthus.data.formats.face import (
    FaceSample,
    Faults,
    checked,
    complete,
    name_of,
    noting,
    picture_of,
    picture_size,
    some,
)
from canthus.data.formats.files import load_mat, load_npy
from canthus.data.formats.folders import files_in
from canthus.decode import decoding, read_npz
from canthus.errors import LandmarkError
from canthus.face.morphable_formats import read_3ddfa
from canthus.geometry.rotation import matrix_from_euler

KIT = "test.configs"  # where 3DDFA keeps its arrays


def read_aflw2000(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The faces of a folder in the layout of AFLW2000-3D: NAME.jpg beside NAME.mat, in the order of names.

    `pt3d_68` (3,68) are 1-based pixels with z towards the viewer; `Pose_Para` begins with pitch, yaw, roll in radians,
    R = Rx Ry Rz. Where the folder or its `test.configs` holds the arrays that 3DDFA distributes, rows in the order of
    names, `AFLW2000-3D-Reannotated.pts68.npy` (N,2,68) gives `relabelled` and `AFLW2000-3D-new.pose.npy` (N,), yaws in
    degrees labelled by AFLW, gives `yaw`; `reannotated.npz` with `name` (N,) and `pts68` (N,2,68) does the first too.
    Raises `LandmarkError` naming the file for a pair that is incomplete or holds other shapes or NaN.
    """
    folder = Path(folder)
    paths = some(files_in(folder, "*.mat"), ".mat files (a folder of NAME.jpg and NAME.mat pairs is wanted)", folder)
    again, yaws = _relabelled(folder, paths), _kit(folder, "AFLW2000-3D-new.pose.npy", (len(paths),))
    for k, path in enumerate(paths):
        with noting(faults):
            image = picture_of(path)
            mat = load_mat(path, ("pt3d_68", "Pose_Para"))
            sample = FaceSample(image, _depth_points(mat["pt3d_68"], path), name=name_of(path, folder))
            sample = replace(sample, **_pose(mat, path), relabelled=again.get(path.stem))
            yield checked(replace(sample, yaw=None if yaws is None else float(np.deg2rad(yaws[k]))), path)


def read_300wlp(
    folder: str | Path, faults: Faults | None = None, model: LandmarkModel | None = None
) -> Iterator[FaceSample]:
    """The faces of 300W-LP: NAME.jpg beside NAME.mat in AFW, HELEN, IBUG, LFPW and their _Flip twins, or right here.

    The files as distributed hold `pt2d` (2,68) and no depth: points are then (68,2), or what
    `landmarks/SET/NAME_pts.mat` says in `pts_3d` (68, 2 or 3), the points of the mesh. With the head `model` of the
    labels points are (68,3), from `Shape_Para`, `Exp_Para` and all of `Pose_Para`, and `modes` are those of the first
    two; points are (68,3) also where `pt3d_68` is there (`canthus synth --format 300wlp` writes it). Raises as
    `read_aflw2000`.
    """
    folder = Path(folder)
    beside = {"landmarks", "Code"}
    found = (p for p in files_in(folder, "**/*.mat") if not beside & set(p.relative_to(folder).parts))
    for path in some(found, ".mat files (folders of NAME.jpg and NAME.mat pairs are wanted)", folder):
        with noting(faults):
            image, modes = picture_of(path), None
            mat = load_mat(path, ("Pose_Para",), optional=("pt3d_68",))
            more = path.parents[1] / "landmarks" / path.parent.name / f"{path.stem}_pts.mat"
            if "pt3d_68" in mat:
                points = _depth_points(mat["pt3d_68"], path)
            elif model is not None:
                fitted = load_mat(path, ("Shape_Para", "Exp_Para", "Pose_Para"))
                points, modes = model.points(fitted, picture_size(image, path)[1], path)
            elif more.is_file():
                points = _plane_points(load_mat(more, ("pts_3d",))["pts_3d"], more)
            else:
                points = _plane_points(load_mat(path, ("pt2d",))["pt2d"].T, path)
            group = frozenset({path.parent.name} - {folder.name})
            sample = FaceSample(image, points, name=name_of(path, folder), groups=group, modes=modes)
            yield checked(replace(sample, **_pose(mat, path)), path)


class LandmarkModel:
    """The head model of the labels of 300W-LP at its 68 landmarks: the Basel model with FaceWarehouse expressions.

    folder: the owner's copy, as `face.morphable_formats.read_3ddfa` takes it. Raises `ModelError`.
    """

    def __init__(self, folder: str | Path):
        # coefficients of the labels are not in standard deviations: modes as they are stored
        model = read_3ddfa(folder, deviations=(np.ones(1), np.ones(1)))
        mean, identity, expression = (model.at_landmarks(a) for a in (model.mean, model.identity, model.expression))
        self.mean = mean.astype(np.float64) + model.card["origin"]
        self.modes = np.concatenate([identity, expression]).astype(np.float64)
        self.sizes = len(identity), len(expression)
        self.lengths = np.linalg.norm(self.modes, axis=(1, 2))

    def points(self, mat: Mapping[str, Any], height: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The points (68,3) of a picture of `height` px, 0-based, mean z zero, and `FaceSample.modes` (K,), by
        `Pose_Para` (pitch, yaw, roll, shift (3), scale), `Shape_Para` and `Exp_Para`: V = f R X + t counts x from 1 and
        y from the bottom."""
        parts = [np.asarray(mat[key], np.float64).ravel() for key in ("Shape_Para", "Exp_Para", "Pose_Para")]
        if tuple(map(len, parts)) != (*self.sizes, 7) or not all(np.isfinite(p).all() for p in parts):
            wanted = f"{self.sizes[0]}, {self.sizes[1]} and 7 finite ones are wanted"
            raise LandmarkError(
                f"'{path}' has {[len(p) for p in parts]} numbers of shape, expression and pose; {wanted}"
            )
        identity, expression, pose = parts
        coefficients = np.concatenate([identity, expression])
        head = self.mean + np.tensordot(coefficients, self.modes, 1)
        image = pose[6] * head @ matrix_from_euler(pose[:3], "aflw").T + pose[3:6]
        points = np.stack([image[:, 0] - 1, height - image[:, 1], image[:, 2] - image[:, 2].mean()], axis=1)
        return points, coefficients * self.lengths


def _depth_points(array: np.ndarray, path: Path) -> np.ndarray:
    points = np.asarray(array, np.float64).T
    if points.shape != (68, 3):
        raise LandmarkError(f"'{path}' has landmarks of shape {points.T.shape}; finite (3, 68) is wanted")
    complete(points, path)
    return points - [1, 1, points[:, 2].mean()]


def _plane_points(array: np.ndarray, path: Path) -> np.ndarray:
    points = np.asarray(array, np.float64)
    if points.shape not in ((68, 2), (68, 3)):
        raise LandmarkError(f"'{path}' has landmarks of shape {points.shape}; 68 points of 2 or 3 numbers are wanted")
    complete(points, path)
    return points - [1, 1, *points[:, 2:].mean(0)]


def _pose(mat: dict[str, Any], path: Path) -> dict[str, Any]:
    angles = np.asarray(mat["Pose_Para"], np.float64).ravel()[:3]
    if len(angles) < 3 or not np.isfinite(angles).all():
        raise LandmarkError(f"'{path}' has the pose {angles.tolist()}; finite pitch, yaw and roll are wanted")
    return {"angles": angles, "rotation": matrix_from_euler(angles, "aflw")}


def _relabelled(folder: Path, paths: list[Path]) -> dict[str, np.ndarray]:
    """Name -> (68,2) of the re-annotation, 0-based; empty without one."""
    rows = _kit(folder, "AFLW2000-3D-Reannotated.pts68.npy", (len(paths), None, 68))
    if rows is not None:
        return {p.stem: row[:2].T - 1 for p, row in zip(paths, rows)}
    file = folder / "reannotated.npz"
    if not file.is_file():
        return {}
    with decoding(LandmarkError, f"'{file}' cannot be read (name, pts68 are wanted)"):
        z = read_npz(file, ("name", "pts68"))
        if z["pts68"].shape != (len(z["name"]), 2, 68) or z["pts68"].dtype.kind not in "iuf":
            raise ValueError(f"pts68 is {z['pts68'].dtype} of shape {z['pts68'].shape}; numbers (N, 2, 68) are wanted")
        return {Path(str(name)).stem: row.T - 1 for name, row in zip(z["name"], z["pts68"].astype(np.float64))}


def _kit(folder: Path, name: str, shape: tuple[int | None, ...]) -> np.ndarray | None:
    for path in (folder / name, folder / KIT / name):
        if path.is_file():
            return load_npy(path, shape)
    return None
