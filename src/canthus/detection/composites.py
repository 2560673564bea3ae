"""Pictures for a face detector to learn from: rendered heads, cut out and pasted onto backdrops, with exact truth.

A composite is a function of (seed, number): how many faces, their sizes, turns and places, what is behind and between
them, and what a camera does to the whole. Truth follows from the landmarks of the renders.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from canthus.detection.patterns import pattern, relief, scatter
from canthus.errors import RecipeError
from canthus.geometry.crop import Crop, tight_boxes
from canthus.io.images import GAMMA
from canthus.io.shards import open_shard, shards_in
from canthus.synth.light import Environment
from canthus.synth.truth import REGIONS

FACE, THINGS = REGIONS.index("face"), REGIONS.index("things")

# Degrees between where a head looks and the camera. Up to the first it is a face to find, from the second on the back
# of a head, which is none; in between a detector may say either.
FACE_ANGLE, BACK_ANGLE = 100.0, 118.0
# Of the square of a face's longer side, the share that shows skin of the face: 0.4 to 0.8 if nothing hides it. Under
# the first share it may be missed, under the second there is nothing to find.
LITTLE, NOTHING = 0.2, 0.04
SMALLEST = 9.0  # longer side of the tight box, px, under which it may be missed
LEAST = 8.5  # and the smallest that is pasted
COUNTS = ((0, 0), (1, 1), (2, 4), (5, 12), (13, 30))  # faces in a picture, from and to
COUNT_SHARES = (0.04, 0.13, 0.34, 0.39, 0.1)
OBJECTS_SHARE = 0.35  # of backdrops with objects strewn over them, where there are any
MINED_SHARE, MINED_FROM = 0.16, 8  # of all pictures, where a judge mines: no face, the hardest of so many
_Outline = tuple[list[tuple[float, float]], tuple[int, ...] | Image.Image]  # corners of an area, px; what it shows
_MOSTLY = [0] * 128 + [255] * 128  # Pillow's table: what is more than half


class FaceTruth(NamedTuple):
    """The faces (F,) of one picture, px.

    box: (F,4) tight boxes around the 68 landmarks. upright: (F,3) centre x, y and longer side of the tight box along
    the axes of the upright head. up: (F,2) unit vector x, y (down) of the head's upward axis. wanted: (F,) False for a
    face that may be found or missed.
    """

    box: np.ndarray
    upright: np.ndarray
    up: np.ndarray
    wanted: np.ndarray


@dataclass(frozen=True)
class CutOut:
    """A rendered head. image: (S,S,3) uint8. region: (S,S), see `synth.truth.REGIONS`. points: (68,2) px. up: (2,) the
    head's upward axis in the picture, y down. angle: degrees between where it looks and the camera."""

    image: np.ndarray
    region: np.ndarray
    points: np.ndarray
    up: np.ndarray
    angle: float

    @property
    def side(self) -> float:
        """Longer side of the tight box, px."""
        return float(np.ptp(self.points, axis=0).max())


