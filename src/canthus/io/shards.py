"""How rendered faces lie on disk: npz shards, tar shards, and folders in the layout of 300W-LP.

Each `write_*` takes the samples of one shard as arrays (n,...) and writes it whole or not at all.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from canthus.decode.arrays import array_names, npy_header, open_npz, read_npz
from canthus.geometry.rotation import euler_from_matrix
from canthus.io.outputs import atomic_folder, atomic_open

Samples = dict[str, np.ndarray]
QUALITY = 95  # of the JPEG files
MATLAB_HEADER = b"MATLAB 5.0 MAT-file, written by canthus".ljust(116)  # SciPy would write the time

# What readers rely on, of one sample: kinds of number and shape (None: any).
_KNOWN: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "image": ("u", (None, None, 3)), "xyz": ("f", (68, 3)), "visible": ("b", (68,)), "rotation": ("f", (3, 3)),
    "vertices": ("f", (None, 3)), "expression": ("f", (None,)),
}  # fmt: skip


def shard_path(out: str | Path, number: int, layout: str = "npz") -> Path:
    """Where shard `number` lies: a file, or for 300wlp a folder."""
    name = f"shard-{number:05d}"
    return Path(out) / (name if layout == "300wlp" else f"{name}.{layout}")


def shards_in(folder: str | Path) -> list[Path]:
    """The finished shards of a folder in their order, of whatever layout."""
    return sorted(p for p in Path(folder).glob("shard-*") if p.suffix in (".npz", ".tar", ""))


def write_shard(path: Path, samples: Samples, first: int, layout: str) -> None:
    """Write samples (n,...) of which the first has the number `first` as the shard `path`. Raises `OutputError`."""
    if layout == "300wlp":
        with atomic_folder(path) as folder:
            _write_300wlp(folder, samples, first)
        return
    with atomic_open(path) as file:
        if layout == "npz":
            arrays = io.BytesIO()  # np.savez leaves an open archive behind when a disk is full
            np.savez(arrays, **_named(samples))
            file.write(arrays.getbuffer())
        else:
            _write_tar(file, samples, first)


def read_shard(path: Path) -> Samples:
    """The samples (n,...) of a shard of any layout, or the frames of a clip; JPEG has cost all pictures but those of
    npz shards a little. Raises as `open_shard`."""
    if (path / "truth.npz").exists():
        pictures = [_decoded(p.read_bytes()) for p in sorted(path.glob("frame-*.jpg"))]
        return {"image": np.stack(pictures), **read_shard(path / "truth.npz")}
    shard = open_shard(path)
    return shard.read(shard.files)


class FileShard:
    """A tar shard or a folder of files: samples are read from the disk when they are asked for.

    files: the names of the fields.
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
        self.files = ["image", *self._truth(0)]

    def read(self, fields: Sequence[str]) -> Samples:
        """These fields (n,...) of all samples."""
        samples = []
        for k in range(len(self._names)):
            truth = self._truth(k, [name for name in fields if name != "image"])
            samples.append({name: self._image(k) if name == "image" else truth[name] for name in fields})
        return _checked({name: np.stack([sample[name] for sample in samples]) for name in fields})

    def rows(self, field: str) -> Rows:
        """A field that stays on the disk."""

        def row(k: int) -> np.ndarray:
            return self._image(k) if field == "image" else self._truth(k, [field])[field]

        return _with_known_rows(field, Rows(row, len(self._names)))

    def _truth(self, k: int, fields: Sequence[str] | None = None) -> Samples:
        return read_npz(self._files[f"{self._names[k]}.npz"](), fields)

    def _image(self, k: int) -> np.ndarray:
        return _decoded(self._files[f"{self._names[k]}.jpg"]())


class NpzShard:
    """An npz shard, as `FileShard`; rows are memory-mapped where they are stored as they are (`np.savez`)."""

    def __init__(self, path: Path):
        self.path = path
        with open_npz(path) as archive:
            self.files = array_names(archive)

    def read(self, fields: Sequence[str]) -> Samples:
        """As `FileShard.read`."""
        return _checked(read_npz(self.path, fields))

    def rows(self, field: str) -> np.ndarray:
        """As `FileShard.rows`. Numbers that stay on the disk are not compared with the archive's checksum."""
        return _with_known_rows(field, _mapped(self.path, field))


