"""Hair and brows of a person: natural, grey and dyed colours; other lengths, fringes and partings of the styles."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from canthus.io.images import GAMMA
from canthus.synth.heads import HeadAssets
from canthus.synth.recipe import RandomStreams, SynthRecipe

# linear colours of hair and how often people have them: black to pale blond, and red
COLOURS = np.array(
    [(0.012, 0.010, 0.009), (0.03, 0.018, 0.012), (0.07, 0.04, 0.025), (0.14, 0.085, 0.05), (0.33, 0.23, 0.13),
     (0.50, 0.40, 0.27), (0.20, 0.06, 0.025)]
)  # fmt: skip
ODDS = np.array([0.3, 0.27, 0.18, 0.1, 0.08, 0.03, 0.04])
GREY = np.array([0.42, 0.42, 0.43])


@dataclass(frozen=True)
class Cut:
    """How hair differs from its style. flip: parted on the other side. length: of what hangs below the ears, a factor.
    fringe: how far hair comes down on the forehead, a factor. volume: share by which it stands off further."""

    flip: bool = False
    length: float = 1.0
    fringe: float = 1.0
    volume: float = 0.0

    def __call__(self, hair: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Hair (V,3) of a head with landmarks (68,3), cut."""
        x, y, z = hair.T * np.array([[-1 if self.flip else 1], [1], [1]])
        ears, brows = points[[0, 16], 1].mean(), points[17:27, 1].mean()
        line, front = brows + 3.5, points[[17, 26], 2].mean() - 1.0
        low = (y < line) & (z > front) & (y > ears - 2)
        ahead = np.clip((z - front) / 1.5, 0, 1)  # the sides keep what they have
        y = np.where(low, y + (line - y) * (1 - self.fringe) * ahead, y)
        y = np.where(y < ears, ears + (y - ears) * self.length, y)
        middle = np.array([0, brows + 1.5, points[[0, 16], 2].mean() - 1])
        out = np.stack([x, y, z], 1)
        high = np.clip((out[:, 1:2] - ears) / 4, 0, 1)
        return (out + self.volume * high * (out - middle)).astype(np.float32)


@dataclass(frozen=True)
class Brows:
    """The brows of a person: sets that lie over each other, linear colour (3,), and their height, a factor."""

    styles: tuple[str, ...]
    colour: np.ndarray
    thickness: float = 1.0


def sample_cut(streams: RandomStreams, recipe: SynthRecipe) -> Cut:
    """A cut; without one the style is as it is."""
    rng = streams.maybe("hair cut", recipe.hair_cuts)
    if rng is None:
        return Cut()
    return Cut(
        bool(rng.random() < 0.5),
        float(rng.uniform(0.4, 1.25)),
        float(rng.uniform(0.5, 1.15)),
        float(rng.uniform(0, 0.1)),
    )


def sample_hair_colour(streams: RandomStreams, recipe: SynthRecipe) -> np.ndarray:
    """A linear colour (3,) of hair."""
    rng = streams.generator("hair colour")
    colour = COLOURS[rng.choice(len(COLOURS), p=ODDS)] * rng.uniform(0.7, 1.3) * np.exp(rng.normal(0, 0.08, 3))
    if (rng := streams.maybe("grey hair", recipe.grey_hair)) is not None:  # type: ignore[assignment]
        colour = colour + rng.uniform(0.15, 1) * (GREY * rng.uniform(0.7, 1.4) - colour)
    if (rng := streams.maybe("dyed hair", recipe.dyed_hair)) is not None:  # type: ignore[assignment]
        colour = rng.uniform(0.01, 0.5, 3)
    return colour


def sample_brows(streams: RandomStreams, assets: HeadAssets, recipe: SynthRecipe, hair: np.ndarray) -> Brows:
    """Brows that go with a colour of hair (3,), a little darker than it; some are two sets in one."""
    sets = list(assets.wearables["brows"])
    rng = streams.generator("brows")
    style, colour = str(rng.choice(sets)), np.minimum(hair, 0.2) * rng.uniform(0.25, 1.0)
    if (rng := streams.maybe("mixed brows", recipe.mixed_brows)) is None:  # type: ignore[assignment]
        return Brows((style,), colour)
    styles = (style, str(rng.choice(sets)))
    return Brows(styles, colour * np.exp(rng.normal(0, 0.3)), float(rng.uniform(0.75, 1.4)))


def thickened(brows: np.ndarray, points: np.ndarray, thickness: float) -> np.ndarray:
    """Brows (V,3) on landmarks (68,3), their height about the line of the landmarks changed by a factor."""
    line = np.interp(brows[:, 0], *points[17:27, :2].T)
    out = brows.copy()
    out[:, 1] = line + (brows[:, 1] - line) * thickness
    return out


@functools.lru_cache(256)
def middle_colour(assets: HeadAssets, style: str) -> np.ndarray:
    """Median linear colour (3,) of the strands in a texture of hair or brows."""
    texels = np.asarray(assets.textures[style].resize((256, 256))).reshape(-1, 4)
    strands = texels[texels[:, 3] > 128] if (texels[:, 3] > 128).any() else texels
    return (np.maximum(np.median(strands[:, :3], 0), 8) / 255) ** GAMMA
