"""Many pictures at once on one device: the torch twin of `picture`, and the studio that draws prepared heads with it.

What is drawn is the same; levels differ by a few of 255 where Pillow approximates (its Gaussian blur) or libjpeg does
(JPEG's transform). Grain comes from another generator.
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

from canthus.synth.generator import Planner, stack
from canthus.synth.lighting import Environment
from canthus.synth.live import LiveFaces
from canthus.synth.picture import Backdrop, Clutter, Development, Panorama, streak, streak_steps
from canthus.synth.preparation import VIEWS_PER_PERSON, Preparer, Take
from canthus.synth.recipe import Dice, SynthRecipe
from canthus.synth.renderers.torch import AT_ONCE, Scene, TorchRenderer
from canthus.synth.sampling import lash_texture
from canthus.synth.truth import hidden, is_cover, is_own

# ITU-T T.81, annex K: what libjpeg scales by the quality; of luminance and of chrominance
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


class Studio:
    """Draws prepared heads (`takes.Preparer`) on a device, all their views at once. The plan's assets and recipe are
    those that the heads were prepared with."""

    def __init__(self, plan: Planner, device: torch.device | str):
        self.size, self.device = plan.recipe.size, torch.device(device)
        self.renderer = TorchRenderer(plan.drawn_size, device)
        for key, image in plan.assets.textures.items():
            self.renderer.texture(key, image)
        self.renderer.texture("lash", lash_texture())
        self.backdrops = Backdrops(plan.environments, self.size, self.device)

    @torch.no_grad()
    def __call__(self, takes: Sequence[Take]) -> dict[str, Any]:
        """Samples as of `SynthGenerator.group`, of all shots of the takes; `image` is a tensor (n,S,S,3) uint8 on the
        device, the rest are arrays."""
        models = [self.renderer.model(t.packed, t.textures) for t in takes]
        model = [m for m, t in zip(models, takes) for _ in t.shots]
        shots = [s for t in takes for s in t.shots]
        scenes = [
            Scene(m, s.camera.resized(self.renderer.size / self.size), s.light, s.shadow) for m, s in zip(model, shots)
        ]
        images = []
        for k in range(0, len(shots), AT_ONCE):
            some = shots[k : k + AT_ONCE]
            planes = reduce(self.renderer.draw_scenes(scenes[k : k + AT_ONCE]), self.size)
            behind = self.backdrops([s.backdrop for s in some])
            image = planes[:, :3] + behind * (1 - planes[:, 3:] / 255)
            images.append(develop(image, [s.development for s in some], [s.grain for s in some]))
        hides = self._hides(scenes, takes)
        truth = stack([s.truth for s in shots])
        image = torch.cat(images).permute(0, 2, 3, 1)
        return {"image": image, **truth, "visible": hides == 0, "occlusion": hides}

    def _hides(self, scenes: Sequence[Scene], takes: Sequence[Take]) -> np.ndarray:
        probes = [p for t in takes for p in t.probes]
        models, cameras = [s.model for s in scenes], [s.camera for s in scenes]
        depth = self.renderer.depths(models, cameras, (is_own, is_cover), self.renderer.size).flatten(2)
        pixels = torch.from_numpy(np.stack([p.pixels for p in probes])).to(self.device)
        own, cover = (d.gather(1, pixels.flatten(1)).view(pixels.shape).cpu().numpy() for d in depth)
        return hidden(own, cover, np.stack([p.z for p in probes]))


def faces_on(
    device: torch.device | str, assets: str | None, recipe: SynthRecipe, workers: int | None = None
) -> LiveFaces:
    """Faces of a recipe that worker processes prepare, by default one a core but one, and a device draws."""
    studio = functools.cache(lambda: Studio(Planner(assets, recipe), device))
    count = workers or max((os.cpu_count() or 1) - 1, 1)
    make = functools.partial(Preparer, assets, recipe)
    return LiveFaces(make, VIEWS_PER_PERSON, count, lambda groups: studio()([take for g in groups for take in g]))


class Backdrops:
    """Environments on a device, and what else is behind heads, for pictures of `size` px."""

    def __init__(self, environments: Sequence[Environment], size: int, device: torch.device):
        self.size, self.device = size, device
        sizes = np.array([e.radiance.shape[:2] for e in environments])
        start = np.cumsum([0, *sizes.prod(1)])[:-1]
        self.shapes = torch.from_numpy(np.column_stack([sizes, start])).to(device)  # height, width, first pixel
        self.radiance = torch.cat([torch.from_numpy(e.radiance.reshape(-1, 3)) for e in environments]).to(device)

    def __call__(self, backdrops: Sequence[Backdrop]) -> Tensor:
        """Backdrops (B,3,S,S), whole numbers 0..255."""
        out = torch.zeros(len(backdrops), 3, self.size, self.size, device=self.device)
        seen = [(k, b.seen) for k, b in enumerate(backdrops)]
        panoramas = [(k, s) for k, s in seen if isinstance(s, Panorama)]
        if panoramas:
            out[[k for k, _ in panoramas]] = self._panoramas([s for _, s in panoramas])
        for k, s in seen:
            if isinstance(s, Clutter):
                out[k] = self._clutter(s)
            elif not isinstance(s, Panorama):
                out[k] = torch.from_numpy(s).to(out)[:, None, None]
        return blurred(out.floor(), [b.blur for b in backdrops]).round()

    def _panoramas(self, seen: Sequence[Panorama]) -> Tensor:
        """As of `Environment.background`."""
        look = [[s.turn, s.field_of_view, s.exposure, s.tilt] for s in seen]
        turn, angle, exposure, tilt = torch.tensor(look, device=self.device, dtype=torch.float32).T[..., None, None]
        axis = torch.arange(self.size, device=self.device) + 0.5 - self.size / 2
        f = 0.5 * self.size / (angle / 2).tan()
        x, y, z = axis / f, -axis[:, None] / f, -torch.ones_like(f)
        y, z = y * tilt.cos() + z * -tilt.sin(), y * tilt.sin() + z * tilt.cos()
        height = (y / (x**2 + y**2 + z**2).sqrt()).clamp(-1, 1)
        x, z = x * turn.cos() - z * turn.sin(), x * turn.sin() + z * turn.cos()
        h, w, start = self.shapes[[s.environment for s in seen]].T[..., None, None]
        u = ((torch.atan2(x, -z) / (2 * math.pi) + 0.5) * w).long() % w
        v = (height.acos() / math.pi * h).long().clamp(min=0).minimum(h - 1)
        image = self.radiance[start + v * w + u] * exposure[..., None]
        return (image.clamp(0, 1) ** (1 / 2.2) * 255).permute(0, 3, 1, 2)

    def _clutter(self, seen: Clutter) -> Tensor:
        image = torch.zeros(1, 3, self.size, self.size, device=self.device)
        for noise, weight in zip(seen.noise, seen.weights):
            cells = torch.from_numpy(noise).to(self.device).permute(2, 0, 1)[None].float()
            image += resized(cells, self.size, "bicubic") * weight
        return image[0] * 255 / image.max().clamp(min=1)


def resized(images: Tensor, size: int, kind: str) -> Tensor:
    """Whole numbers 0..255 (B,C,H,W) resized as Pillow does: `bilinear` or `bicubic`, rounded."""
    out = F.interpolate(images, size=(size, size), mode=kind, antialias=True)
    return out.round().clamp(0, 255)


def reduce(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B,L,L,4) uint8 with coverage brought down: colour premultiplied, (B,4,S,S) 0..255."""
    planes = pictures.permute(0, 3, 1, 2).float()
    planes = torch.cat([planes[:, :3] * (planes[:, 3:] / 255), planes[:, 3:]], 1)
    return F.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)


