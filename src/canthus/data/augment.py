"""Augmentation of whole batches on the device: one similarity moves image, points, visibility and rotation together;
then occlusion, brightness, colour, blur and noise change the picture alone.

All random numbers come from the generator that is passed in, so a batch is reproducible from its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from canthus.data.sample import FaceBatch, StoredBatch
from canthus.errors import RecipeError
from canthus.face.expressions import mirror_expressions
from canthus.face.landmarks import convert, scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop, tight_boxes
from canthus.geometry.rotation import matrix_from_vector

MAX_BORDER = 0.45  # share of a crop's side that can lie outside the picture
PROBABILITIES = (
    "upright", "flip", "colour", "grey", "texture", "blur", "soft", "noise", "occlusion", "border",
)  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Amounts, as standard deviations unless said otherwise; probabilities are per face. One of 0 switches its effect
    off.

    With uniform draws rotation, scale and shift are half of a range: +-35 degrees, factors of 0.85 to 1.15.
    Raises `RecipeError` for an amount that is negative or not finite, and for a probability above 1.
    """

    rotation: float = 17.0  # degrees in the image plane
    upright: float = 0.0  # probability of no rotation
    clip: float = 3.0  # deviations at which normal draws of rotation, scale and shift end
    scale: float = 0.1  # of the log of the crop's side; detectors' boxes vary by about this
    shift: float = 0.055  # of the crop's centre, in box sides
    flip: float = 0.5  # probability
    gain: float = 0.25  # of the log of a factor on all channels
    gamma: float = 0.25  # of the log of the exponent
    contrast: float = 0.2  # of the log of a factor about the mean
    brightness: float = 0.08  # added to the picture, which is 0..1
    colour: float = 0.5  # probability of a colour cast: factors of the channels with a standard deviation of 0.15
    grey: float = 0.15  # probability
    texture: float = 0.0  # probability of a random convolution, mixed with the picture
    blur: float = 0.5  # probability that half of a batch has a lower resolution
    soft: float = 0.0  # probability of a Gaussian blur of 0.5 px or more
    softest: float = 2.0  # largest standard deviation of that blur, px
    noise: float = 0.3  # probability
    occlusion: float = 0.45  # probability of a rectangle or ellipse over part of the face
    cover: float = 0.52  # its longest possible side, in crop sides; 0.12 is the shortest
    border: float = 0.15  # probability that each side of the picture ends within the crop with a chance of 0.35
    draws: Literal["normal", "uniform"] = "normal"  # of rotation, scale and shift
    outside: Literal["mirrored", "black"] = "mirrored"  # what a crop shows beyond the picture's own border

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most, wanted = (1.0, "0 to 1") if name in PROBABILITIES else (math.inf, "zero or more")
            if not isinstance(value, str) and not (0 <= value <= most and math.isfinite(value)):
                raise RecipeError(f"`augment.{name}` is {value}; {wanted} is wanted")
        for name, of, low in (("cover", "occlusion", 0.12), ("softest", "soft", 0.5)):
            if getattr(self, of) and getattr(self, name) < low:
                raise RecipeError(f"`augment.{name}` is {getattr(self, name)}; {low} or more is wanted")
        if self.draws == "uniform" and self.scale >= 1:
            raise RecipeError(f"`augment.scale` is {self.scale}, half of a range about 1; less than 1 is wanted")


def warp_batch(images: Tensor, crop: Crop, outside: Literal["mirrored", "black"] = "mirrored") -> Tensor:
    """Crops (B,C,S,S) of images (B,C,H,W); the fast twin of `geometry.sampling.warp`. Beyond the border the image
    is mirrored, or black."""
    height, width = images.shape[-2:]
    affine = crop.affine_image_from_crop()
    points = functional.pad(_pixels(crop.size, affine), (0, 1), value=1.0) @ affine[:, None].transpose(-1, -2)
    grid = (2 * points + 1) / torch.tensor([width, height], device=affine.device) - 1
    padding = {"mirrored": "reflection", "black": "zeros"}[outside]
    return functional.grid_sample(images, grid.to(images.dtype), padding_mode=padding, align_corners=False)


