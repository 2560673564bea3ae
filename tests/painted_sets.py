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


def aflw_full(folder: Path, count: int = 8, size: int = 96) -> Path:
    """AFLW-Full: `count` faces, all 20,000 rows for training and `count` for testing."""
    from scipy.io import savemat

    faces = make_faces(count, size)
    points = convert(faces["xyz"][..., :2].astype(float), "ibug68", "aflw19")[0]
    names = np.empty((count, 1), object)
    names[:, 0] = [f"0/{k}.png" for k in range(count)]
    place = folder / "data" / "flickr" / "0"
    place.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(faces["image"][k]).save(place / f"{k}.png")
    low, high = points.min(1), points.max(1)
    middle, half = (low + high) / 2 + 1, 0.7 * (high - low).max(1)
    sides = middle[:, 0] - half, middle[:, 0] + half, middle[:, 1] - half, middle[:, 1] + half
    mat = {
        "data": np.swapaxes(points + 1, 1, 2).reshape(count, 38), "bbox": np.stack(sides, 1), "nameList": names,
        "mask_new": np.ones((count, 19)), "ra": (np.arange(20000 + count) % count + 1)[None],
    }  # fmt: skip
    savemat(folder / "AFLWinfo_release.mat", mat)
    return folder


def aflw21(folder: Path, count: int = 8, size: int = 120) -> Path:
    """AFLW as 3DDFA distributes it: crops of 120 px, points 3 and 12 hidden in every other face."""
    faces = make_faces(count, size)
    points = convert(faces["xyz"][..., :2].astype(float), "ibug68", "aflw21")[0]
    points[::2, [3, 12]] = -1
    kit, place = folder / "test.configs", folder / "AFLW_GT_crop"
    for new in (kit, place):
        new.mkdir(parents=True, exist_ok=True)
    np.save(kit / "AFLW_GT_pts21.npy", points.transpose(0, 2, 1))
    np.save(kit / "AFLW_GT_crop_roi_box.npy", np.array([[0.0, 0, 120, 120]] * count))
    np.save(kit / "AFLW_GT_crop_yaws.npy", np.zeros(count))
    (folder / "AFLW_GT_crop.list").write_text("\n".join(f"{k}.png" for k in range(count)))
    for k in range(count):
        Image.fromarray(faces["image"][k]).save(place / f"{k}.png")
    return folder
