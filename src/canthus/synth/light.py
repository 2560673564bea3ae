"""Light of a scene, from environment maps: nine spherical-harmonic irradiance coefficients and one dominant light.

Irradiance by spherical harmonics: Ramamoorthi & Hanrahan 2001, "An Efficient Representation for Irradiance
Environment Maps", equation 10: convolution with the clamped cosine scales band l by A = pi, 2 pi/3, pi/4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canthus.decode import decoding
from canthus.errors import ModelError
from canthus.synth.recipe import RandomStreams, SynthRecipe

BAND_SCALE = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)
MAX_RADIANCE = 3e4  # suns in the maps reach infinity in half floats


def sh_basis(d: np.ndarray) -> np.ndarray:
    """The nine real spherical harmonics of unit directions (N,3): (N,9)."""
    x, y, z = d.T
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y, 0.488603 * z, 0.488603 * x,
            1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1),
            1.092548 * x * z, 0.546274 * (x * x - y * y),
        ],
        axis=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Light:
    """Light on a scene, in camera axes.

    ambient: irradiance / pi as spherical harmonics (9,3). direction: unit vector to the dominant light (3,). sun: its
    radiance (3,). exposure: factor on the radiance of the environment map. turn: angle of the map about y, radians.
    """

    ambient: np.ndarray
    direction: np.ndarray
    sun: np.ndarray
    exposure: float
    turn: float
    surroundings: np.ndarray | None = None  # (H,2H,3) radiance of its environment map, before turn and exposure


def environment_directions(rows: int) -> np.ndarray:
    """Unit directions (2 rows^2,3) of the pixels of an equirectangular map."""
    theta = (np.arange(rows) + 0.5) / rows * np.pi
    phi = (np.arange(2 * rows) + 0.5) / rows * np.pi - np.pi
    t, p = np.meshgrid(theta, phi, indexing="ij")
    return np.stack([np.sin(t) * np.sin(p), np.cos(t), -np.sin(t) * np.cos(p)], -1).reshape(-1, 3)


class Environment:
    """One equirectangular map, (H,2H,3) linear radiance; +y up, the centre column faces -z. Raises `ModelError` for one
    of fewer than 32 rows."""

    def __init__(self, radiance: np.ndarray):
        if radiance.shape[0] < 32 or radiance.shape[1] < 64:
            raise ModelError(f"an environment map of shape {radiance.shape}; 32 x 64 pixels or more are wanted")
        self.radiance = np.minimum(np.nan_to_num(radiance.astype(np.float32)), MAX_RADIANCE)
        h, w = self.radiance.shape[:2]
        self.small = self.radiance[: h // 32 * 32, : w // 64 * 64].reshape(32, h // 32, 64, w // 64, 3).mean((1, 3))
        self.directions = environment_directions(32)
        area = np.sin((np.arange(32) + 0.5) / 32 * np.pi) * (np.pi / 32) * (2 * np.pi / 64)
        self.weighted = (self.small * area[:, None, None]).reshape(-1, 3)

    @classmethod
    def load(cls, path: str | Path) -> Environment:
        """Read an OpenEXR file with red, green and blue. Raises `ModelError`."""
        import OpenEXR  # optional dependency of the synth extra

        with decoding(ModelError, f"the environment map '{path}' cannot be read"):
            channels = OpenEXR.File(str(path)).channels()
            together = next((channels[name].pixels for name in ("RGB", "RGBA") if name in channels), None)
            if together is None:
                together = np.stack([channels[c].pixels for c in "RGB"], -1)
            return cls(np.asarray(together[..., :3], np.float32))

    def light(self, turn: float, brightness: float) -> Light:
        """Light of the map turned by `turn` radians about y; a white wall facing it gets the value `brightness`."""
        c, s = np.cos(turn), np.sin(turn)
        d = self.directions @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        brightest = self.small.reshape(-1, 3).mean(1).argmax()
        near = d @ d[brightest] > 0.97
        sun = self.weighted[near].sum(0) / np.pi
        rest = np.where(near[:, None], 0, self.weighted)
        ambient = (sh_basis(d).T @ rest) * BAND_SCALE[:, None] / np.pi
        mean = ambient[0].mean() * 0.282095 + 0.3 * sun.mean()
        exposure = brightness / max(mean, 1e-5)
        return Light(ambient * exposure, d[brightest], sun * exposure, exposure, turn, self.radiance)

    def background(
        self, turn: float, size: int, field_of_view: float, exposure: float, tilt: float = 0.0
    ) -> np.ndarray:
        """What a camera sees behind the head: linear (size,size,3). Angles in radians."""
        h, w = self.radiance.shape[:2]
        y, x = np.mgrid[0:size, 0:size]
        f = 0.5 * size / np.tan(field_of_view / 2)
        d = np.stack([(x + 0.5 - size / 2) / f, -(y + 0.5 - size / 2) / f, np.full((size, size), -1.0)], -1)
        ct, st = np.cos(tilt), np.sin(tilt)
        d = d @ np.array([[1, 0, 0], [0, ct, st], [0, -st, ct]])
        d /= np.linalg.norm(d, axis=-1, keepdims=True)
        c, s = np.cos(turn), np.sin(turn)
        d = d @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        u = ((np.arctan2(d[..., 0], -d[..., 2]) / (2 * np.pi) + 0.5) * w).astype(int) % w
        v = (np.arccos(np.clip(d[..., 1], -1, 1)) / np.pi * h).astype(int).clip(0, h - 1)
        return self.radiance[v, u] * exposure


def procedural_environments(count: int = 12) -> list[Environment]:
    """Fixed environments that need no files: a vertical gradient and soft lamps of many sizes."""
    h, w = 128, 256
    theta, phi = np.meshgrid((np.arange(h) + 0.5) / h * np.pi, (np.arange(w) + 0.5) / w * 2 * np.pi, indexing="ij")
    d = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    out = []
    for k in range(count):
        rng = np.random.default_rng(k)
        sky, ground = rng.uniform(0.2, 1.0, 3) * [0.9, 1, 1.15], rng.uniform(0.05, 0.6, 3) * [1.1, 1, 0.85]
        radiance = ground + (sky - ground) * (1 / (1 + np.exp(-d[..., 1:2] * rng.uniform(1, 12))))
        for _ in range(rng.integers(1, 5)):
            at = rng.normal(size=3) + [0, 0.7, 0]
            width = np.exp(rng.uniform(np.log(0.06), np.log(0.5)))  # radians
            cosine = d @ (at / np.linalg.norm(at))
            colour = rng.uniform(0.7, 1.0, 3) * np.exp(rng.normal(0, 0.8)) * 2 / width**2
            radiance = radiance + np.exp((cosine - 1) / width**2)[..., None] * colour
        out.append(Environment(radiance))
    return out


def plain_light(rng: np.random.Generator, brightness: float) -> Light:
    """Even ambient light and one lamp in front of the head; brightness as in `Environment.light`."""
    fill, tint = rng.uniform(0.25, 1.0), np.clip(rng.normal(1, 0.08, (2, 3)), 0.7, 1.3)
    ambient = np.zeros((9, 3))
    ambient[0] = fill * brightness / 0.282095 * tint[0]
    direction = rng.normal(size=3) + [0, 0.5, 1.0]
    direction /= np.linalg.norm(direction)
    return Light(ambient, direction, (1 - fill) * brightness / 0.3 * tint[1], 1.0, 0.0)


def view_light(
    streams: RandomStreams, recipe: SynthRecipe, environments: Sequence[Environment], albedo: float, pan: float = 0.0
) -> tuple[Light, int]:
    """Light of one view, and the index of its environment (with plain light, that of the backdrop).

    albedo: mean linear reflectance of the skin; exposure compensates for about half of it, as cameras do. pan: radians
    by which the camera has turned.
    """
    rng = streams.generator("light")
    environment = int(rng.integers(len(environments)))
    turn = rng.uniform(0, 2 * np.pi) + pan
    brightness = 0.28 / albedo**0.7 * np.exp(rng.normal(0, 0.4))
    light = environments[environment].light(turn, brightness)
    if streams.maybe("hdri", recipe.hdri) is None:
        light = plain_light(streams.generator("plain light"), brightness)
    return light, environment
