"""How rendered faces lie on disk: npz shards, tar shards, and folders in the layout of 300W-LP.

Each `write_*` takes the samples of one shard as arrays (n,...) and writes it whole or not at all.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canthus.geometry.rotation import euler_from_matrix

Samples = dict[str, np.ndarray]
QUALITY = 95  # of the JPEG files


def shard_path(out: str | Path, number: int, layout: str = "npz") -> Path:
    """Where shard `number` lies: a file, or for 300wlp a folder."""
    name = f"shard-{number:05d}"
    return Path(out) / (name if layout == "300wlp" else f"{name}.{layout}")


def write_shard(path: Path, samples: Samples, first: int, layout: str) -> None:
    """Write samples (n,...) of which the first has the number `first` as the shard `path`."""
    part = path.with_name(path.name + ".part")
    if layout == "npz":
        with open(part, "wb") as file:
            np.savez(file, **_named(samples))
    elif layout == "tar":
        _write_tar(part, samples, first)
    else:
        _write_300wlp(new_part(path), samples, first)
    os.replace(part, path)


def read_shard(path: Path) -> Samples:
    """The samples (n,...) of a shard of any layout, or the frames of a clip; JPEG has cost all pictures but those of
    npz shards a little."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    if (path / "truth.npz").exists():
        pictures = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(path.glob("frame-*.jpg"))]
        return {"image": np.stack(pictures), **read_shard(path / "truth.npz")}
    files: dict[str, bytes] = {}
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                files[member.name] = file.read() if file else b""
    else:
        files = {p.name: p.read_bytes() for p in path.iterdir() if p.suffix in (".jpg", ".npz")}
    samples = []
    for name in sorted(n for n in files if n.endswith(".npz")):
        with np.load(io.BytesIO(files[name]), allow_pickle=False) as d:
            truth = {key: d[key] for key in d.files}
        image = np.asarray(Image.open(io.BytesIO(files[name.removesuffix("npz") + "jpg"])).convert("RGB"))
        samples.append({"image": image, **truth})
    return {key: np.stack([s[key] for s in samples]) for key in samples[0]}


def jpeg(image: np.ndarray) -> bytes:
    """A picture (H,W,3) uint8 as JPEG, every pixel with its own colour."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def new_part(path: Path) -> Path:
    """An empty folder beside `path`, to be filled and to take its place then."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _named(samples: Samples) -> dict[str, Any]:
    return dict(samples)


def _each(samples: Samples, first: int):
    """(name, picture as JPEG, truth as npz, truth) of every sample."""
    for k, image in enumerate(samples["image"]):
        truth = {key: values[k] for key, values in samples.items() if key != "image"}
        arrays = io.BytesIO()
        np.savez(arrays, **_named(truth))
        yield f"{first + k:08d}", jpeg(image), arrays.getvalue(), truth


def _write_tar(path: Path, samples: Samples, first: int) -> None:
    """NNNNNNNN.jpg and NNNNNNNN.npz one after the other, as WebDataset reads them."""
    with tarfile.open(path, "w") as tar:
        for name, picture, arrays, _ in _each(samples, first):
            for suffix, data in ((".jpg", picture), (".npz", arrays)):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _write_300wlp(folder: Path, samples: Samples, first: int) -> None:
    """face_NNNNNNNN.jpg, .mat and .npz. Pixels count from 1 in the .mat files, as in the original.

    pt2d (2,68): points with the jaw line as seen. pt3d_68 (3,68): mesh points, z towards the viewer. Pose_Para (1,7):
    pitch, yaw, roll (radians, set aflw), shift x, shift y (px, y up from the picture's lower border), 0, scale
    (px/cm of the head). roi (1,4): the whole picture. There are no Basel coefficients.
    """
    from scipy.io import savemat

    for name, picture, arrays, truth in _each(samples, first):
        size = len(samples["image"][0])
        points = truth["xyz"].astype(float)
        seen = points[:, :2].copy()
        seen[:17] = truth["contour"][:, :2]
        shift = truth["weak_shift"]
        pose = [*euler_from_matrix(truth["rotation"].astype(float), "aflw"), shift[0] + 1, size - shift[1], 0.0]
        mat = {
            "pt2d": seen.T + 1,
            "pt3d_68": (points + [1, 1, 0]).T,
            "Pose_Para": np.array([[*pose, truth["weak_scale"]]], np.float32),
            "roi": np.array([[1, 1, size, size]], np.int16),
        }
        (folder / f"face_{name}.jpg").write_bytes(picture)
        (folder / f"face_{name}.npz").write_bytes(arrays)
        savemat(folder / f"face_{name}.mat", mat)
