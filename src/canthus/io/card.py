"""The card that every weights folder carries: what the weights are, may be used for, learnt from and measured at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from unicodedata import category

import numpy as np

from canthus.decode import decoding, fits, numbers, one_line, read_json, sha256, verified
from canthus.decode.files import CARD_FILE
from canthus.errors import WeightsError, first_few
from canthus.face.completion import Completion

__all__ = ["CARD_FILE", "Card", "sha256"]

CROP_SIZES = (16, 1024)  # px, least and most
CROP_SCALES = (0.5, 5.0)
SCHEMES = ("ibug68", "menpo84")  # of networks: those whose points give all 68
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # Unicode's categories of what steers a terminal or cannot be shown


@dataclass(frozen=True)
class Card:
    """One weights folder in words and numbers.

    crop_size: side of the network's crop in pixels. crop_scale: side of the crop / longer side of the tight box.
    files: file name -> SHA-256. measured: rows of what was measured, losses included.
    mean_shape: where crops for tracking are cut by the similarity to it, the points (68,2) of `Crop.around_shapes`.
    completion: the values of a `completion.Completion`, where a head model completes what the network leaves open.
    scheme: the landmark scheme of the network's points; one that `landmarks.convert` turns into ibug68.
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
    measured: list[dict[str, str | float | bool | None]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    completion: dict[str, Any] | None = None
    mean_shape: list[list[float]] | None = None
    start: str | None = None
    scheme: str = "ibug68"

    @property
    def title(self) -> str:
        """Name and version, as results carry them."""
        return f"{self.name} {self.version}"

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of a weights folder; raises `WeightsError` if it is missing or damaged, lacks a field, or holds a
        value of another type or out of range."""
        path = folder / CARD_FILE
        with decoding(WeightsError, f"the card '{path}' cannot be read; JSON is wanted"):
            try:
                values = read_json(path)
            except FileNotFoundError:
                raise WeightsError(
                    f"no '{CARD_FILE}' in '{folder}': a folder with a card and its weights is wanted"
                ) from None
        names = get_type_hints(cls)
        if not isinstance(values, dict):
            raise WeightsError(f"the card '{path}' has other fields than {sorted(names)}")
        if others := sorted(set(values) - set(names)):
            fields = first_few(map(repr, others), 3)
            raise WeightsError(f"the card '{path}' has {fields}, which no card of landmark weights has")
        try:
            card = cls(**values)
        except TypeError as error:
            raise WeightsError(f"the card '{path}' is not complete: {error}") from None
        for name, wanted in card._misfits():
            raise WeightsError(f"the card '{path}' has the {name} {one_line(repr(values[name]))[:60]}; {wanted} wanted")
        return card

    def _misfits(self) -> Iterator[tuple[str, str]]:
        """Fields that make no sense, and what is wanted instead."""
        wanted = {"bool": "true or false is", "int": "a whole number is", "float": "a number is", "str": "text is"}
        kinds: dict[str, Any] = get_type_hints(Card)
        for name, kind in kinds.items():
            if not fits(getattr(self, name), kind):
                yield name, wanted.get(getattr(kind, "__name__", ""), str(kind).replace("typing.", "") + " is")
            elif any(category(letter) in UNSEEN for text in _texts(getattr(self, name)) for letter in text):
                yield name, "text without control characters is"
        for name, (low, high) in {"crop_size": CROP_SIZES, "crop_scale": CROP_SCALES}.items():
            if not low <= getattr(self, name) <= high:
                yield name, f"{low} to {high} is"
        if not all(_is_plain(name) and re.fullmatch("[0-9a-f]{64}", digest) for name, digest in self.files.items()):
            yield "files", "names without a folder, each with its SHA-256 in hex, are"
        if any(not isinstance(row.get("protocol", ""), str) for row in self.measured):
            yield "measured", "rows whose `protocol` is text are"
        if self.mean_shape is not None and not _is_shape(self.mean_shape):
            yield "mean_shape", "68 points (x, y) apart from each other are"
        if self.scheme not in SCHEMES:
            yield "scheme", f"one of {', '.join(SCHEMES)} is"
        if self.completion is not None:
            how, options = self.completion, get_type_hints(Completion)
            if not {"noise", "iterations", "jaw"} <= set(how) <= set(options) or not all(
                fits(how[key], options[key]) for key in how
            ):
                yield "completion", f"values of {', '.join(options)} are"
            elif not (0 < how["noise"] <= 1 and 1 <= how["iterations"] <= 100 and 0 <= how.get("evidence", 0) <= 1):
                yield "completion", "noise and evidence in 0..1 and 1 to 100 iterations are"

    def to_json(self) -> str:
        """The card's text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def checked(self, folder: Path, name: str) -> Path:
        """The path of file `name` in the folder, once its SHA-256 was found to be the card's. Raises `WeightsError`."""
        if name not in self.files:
            raise WeightsError(f"the card of '{folder}' lists {sorted(self.files)}, not '{name}'")
        return verified(folder / name, self.files[name], WeightsError)


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(inner)


def _is_plain(name: str) -> bool:
    """Whether a file's name stays in its folder on every system."""
    return name not in ("", ".", "..") and not set(name) & set('/\\:*?"<>|')


def _is_shape(points: list[list[float]]) -> bool:
    try:
        return bool((np.ptp(numbers(points, (68, 2)), axis=0) > 0).all())
    except ValueError:
        return False
