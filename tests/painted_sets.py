"""Painted faces (`faces_maker`) in the layouts of the data sets that the papers name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from faces_maker import make_faces
from PIL import Image

from canthus.face.landmarks import convert
from canthus.geometry.rotation import euler_from_matrix


def lp300w(folder: Path, count: int = 8, size: int = 96) -> Path:
    """300W-LP with depth, in AFW and its mirror twin's folder."""
    from scipy.io import savemat

    faces = make_faces(count, size)
    for k in range(count):
        place = folder / ("AFW_Flip" if k % 2 else "AFW")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces["image"][k]).save(place / f"{k}.jpg", quality=95)
        pose = [*euler_from_matrix(faces["rotation"][k].astype(float), "aflw"), 0, 0, 0, 1]
        savemat(place / f"{k}.mat", {"pt3d_68": faces["xyz"][k].T + [[1], [1], [0]], "Pose_Para": np.array([pose])})
    return folder


def fdaw3(folder: Path, count: int = 8, size: int = 96) -> Path:
    """3DFAW: train_img and train_lm."""
    faces = make_faces(count, size)
    for name in ("train_img", "train_lm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(faces["image"][k]).save(folder / "train_img" / f"{k}.jpg", quality=95)
        points = convert(faces["xyz"][k].astype(float), "ibug68", "3dfaw66")[0]
        np.savetxt(folder / "train_lm" / f"{k}_lm.csv", points, "%.5f", ",")
    return folder


def w300(folder: Path, count: int = 8, size: int = 96) -> Path:
    """300-W: helen/trainset."""
    from layouts_maker import pts

    faces = make_faces(count, size)
    place = folder / "helen" / "trainset"
    for k in range(count):
        pts(place / f"{k}.pts", faces["xyz"][k].astype(float))
        Image.fromarray(faces["image"][k]).save(place / f"{k}.png")
    return folder
