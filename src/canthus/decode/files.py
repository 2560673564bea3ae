"""Files that a card vouches for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from canthus.decode.door import decoding, read_bytes
from canthus.decode.values import read_json
from canthus.errors import CanthusError

CARD_FILE = "card.json"


def sha256(path: Path) -> str:
    """SHA-256 of a regular file, in hex. Raises `OSError` and `ValueError`."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def verified(path: Path, wanted: str, error: type[CanthusError]) -> Path:
    """The path itself, after the file's SHA-256 was compared. Raises `error` for a file that is missing or damaged."""
    if not path.is_file():
        raise error(f"'{path}' is missing, though the card lists it")
    with decoding(error, f"'{path}' cannot be read"):
        got = sha256(path)
    if got != wanted:
        raise error(f"'{path}' is damaged: its SHA-256 is not the card's; an intact copy is wanted")
    return path


def listed(folder: Path, name: str, error: type[CanthusError]) -> Path:
    """The path of file `name` in a folder, after its SHA-256 was compared with what the folder's card says under
    `files`. For files that are no weights of an aligner. Raises `error`."""
    with decoding(error, f"the card '{folder / CARD_FILE}' cannot be read"):
        wanted = read_json(folder / CARD_FILE)["files"][name]
    return verified(folder / name, wanted, error)
