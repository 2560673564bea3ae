"""The skin of a person's face, painted texel by texel: two or three skins blended, pigment, wrinkles, spots, beard.

A skin is split into coarse colours and fine detail, whose product it is. People get the coarse colours of one skin
under the detail of others. What is painted lies at places of the mean head, so it moves with every face, and no label
depends on it. Only the face is painted: at its border the coarse colours are those of the back of the head.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.spatial import cKDTree

from canthus.geometry.coverage import fragments
from canthus.io.images import GAMMA
from canthus.synth.heads import HeadAssets
from canthus.synth.recipe import RandomStreams, SynthRecipe

SIDE, COARSE = 512, 128  # texels along a side of the picture, and of its coarse colours
BLUR = 12.0  # standard deviation in texels that divides coarse colours from detail
FACE = "M_Face"
# linear colours of skin from the palest to the darkest; red over green grows with melanin and falls again where it is
# dense, as it then absorbs red, too
TONES = np.array(
    [(0.75, 0.52, 0.44), (0.58, 0.33, 0.24), (0.40, 0.20, 0.125), (0.21, 0.105, 0.062), (0.064, 0.040, 0.029)]
)
# how much of moustache, lower lip, chin, jaw, cheek, neck and sideburns belongs to a beard
BEARDS = {
    "full": (1, 1, 1, 1, 0.6, 0.5, 1), "short": (1, 1, 1, 1, 0.3, 0.8, 0.7), "goatee": (1, 1, 1, 0, 0, 0, 0),
    "moustache": (1, 0, 0, 0, 0, 0, 0), "chin": (0, 0.8, 1, 0, 0, 0, 0), "strap": (0, 0.3, 0.8, 1, 0, 0.2, 1),
    "patchy": (0.7, 0.3, 0.8, 0.5, 0.2, 0.6, 0.3), "sideburns": (0.2, 0, 0, 0.3, 0.2, 0, 1),
}  # fmt: skip


class Layout:
    """Where the texels of the face lie on the mean head, and which of its parts they belong to, 0..1."""

    def __init__(self, assets: HeadAssets):
        surface = assets.surfaces[FACE]
        corners = assets.mean[surface.vertex]
        self.points = assets.landmarks(assets.mean).astype(float)
        self.place = _places(surface.uv, surface.triangles, corners, COARSE)
        fine = _places(surface.uv, surface.triangles, corners, SIDE // 2)
        row, column = np.nonzero(fine[..., 2] > self.points[[0, 16], 2].mean())
        self._front = fine[row, column]
        self._texels = np.column_stack([column, row]) * 2.0 + 0.5
        self._tree = cKDTree(self._front[:, :2])

    def texels(self, where: np.ndarray) -> np.ndarray:
        """Texels x and y (P,2) of the outermost skin at x and y of the mean head (P,2)."""
        near = self._tree.query_ball_point(where, 0.2)
        best = [
            max(ids, key=lambda k: self._front[k, 2]) if ids else self._tree.query(w)[1] for ids, w in zip(near, where)
        ]
        return self._texels[best]

    def random_texels(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Texels (count,2) of the front of the face."""
        return self._texels[rng.integers(len(self._texels), size=count)]

    def near(self, points: np.ndarray, reach: float) -> np.ndarray:
        """1 at places (P,3) on the mean head, falling to 0 at 1.3 times `reach` cm: (COARSE,COARSE) float32.

        Depth counts less than what is across and up, because points between landmarks lie under the skin.
        """
        squared = np.full(self.place.shape[:2], np.inf, np.float32)
        for point in points.astype(np.float32):
            np.minimum(squared, ((self.place - point) ** 2) @ np.array([1, 1, 0.15], np.float32), out=squared)
        return np.clip(1.3 - np.sqrt(squared) / np.float32(reach), 0, 1)

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """1 in the face and 0 at the border of its skin."""
        return np.clip(2 * self.near(self.points, 4.5), 0, 1)

    @functools.cached_property
    def red(self) -> np.ndarray:
        """Nose, cheeks, chin and the hollows under the eyes (4,COARSE,COARSE)."""
        p = self.points
        cheeks = p[[1, 15]] * 0.35 + p[[31, 35]] * 0.65 + [[-0.6, 0.3, 0], [0.6, 0.3, 0]]
        under = p[[40, 41, 46, 47]] + [0, -0.5, 0]
        return np.stack(
            [self.near(p[29:36], 1.1), self.near(cheeks, 2.2), self.near(p[[8]], 1.5), self.near(under, 0.8)]
        )

    @functools.cached_property
    def beard(self) -> np.ndarray:
        """The parts of BEARDS (7,COARSE,COARSE); lips are free."""
        p = self.points
        jaw = np.concatenate([p[2:15], (p[2:14] + p[3:15]) / 2])
        corners = p[[48, 54]]
        above = [w * p[49:54] + (1 - w) * p[31:36] for w in (0.85, 0.5)]
        beside = [corners + [[-x, y, 0], [x, y, 0]] for x, y in ((-0.35, 0.75), (0.1, 0.6), (0.4, 0.3), (0.5, -0.2))]
        chin = [p[7:10] * (1 - w) + p[56:59] * w for w in (0, 0.35, 0.7)]
        down = [corners + [[-0.45, y, 0], [0.45, y, 0]] for y in (-0.3, -0.7, -1.5, -2.3)]
        cheeks = [p[[48, 54]] * w + p[[k, 16 - k]] * (1 - w) for k in (3, 4, 5) for w in (0.25, 0.5)]
        neck = jaw[np.abs(jaw[:, 0]) < 6] + [0, -1.8, -1.0]
        sides = np.concatenate([p[[0, 1, 15, 16]], p[[0, 16]] + [0, 1.2, -0.3]])
        parts = [(above + beside, 0.6), ([0.75 * p[[57]] + 0.25 * p[[8]]], 0.6), (chin + down, 0.95), ([jaw], 1.2),
                 (cheeks, 1.1), ([neck], 1.7), ([sides], 0.9)]  # fmt: skip
        lips = self.near(np.concatenate([p[48:60], (p[48:59] + p[49:60]) / 2]), 0.12)
        lips = np.maximum(lips, self.near(p[60:68], 0.4))
        nostrils = np.clip((p[33, 1] - 0.1 - self.place[..., 1]) / 0.3, 0, 1)
        below = np.where(np.abs(self.place[..., 0]) > 5.5, 1, nostrils)  # only sideburns grow higher
        wholes = np.stack([self.near(np.concatenate(at), reach) for at, reach in parts])
        return (wholes * below * (1 - np.clip(2 * lips, 0, 1))).astype(np.float32)

    @functools.cached_property
    def wrinkles(self) -> dict[str, list[np.ndarray]]:
        """Lines (P,2) of texels by where they are; those of the sides in pairs."""
        p = self.points
        brow, bridge = p[[19, 24], 1].mean(), p[27]
        t = np.linspace(-1, 1, 11)
        forehead = [np.column_stack([4.2 * t, brow + 1.0 + 0.75 * k - 0.35 * t**2]) for k in range(5)]
        out = {"forehead": [self.texels(line) for line in forehead]}
        eye, wing, corner = p[36], p[31], p[48]
        u = np.linspace(0, 1, 7)[:, None]
        sides = {
            "frown": [bridge[:2] + [-0.55, 0.5] + u * [0.15, 1.3], bridge[:2] + [-0.9, 0.9] + u * [0.1, 0.9]],
            "eyes": [eye[:2] + [-0.4, 0.1] + u * 1.3 * [-np.cos(a), np.sin(a)] for a in (0.5, 0.15, -0.2, -0.55, -0.9)],
            "under": [p[[36, 41, 40, 39], :2] + [-0.1, -0.75] + [0, -0.45 * k] for k in range(2)],
            "cheeks": [_arc(wing[:2] + [-0.75, 0.35], corner[:2] + [-0.75, -0.5], 0.45)],
            "mouth": [_arc(corner[:2] + [-0.35, -0.4], corner[:2] + [-0.55, -2.0], 0.12)],
            "lips": [p[k, :2] + [0, 0.15] + u * [(p[k, 0]) * 0.12, 0.45] for k in (49, 50)],
        }  # fmt: skip
        for name, lines in sides.items():
            out[name] = [self.texels(line * [side, 1]) for line in lines for side in (1, -1)]
        return out