class Rows:
    """What an array (n,...) is to those who take single rows, `rows[k]`: each is read when it is asked for."""

    def __init__(self, read: Callable[[int], np.ndarray], count: int):
        first = read(0)
        self._read, self.shape, self.dtype = read, (count, *first.shape), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, k: int) -> np.ndarray:
        row = self._read(k)
        if row.shape != self.shape[1:] or row.dtype != self.dtype:
            raise ValueError(
                f"sample {k} has {row.dtype} of shape {row.shape}; {self.dtype} of {self.shape[1:]} is wanted"
            )
        return row


def open_shard(path: Path) -> NpzShard | FileShard:
    """A shard of any layout, to be read in parts. It and its methods raise `ValueError` where a field is missing, not
    finite, of another shape or kind or shorter than others; `OSError`; and what decoders raise on damage."""
    return NpzShard(path) if path.suffix == ".npz" else FileShard(path)


def _checked(samples: Samples) -> Samples:
    """The samples, if known fields are what they should be and all have the same length, at least 1."""
    counts = {len(values) if values.ndim else 0 for values in samples.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"its arrays have {sorted(counts)} samples; one number above zero is wanted")
    for name, values in samples.items():
        _with_known_rows(name, values)
        if name != "image" and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"`{name}` holds numbers that are not finite")
    return samples


def _with_known_rows(name: str, values: Any) -> Any:
    """An array (n,...) or rows, if the rows of a known field have the wanted kind and shape."""
    kind, sides = _KNOWN.get(name, ("", ()))
    shape = values.shape[1:]
    if kind and (
        values.dtype.kind != kind or len(shape) != len(sides) or any(s not in (None, n) for s, n in zip(sides, shape))
        or (name == "image" and (values.dtype != np.uint8 or 0 in shape))
    ):  # fmt: skip
        wanted = ", ".join("any" if side is None else str(side) for side in sides)
        raise ValueError(
            f"`{name}` is {values.dtype} of shape {values.shape}; (n, {wanted}) of kind '{kind}' is wanted"
        )
    return values


def _decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def _part_of(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def jpeg(image: np.ndarray) -> bytes:
    """A picture (H,W,3) uint8 as JPEG, every pixel with its own colour."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def _named(samples: Samples) -> dict[str, Any]:
    return dict(samples)


def _each(samples: Samples, first: int):
    """(name, picture as JPEG, truth as npz, truth) of every sample."""
    for k, image in enumerate(samples["image"]):
        truth = {key: values[k] for key, values in samples.items() if key != "image"}
        arrays = io.BytesIO()
        np.savez(arrays, **_named(truth))
        yield f"{first + k:08d}", jpeg(image), arrays.getvalue(), truth


def _write_tar(file: BinaryIO, samples: Samples, first: int) -> None:
    """NNNNNNNN.jpg and NNNNNNNN.npz one after the other, as WebDataset reads them."""
    with tarfile.open(fileobj=file, mode="w") as tar:
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
        matlab = io.BytesIO()
        savemat(matlab, mat)
        (folder / f"face_{name}.mat").write_bytes(MATLAB_HEADER + matlab.getvalue()[len(MATLAB_HEADER) :])


def _mapped(path: Path, name: str) -> np.ndarray:
    """An array of an npz: memory-mapped where it is stored as it is (`np.savez`), read where it is compressed."""
    with open_npz(path) as archive, open(path, "rb") as raw:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return read_npz(path, [name])[name]
        with archive.open(info) as member:
            shape, fortran, dtype = npy_header(member)  # type: ignore[arg-type]
            start = member.tell()
        if info.file_size != start + dtype.itemsize * math.prod(shape):
            raise ValueError(f"'{name}' has {info.file_size} bytes; its shape {shape} needs another number")
        # the file's own header in the archive: 30 bytes, then name and extra field, whose lengths are at byte 26
        raw.seek(info.header_offset + 26)
        start += info.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
        if raw.seek(0, os.SEEK_END) < start + dtype.itemsize * math.prod(shape):
            raise ValueError("it is cut off")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
