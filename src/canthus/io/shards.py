"""How rendered faces lie on disk: npz shards, tar shards, and folders in the layout of 300W-LP.

Each `write_*` takes the samples of one shard as arrays (n,...) and writes it whole or not at all.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
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


def shards_in(folder: str | Path) -> list[Path]:
    """The finished shards of a folder in their order, of whatever layout."""
    return sorted(p for p in Path(folder).glob("shard-*") if p.suffix in (".npz", ".tar", ""))


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
    if (path / "truth.npz").exists():
        pictures = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(path.glob("frame-*.jpg"))]
        return {"image": np.stack(pictures), **read_shard(path / "truth.npz")}
    shard = open_shard(path)
    return shard.read(shard.files)


class FileShard:
    """A tar shard or a folder of files: samples are read from the disk when they are asked for.

    files: the names of the fields. Raises `OSError`, `ValueError` or `tarfile.TarError` where the shard is damaged.
    """

    def __init__(self, path: Path):
        self._files: dict[str, Callable[[], bytes]] = {}
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                self._files = {m.name: partial(_part_of, path, m.offset_data, m.size) for m in tar}
        else:
            self._files = {p.name: p.read_bytes for p in path.iterdir() if p.suffix in (".jpg", ".npz")}
        self._names = sorted(n.removesuffix(".npz") for n in self._files if n.endswith(".npz"))
        lonely = [n for n in self._names if f"{n}.jpg" not in self._files]
        if lonely or not self._names:
            raise ValueError(f"'{lonely[0]}.npz' has no picture" if lonely else "it is empty")
        with self._truth(0) as truth:
            self.files = ["image", *truth.files]

    def read(self, fields: Sequence[str]) -> Samples:
        """These fields (n,...) of all samples. Raises `KeyError` for a name that is none."""
        samples = []
        for k in range(len(self._names)):
            with self._truth(k) as truth:
                samples.append({name: self._image(k) if name == "image" else truth[name] for name in fields})
        return {name: np.stack([sample[name] for sample in samples]) for name in fields}

    def rows(self, field: str) -> Rows:
        """A field that stays on the disk."""

        def row(k: int) -> np.ndarray:
            with self._truth(k) as truth:
                return truth[field]

        return Rows(self._image if field == "image" else row, len(self._names))

    def _truth(self, k: int):
        return np.load(io.BytesIO(self._files[f"{self._names[k]}.npz"]()), allow_pickle=False)

    def _image(self, k: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self._files[f"{self._names[k]}.jpg"]())).convert("RGB"))


class NpzShard:
    """An npz shard, as `FileShard`; rows are memory-mapped where they are stored as they are (`np.savez`)."""

    def __init__(self, path: Path):
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self.files = file.files

    def read(self, fields: Sequence[str]) -> Samples:
        """As `FileShard.read`."""
        with np.load(self.path, allow_pickle=False) as file:
            return {name: file[name] for name in fields}

    def rows(self, field: str) -> np.ndarray:
        """As `FileShard.rows`."""
        return _mapped(self.path, field)


class Rows:
    """What an array (n,...) is to those who take single rows, `rows[k]`: each is read when it is asked for."""

    def __init__(self, read: Callable[[int], np.ndarray], count: int):
        first = read(0)
        self._read, self.shape, self.dtype = read, (count, *first.shape), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, k: int) -> np.ndarray:
        return self._read(k)


def open_shard(path: Path) -> NpzShard | FileShard:
    """A shard of any layout, to be read in parts."""
    return NpzShard(path) if path.suffix == ".npz" else FileShard(path)


def _part_of(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


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


def _mapped(path: Path, name: str) -> np.ndarray:
    """An array of an npz: memory-mapped where it is stored as it is (`np.savez`), read where it is compressed."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            if info.compress_type != zipfile.ZIP_STORED:
                return np.lib.format.read_array(member, allow_pickle=False)
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(member)
            start = member.tell()
        if dtype.hasobject:
            raise ValueError(f"'{name}' is pickled (allow_pickle is off)")
        # the file's own header in the archive: 30 bytes, then name and extra field, whose lengths are at byte 26
        raw.seek(info.header_offset + 26)
        start += info.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
        if raw.seek(0, os.SEEK_END) < start + dtype.itemsize * int(np.prod(shape)):
            raise ValueError("it is cut off")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
