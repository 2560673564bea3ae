"""Shipped weights: one folder each, with a card. `canthus.load` finds them by name."""

from __future__ import annotations

import os
from difflib import get_close_matches
from os.path import isdir, isfile  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path

from canthus.errors import WeightsError
from canthus.io.card import CARD_FILE, Card
from canthus.io.session import MODEL_FILE

ROOT = Path(__file__).parent
DEFAULT = "swift"
DETECTOR = "detector"  # no aligner: its card says less


def shipped() -> dict[str, Card]:
    """Name -> card of the aligners inside the package."""
    folders = sorted(p.parent for p in ROOT.glob(f"*/{MODEL_FILE}") if (p.parent / CARD_FILE).is_file())
    return {f.name: Card.read(f) for f in folders if f.name != DETECTOR}


def inside(folder: Path) -> dict[str, Card]:
    """Name -> card of the weights folders inside another; raises `WeightsError` if there is none."""
    cards = {p.parent.name: Card.read(p.parent) for p in sorted(folder.glob(f"*/{CARD_FILE}"))}
    if not cards:
        raise WeightsError(f"no '{CARD_FILE}' in any folder inside '{folder}': one of weights folders is wanted")
    return cards


def find(name: str | Path) -> Path:
    """The folder of shipped weights by name, or the user's own folder; raises `WeightsError` for neither."""
    if not isinstance(name, str | os.PathLike):
        raise WeightsError(f"got weights of type {type(name).__name__}, want a name or a folder")
    own = ROOT / str(name)
    if isfile(own / CARD_FILE) and isfile(own / MODEL_FILE) and own.name != DETECTOR:
        return own
    if isdir(name):
        return Path(name)
    names = sorted(shipped())
    near = get_close_matches(str(name), names, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    others = "a folder works too, such as those in weights/ of the repository"
    raise WeightsError(f"no weights '{name}': {hint}shipped are {', '.join(names)}; {others}")