class CutOuts:
    """Rendered heads from folders of `canthus synth --set maps=true`. Raises `RecipeError` for others."""

    def __init__(self, folders: Sequence[str | Path]):
        shards = [open_shard(p) for folder in folders for p in shards_in(folder)]
        if not shards or any("region" not in s.files for s in shards):
            raise RecipeError("want folders of renders with regions: canthus synth --set maps=true")
        self._rows = [tuple(s.rows(f) for f in ("image", "region", "xyz", "rotation")) for s in shards]
        self._starts = np.cumsum([0, *(len(rows[0]) for rows in self._rows)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> CutOut:
        shard = int(np.searchsorted(self._starts, number, "right")) - 1
        image, region, xyz, rotation = (rows[number - self._starts[shard]] for rows in self._rows[shard])
        up = np.array([rotation[0, 1], -rotation[1, 1]], np.float64)
        angle = math.degrees(math.acos(float(np.clip(rotation[2, 2], -1, 1))))
        return CutOut(image, region, np.asarray(xyz[:, :2], np.float64), up / max(float(np.hypot(*up)), 1e-6), angle)


class Composer:
    """Draws composites of `side` x `side` px.

    photos: pictures (H,W,3) uint8 without faces, of which parts are shown behind the heads, and alone. objects: files
    of small pictures of things with opacity, which are strewn over other backdrops. judge: says how much each of some
    pictures (N,side,side,3) looks like a face; with it more pictures without faces are drawn, those of many that it
    likes best (hard negatives).
    """

    def __init__(
        self, cutouts: CutOuts, environments: Sequence[Environment], photos: Sequence[np.ndarray],
        objects: Sequence[Path], side: int, judge: Callable[[np.ndarray], np.ndarray] | None = None,
    ):  # fmt: skip
        self.cutouts, self.environments, self.photos, self.side = cutouts, environments, photos, side
        self.objects, self.judge = objects, judge

    def compose(self, seed: int, number: int) -> tuple[np.ndarray, FaceTruth]:
        """Picture (side,side,3) uint8 and its truth."""
        rng = np.random.default_rng([seed, number])
        if self.judge is not None and rng.random() < MINED_SHARE:
            images, truths = zip(*(self._draw(rng, 0) for _ in range(MINED_FROM)))
            hardest = int(self.judge(np.stack(images)).argmax())
            return images[hardest], truths[hardest]
        low, high = COUNTS[rng.choice(len(COUNTS), p=COUNT_SHARES)]
        return self._draw(rng, int(rng.integers(low, high + 1)))

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, FaceTruth]:
        backdrop = self._backdrop(rng)
        if self.objects and rng.random() < OBJECTS_SHARE:
            scatter(rng, backdrop, self.objects)
        canvas = _Canvas(backdrop)
        for side in _sides(rng, count, self.side):
            self._paste_head(rng, canvas, side)
        for _ in range(rng.poisson(0.4)):
            self._paste_decoy(rng, canvas)
        image, sharpness = _camera_effects(rng, canvas.image)
        return _black_edge(rng, image, canvas.truth(sharpness))

    def _pick(self, rng: np.random.Generator) -> CutOut:
        return self.cutouts[int(rng.integers(len(self.cutouts)))]

    def _backdrop(self, rng: np.random.Generator) -> Image.Image:
        kind, side = rng.random(), self.side
        if kind < 0.3:
            environment = self.environments[int(rng.integers(len(self.environments)))]
            exposure = 0.5 / max(float(environment.small.mean()), 1e-4) * rng.uniform(0.4, 1.6)
            view = environment.background(
                rng.uniform(0, 2 * np.pi), side // 2, math.radians(rng.uniform(30, 100)), exposure, rng.normal(0, 0.3)
            )
            small = Image.fromarray((np.clip(view, 0, 1) ** (1 / GAMMA) * 255).astype(np.uint8))
            return small.resize((side, side), Image.Resampling.BICUBIC)
        if kind < 0.6 and self.photos:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            part = int(min(photo.shape[:2]) * math.exp(rng.uniform(math.log(0.12), 0)))
            y, x = (int(rng.integers(n - part + 1)) for n in photo.shape[:2])
            return Image.fromarray(photo[y : y + part, x : x + part]).resize((side, side), Image.Resampling.BILINEAR)
        if kind < 0.78:
            return pattern(rng, side)
        if kind < 0.92:
            return relief(rng, side)
        if kind < 0.97:
            noise = np.full((side, side, 3), 128.0)
            for cells in (2, 5, 12, 30, 80):
                grey = rng.random((cells, cells, 1))
                cell = grey + rng.uniform(0, 0.7) * (rng.random((cells, cells, 3)) - grey)
                tile = Image.fromarray((cell * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
                noise += rng.uniform(0, 0.8) * (np.asarray(tile, np.float64) - 128)
            return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
        return Image.new("RGB", (side, side), tuple(int(v) for v in rng.integers(0, 256, 3)))

    def _paste_head(self, rng: np.random.Generator, canvas: _Canvas, side: float) -> None:
        head = self._pick(rng)
        turn = rng.normal(0, 0.25) if rng.random() < 0.62 else rng.uniform(-np.pi, np.pi)
        middle = self._place(rng, canvas, side)
        placed = _Placed(head, middle, side / head.side, turn, rng.random() < 0.5)
        whole = rng.random() < 0.12  # a picture within the picture, its backdrop included
        alpha = np.full(head.region.shape, 255, np.uint8) if whole else _alpha(head.region > 0)
        if not whole and rng.random() < 0.6:
            shoulders, *more = _body(rng, placed)
            if rng.random() < 0.6:
                shoulders = shoulders[0], relief(rng, self.side)
            canvas.draw([shoulders, *more])
        canvas.paste(placed, head.image, alpha, head.region == FACE, _tint(rng))
        if head.angle < BACK_ANGLE:
            canvas.add(placed, head.angle < FACE_ANGLE)

    def _place(self, rng: np.random.Generator, canvas: _Canvas, side: float) -> np.ndarray:
        """The middle of a face: anywhere in a fifth of cases, else the emptiest of a few places within the picture."""
        if rng.random() < 0.2:
            return rng.uniform(-0.1 * side, self.side + 0.1 * side, 2)
        margin = min(0.55 * side, self.side / 2)
        places = rng.uniform(margin, self.side - margin, (8, 2))
        return min(places, key=lambda place: canvas.crowd(place, side))

    def _paste_decoy(self, rng: np.random.Generator, canvas: _Canvas) -> None:
        """Hands and cloth without a face, or a face cut into nine pieces in the wrong places: neither is a face."""
        head = self._pick(rng)
        side = math.exp(rng.uniform(math.log(14), math.log(0.5 * self.side)))
        placed = _Placed(head, rng.uniform(0, self.side, 2), side / head.side, rng.uniform(-np.pi, np.pi), False)
        image, things = head.image, head.region == THINGS
        if things.mean() > 0.02:
            canvas.paste(placed, image, _alpha(things), np.zeros_like(things), _tint(rng))
            return
        third = len(image) // 3
        tiles = [image[r : r + third, c : c + third] for r in (0, third, 2 * third) for c in (0, third, 2 * third)]
        order = [tiles[k] for k in rng.permutation(9)]
        image = np.concatenate([np.concatenate(order[k : k + 3], 1) for k in (0, 3, 6)])
        whole = np.full(image.shape[:2], 255, np.uint8)
        canvas.paste(placed, image, whole, np.zeros(image.shape[:2], bool), _tint(rng))


class _Placed:
    """A head in its place: the similarity from its picture to the canvas."""

    def __init__(self, head: CutOut, middle: np.ndarray, scale: float, turn: float, mirrored: bool):
        c, s = scale * math.cos(turn), scale * math.sin(turn)
        self.scale = scale
        self.linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
        self.shift = middle - self.linear @ tight_boxes(head.points[None])[0].reshape(2, 2).mean(0)
        self.points = head.points @ self.linear.T + self.shift
        up = self.linear @ head.up
        self.up = up / np.hypot(*up)

    def on_canvas(self, points: np.ndarray) -> np.ndarray:
        """Points (N,2) of the head's picture on the canvas."""
        return points @ self.linear.T + self.shift


class _Canvas:
    """What was pasted so far, nearest last, and which pixels of which face are seen."""

    def __init__(self, image: Image.Image):
        self.image = image
        self._owner = Image.new("L", image.size)  # number from 1 of the face whose skin a pixel shows
        self._faces: list[tuple[_Placed, bool]] = []
        self._last: tuple[Image.Image, tuple[int, int]] | None = None

    def paste(self, placed: _Placed, image: np.ndarray, alpha: np.ndarray, face: np.ndarray, tint: list[int]) -> None:
        """A picture (S,S,3) with its cover 0..255 (S,S), its face (S,S) and what becomes of its colours."""
        size = len(image)
        corners = placed.on_canvas(np.array([[0, 0], [size, 0], [0, size], [size, size]], float) - 0.5)
        x0, y0 = np.clip(np.floor(corners.min(0)), 0, None).astype(int)
        x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (self.image.width, self.image.height))
        self._last = None
        if x0 >= x1 or y0 >= y1:
            return
        reduction = max(1, int(1 / placed.scale))
        inverse = np.linalg.inv(placed.linear)
        start = inverse @ (np.array([x0, y0]) - placed.shift)
        # Pillow counts from pixels' corners: u = A (i + 1/2) + b
        offset = (start + 0.5 - inverse @ [0.5, 0.5]) / reduction
        data = (*inverse[0] / reduction, offset[0], *inverse[1] / reduction, offset[1])
        data = (data[0], data[1], data[2], data[3], data[4], data[5])
        layers: tuple[Image.Image, ...] = (
            Image.fromarray(image),
            Image.fromarray(alpha),
            Image.fromarray(face.view(np.uint8) * np.uint8(255)),
        )
        if reduction > 1:
            layers = tuple(layer.reduce(reduction) for layer in layers)
        box = int(x1 - x0), int(y1 - y0)
        colour, cover, mask = (
            layer.transform(box, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR) for layer in layers
        )
        self.image.paste(colour.point(tint), (int(x0), int(y0)), cover)
        corner = int(x0), int(y0)
        covered = cover.point(_MOSTLY)
        self._owner.paste(0, corner, covered)
        self._last = ImageChops.darker(covered, mask.point(_MOSTLY)), corner

    def draw(self, outlines: Sequence[_Outline]) -> None:
        """Areas of one colour each, or of a picture as large as the canvas."""
        for corners, fill in outlines:
            area = Image.new("L", self.image.size)
            ImageDraw.Draw(area).polygon(corners, 255)
            self.image.paste(fill, (0, 0, *self.image.size), area)
            self._owner.paste(0, (0, 0, *self.image.size), area)

    def add(self, placed: _Placed, wanted: bool) -> None:
        """Note that what was pasted last is a face."""
        if self._last is None:
            return
        skin, corner = self._last
        self._faces.append((placed, wanted))
        self._owner.paste(len(self._faces), corner, skin)

    def crowd(self, middle: np.ndarray, side: float) -> float:
        """How much of faces that are there a face in this place would hide: 0 nothing."""
        ratios = [
            np.abs((p.points.min(0) + p.points.max(0)) / 2 - middle).max() / (np.ptp(p.points, axis=0).max() + side)
            for p, _ in self._faces
        ]
        return sum(max(0.0, 0.8 - ratio) for ratio in ratios)

    def truth(self, sharpness: float = 1.0) -> FaceTruth:
        """The faces of the finished picture, whose details are as fine as those of one `sharpness` times its size."""
        if not self._faces:
            return FaceTruth(np.zeros((0, 4)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, bool))
        seen = np.bincount(np.asarray(self._owner).ravel(), minlength=len(self._faces) + 1)[1:]
        points, up = np.stack([p.points for p, _ in self._faces]), np.stack([p.up for p, _ in self._faces])
        crop = Crop.around_points(points, 1.0, 1, np.arctan2(up[:, 0], -up[:, 1]))
        box = tight_boxes(points)
        sides = (box[:, 2:] - box[:, :2]).max(1)
        wanted = np.array([w for _, w in self._faces]) & (seen > LITTLE * sides**2) & (sharpness * sides >= SMALLEST)
        truth = FaceTruth(box, np.column_stack([crop.center, crop.side]), up, wanted)
        return FaceTruth(*(values[seen > NOTHING * sides**2] for values in truth))


def _sides(rng: np.random.Generator, count: int, picture: int) -> list[float]:
    """Longer sides of that many faces, px, from far to near; a crowd has smaller faces."""
    largest = picture * (0.92 if count < 2 else 0.75 / math.sqrt(count) + 0.1)
    sides = np.exp(rng.uniform(math.log(LEAST), math.log(largest), count))
    if count and rng.random() < 0.6:  # most photos show somebody near
        sides[0] = math.exp(rng.uniform(math.log(0.15 * picture), math.log(largest)))
    if count > 4 and rng.random() < 0.6:  # people at about one distance
        sides = np.exp(rng.uniform(math.log(LEAST), math.log(largest))) * np.exp(rng.normal(0, 0.25, count))
    return sorted(float(s) for s in sides)


def _alpha(seen: np.ndarray) -> np.ndarray:
    """The cover of what is seen, with a rim of a pixel that lets the backdrop through."""
    picture = Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
    return np.minimum(np.asarray(picture.filter(ImageFilter.BoxBlur(1))), np.asarray(picture))


def _tint(rng: np.random.Generator) -> list[int]:
    """Another exposure, contrast and white balance, as Pillow's table for `point`."""
    gain = math.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.06, 3))
    pivot, contrast = rng.uniform(60, 160), math.exp(rng.normal(0, 0.2))
    table = np.clip((np.arange(256)[:, None] * gain - pivot) * contrast + pivot, 0, 255)
    return [int(v) for v in table.T.ravel()]


