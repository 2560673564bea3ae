"""Draws prepared heads in batches on one device: rendering, backdrops and camera effects in torch.

The pictures are those of `SynthGenerator`; levels differ by a few of 255 where Pillow approximates (its Gaussian blur)
or libjpeg does (JPEG's transform), and noise comes from another generator.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from canthus.io.images import GAMMA
from canthus.synth.backdrop import Backdrop, Clutter, Panorama
from canthus.synth.effects import CameraEffects, motion_offsets, motion_steps
from canthus.synth.generator import Planner, stack
from canthus.synth.light import Environment
from canthus.synth.live import LiveFaces
from canthus.synth.person import lash_texture
from canthus.synth.preparation import VIEWS_PER_PERSON, HeadPreparer, PreparedHead
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.renderers.torch import MAX_VIEWS, Scene, TorchRenderer
from canthus.synth.truth import hidden_by, is_visible

# ITU-T T.81, annex K: the quantisation tables that libjpeg scales by the quality
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8 for _ in range(4)),
)  # fmt: skip
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class BatchRenderer:
    """Draws the heads of a `HeadPreparer` on a device, all their views at once.

    planner: of the same assets and recipe as the heads.
    """

    def __init__(self, planner: Planner, device: torch.device | str):
        self.size, self.device = planner.recipe.size, torch.device(device)
        self.renderer = TorchRenderer(planner.drawn_size, device)
        for key, image in planner.assets.textures.items():
            self.renderer.texture(key, image)
        self.renderer.texture("lash", lash_texture())
        self.backdrops = Backdrops(planner.environments, self.size, self.device)

    @torch.no_grad()
    def __call__(self, heads: Sequence[PreparedHead]) -> dict[str, Any]:
        """Samples of all views of the heads, as of `SynthGenerator.group`.

        `image` is a tensor (n,S,S,3) uint8 on the device, the rest are arrays.
        """
        models = [self.renderer.model(h.packed, h.textures) for h in heads]
        model = [m for m, h in zip(models, heads) for _ in h.views]
        views = [v for h in heads for v in h.views]
        scenes = [
            Scene(m, v.camera.resized(self.renderer.size / self.size), v.light, v.shadow) for m, v in zip(model, views)
        ]
        images = []
        for k in range(0, len(views), MAX_VIEWS):
            some = views[k : k + MAX_VIEWS]
            planes = downsample(self.renderer.draw_scenes(scenes[k : k + MAX_VIEWS]), self.size)
            behind = self.backdrops([v.backdrop for v in some])
            image = planes[:, :3] + behind * (1 - planes[:, 3:] / 255)
            images.append(apply_camera_effects(image, [v.effects for v in some], [v.noise_streams for v in some]))
        hidden = self._hidden(scenes, heads)
        truth = stack([v.truth for v in views])
        image = torch.cat(images).permute(0, 2, 3, 1)
        visible = is_visible(hidden, truth["xyz"], self.size)
        return {"image": image, **truth, "visible": visible, "occlusion": hidden}

    def _hidden(self, scenes: Sequence[Scene], heads: Sequence[PreparedHead]) -> np.ndarray:
        probes = [p for h in heads for p in h.probes]
        models, cameras = [s.model for s in scenes], [s.camera for s in scenes]
        layers = (lambda p: p.is_head), (lambda p: p.is_occluder)
        depth = self.renderer.depths(models, cameras, layers, self.renderer.size).flatten(2)
        pixels = torch.from_numpy(np.stack([p.pixels for p in probes])).to(self.device)
        head, occluders = (d.gather(1, pixels.flatten(1)).view(pixels.shape).cpu().numpy() for d in depth)
        return hidden_by(head, occluders, np.stack([p.z for p in probes]))


def render_live(
    device: torch.device | str, assets: str | None, recipe: SynthRecipe, workers: int | None = None
) -> LiveFaces:
    """Faces of a recipe, prepared by worker processes (default: one per core but one) and drawn by a device."""
    renderer = functools.cache(lambda: BatchRenderer(Planner(assets, recipe), device))
    count = workers or max((os.cpu_count() or 1) - 1, 1)
    make = functools.partial(HeadPreparer, assets, recipe)
    return LiveFaces(make, VIEWS_PER_PERSON, count, lambda groups: renderer()([head for g in groups for head in g]))


class Backdrops:
    """Draws backdrops for pictures of `size` px on a device; holds the environment maps there."""

    def __init__(self, environments: Sequence[Environment], size: int, device: torch.device):
        self.size, self.device = size, device
        sizes = np.array([e.radiance.shape[:2] for e in environments])
        start = np.cumsum([0, *sizes.prod(1)])[:-1]
        self.shapes = torch.from_numpy(np.column_stack([sizes, start])).to(device)  # height, width, first pixel
        self.radiance = torch.cat([torch.from_numpy(e.radiance.reshape(-1, 3)) for e in environments]).to(device)

    def __call__(self, backdrops: Sequence[Backdrop]) -> Tensor:
        """Backdrops (B,3,S,S), whole numbers 0..255."""
        out = torch.zeros(len(backdrops), 3, self.size, self.size, device=self.device)
        contents = [(k, b.content) for k, b in enumerate(backdrops)]
        panoramas = [(k, c) for k, c in contents if isinstance(c, Panorama)]
        if panoramas:
            out[[k for k, _ in panoramas]] = self._panoramas([c for _, c in panoramas])
        for k, c in contents:
            if isinstance(c, Clutter):
                out[k] = self._clutter(c)
            elif not isinstance(c, Panorama):
                out[k] = torch.from_numpy(c).to(out)[:, None, None]
        return gaussian_blur(out.floor(), [b.blur for b in backdrops]).round()

    def _panoramas(self, panoramas: Sequence[Panorama]) -> Tensor:
        """As of `Environment.background`."""
        views = [[p.turn, p.field_of_view, p.exposure, p.tilt] for p in panoramas]
        turn, angle, exposure, tilt = torch.tensor(views, device=self.device, dtype=torch.float32).T[..., None, None]
        axis = torch.arange(self.size, device=self.device) + 0.5 - self.size / 2
        f = 0.5 * self.size / (angle / 2).tan()
        x, y, z = axis / f, -axis[:, None] / f, -torch.ones_like(f)
        y, z = y * tilt.cos() + z * -tilt.sin(), y * tilt.sin() + z * tilt.cos()
        height = (y / (x**2 + y**2 + z**2).sqrt()).clamp(-1, 1)
        x, z = x * turn.cos() - z * turn.sin(), x * turn.sin() + z * turn.cos()
        h, w, start = self.shapes[[p.environment for p in panoramas]].T[..., None, None]
        u = ((torch.atan2(x, -z) / (2 * math.pi) + 0.5) * w).long() % w
        v = (height.acos() / math.pi * h).long().clamp(min=0).minimum(h - 1)
        image = self.radiance[start + v * w + u] * exposure[..., None]
        return (image.clamp(0, 1) ** (1 / GAMMA) * 255).permute(0, 3, 1, 2)

    def _clutter(self, clutter: Clutter) -> Tensor:
        image = torch.zeros(1, 3, self.size, self.size, device=self.device)
        for noise, weight in zip(clutter.noise, clutter.weights):
            cells = torch.from_numpy(noise).to(self.device).permute(2, 0, 1)[None].float()
            image += resized(cells, self.size, "bicubic") * weight
        return image[0] * 255 / image.max().clamp(min=1)


def resized(images: Tensor, size: int, kind: str) -> Tensor:
    """Images (B,C,H,W) of integers 0..255 resized as Pillow does, `bilinear` or `bicubic`, and rounded."""
    out = F.interpolate(images, size=(size, size), mode=kind, antialias=True)
    return out.round().clamp(0, 255)


def downsample(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B,L,L,4) uint8 with coverage reduced to `size`: colour premultiplied, (B,4,S,S) 0..255."""
    planes = pictures.permute(0, 3, 1, 2).float()
    planes = torch.cat([planes[:, :3] * (planes[:, 3:] / 255), planes[:, 3:]], 1)
    return F.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)


