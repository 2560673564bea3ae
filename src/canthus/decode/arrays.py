"""Arrays of NPY and NPZ files, without objects. Unlike `np.load`, every byte that a file declares must be there and no
other, and the checksum of every member of an NPZ is compared: a changed header then cannot pass for a smaller array."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from canthus.decode.door import read_bytes

KINDS = "biufSU"  # truth values, whole numbers, floats, text
LARGEST = 2**30  # bytes that the compressed members of an NPZ may unfold to


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .npy file. Raises `ValueError`, `OSError` or what NumPy raises on damage."""
    return parse_npy(read_bytes(path))


def read_npz(source: str | os.PathLike[str] | bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays by name of an .npz file, or of its bytes; `names`: these and no others.

    Raises `ValueError` where a name is missing or a member is damaged, `OSError`, or what zipfile raises on damage.
    """
    with open_npz(source) as archive:
        stored = array_names(archive)
        names = stored if names is None else names
        missing = [name for name in names if name not in stored]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}; it has {', '.join(stored) or 'nothing'}")
        infos = {name: archive.getinfo(f"{name}.npy") for name in names}
        packed = [info.file_size for info in infos.values() if info.compress_type != zipfile.ZIP_STORED]
        if sum(packed) > LARGEST:
            raise ValueError(f"it would unfold to {sum(packed)} bytes; at most {LARGEST} are wanted")
        return {name: parse_npy(archive.read(info)) for name, info in infos.items()}


def open_npz(source: str | os.PathLike[str] | bytes) -> zipfile.ZipFile:
    """The archive that an .npz file, or its bytes, is. Raises `ValueError` for a pipe or device, and as zipfile."""
    if isinstance(source, bytes):
        return zipfile.ZipFile(io.BytesIO(source))
    if not Path(source).is_file():
        raise ValueError("there is no such regular file")
    return zipfile.ZipFile(source)


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an .npz."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def parse_npy(data: bytes) -> np.ndarray:
    """The array that the bytes of a .npy file hold, in this machine's byte order. Raises `ValueError`, or what NumPy
    raises on damage."""
    file = io.BytesIO(data)
    shape, fortran, dtype = npy_header(file)
    size = math.prod(shape) * dtype.itemsize
    if len(data) - file.tell() != size:
        raise ValueError(f"an array of {size} bytes is announced, and {len(data) - file.tell()} are there")
    flat = np.frombuffer(data, dtype, math.prod(shape), file.tell()) if size else np.zeros(0, dtype)
    return flat.astype(dtype.newbyteorder("="), copy=True).reshape(shape, order="F" if fortran else "C")


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored column by column, and type of the .npy whose first byte is next in `file`; afterwards
    the first number is. Raises `ValueError` for arrays of objects or records."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of version {version} of the NPY format; 1.0 or 2.0 is wanted")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if dtype.kind not in KINDS or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of shape {shape}; plain numbers or text are wanted")
    return tuple(int(side) for side in shape), fortran, dtype