def _body(rng: np.random.Generator, placed: _Placed) -> list[_Outline]:
    """Shoulders of one or two colours under a head: outlines and their colours."""
    low, high = placed.points.min(0), placed.points.max(0)
    side = float((high - low).max())
    angle = math.atan2(placed.up[0], -placed.up[1]) + rng.normal(0, 0.2)
    down = np.array([-math.sin(angle), math.cos(angle)])
    across = np.array([down[1], -down[0]])
    neck = (low + high) / 2 + down * side * rng.uniform(0.85, 1.1)
    wide, tall = side * rng.uniform(1.1, 1.7), side * rng.uniform(1.5, 3.5)
    shape = [(-0.25, 0), (0.25, 0), (0.8, 0.15), (1, 0.4), (1, 1), (-1, 1), (-1, 0.4), (-0.8, 0.15)]
    outlines: list[_Outline] = []
    for share in (1.0, rng.uniform(0.1, 0.6))[: int(rng.integers(1, 3))]:
        corners = [neck + across * x * wide * share + down * y * tall for x, y in shape]
        outlines.append(([(float(x), float(y)) for x, y in corners], tuple(int(v) for v in rng.integers(0, 256, 3))))
    return outlines


def _camera_effects(rng: np.random.Generator, image: Image.Image) -> tuple[np.ndarray, float]:
    """Resolution, blur, light, noise and compression of a whole picture (H,W,3) uint8; and how many times smaller a
    sharp picture of the same details would be."""
    sharpness = 1.0
    if rng.random() < 0.2:
        small = max(int(image.width / math.exp(rng.uniform(0, math.log(3)))), 32)
        sharpness = small / image.width
        image = image.resize((small, small), Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)
    if rng.random() < 0.2:
        blur = rng.uniform(0.3, 2.0)
        sharpness /= max(1.0, 1.5 * blur)
        image = image.filter(ImageFilter.GaussianBlur(blur))
    elif rng.random() < 0.15:
        image = image.filter(ImageFilter.UnsharpMask(1.5, int(rng.uniform(30, 150)), 0))
    if rng.random() < 0.1:
        image = image.convert("L").convert("RGB")
    gamma, gain = math.exp(rng.normal(0, 0.3)), np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.08, 3))
    table = np.clip((np.arange(256)[:, None] / 255) ** gamma * gain * 255, 0, 255).astype(np.uint8)
    image = image.point([int(v) for v in table.T.ravel()])
    if rng.random() < 0.4:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(25, 95)))
        image = Image.open(stream).convert("RGB")
    pixels = np.asarray(image)
    if rng.random() < 0.35:
        grain = rng.normal(0, math.exp(rng.uniform(0, math.log(16))), (64, *pixels.shape[1:])).astype(np.float32)
        grain = np.tile(grain, (pixels.shape[0] // 64 + 1, 1, 1))[: pixels.shape[0]]
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return pixels, sharpness


def _black_edge(rng: np.random.Generator, image: np.ndarray, truth: FaceTruth) -> tuple[np.ndarray, FaceTruth]:
    """Some pictures are not square: black below or to the right, as inference fills them."""
    if rng.random() > 0.35:
        return image, truth
    image = image.copy()
    end, axis = int(len(image) * rng.uniform(0.55, 0.95)), int(rng.integers(2))
    if axis:
        image[:, end:] = 0
    else:
        image[end:] = 0
    across = 0 if axis else 1  # coordinate that the edge cuts
    low, high = truth.box[:, across], truth.box[:, across + 2]
    inside = np.clip(end - low, 0, None) / np.maximum(high - low, 1e-6)
    return image, FaceTruth(*(values[inside > 0] for values in truth._replace(wanted=truth.wanted & (inside > 0.5))))