def gaussian_blur(images: Tensor, sigma: Sequence[float]) -> Tensor:
    """Images (B,3,S,S) blurred by Gaussians of `sigma` px each (0: not at all); borders are repeated."""
    reach = max(math.ceil(3 * max(sigma)), 1)
    spread = torch.tensor(sigma, device=images.device, dtype=torch.float32).clamp(min=1e-3)[:, None]
    weights = (-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / spread) ** 2).exp()
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    flat = images.reshape(1, -1, *images.shape[2:])
    for kernel, pad in ((weights[:, :, None], (reach, reach, 0, 0)), (weights[..., None], (0, 0, reach, reach))):
        flat = F.conv2d(F.pad(flat, pad, "replicate"), kernel, groups=flat.shape[1])
    return flat.view(images.shape)


def motion_blur(images: Tensor, motions: Sequence[tuple[float, float]]) -> Tensor:
    """Images (B,3,S,S) blurred along a line each, of a length in px and an angle in radians."""
    reach = max(math.ceil(length / 2) for length, _ in motions) + 1
    kernels = np.zeros((len(motions), 2 * reach + 1, 2 * reach + 1), np.float32)
    for kernel, (length, angle) in zip(kernels, motions):
        for x, y, weight in motion_offsets(length, angle):
            kernel[reach + y, reach + x] += weight / motion_steps(length)
    weights = torch.from_numpy(kernels).to(images).repeat_interleave(3, 0)[:, None]
    flat = F.pad(images.reshape(1, -1, *images.shape[2:]), (reach,) * 4, "replicate")
    return F.conv2d(flat, weights, groups=flat.shape[1]).view(images.shape)


