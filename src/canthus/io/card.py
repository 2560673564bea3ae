"""The card that every weights folder carries: what the weights are, may be used for, learnt from and measured at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from canthus.errors import WeightsError

CARD_FILE = "card.json"


@dataclass(frozen=True)
class Card:
    """One weights folder in words and numbers.

    crop_size: side of the network's crop in pixels. crop_scale: side of the crop / longer side of the tight box.
    files: file name -> SHA-256. measured: rows of what was measured, losses included.
    mean_shape: where crops for tracking are cut by the similarity to it, the points (L,2) of `Crop.around_shapes`.
    completion: the values of a `completion.Completion`, where a head model completes what the network leaves open.
    start: where an ONNX network is also given 68 points to start from, the weights that find them.
    """

    name: str
    version: str
    method: str
    crop_size: int
    crop_scale: float
    licence: str
    commercial_use: bool
    training_data: str
    recipe: str
    commit: str
    files: dict[str, str] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    completion: dict[str, Any] | None = None
    mean_shape: list[list[float]] | None = None
    start: str | None = None

    @property
    def title(self) -> str:
        """Name and version, as results carry them."""
        return f"{self.name} {self.version}"

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of a weights folder; raises `WeightsError` if it is missing, damaged or lacks a field."""
        path = folder / CARD_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(
                f"no '{CARD_FILE}' in '{folder}': a folder with a card and its weights is wanted"
            ) from None
        except (OSError, ValueError) as error:
            raise WeightsError(f"the card '{path}' cannot be read ({error}); JSON is wanted") from None
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or set(values) - names:
            raise WeightsError(f"the card '{path}' has other fields than {sorted(names)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise WeightsError(f"the card '{path}' is not complete: {error}") from None

    def to_json(self) -> str:
        """The card's text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def checked(self, folder: Path, name: str) -> Path:
        """The path of file `name` in the folder, after its SHA-256 was compared with the card's."""
        path = folder / name
        if name not in self.files:
            raise WeightsError(f"the card of '{folder}' lists {sorted(self.files)}, not '{name}'")
        if not path.is_file():
            raise WeightsError(f"'{path}' is missing, though the card lists it")
        if sha256(path) != self.files[name]:
            raise WeightsError(f"'{path}' is damaged: its SHA-256 is not the card's; install canthus again")
        return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
