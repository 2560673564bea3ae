"""Files on this machine and wherever fsspec reaches (extra `scale`), by path or address: s3://bucket/key, https://...

What a network does in passing is waited out: every access is tried again for about half a minute. A file that is
written is there whole or not at all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from canthus.errors import CanthusError, ImageError, OutputError, pip_install
from canthus.io.inputs import is_address, reason
from canthus.io.outputs import atomic_write, make_folder, remove_leftovers

WAITS = (1, 2, 4, 8, 16)  # seconds before another attempt
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # no attempt changes these

T = TypeVar("T")


def read_bytes(place: str, start: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or `length` of them from `start` on. Raises `ImageError`."""

    def whole() -> bytes:
        if is_address(place):
            fs, path = _filesystem(place)
            data = fs.cat_file(path) if length is None else fs.cat_file(path, start, start + length)
        else:
            with open(place, "rb") as file:
                file.seek(start)
                data = file.read(-1 if length is None else length)
        if length is not None and len(data) != length:
            raise OSError(f"got {len(data)} of {length} bytes")
        return data

    return _steadily(whole, f"could not read {place}", ImageError, None if is_address(place) else ())


def open_file(place: str) -> BinaryIO:
    """A file to read and to seek in. Raises `ImageError`."""

    def opened() -> BinaryIO:
        if not is_address(place):
            return open(place, "rb")
        fs, path = _filesystem(place)
        return fs.open(path, "rb")

    return _steadily(opened, f"could not read {place}", ImageError, None if is_address(place) else ())


def find_files(address: str) -> list[str]:
    """The addresses of all files below a folder, or that match a pattern; the address itself if it is a file; sorted.

    Raises `ImageError`, also for what is not there.
    """

    def found() -> list[str]:
        fs, path = _filesystem(address)
        if any(mark in path for mark in "*?["):
            paths = [p for p, about in fs.glob(path, detail=True).items() if about["type"] == "file"]
        elif address.startswith(("http://", "https://")) or fs.isfile(path):  # of http nothing is known but by reading
            return [address]
        else:
            paths = fs.find(path)
        if not paths:
            raise FileNotFoundError(f"no file in {address}")
        return sorted(fs.unstrip_protocol(p) for p in paths)

    return _steadily(found, f"could not look into {address}", ImageError)


class Folder(Protocol):
    """A folder for results."""

    place: str

    def names(self) -> set[str]:
        """The names of the files in it; none if it does not exist. Raises `OutputError`."""

    def read(self, name: str) -> bytes:
        """The bytes of a file in it. Raises `OutputError`."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all. Raises `OutputError`."""

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """A path to write one file at, by a function that does so whole or not at all; when the block has ended, the
        file is in the folder. Raises `OutputError`."""
        yield Path()

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises `OutputError`."""


def folder(place: str) -> Folder:
    """The folder at a path or an address. Raises `OutputError` for an empty name and where fsspec is missing."""
    if not place:
        raise OutputError("got an empty name for the output folder, want a folder")
    return RemoteFolder(place) if is_address(place) else LocalFolder(place)


class LocalFolder:
    """A folder on this machine, made when it is first written to."""

    def __init__(self, place: str):
        self.place = place
        self._made = False

    def names(self) -> set[str]:
        """See `Folder`."""
        try:
            return set(os.listdir(self.place))
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise OutputError(f"could not look into the folder '{self.place}': {reason(error)}") from error

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        try:
            return Path(self.place, name).read_bytes()
        except OSError as error:
            raise OutputError(f"could not read '{Path(self.place, name)}': {reason(error)}") from error

    def write(self, name: str, data: bytes) -> None:
        """See `Folder`."""
        with self.written(name) as path:
            atomic_write(path, data)

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        if not self._made:
            remove_leftovers(make_folder(self.place))
            self._made = True
        yield Path(self.place, name)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        try:
            Path(self.place, name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"could not remove '{Path(self.place, name)}': {reason(error)}") from error


class RemoteFolder:
    """A folder that fsspec reaches. A file is uploaded under another name, NAME.part with a dot before it, and then
    moved."""

    def __init__(self, place: str):
        self.place = place.rstrip("/")
        _steadily(lambda: _filesystem(self.place), f"could not reach {place}", OutputError)

    def names(self) -> set[str]:
        """See `Folder`."""

        def listed() -> set[str]:
            fs, path = _filesystem(self.place)
            fs.invalidate_cache()
            try:
                return {str(p).rsplit("/", 1)[-1] for p in fs.ls(path, detail=False)}
            except FileNotFoundError:
                return set()

        return _steadily(listed, f"could not look into {self.place}", OutputError)

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        fs, path = _filesystem(self.place)
        return _steadily(lambda: fs.cat_file(f"{path}/{name}"), f"could not read {self.place}/{name}", OutputError)

    def write(self, name: str, data: bytes) -> None:
        """See `Folder`."""
        with self.written(name) as path:
            path.write_bytes(data)

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        with tempfile.TemporaryDirectory(prefix="canthus-") as room:
            yield Path(room, name)
            fs, path = _filesystem(self.place)
            part = f"{path}/.{name}.part"

            def sent() -> None:
                fs.makedirs(path, exist_ok=True)
                fs.put_file(str(Path(room, name)), part)

            def moved() -> None:
                try:
                    fs.mv(part, f"{path}/{name}")
                except FileNotFoundError:  # an attempt before worked, and its answer was lost
                    fs.invalidate_cache()
                    if not fs.exists(f"{path}/{name}"):
                        raise

            for step in (sent, moved):
                _steadily(step, f"could not write {self.place}/{name}", OutputError)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        fs, path = _filesystem(self.place)

        def gone() -> None:
            with suppress(FileNotFoundError):
                fs.rm_file(f"{path}/{name}")

        _steadily(gone, f"could not remove {self.place}/{name}", OutputError)


def _filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise OutputError(f"got the address '{address}', want fsspec to reach it: {pip_install('scale')}") from error
    return url_to_fs(address)


def _steadily(call: Callable[[], T], what: str, kind: type[CanthusError], waits: Sequence[float] | None = None) -> T:
    """What `call` gives, tried again after `waits` (None: WAITS) while a fault may pass. Raises `kind`, which begins
    with `what`."""
    for wait in (*(WAITS if waits is None else waits), None):
        try:
            return call()
        except CanthusError:
            raise
        except Exception as error:  # every protocol has errors of its own
            status = getattr(error, "status", 0)  # of HTTP
            passing = not isinstance(error, (*FINAL, ImportError, ValueError)) and not (
                400 <= status < 500 and status not in (408, 429)
            )
            if wait is None or not passing:
                why = reason(error) if isinstance(error, OSError) else str(error)
                raise kind(f"{what}: {why or type(error).__name__}") from error
        time.sleep(wait)
    raise AssertionError