def apply_camera_effects(
    images: Tensor, effects: Sequence[CameraEffects], noise_streams: Sequence[RandomStreams]
) -> Tensor:
    """Pictures (B,3,S,S) 0..255 after the effects of each, uint8; the twin of `effects.apply_camera_effects`."""
    size = images.shape[-1]

    def where(effect: str) -> tuple[list[int], list[Any]]:
        values = [(k, getattr(e, effect)) for k, e in enumerate(effects) if getattr(e, effect) is not None]
        return [k for k, _ in values], [v for _, v in values]

    rows, gammas = where("gamma")
    if rows:
        gamma = torch.tensor(gammas, device=images.device, dtype=images.dtype)[:, None, None, None]
        images[rows] = (images[rows] / 255).clamp(0, 1) ** gamma * 255
    rows, casts = where("cast")
    if rows:
        images[rows] *= torch.from_numpy(np.stack(casts)).to(images)[..., None, None]
    images = images.clamp(0, 255).floor()
    rows, sigma = where("blur")
    if rows:
        images[rows] = gaussian_blur(images[rows], sigma).round()
    rows, motions = where("motion")
    if rows:
        images[rows] = motion_blur(images[rows], motions).floor()
    for row, small in zip(*where("resolution")):
        images[row] = resized(resized(images[row][None], small, "bilinear"), size, "bicubic")[0]
    rng = torch.Generator(images.device)
    for row, sigma in zip(*where("noise")):
        rng.manual_seed(int(noise_streams[row].generator("grain").integers(2**62)))
        noise = torch.randn(3, size, size, generator=rng, device=images.device)
        images[row] = (images[row] + noise * sigma).clamp(0, 255).floor()
    rows, quality = where("jpeg_quality")
    if rows:
        images[rows] = compressed(images[rows], quality)
    return images.byte()


def compressed(images: Tensor, quality: Sequence[int]) -> Tensor:
    """Images (B,3,S,S) 0..255 after JPEG compression of a quality 1..100 each, with chroma at half the resolution."""
    height, width = images.shape[2:]
    planes = F.pad(images, (0, -width % 16, 0, -height % 16), "replicate")
    to_ycc = images.new_tensor(YCC)
    planes = torch.einsum("ij,bjhw->bihw", to_ycc, planes).round() - images.new_tensor([128.0, 0, 0])[:, None, None]
    q = images.new_tensor(quality)[:, None, None]
    scale = torch.where(q < 50, (5000 / q).floor(), 200 - 2 * q)
    tables = [((images.new_tensor(t) * scale + 50) / 100).floor().clamp(1, 255) for t in (LUMINANCE, CHROMINANCE)]
    bright = _quantised(planes[:, :1], tables[0])
    colour = F.interpolate(
        _quantised(F.avg_pool2d(planes[:, 1:], 2).round(), tables[1]), scale_factor=2.0, mode="bilinear"
    )
    planes = torch.cat([bright + 128, colour], 1)
    out = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), planes)
    return out[:, :, :height, :width].round().clamp(0, 255)


def _quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Planes (B,C,H,W) with the cosine transforms of their blocks of 8x8 rounded to multiples of tables (B,8,8)."""
    k = torch.arange(8, device=planes.device)
    cosine = (math.pi / 8 * (k + 0.5) * k[:, None]).cos() * torch.where(k == 0, 0.125, 0.25).sqrt()[:, None]
    b, c, h, w = planes.shape
    blocks = planes.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    step = tables[:, None, None, None]
    waves = (cosine @ blocks @ cosine.T / step).round() * step
    return (cosine.T @ waves @ cosine).round().transpose(3, 4).reshape(planes.shape)