def _arc(start: np.ndarray, end: np.ndarray, bulge: float) -> np.ndarray:
    """Nine points (9,2) from start to end, out of the straight line by `bulge` towards -x."""
    t = np.linspace(0, 1, 9)[:, None]
    return start + t * (end - start) - 4 * t * (1 - t) * [bulge, 0]


def _places(uv: np.ndarray, triangles: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Place (side,side,3) on the head of every texel, far away where there is no skin."""
    out = np.full((side * side, 3), -99.0, np.float32)
    points = np.column_stack([uv[:, 0] * side - 0.5, (1 - uv[:, 1]) * side - 0.5])
    for owner, pixel, weights in fragments(points, triangles, (side, side)):
        out[pixel] = (weights[..., None] * corners[triangles[owner]]).sum(1)
    return out.reshape(side, side, 3)


@functools.lru_cache(8)
def layout(assets: HeadAssets) -> Layout:
    """The layout of the face of some heads."""
    return Layout(assets)


class SplitSkin(NamedTuple):
    """A skin as a product: coarse colours 0..255 (COARSE,COARSE,3) float32, and detail (SIDE,SIDE,3), 128 = none."""

    coarse: np.ndarray
    detail: np.ndarray
    middle: np.ndarray  # (3,) median of the colours


@functools.lru_cache(256)
def split_skin(assets: HeadAssets, skin: str) -> SplitSkin:
    """A skin of the assets, split."""
    image = assets.textures[f"{skin}/{FACE}"].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    coarse = image.filter(ImageFilter.GaussianBlur(BLUR)).resize((COARSE, COARSE), Image.Resampling.BOX)
    ratio = np.asarray(image, np.float32) / np.maximum(enlarged(np.asarray(coarse)), 1)
    colours = np.asarray(coarse, np.float32)
    return SplitSkin(colours, np.clip(128 * ratio + 0.5, 0, 255).astype(np.uint8), np.median(colours, (0, 1)))


def enlarged(coarse: np.ndarray) -> np.ndarray:
    """(COARSE,COARSE,3) or (COARSE,COARSE) of levels 0..255 as uint8 with SIDE texels."""
    return np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def smooth_noise(rng: np.random.Generator, cells: int, side: int = COARSE) -> np.ndarray:
    """Noise of deviation 1 at its `cells` squared knots, smooth between them, (side,side) float32."""
    knots = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(knots.resize((side, side), Image.Resampling.BICUBIC))


def sample_tone(rng: np.random.Generator) -> np.ndarray:
    """A linear skin colour (3,), of all that people have alike."""
    at = rng.uniform(0, len(TONES) - 1)
    low = min(int(at), len(TONES) - 2)
    tone = np.exp(np.log(TONES[low]) + (at - low) * np.log(TONES[low + 1] / TONES[low]))
    # what red varies by, green over red, blue over green: channels that varied alone would make skins green or crimson
    return tone * np.exp(np.cumsum(rng.normal(0, [0.06, 0.05, 0.07])))


def skin_picture(
    streams: RandomStreams, assets: HeadAssets, recipe: SynthRecipe, skin: str, beard_colour: np.ndarray
) -> np.ndarray:
    """The picture of a face's skin, uint8 (SIDE,SIDE,4). beard_colour: (3,) linear, before the tint of the skin."""
    at, (coarse, detail, middle) = layout(assets), split_skin(assets, skin)
    if (rng := streams.maybe("blended skins", recipe.blended_skins)) is not None:
        first, second, third = (split_skin(assets, assets.skins[k]) for k in rng.integers(len(assets.skins), size=3))
        coarse, detail = _blended(rng, at, coarse, middle, first), _mixed(rng, second.detail, third.detail)
    if (rng := streams.maybe("pigment", recipe.pigment)) is not None:
        coarse = coarse * _pigment(rng, at)
    picture: np.ndarray = np.minimum(enlarged(np.clip(coarse, 0, 255)).astype(np.uint16) * detail >> 7, 255)
    if (rng := streams.maybe("wrinkles", recipe.wrinkles)) is not None:
        picture = np.minimum(picture * _wrinkles(rng, at)[..., None] >> 7, 255)
    if (rng := streams.maybe("blemishes", recipe.blemishes)) is not None:
        picture = picture * _blemishes(rng, at) >> 7
    if (rng := streams.maybe("beard", recipe.beard)) is not None:
        cover = _beard(rng, at)[..., None]
        hairs = (255 * np.clip(beard_colour, 0, 1) ** (1 / GAMMA)).astype(np.uint16)
        picture = (picture * (255 - cover) + hairs * cover) >> 8
    out = np.full((SIDE, SIDE, 4), 255, np.uint8)
    out[..., :3] = picture
    return out


def _blended(
    rng: np.random.Generator, at: Layout, coarse: np.ndarray, middle: np.ndarray, other: SplitSkin
) -> np.ndarray:
    """Coarse colours that are partly those of another skin, with the median they had."""
    share = at.inside * np.clip(0.5 + smooth_noise(rng, 4), 0, 1) * np.float32(rng.uniform(0.2, 1))
    same = other.coarse * (middle / other.middle).astype(np.float32)
    return coarse + share[..., None] * (same - coarse)


def _mixed(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The detail of two skins, of each in some regions with soft borders; uint16, 128 = none."""
    share = enlarged(np.clip(128 + 220 * smooth_noise(rng, 4), 0, 255)).astype(np.uint16)[..., None]
    return np.right_shift(first * (255 - share) + second * share, 8)


def _pigment(rng: np.random.Generator, at: Layout) -> np.ndarray:
    """Factors (COARSE,COARSE,3) of uneven colour: melanin, blood in nose, cheeks and chin, dark hollows of the eyes."""
    waves = [
        rng.uniform(0, most) * smooth_noise(rng, cells) for most, cells in ((0.05, 4), (0.05, 9), (0.05, 20), (0.04, 7))
    ]
    nose, cheeks, chin, hollows = at.red
    flush = nose * rng.uniform(0, 1) + cheeks * rng.uniform(0, 1)
    blood = at.inside * waves[3] + rng.uniform(0, 1) ** 2 * flush + chin * rng.uniform(0, 0.25)
    melanin = at.inside * sum(waves[:3]) + hollows * rng.uniform(-0.05, 0.22)
    absorbed = np.stack([0.7 * melanin - 0.02 * blood, melanin + 0.22 * blood, 1.1 * melanin + 0.18 * blood], -1)
    return np.exp(-absorbed)


def _wrinkles(rng: np.random.Generator, at: Layout) -> np.ndarray:
    """Factors (SIDE,SIDE) of creases and of the light on the folds beside them, 128 = 1."""
    sheet = Image.new("L", (SIDE, SIDE))
    pen, age = ImageDraw.Draw(sheet), rng.uniform(0.35, 1)
    for lines in at.wrinkles.values():
        depth = rng.uniform(0, 1) * age
        for line in lines:
            own = depth * rng.uniform(0.4, 1.1)
            if own < 0.15:
                continue
            bent = line + rng.normal(0, 1.5, 2) + np.cumsum(rng.normal(0, 0.35, line.shape), 0)
            swell = np.sin(np.linspace(0.15, 0.98, len(line)) * np.pi) ** 0.6  # it fades at both ends
            for k, (one, two) in enumerate(zip(bent, bent[1:])):
                pen.line([*one, *two], fill=int(255 * min(own * swell[k], 1)), width=int(2 + 2.5 * own))
    crease = np.asarray(sheet.filter(ImageFilter.GaussianBlur(1.4)), np.int16)
    fold = np.asarray(sheet.filter(ImageFilter.GaussianBlur(5)), np.int16)
    beside = np.roll(fold, 5, 0)  # light comes from above: below a crease the fold faces it
    return np.clip(128 - (crease * 36 + fold * 85 - beside * 70) // 255, 50, 160).astype(np.uint16)


def _blemishes(rng: np.random.Generator, at: Layout) -> np.ndarray:
    """Factors (SIDE,SIDE,3) of spots of age or pimples, 128 = 1."""
    sheet = Image.new("L", (SIDE, SIDE))
    pen, old = ImageDraw.Draw(sheet), rng.random() < 0.5
    for x, y in at.random_texels(rng, int(rng.integers(6, 40))):
        a, b = rng.uniform(1.0, 5.0 if old else 2.5, 2)
        pen.ellipse([x - a, y - b, x + a, y + b], fill=int(rng.uniform(60, 255)))
    spots = np.asarray(sheet.filter(ImageFilter.GaussianBlur(1.2)), np.uint16)[..., None]
    loss = np.array([35, 55, 62] if old else [8, 48, 40]) * rng.uniform(0.5, 1.2)
    return (128 - (spots * loss.astype(np.uint16) >> 8)).astype(np.uint16)


def _beard(rng: np.random.Generator, at: Layout) -> np.ndarray:
    """How much hairs cover (SIDE,SIDE), 0..255: a shape of BEARDS, from stubble to a full beard."""
    shape = np.array(list(BEARDS.values())[rng.integers(len(BEARDS))], np.float32)
    shape = np.clip(shape * rng.uniform(0.6, 1.2, len(shape)), 0, 1).astype(np.float32)
    where = (at.beard * shape[:, None, None]).max(0)
    ragged = 1.5 * where + 0.1 * smooth_noise(rng, 32) * (where > 0) - 0.2
    length, density = rng.uniform(0, 1), rng.uniform(0.35, 1)
    cover = enlarged(np.clip(ragged, 0, 1) * 255).astype(np.uint16)
    grain = _hairs()[int(length * 2.99)]
    grain = np.roll(grain, rng.integers(0, SIDE, 2), (0, 1))
    most = np.uint16(255 * density * (0.45 + 0.5 * length))
    return (cover * grain >> 8) * most >> 8


@functools.lru_cache(1)
def _hairs() -> np.ndarray:
    """How much hairs cover (3,SIDE,SIDE), 0..255 uint16: dots, short and long strokes downwards."""
    rng = np.random.default_rng(0)
    out = []
    for length, least in ((1, 0.25), (4, 0.45), (11, 0.6)):
        seed = rng.random((SIDE, SIDE))
        stroke = np.mean([np.roll(seed, (k, k * int(length > 4) // 3), (0, 1)) for k in range(length)], 0)
        spread = (stroke - stroke.mean()) / stroke.std()
        out.append(np.clip((least + 1) / 2 + (1 - least) / 2 * spread, 0, 1) * 255)
    return np.stack(out).astype(np.uint16)
