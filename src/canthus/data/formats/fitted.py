"""Sets whose labels are fits of a head model: 300W-LP and AFLW2000-3D."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from canthus.data.formats.face import FaceSample, checked, complete, name_of, some
from canthus.data.formats.files import load_mat, load_npy
from canthus.decode import decoding, read_npz
from canthus.errors import LandmarkError
from canthus.geometry.rotation import matrix_from_euler

KIT = "test.configs"  # where 3DDFA keeps its arrays


def read_aflw2000(folder: str | Path) -> Iterator[FaceSample]:
    """The faces of a folder in the layout of AFLW2000-3D: NAME.jpg beside NAME.mat, in the order of names.

    `pt3d_68` (3,68) are 1-based pixels with z towards the viewer; `Pose_Para` begins with pitch, yaw, roll in radians,
    R = Rx Ry Rz. Where the folder or its `test.configs` holds the arrays that 3DDFA distributes, rows in the order of
    names, `AFLW2000-3D-Reannotated.pts68.npy` (N,2,68) gives `relabelled` and `AFLW2000-3D-new.pose.npy` (N,), yaws in
    degrees labelled by AFLW, gives `yaw`; `reannotated.npz` with `name` (N,) and `pts68` (N,2,68) does the first too.
    Raises `LandmarkError` naming the file for a pair that is incomplete or holds other shapes or NaN.
    """
    folder = Path(folder)
    paths = some(folder.glob("*.mat"), ".mat files (a folder of NAME.jpg and NAME.mat pairs is wanted)", folder)
    again, yaws = _relabelled(folder, paths), _kit(folder, "AFLW2000-3D-new.pose.npy", (len(paths),))
    for k, path in enumerate(paths):
        image = path.with_suffix(".jpg")
        if not image.is_file():
            raise LandmarkError(f"'{path}' has no picture '{image.name}' beside it")
        mat = load_mat(path, ("pt3d_68", "Pose_Para"))
        sample = FaceSample(image, _depth_points(mat["pt3d_68"], path), name=name_of(path, folder))
        sample = replace(sample, **_pose(mat, path), relabelled=again.get(path.stem))
        yield checked(replace(sample, yaw=None if yaws is None else float(np.deg2rad(yaws[k]))), path)


def read_300wlp(folder: str | Path) -> Iterator[FaceSample]:
    """The faces of 300W-LP: NAME.jpg beside NAME.mat in AFW, HELEN, IBUG, LFPW and their _Flip twins, or right here.

    The files as distributed hold `pt2d` (2,68) and no depth: points are then (68,2), or what
    `landmarks/SET/NAME_pts.mat` says in `pts_3d` (68, 2 or 3), the points of the mesh. Only where `pt3d_68` is there
    (`canthus synth --format 300wlp` writes it) are points (68,3) for sure. Raises as `read_aflw2000`.
    """
    folder = Path(folder)
    beside = {"landmarks", "Code"}
    found = (p for p in folder.rglob("*.mat") if not beside & set(p.relative_to(folder).parts))
    for path in some(found, ".mat files (folders of NAME.jpg and NAME.mat pairs are wanted)", folder):
        image = path.with_suffix(".jpg")
        if not image.is_file():
            raise LandmarkError(f"'{path}' has no picture '{image.name}' beside it")
        mat = load_mat(path, ("Pose_Para",), optional=("pt3d_68",))
        more = folder / "landmarks" / path.parent.name / f"{path.stem}_pts.mat"
        if "pt3d_68" in mat:
            points = _depth_points(mat["pt3d_68"], path)
        elif more.is_file():
            points = _plane_points(load_mat(more, ("pts_3d",))["pts_3d"], more)
        else:
            points = _plane_points(load_mat(path, ("pt2d",))["pt2d"].T, path)
        group = frozenset({path.parent.name} - {folder.name})
        sample = FaceSample(image, points, name=name_of(path, folder), groups=group)
        yield checked(replace(sample, **_pose(mat, path)), path)


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
