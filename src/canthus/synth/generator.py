"""Rendered faces with exact truth: sample number i of a recipe is always the same picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from canthus.synth.heads import HeadAssets
from canthus.synth.lighting import Environment, invented_environments
from canthus.synth.renderer import PerspectiveCamera, best_renderer
from canthus.synth.sampling import sample_head
from canthus.synth.shipped import ShippedHead

OVERSAMPLING = 1.5  # drawn this much larger, then reduced
VIEWS_PER_HEAD = 4  # a head is costly to build and cheap to look at again under another camera and light


@dataclass(frozen=True)
class SynthRecipe:
    """What is drawn. Angles in degrees."""

    size: int = 176  # side of the stored picture, px
    face: float = 0.52  # longer side of the landmark box / side of the picture
    yaw: float = 95.0  # flat up to here
    frontal_share: float = 0.35  # this share has yaw ~ N(0, 22) instead
    pitch: float = 15.0  # standard deviation, cut at 45
    roll: float = 12.0  # standard deviation, cut at 60
    seed: int = 0


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turn about the head's own vertical, then nod, then tilt (degrees): camera-from-head (3,3)."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ nod @ turn


class SynthGenerator:
    """Draws groups of `VIEWS_PER_HEAD` samples of one head; group g is reproducible from (recipe, g).

    assets: a folder of head assets, or None for plainer heads that need none.
    """

    def __init__(self, assets: str | Path | None, recipe: SynthRecipe = SynthRecipe()):
        self.recipe = recipe
        self.assets = ShippedHead() if assets is None else HeadAssets(assets)
        maps = [] if assets is None else sorted(Path(assets, "hdri").glob("*.exr"))
        self.environments = [Environment.load(p) for p in maps] or invented_environments()
        self.renderer = best_renderer(round(recipe.size * OVERSAMPLING))
        for key, image in self.assets.textures.items():
            self.renderer.texture(key, image)

    def group(self, number: int) -> dict[str, np.ndarray]:
        """Samples of one head: image (n,S,S,3) uint8 and the truth arrays, n = VIEWS_PER_HEAD."""
        rng = np.random.default_rng([self.recipe.seed, number])
        head, textures = sample_head(rng, self.assets)
        for key, image in textures.items():
            self.renderer.texture(key, image)
        self.renderer.load(head.pieces)
        views = [
            self._view(rng, head.landmarks, 0.28 / head.albedo**0.7) for _ in range(VIEWS_PER_HEAD)
        ]  # a camera half follows the skin
        out = {k: np.stack([v[k] for v in views]) for k in views[0]}
        out["identity"] = np.repeat(head.identity[None], VIEWS_PER_HEAD, 0)
        out["expression"] = np.repeat(head.expression[None], VIEWS_PER_HEAD, 0)
        return out

    def _camera(self, rng: np.random.Generator, points: np.ndarray) -> PerspectiveCamera:
        r = self.recipe
        yaw = rng.normal(0, 22) if rng.random() < r.frontal_share else rng.uniform(-r.yaw, r.yaw)
        pitch = np.clip(rng.normal(0, r.pitch), -45, 45)
        roll = np.clip(rng.normal(0, r.roll), -60, 60)
        unit = PerspectiveCamera(
            _rotation(yaw, pitch, roll),
            points.mean(0),
            float(np.exp(rng.uniform(np.log(35), np.log(300)))),
            1.0,
            np.zeros(2),
        )
        xy = unit.project(points)[:, :2]
        low, high = xy.min(0), xy.max(0)
        focal = r.size * r.face * rng.uniform(0.92, 1.05) / (high - low).max()
        centre = (r.size - 1) / 2 - focal * (low + high) / 2 + rng.normal(0, 0.015 * r.size, 2)
        return PerspectiveCamera(unit.rotation, unit.target, unit.distance, focal, centre)

    def _view(self, rng: np.random.Generator, points: np.ndarray, brightness: float) -> dict[str, np.ndarray]:
        camera = self._camera(rng, points)
        environment = self.environments[rng.integers(len(self.environments))]
        light = environment.light(rng.uniform(0, 2 * np.pi), brightness * np.exp(rng.normal(0, 0.4)))
        picture, depth = self.renderer.draw(camera.resized(OVERSAMPLING), light, shadow=rng.uniform(0.3, 1.0))
        picture = _reduce(picture, self.recipe.size)
        xyz = camera.project(points)
        backdrop = self._backdrop(rng, environment, light.turn, light.exposure)
        alpha = picture[..., 3:] / 255
        image = picture[..., :3] + backdrop * (1 - alpha)
        return {
            "image": _develop(rng, image),
            "xyz": (xyz - [0, 0, xyz[:, 2].mean()]).astype(np.float32),
            "visible": self._visible(camera, points, depth),
            "rotation": (camera.rotation @ self.assets.from_head).astype(np.float32),
            "camera": np.array([*camera.target, camera.distance, camera.focal, *camera.centre], np.float32),
        }

    def _backdrop(self, rng: np.random.Generator, environment: Environment, turn: float, exposure: float) -> np.ndarray:
        size, kind = self.recipe.size, rng.random()
        if kind < 0.65:
            other = environment if rng.random() < 0.6 else self.environments[rng.integers(len(self.environments))]
            exposure = exposure if other is environment else 0.5 / max(float(other.small.mean()), 1e-4)
            linear = other.background(
                turn,
                size,
                np.radians(rng.uniform(20, 75)),
                exposure * rng.uniform(0.5, 1.3),
                np.radians(rng.normal(0, 10)),
            )
            image = np.clip(linear, 0, 1) ** (1 / 2.2) * 255
        elif kind < 0.85:  # smooth clutter: coloured noise at a few scales
            image = np.zeros((size, size, 3))
            for cells in (2, 5, 12, 30):
                grey = rng.random((cells, cells, 1))
                noise = Image.fromarray(
                    ((grey + rng.uniform(0, 0.5) * (rng.random((cells, cells, 3)) - grey)) * 255).astype(np.uint8)
                )
                image += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)) * rng.random()
            image *= 255 / max(image.max(), 1)
        else:
            image = np.broadcast_to(np.clip(rng.uniform(0, 255) + rng.normal(0, 40, 3), 0, 255), (size, size, 3))
        blurred = Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 3)))
        return np.asarray(blurred, np.float32)

    def _visible(self, camera: PerspectiveCamera, points: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Whether each landmark (68,) is the nearest surface at its pixel, to 6 mm, anywhere in 3x3 pixels."""
        xy = np.rint(camera.resized(OVERSAMPLING).project(points)[:, :2]).astype(int)
        z = ((points - camera.target) @ camera.rotation.T)[:, 2]
        around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
        near = np.clip(xy[:, None] + around, 0, len(depth) - 1)
        return (depth[near[..., 1], near[..., 0]] < z[:, None] + 0.6).any(1)


def _reduce(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (S,S,4) with coverage brought down to `size`: colour premultiplied, float32 0..255."""
    planes = picture.astype(np.float32)
    planes[..., :3] *= planes[..., 3:] / 255
    resized = [Image.fromarray(planes[..., k]).resize((size, size), Image.Resampling.BILINEAR) for k in range(4)]
    return np.stack([np.asarray(p) for p in resized], -1)


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a camera adds: tone, defocus, noise. Linear picture 0..255 in, uint8 out."""
    image = np.clip(image / 255, 0, 1) ** np.exp(rng.normal(0, 0.15)) * 255
    out = Image.fromarray(image.astype(np.uint8))
    if rng.random() < 0.3:
        out = out.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    if rng.random() < 0.5:
        grain = rng.normal(0, rng.uniform(1, 9), (*image.shape[:2], 3))
        out = Image.fromarray(np.clip(np.asarray(out) + grain, 0, 255).astype(np.uint8))
    return np.asarray(out)
