"""What is drawn: a recipe, and the random numbers that follow from it.

Every trait of a head and of a view has a random stream of its own, named after it. So a recipe without glasses gives
the same pictures as the recipe with glasses, but without them: an ablation is one changed key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from canthus.decode import fits
from canthus.errors import RecipeError
from canthus.io.yaml_config import read_keys, refuse_unknown

NOT_SHARES = ("size", "face", "seed", "yaw", "pitch", "roll", "gaze", "dense", "maps")


@dataclass(frozen=True)
class SynthRecipe:
    """Everything that determines a picture, apart from its number. Angles in degrees; a share is a probability 0..1."""

    size: int = 176  # side of the stored picture, px
    face: float = 0.52  # longer side of the landmark box / side of the picture
    seed: int = 0
    yaw: float = 100.0  # uniform from -yaw to yaw
    frontal_share: float = 0.0  # this share of the views has yaw ~ N(0, 22) instead
    pitch: float = 15.0  # standard deviation, cut at 45
    roll: float = 12.0  # standard deviation, cut at 60
    # shares of the heads
    expressions: float = 0.8  # in the others only lids and gaze move
    extremes: float = 0.0  # one to three single units of expression besides, each of any strength up to its end
    closed_eyes: float = 0.13
    half_closed: float = 0.2
    winks: float = 0.04
    squints: float = 0.08
    gaze: float = 12.0  # standard deviation of the gaze direction, both ways
    blended_skins: float = 0.8  # the colours of one skin under the detail of others
    tones: float = 0.6  # of all that people have; the others: the tone of the skin's picture
    pigment: float = 0.6  # uneven colour; red nose and cheeks, dark hollows of the eyes
    wrinkles: float = 0.35
    blemishes: float = 0.2  # spots of age, pimples
    hair: float = 0.82
    hair_cuts: float = 0.7  # another length, fringe or parting than that of the style
    grey_hair: float = 0.2
    dyed_hair: float = 0.03
    mixed_brows: float = 0.6  # two sets in one, thicker or thinner
    beard: float = 0.35
    make_up: float = 0.4
    freckles: float = 0.12
    moles: float = 0.3
    glasses: float = 0.22
    headwear: float = 0.12
    hands: float = 0.1
    objects: float = 0.08  # a phone, a cup or a microphone, and the hand that holds it
    masks: float = 0.05
    scarves: float = 0.05
    # shares of the views
    own_expressions: float = 0.0  # an expression for this view alone; the others of a head share one
    hdri: float = 0.9  # light of an environment map; the others: one lamp and ambient light
    environment_backdrop: float = 0.65  # part of the environment map behind the head
    clutter_backdrop: float = 0.2  # coloured noise at a few scales; the others: one colour
    tone: float = 0.8  # a gamma curve
    cast: float = 0.4  # a white balance that is off
    low_resolution: float = 0.2
    blur: float = 0.3  # out of focus
    motion: float = 0.1  # motion blur
    noise: float = 0.5
    jpeg: float = 0.3  # artefacts of strong compression
    # what is stored beside the landmarks
    dense: bool = False  # every vertex of `MorphableModel.default()`: 58 kB a picture
    maps: bool = False  # regions and depth of every pixel: 3 bytes a pixel

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not fits(value, type(f.default)):
                raise RecipeError(f"`{f.name}` is {value!r}; something like {f.default!r} is wanted")
            if f.name not in NOT_SHARES and not 0 <= value <= 1:
                raise RecipeError(f"`{f.name}` is {value!r}; a share 0..1 is wanted")
        for name in ("yaw", "pitch", "roll", "gaze"):
            if not 0 <= getattr(self, name) <= 180:
                raise RecipeError(f"`{name}` is {getattr(self, name)!r}; 0 to 180 degrees is wanted")
        if self.environment_backdrop + self.clutter_backdrop > 1 + 1e-9:
            raise RecipeError("`environment_backdrop` and `clutter_backdrop` sum to more than 1")
        if not 32 <= self.size <= 4096 or not 0.1 <= self.face <= 1 or self.seed < 0:
            raise RecipeError(
                f"size {self.size}, face {self.face}, seed {self.seed}: 32..4096, 0.1..1 and 0 or more are wanted"
            )

    @classmethod
    def read(cls, path: str | Path | None, **overrides: Any) -> SynthRecipe:
        """A recipe file (YAML) that holds what differs from the defaults; overrides replace what it says.

        Raises `RecipeError` for a file that is no mapping, an unknown key or a value out of range.
        """
        values = ({} if path is None else read_keys(path)) | overrides
        refuse_unknown("a recipe of pictures", values, [f.name for f in fields(cls)])
        return cls(**values)

    @classmethod
    def parse(cls, changes: Sequence[str]) -> dict[str, Any]:
        """Keys and values of texts KEY=VALUE, for `read`. Raises `RecipeError`."""
        types: dict[str, type] = {f.name: type(f.default) for f in fields(cls)}
        out: dict[str, Any] = {}
        for change in changes:
            key, equals, text = change.partition("=")
            wanted = types.get(key, str)
            try:
                out[key] = {"true": True, "false": False}[text.lower()] if wanted is bool else wanted(text)
            except (KeyError, ValueError):
                equals = ""
            if not equals:
                raise RecipeError(f"'{change}' cannot be read; KEY=VALUE is wanted, as in glasses=0.5 or dense=true")
        return out


class RandomStreams:
    """Independent random generators by name; each is a function of (key, name) alone."""

    def __init__(self, *key: int):
        self.key = key

    def generator(self, name: str) -> np.random.Generator:
        """A new generator for this name."""
        return np.random.default_rng([*self.key, crc32(name.encode())])

    def maybe(self, name: str, probability: float) -> np.random.Generator | None:
        """The generator for this name with some probability, else None; a higher one keeps what a lower one drew."""
        rng = self.generator(name)
        return rng if rng.random() < probability else None

    def child(self, number: int) -> RandomStreams:
        """The streams of a part: one view of a head, one frame of a clip."""
        return RandomStreams(*self.key, number)