def blurred(images: Tensor, sigma: Sequence[float]) -> Tensor:
    """Images (B,3,S,S) under Gaussians of `sigma` px each, 0: as they are; borders are repeated."""
    reach = max(math.ceil(3 * max(sigma)), 1)
    spread = torch.tensor(sigma, device=images.device, dtype=torch.float32).clamp(min=1e-3)[:, None]
    weights = (-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / spread) ** 2).exp()
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    flat = images.reshape(1, -1, *images.shape[2:])
    for kernel, pad in ((weights[:, :, None], (reach, reach, 0, 0)), (weights[..., None], (0, 0, reach, reach))):
        flat = F.conv2d(F.pad(flat, pad, "replicate"), kernel, groups=flat.shape[1])
    return flat.view(images.shape)


def smeared(images: Tensor, motions: Sequence[tuple[float, float]]) -> Tensor:
    """Images (B,3,S,S) moved along a line each, of a length in px and an angle, while they were exposed."""
    reach = max(math.ceil(length / 2) for length, _ in motions) + 1
    kernels = np.zeros((len(motions), 2 * reach + 1, 2 * reach + 1), np.float32)
    for kernel, (length, angle) in zip(kernels, motions):
        for x, y, weight in streak(length, angle):
            kernel[reach + y, reach + x] += weight / streak_steps(length)
    weights = torch.from_numpy(kernels).to(images).repeat_interleave(3, 0)[:, None]
    flat = F.pad(images.reshape(1, -1, *images.shape[2:]), (reach,) * 4, "replicate")
    return F.conv2d(flat, weights, groups=flat.shape[1]).view(images.shape)


def develop(images: Tensor, by: Sequence[Development], grain: Sequence[Dice]) -> Tensor:
    """What cameras do to pictures (B,3,S,S) 0..255, as `picture.develop`: uint8 out. grain: the dice of the noise."""
    size = images.shape[-1]

    def where(trait: str) -> tuple[list[int], list[Any]]:
        values = [(k, getattr(d, trait)) for k, d in enumerate(by) if getattr(d, trait) is not None]
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
        images[rows] = blurred(images[rows], sigma).round()
    rows, motions = where("motion")
    if rows:
        images[rows] = smeared(images[rows], motions).floor()
    for row, small in zip(*where("resolution")):
        images[row] = resized(resized(images[row][None], small, "bilinear"), size, "bicubic")[0]
    rng = torch.Generator(images.device)
    for row, loudness in zip(*where("loudness")):
        rng.manual_seed(int(grain[row].roll("grain").integers(2**62)))
        noise = torch.randn(3, size, size, generator=rng, device=images.device)
        images[row] = (images[row] + noise * loudness).clamp(0, 255).floor()
    rows, quality = where("quality")
    if rows:
        images[rows] = compressed(images[rows], quality)
    return images.byte()


def compressed(images: Tensor, quality: Sequence[int]) -> Tensor:
    """Images (B,3,S,S) 0..255 as JPEG of a quality 1..100 each leaves them, colours at half the resolution."""
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
