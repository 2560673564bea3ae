"""The door: decoders raise what they like on damaged files, and users see one exception family."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canthus.errors import CanthusError

LONGEST_REASON = 300  # characters of a decoder's own message


@contextmanager
def decoding(error: type[CanthusError], what: str) -> Iterator[None]:
    """Turns whatever the block raises into `error` with the sentence "`what`: reason".

    Lists of exceptions that a decoder may raise are never complete (zipfile alone raises seven unrelated classes), so
    everything is caught, MemoryError, RecursionError and the panics of Rust included. A `CanthusError` passes as it
    is, and so do a missing optional package and a request to stop. Keep the block small: it hides mistakes, too.
    """
    try:
        yield
    except (CanthusError, ModuleNotFoundError):
        raise
    except BaseException as raised:
        if not isinstance(raised, Exception) and type(raised).__name__ != "PanicException":
            raise
        raise error(f"{one_line(what)}: {_reason(raised)}") from raised


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file. Raises `OSError`, and `ValueError` for a pipe or device, which may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")
    return Path(path).read_bytes()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a regular file in UTF-8. Raises as `read_bytes`."""
    return read_bytes(path).decode("utf-8")


def one_line(text: str) -> str:
    """`text` on one line, without characters that steer a terminal or cannot be encoded."""
    plain = " ".join(text.split())
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def encodable(text: str) -> str:
    """`text` with escapes for what UTF-8 cannot hold: Python keeps bytes of file names that are no text as such."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{one_line(str(error))[:LONGEST_REASON]} is missing"
    return one_line(str(error))[:LONGEST_REASON] or type(error).__name__
