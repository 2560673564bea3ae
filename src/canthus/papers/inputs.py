"""What the command line gives: folders by protocol, and lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from canthus.decode import decoding, read_text
from canthus.errors import CanthusError
from canthus.evaluation.protocols import protocol


def read_data(given: Sequence[str]) -> dict[str, Path]:
    """PROTOCOL=FOLDER, several of them. Raises `CanthusError` for an unknown protocol, one given twice, no folder."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise CanthusError(f"got the data '{text}', want PROTOCOL=FOLDER")
        protocol(name)
        if name in found:
            raise CanthusError(f"got data of '{name}' twice, want one folder")
        if not Path(folder).is_dir():
            raise CanthusError(f"no folder '{folder}' for the data of '{name}'")
        found[name] = Path(folder)
    return found


def read_names(path: str | Path) -> frozenset[str]:
    """The names in a text file, one a line; empty lines do not count. Raises `CanthusError`."""
    with decoding(CanthusError, f"the list '{path}' cannot be read"):
        lines = read_text(path).splitlines()
    names = frozenset(name for line in lines if (name := line.strip()))
    if not names:
        raise CanthusError(f"the list '{path}' names nothing; names of videos or faces, one a line, are wanted")
    return names
