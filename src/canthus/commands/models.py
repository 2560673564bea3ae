"""What `canthus models` lists: weights folders and the few facts of their cards that fit on a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from canthus.commands.terminal import Justify
from canthus.decode import decoding, one_line
from canthus.errors import WeightsError
from canthus.io.card import CARD_FILE, Card
from canthus.weights import DEFAULT, ROOT, find, inside, shipped

COLUMNS: dict[str, Justify] = {
    "name": "left", "version": "left", "licence": "left", "commercial use": "left", "MB": "right", "NME %": "right",
    "ms": "right",
}  # fmt: skip
NOTE = """\
NME: mean 2D error of 68 points in percent of the face's size, mean of three bins of yaw, on
300 images of AFLW2000-3D with true boxes.
ms: from a photo of 512 px to its faces, detector included, on one thread of the card's machine.
All figures, training data and limits: canthus models --json"""


@dataclass(frozen=True)
class Model:
    """One weights folder and its card."""

    name: str
    folder: Path
    card: Card

    @property
    def size(self) -> int:
        """Bytes of the files that the card lists. Raises `WeightsError` if one is missing."""
        with decoding(WeightsError, f"a file that the card of '{self.folder}' lists cannot be read"):
            return sum((self.folder / file).stat().st_size for file in self.card.files)

    def measured(self, protocol: str, key: str) -> float | None:
        """A figure of the first row of the card whose protocol has all the words of `protocol`."""
        for row in self.card.measured:
            value = row.get(key)
            if all(part in str(row.get("protocol")) for part in protocol.split("|")) and isinstance(value, float | int):
                return float(value)
        return None

    def row(self) -> list[str]:
        """The cells of `COLUMNS`."""
        error = self.measured("AFLW2000-3D|true boxes", "mean of bins")
        time = self.measured("one thread", "photo to faces")
        return [
            one_line(self.name) + (" (default)" if self.folder == ROOT / DEFAULT else ""),
            self.card.version,
            self.card.licence,
            "yes" if self.card.commercial_use is True else "no",
            f"{self.size / 1e6:.1f}",
            "" if error is None else f"{error:.2f}",
            "" if time is None else f"{time:.1f}",
        ]

    def to_json(self) -> dict[str, Any]:
        """The whole card, with the folder and its size in bytes."""
        return {"folder": str(self.folder), "bytes": self.size, **asdict(self.card)}


def find_models(given: Sequence[str]) -> list[Model]:
    """Weights by name, folders of weights and folders that hold several; those shipped if none are given.

    Raises `WeightsError` for what is none of these, and for damaged cards.
    """
    if not given:
        return [Model(name, ROOT / name, card) for name, card in shipped().items()]
    models = []
    for name in given:
        folder = find(name)
        if (folder / CARD_FILE).is_file():
            models.append(Model(folder.resolve().name, folder, Card.read(folder)))
        else:
            models += [Model(key, folder / key, card) for key, card in inside(folder).items()]
    return models