def _pixels(size: int, like: Tensor) -> Tensor:
    """Places (S,S,2) of a crop's pixels, x and y."""
    axis = torch.arange(size, dtype=like.dtype, device=like.device)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u, v], -1)


class Augmenter:
    """Cuts random crops of stored faces: about their boxes, or aligned to a mean shape (`Crop.around_shapes`, by
    the 68 points). points: the scheme of the faces."""

    def __init__(
        self,
        options: Augmentation,
        size: int,
        crop_scale: float,
        mean_shape: Sequence | None = None,
        points: str = "ibug68",
    ):
        self.options, self.size, self.crop_scale, self.scheme = options, size, crop_scale, points
        self.mean_shape = None if mean_shape is None else torch.tensor(mean_shape)
        self.mirror = torch.tensor(scheme(points).mirror)
        inner = convert(torch.zeros(scheme(points).count, 2), points, "ibug68")[0]
        if mean_shape is not None and inner.isnan().any():
            raise RecipeError(f"crops are aligned by the 68 points, not all of which {points} gives; boxes are wanted")

    def __call__(self, stored: StoredBatch, rng: torch.Generator) -> FaceBatch:
        """Augmented crops of stored pictures; these and the generator are on one device."""
        xyz, visible, rotation, vertices = stored.xyz, stored.visible, stored.rotation, stored.vertices
        crop, flip = self._placement(xyz, tight_boxes(xyz) if stored.boxes is None else stored.boxes, rng)
        crops = warp_batch(stored.images.float(), crop, self.options.outside).div_(255)
        crops = torch.where(flip[:, None, None, None], crops.flip(-1), crops)
        # the crop turned by +angle shows the head turned by -angle; y points down, so about z it is +angle
        rotation = matrix_from_vector(crop.angle[:, None] * rotation.new_tensor([0.0, 0.0, 1.0])) @ rotation
        xyz = self._flipped(crop.crop_from_image(xyz), self.mirror.to(xyz.device), flip)
        if vertices is not None:
            pairs = torch.from_numpy(MorphableModel.default().mirror).to(xyz.device)
            vertices = self._flipped(crop.crop_from_image(vertices), pairs, flip)
        visible = torch.where(flip[:, None], visible.float()[:, self.mirror.to(xyz.device)], visible.float())
        reflect = torch.diag(rotation.new_tensor([-1.0, 1, 1]))
        rotation = torch.where(flip[:, None, None], reflect @ rotation @ reflect, rotation)
        crops, covered = self._occlude(crops, xyz, rng)
        inside = ((xyz[..., :2] >= 0) & (xyz[..., :2] <= self.size - 1)).all(-1)
        crops, cut = self._border(self.change_colours(crops, rng), xyz, rng)
        expression = stored.expression
        if expression is not None:
            expression = torch.where(flip[:, None], expression[:, mirror_expressions()], expression)
        known = stored.known
        if known is not None:
            known = torch.where(flip[:, None], known[:, self.mirror.to(xyz.device)], known)
        visible = visible * ~(covered | cut) * inside
        modes = stored.modes  # of heads whose modes need not be mirror images of each other
        if modes is not None:
            modes = modes.masked_fill(flip[:, None], torch.nan)
        truth = (xyz, visible, rotation, vertices, expression, known, stored.deep, stored.posed, modes, stored.number)
        return FaceBatch(*truth, crops=crops)

    def points(self, xyz: Tensor, boxes: Tensor, rng: torch.Generator) -> Tensor:
        """The points (B,L,3) in crop pixels that a call with xyz (B,L,3) and boxes (B,4) would give, without cutting
        any crop."""
        crop, flip = self._placement(xyz, boxes, rng)
        return self._flipped(crop.crop_from_image(xyz), self.mirror.to(xyz.device), flip)

    def _placement(self, xyz: Tensor, boxes: Tensor, rng: torch.Generator) -> tuple[Crop, Tensor]:
        """A random crop around each face with points xyz (B,L,3) and a box (B,4), and whether to flip it (B,)."""
        o, count = self.options, len(xyz)

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=rng, device=xyz.device)

        def moved(amount: float, *shape: int) -> Tensor:
            if o.draws == "normal":
                return normal(*shape).clamp(-o.clip, o.clip) * amount
            return (2 * torch.rand(count, *shape, generator=rng, device=xyz.device) - 1) * amount

        angle = moved(o.rotation) * math.pi / 180
        if o.upright:
            angle = angle * (torch.rand(count, generator=rng, device=xyz.device) >= o.upright)
        if self.mean_shape is None:
            crop = Crop.around_boxes(boxes, self.crop_scale, self.size, angle)
        else:
            inner = convert(xyz[..., :2], self.scheme, "ibug68")[0]
            crop = Crop.around_shapes(inner, self.mean_shape.to(xyz), self.size)
            angle = angle + crop.angle
        center = crop.center + moved(o.shift, 2) * (crop.side / self.crop_scale)[:, None]
        scale = moved(o.scale)
        side = crop.side * scale.exp() if o.draws == "normal" else crop.side / (1 + scale)
        crop = Crop(center, side, angle, self.size)
        return crop, torch.rand(count, generator=rng, device=xyz.device) < o.flip

    def _flipped(self, points: Tensor, pairs: Tensor, flip: Tensor) -> Tensor:
        """Points (B,P,3) in crop pixels, mirrored where `flip` (B,); pairs: index (P,) of the mirror point of each."""
        sign, shift = points.new_tensor([-1.0, 1, 1]), points.new_tensor([self.size - 1.0, 0, 0])
        return torch.where(flip[:, None, None], points[:, pairs] * sign + shift, points)

    def _occlude(self, crops: Tensor, xyz: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Put a rectangle or ellipse from another crop, or of one colour, over some faces."""
        count, size = len(crops), self.size
        u = torch.rand(count, 8, generator=rng, device=crops.device)
        on = u[:, 0] < self.options.occlusion
        centre = u[:, 1:3] * size
        half = (0.06 + (self.options.cover / 2 - 0.06) * u[:, 3:5]) * size
        turn = u[:, 5] * math.pi
        c, s = turn.cos(), turn.sin()
        boxy = (u[:, 6] < 0.5)[:, None]

        def inside(points: Tensor) -> Tensor:
            d = points - centre[:, None]
            a = ((d[..., 0] * c[:, None] + d[..., 1] * s[:, None]) / half[:, :1]).square()
            b = ((d[..., 1] * c[:, None] - d[..., 0] * s[:, None]) / half[:, 1:]).square()
            return torch.where(boxy, torch.maximum(a, b), a + b).lt(1) & on[:, None]

        mask = inside(_pixels(size, crops).reshape(1, -1, 2)).reshape(count, 1, size, size)
        other = crops.roll(1, 0).flip(-2)
        plain = torch.rand(count, 3, 1, 1, generator=rng, device=crops.device).expand_as(crops)
        cover = torch.where((u[:, 7] < 0.5)[:, None, None, None], other, plain)
        return torch.where(mask, cover, crops), inside(xyz[..., :2])

    def _border(self, crops: Tensor, xyz: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """End some pictures within the crop, on each side at most MAX_BORDER of it from its edge; beyond is black."""
        u = torch.rand(len(crops), 9, generator=rng, device=crops.device)
        on = (u[:, :4] < 0.35) & (u[:, 8:] < self.options.border)
        depth = torch.where(on, MAX_BORDER * self.size * u[:, 4:8], 0)  # left, top, right, bottom

        def beyond(points: Tensor) -> Tensor:
            sides = torch.cat([points, self.size - 1 - points], -1)
            return (sides < depth[:, None]).any(-1)

        mask = beyond(_pixels(self.size, crops).reshape(1, -1, 2)).reshape(-1, 1, self.size, self.size)
        return crops.masked_fill(mask, 0), beyond(xyz[..., :2])

    def change_colours(self, crops: Tensor, rng: torch.Generator) -> Tensor:
        """Crops (B,3,S,S), 0..1, in other light and as another camera sees them; they are changed in place."""
        o, count = self.options, len(crops)

        def chance(p: float) -> Tensor:
            return (torch.rand(count, 1, 1, 1, generator=rng, device=crops.device) < p).to(crops.dtype)

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=rng, device=crops.device)

        factor = (1 + chance(o.colour) * 0.15 * normal(3, 1, 1)) * (o.gain * normal(1, 1, 1)).exp()
        crops = crops.mul_(factor).clamp_(0, 1).pow_((o.gamma * normal(1, 1, 1)).exp())
        # contrast about the mean and brightness, as one linear function
        contrast = (o.contrast * normal(1, 1, 1)).exp()
        offset = (1 - contrast) * crops.mean((1, 2, 3), keepdim=True) + o.brightness * normal(1, 1, 1)
        crops = crops.mul_(contrast).add_(offset)
        grey = chance(o.grey)
        crops = crops.lerp_(crops.mean(1, keepdim=True).expand_as(crops), grey)
        if o.texture:
            share = torch.rand(count, 1, 1, 1, generator=rng, device=crops.device) * chance(o.texture)
            crops = crops.lerp_(_random_texture(crops, rng), share)
        scalar = torch.rand(2, generator=rng, device=crops.device).tolist()
        if scalar[0] < o.blur:  # half of the batch goes through one smaller size and back
            small = int(self.size * (0.2 + 0.6 * scalar[1]))
            low = functional.interpolate(crops, size=(small, small), mode="bilinear", antialias=True)
            low = functional.interpolate(low, size=crops.shape[-2:], mode="bilinear")
            crops = crops.lerp_(low, chance(0.5))
        if o.soft:
            on = torch.rand(count, generator=rng, device=crops.device) < o.soft
            deviation = 0.5 + (o.softest - 0.5) * torch.rand(count, generator=rng, device=crops.device)
            crops = torch.where(on[:, None, None, None], _blurred(crops, deviation), crops)
        loud = chance(o.noise) * 0.06 * torch.rand(count, 1, 1, 1, generator=rng, device=crops.device)
        return crops.addcmul_(loud, torch.randn(crops.shape, generator=rng, device=crops.device)).clamp_(0, 1)


def _random_texture(crops: Tensor, rng: torch.Generator) -> Tensor:
    """Crops (B,3,S,S) under one random convolution of 1, 3 or 5 px, which changes texture and colours and keeps shapes;
    each with its own mean and contrast (Xu et al., "Robust and generalizable visual representation learning via random
    convolutions", ICLR 2021)."""
    side = (1, 3, 5)[int(torch.randint(3, (), generator=rng, device=crops.device))]
    kernel = torch.randn(3, 3, side, side, generator=rng, device=crops.device)
    mean = crops.mean((2, 3), keepdim=True)
    changed = functional.conv2d(functional.pad(crops - mean, [side // 2] * 4, mode="reflect"), kernel)
    contrast = crops.std((1, 2, 3), keepdim=True) / changed.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return changed * contrast + mean


def _blurred(crops: Tensor, deviation: Tensor) -> Tensor:
    """Crops (B,C,S,S) under Gaussians of standard deviations (B,) px each, cut at three of the largest."""
    count, channels, size, _ = crops.shape
    reach = math.ceil(3 * float(deviation.max()))
    offsets = torch.arange(-reach, reach + 1, device=crops.device)
    kernel = torch.exp(-0.5 * (offsets / deviation[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(crops.dtype)
    planes = functional.pad(crops.reshape(1, -1, size, size), [reach] * 4, mode="replicate")
    across = functional.conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    return functional.conv2d(across, kernel[:, None, :, None], groups=count * channels).reshape(crops.shape)
