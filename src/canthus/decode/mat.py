"""Plain arrays of MATLAB files, versions 5 to 7: numbers, text, and cells of these.

SciPy's reader can be made to crash the process by a few flipped bits, so files are read here, with every length checked
before it is believed. Format: "MAT-File Format", The MathWorks, R2019b.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from canthus.decode.door import read_bytes

LARGEST = 2**30  # bytes that a compressed variable may unfold to
HEAD = 4096  # bytes of a compressed variable that surely hold its name

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _CHAR, _OPAQUE = 1, 4, 17
_OTHERS = {2: "a struct", 3: "an object", 5: "a sparse array", 16: "a function", _OPAQUE: "an object"}


class _Head(NamedTuple):
    """What a variable says of itself: class, whether complex, sides, name."""

    kind: int
    complex: bool
    shape: tuple[int, ...]
    name: str


def read_mat(path: str | os.PathLike[str], wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The variables `wanted` of a MATLAB file, as far as it has them; others are passed over.

    Numbers have MATLAB's type and shape, at least two sides; a row of characters is an array () of text; a cell is an
    array of objects, each an array. Raises `ValueError` for damage and for other contents, `OSError`, or `zlib.error`.
    """
    data = read_bytes(path)
    order = _byte_order(data)
    found: dict[str, np.ndarray] = {}
    place = 128
    while place < len(data):
        kind, part, place = _element(data, place, order, padded=False)
        if kind == _COMPRESSED:
            unfolded = _unfolded(part, order, wanted)
            if unfolded is None:
                continue
            kind, part, _ = _element(unfolded, 0, order, padded=False)
        if kind != _MATRIX:
            raise ValueError(f"it holds an element of type {kind} where a variable is wanted")
        name = _head(part, order)[0].name
        if name in found:
            raise ValueError(f"it holds '{name}' twice")
        if name in wanted:
            found[name] = _array(part, order, cells=True)
    return found


def _byte_order(data: bytes) -> str:
    """The sign of `struct` for the byte order of a file, from its first 128 bytes."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it is no MATLAB file of version 5 to 7 (in MATLAB: save -v7)")
    (version,) = struct.unpack(order + "H", data[124:126])
    if version == 0x200:
        raise ValueError("it is a MATLAB file of version 7.3; versions 5 to 7 are wanted (in MATLAB: save -v7)")
    if version != 0x100:
        raise ValueError(f"it says version {version:#x} of MATLAB's files; 0x100 is wanted")
    return order


def _element(data: bytes, place: int, order: str, padded: bool = True) -> tuple[int, bytes, int]:
    """Type and contents of the element at `place`, and the place after it."""
    if place + 8 > len(data):
        raise ValueError("it is cut off")
    kind, size = struct.unpack_from(order + "II", data, place)
    if kind >> 16:  # up to four bytes may share the first eight with type and length
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise ValueError(f"a short element of {size} bytes is announced; at most 4 are possible")
        return kind, data[place + 4 : place + 4 + size], place + 8
    end = place + 8 + size
    if end > len(data):
        raise ValueError(f"an element of {size} bytes is announced, and {len(data) - place - 8} are there")
    return kind, data[place + 8 : end], end + (-size % 8 if padded else 0)


def _unfolded(part: bytes, order: str, wanted: Collection[str]) -> bytes | None:
    """A compressed variable's bytes, or None if it is not wanted, which its beginning tells."""
    unfold = zlib.decompressobj()
    first = unfold.decompress(part, HEAD)
    if len(first) == HEAD and _head(first[8:], order)[0].name not in wanted:
        return None
    rest = unfold.decompress(unfold.unconsumed_tail, LARGEST)
    if not unfold.eof:
        raise ValueError(f"a compressed variable is cut off or unfolds to more than {LARGEST} bytes")
    return first + rest


def _head(part: bytes, order: str) -> tuple[_Head, int]:
    """The head of a variable's contents, and where its values begin."""
    kind, flags, place = _element(part, 0, order)
    if kind != 6 or len(flags) != 8:
        raise ValueError("a variable begins with something else than its class")
    (flag,) = struct.unpack(order + "I", flags[:4])
    if flag & 0xFF == _OPAQUE:  # has no shape
        _, name, place = _element(part, place, order)
        return _Head(_OPAQUE, False, (0, 0), name.decode("utf-8")), place
    kind, sides, place = _element(part, place, order)
    if kind != 5 or len(sides) % 4 or not 8 <= len(sides) <= 128:
        raise ValueError("a variable has no shape")
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    if min(shape) < 0:
        raise ValueError(f"a variable has the shape {shape}")
    kind, name, place = _element(part, place, order)
    if kind not in (1, 16):
        raise ValueError("a variable has no name")
    return _Head(flag & 0xFF, bool(flag & 0x800), shape, name.decode("utf-8")), place


def _array(part: bytes, order: str, cells: bool) -> np.ndarray:
    """The array in a variable's contents. cells: whether it may be a cell."""
    if not part:  # what an empty place of a cell looks like
        return np.zeros((0, 0))
    head, place = _head(part, order)
    count, what = math.prod(head.shape), f"'{head.name}'" if head.name else "a part of a cell"
    if head.kind == _CELL and cells:
        items = list(_cells(part, place, count, order))
        array = np.empty(count, object)
        array[:] = items
    elif head.kind in _CLASSES or head.kind == _CHAR:
        if head.complex:
            raise ValueError(f"{what} is complex; real numbers are wanted")
        kind, values, end = _element(part, place, order)
        if len(part) - end > 7:
            raise ValueError(f"{what} is longer than its shape {head.shape} says")
        if head.kind == _CHAR:
            return _text(kind, values, head, order)
        array = _numbers(kind, values, count, head, order)
    else:
        raise ValueError(f"{what} is {_OTHERS.get(head.kind, 'a cell in a cell')}; a plain array is wanted")
    return array.reshape(head.shape, order="F")


def _cells(part: bytes, place: int, count: int, order: str) -> Iterator[np.ndarray]:
    for _ in range(count):
        kind, inner, place = _element(part, place, order)
        if kind != _MATRIX:
            raise ValueError(f"a cell holds an element of type {kind}; arrays are wanted")
        yield _array(inner, order, cells=False)
    if place < len(part):
        raise ValueError("a cell is longer than its shape says")


def _numbers(kind: int, values: bytes, count: int, head: _Head, order: str) -> np.ndarray:
    """`count` numbers as the class of the variable; whole ones may be stored in fewer bytes."""
    stored, wanted = np.dtype(order + _STORED.get(kind, "V1")), np.dtype(_CLASSES[head.kind])
    packed = stored.kind in "iu" and (stored.itemsize < wanted.itemsize or stored.itemsize == 1)
    if stored.newbyteorder("=") != wanted and not packed:
        raise ValueError(f"'{head.name}' has numbers stored as type {kind}, which {wanted} cannot be")
    if len(values) != count * stored.itemsize:
        raise ValueError(f"'{head.name}' has {len(values)} bytes; its shape {head.shape} needs {count} numbers")
    return np.frombuffer(values, stored).astype(wanted)


def _text(kind: int, values: bytes, head: _Head, order: str) -> np.ndarray:
    if kind not in _TEXT or len(head.shape) != 2 or head.shape[0] > 1:
        raise ValueError(f"'{head.name}' is text of shape {head.shape} and type {kind}; one row is wanted")
    coding = _TEXT[kind] + {"<": "-le", ">": "-be"}[order] * (_TEXT[kind] == "utf-16")
    return np.array(values.decode(coding))
