"""Photos by the million: files, folders, patterns, lists and tar archives, here or at addresses, as a stream."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canthus.decode import decoding
from canthus.errors import ImageError
from canthus.io.images import Picture, decode_picture, memory_of, read_picture
from canthus.io.inputs import Kind, is_address, paths_of
from canthus.io.places import find_files, open_file, read_bytes
from canthus.io.tables import read_columns

LISTS = (".txt", ".csv", ".parquet")
BOX = ("box_x0", "box_y0", "box_x1", "box_y1")  # columns of a list, named as those of tables of faces

Box = tuple[float, float, float, float]


class Photo(NamedTuple):
    """A photo that can be read.

    name: in results: the path or address as it was given; of a member of an archive ARCHIVE/MEMBER. place: path or
    address of the file. start, length: its bytes in that file; None: all. boxes: tight boxes of its faces; None: they
    are to be detected. problem: why it cannot be read, which is told when it is its turn; "": nothing is known.
    """

    name: str
    place: str
    start: int = 0
    length: int | None = None
    boxes: tuple[Box, ...] | None = None
    problem: str = ""


class Opened(NamedTuple):
    """A photo whose bytes are at hand: the content of a file, or None for a file on this machine."""

    photo: Photo
    content: bytes | None

    @classmethod
    def of(cls, photo: Photo) -> Opened:
        """Fetch the bytes of what is not a file of its own on this machine. Raises `ImageError`."""
        if photo.problem:
            raise ImageError(photo.problem)
        if photo.length is None and not is_address(photo.place):
            return cls(photo, None)
        return cls(photo, read_bytes(photo.place, photo.start, photo.length))

    def memory(self, most: int) -> int:
        """Bytes that `picture` takes, by `images.memory_of`."""
        return memory_of(self.photo.place if self.content is None else self.content, most)

    def picture(self, most: int) -> Picture:
        """Decode it, reduced to at most `most` pixels. Raises `ImageError`."""
        if self.content is None:
            return read_picture(self.photo.place, most)
        return decode_picture(self.content, self.photo.name, most)


def photos_in(inputs: Iterable[str | Path], kind: Kind, passed_over: Counter[str]) -> Iterator[Photo]:
    """The photos of all inputs, one after the other, always in the same order.

    An input is a file, folder or pattern, here or at an address; a tar archive, of which the members that are photos
    are taken; or a list: a text file with a path or address a line, or a table, .csv or .parquet, with these in the
    column `image` and, if it has the columns BOX, a face's box in each row. Of the other files in folders the suffixes
    are counted in `passed_over`. Raises `ImageError` for an input that gives nothing or cannot be read.
    """
    for given in [os.fspath(one) for one in inputs]:
        suffix = os.path.splitext(given)[1].lower()
        if suffix in LISTS and not any(mark in given for mark in "*?["):
            none = True
            for photo in _listed(given, suffix):
                none = False
                yield photo
            if none:
                raise ImageError(f"got the list {given} without a photo, want a path or address in each line")
        elif is_address(given):
            yield from _remote(given, kind, passed_over)
        elif suffix == ".tar" and os.path.isfile(given):
            yield from _members(given, kind, passed_over)
        else:
            yield from _local(given, kind, passed_over)


def is_collection(given: str) -> bool:
    """Whether an input is a list or an archive of photos, by its name."""
    return os.path.splitext(given)[1].lower() in (*LISTS, ".tar") and not os.path.isdir(given)


def _local(given: str, kind: Kind, passed_over: Counter[str]) -> Iterator[Photo]:
    tars = Kind(kind.what, kind.error, lambda name: kind.wanted(name) or name.endswith(".tar"), hints=kind.hints)
    for path in paths_of(given, tars, passed_over):
        if path.endswith(".tar"):
            yield from _members(path, kind, passed_over)
        else:
            yield Photo(path, path)


def _remote(given: str, kind: Kind, passed_over: Counter[str]) -> Iterator[Photo]:
    places = find_files(given)
    for place in places:
        if place.endswith(".tar"):
            yield from _members(place, kind, passed_over)
        elif kind.wanted(place.rsplit("/", 1)[-1]) or places == [given]:
            yield Photo(place, place)
        else:
            passed_over[os.path.splitext(place)[1].lower()] += 1


def _members(archive: str, kind: Kind, passed_over: Counter[str]) -> Iterator[Photo]:
    """The photos in a tar archive, such as a shard of WebDataset, by the place of their bytes in it. Of one that is cut
    off those before the cut, and one that is the archive itself, with what is wrong as its `problem`."""
    members: list[tuple[str, int, int]] = []
    problem = ""
    try:
        with open_file(archive) as file:
            with decoding(ImageError, f"got the archive {archive} that cannot be read, want an uncompressed tar"):
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        if member.isreg() and not member.issparse():
                            members.append((member.name, member.offset_data, member.size))
    except ImageError as error:
        if not members:
            raise
        problem = str(error)
    for name, start, length in members:
        if kind.wanted(name):
            yield Photo(f"{archive}/{name}", archive, start, length)
        else:
            passed_over[os.path.splitext(name)[1].lower()] += 1
    if problem:
        yield Photo(archive, archive, problem=problem)


def _listed(given: str, suffix: str) -> Iterator[Photo]:
    if suffix == ".txt":
        with open_file(given) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as lines:
            yield from (Photo(line.strip(), line.strip()) for line in lines if line.strip())
        return
    with open_file(given) as file:
        rows = (
            row for table in read_columns(file, given, ("image",), BOX) for row in zip(table["image"], _boxes(table))
        )
        for place, same in groupby(rows, lambda row: row[0]):
            boxes = [box for _, box in same]
            known = tuple(box for box in boxes if box is not None)
            if known and len(known) < len(boxes):
                raise ImageError(f"got rows of {place} in {given} with and without a box, want the one or the other")
            yield Photo(place, place, boxes=known or None)


def _boxes(table: dict[str, Any]) -> Iterator[Box | None]:
    if BOX[0] not in table:
        yield from (None for _ in table["image"])
        return
    for box in np.stack([table[name] for name in BOX], 1).tolist():
        yield None if np.isnan(box).all() else (box[0], box[1], box[2], box[3])  # one with gaps is refused later
