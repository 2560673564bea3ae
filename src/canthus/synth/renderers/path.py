"""Path-traced renderer: Mitsuba 3 on the CPU, a few paths per pixel, and Open Image Denoise.

The rasterisers have nine harmonics and one lamp; here the environment map itself is the light, which gives shadows of
every lamp, light from skin to skin, and reflections on eyes and glasses. A rasteriser is still used beside it: depth,
and so all ground truth, comes from it, and so do the coverage of the picture and the albedo that guides the denoiser.

Mitsuba's `scalar_rgb` variant is used: `llvm_ad_rgb` would be faster, but it ends the whole process with some versions
of LLVM. The integrator is `volpath`, as `path` loses a fifth of the light that falls on half-transparent surfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from canthus.errors import CanthusError
from canthus.io.images import GAMMA
from canthus.synth.light import BAND_SCALE, Light, environment_directions, sh_basis
from canthus.synth.scene import PerspectiveCamera, Piece, Renderer

SAMPLES = 4  # paths per pixel
BOUNCES = 6
LINEAR = (np.arange(256) / 255) ** GAMMA
MAX_MAP_ROWS = 256  # of an environment map that is a light
PAINT = 256  # side in texels of the texture that vertex colours are rendered into
MAX_ALBEDO = 0.95  # no surface reflects more light than this
FLAT = Light(np.eye(9, 3)[:, :1] * np.ones(3) / 0.282095, np.array([0.0, 0, 1]), np.zeros(3), 1.0, 0.0)


class PathRenderer:
    """A `Renderer` that traces light. raster: the rasteriser that gives depth, coverage and albedo. samples: per pixel.

    It uses one thread; use several processes to draw several pictures at a time.
    """

    def __init__(self, raster: Renderer, samples: int = SAMPLES):
        import drjit
        import mitsuba

        mitsuba.set_variant("scalar_rgb")
        drjit.set_thread_count(1)
        self.mitsuba: Any = mitsuba
        self.raster, self.size, self.samples = raster, raster.size, samples
        self.textures: dict[str, np.ndarray] = {}
        self.meshes: dict[str, Any] = {}
        self.denoise = _Denoiser(self.size)

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """See `Renderer.texture`."""
        self.raster.texture(key, image)
        self.textures[key] = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGBA"))

    def load(self, pieces: Sequence[Piece]) -> None:
        """See `Renderer.load`."""
        self.raster.load(pieces)
        self.meshes = {f"piece{k}": self._mesh(p) for k, p in enumerate(pieces)}

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> np.ndarray:
        """The picture (S,S,4) uint8, alpha = coverage.

        shadow: not used; shadows are as dark as the light makes them.
        """
        flat = self.raster.draw(camera, FLAT, 0.0)
        scene = {"type": "scene", **self.meshes, **self._lights(camera, light), "camera": self._camera(camera)}
        integrator = self.mitsuba.load_dict({"type": "volpath", "max_depth": BOUNCES, "hide_emitters": True})
        traced = np.asarray(self.mitsuba.render(self.mitsuba.load_dict(scene), integrator=integrator, seed=0))
        traced = np.nan_to_num(traced, posinf=0, neginf=0)
        colour = self.denoise(_opaque(traced), LINEAR[flat[..., :3]])
        picture = flat.copy()
        picture[..., :3] = np.rint(255 * np.clip(colour, 0, 1) ** (1 / GAMMA))
        return picture

    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        return self.raster.depth_of(camera, wanted, size)

    def _camera(self, camera: PerspectiveCamera) -> dict[str, Any]:
        back, up = camera.rotation[2], camera.rotation[1]
        eye = camera.target + camera.distance * back
        offset = (camera.centre + 0.5) / self.size - 0.5
        look = self.mitsuba.ScalarTransform4f().look_at(eye.tolist(), (eye - back).tolist(), up.tolist())
        return {
            "type": "perspective", "to_world": look,
            "fov": float(np.degrees(2 * np.arctan(self.size / 2 / camera.focal))),
            "principal_point_offset_x": float(-offset[0]), "principal_point_offset_y": float(-offset[1]),
            "film": {"type": "hdrfilm", "width": self.size, "height": self.size, "pixel_format": "rgba",
                     "rfilter": {"type": "box"}},
            "sampler": {"type": "multijitter", "sample_count": self.samples},
        }  # fmt: skip

    def _lights(self, camera: PerspectiveCamera, light: Light) -> dict[str, Any]:
        mi, lights = self.mitsuba, {}
        if light.surroundings is None:  # what the harmonics say, and a lamp far away
            radiance = sh_basis(environment_directions(32)) @ (light.ambient * np.pi / BAND_SCALE[:, None])
            radiance = np.maximum(radiance, 0).reshape(32, 64, 3)
            if np.any(light.sun):
                lights["lamp"] = {
                    "type": "directional", "direction": (-light.direction @ camera.rotation).tolist(),
                    "irradiance": {"type": "rgb", "value": (np.pi * np.broadcast_to(light.sun, 3)).tolist()},
                }  # fmt: skip
            turn = 0.0
        else:
            step = max(len(light.surroundings) // MAX_MAP_ROWS, 1)
            h, w = (n // step for n in light.surroundings.shape[:2])
            radiance = light.surroundings[: h * step, : w * step].reshape(h, step, w, step, 3).mean((1, 3))
            radiance, turn = np.maximum(radiance, 0) * light.exposure, light.turn  # some maps are below 0 somewhere
        c, s = np.cos(turn), np.sin(turn)
        head_from_map = np.eye(4)
        head_from_map[:3, :3] = camera.rotation.T @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        radiance = np.roll(radiance, radiance.shape[1] // 2, 1)  # Mitsuba's maps begin at -z
        lights["surroundings"] = {
            "type": "envmap", "to_world": mi.ScalarTransform4f(head_from_map),
            "bitmap": mi.Bitmap(np.ascontiguousarray(radiance, np.float32)),
        }  # fmt: skip
        return lights

    def _mesh(self, piece: Piece) -> Any:
        mi, count = self.mitsuba, len(piece.vertices)
        properties = mi.Properties()
        properties["bsdf"] = mi.load_dict(self._material(piece))
        mesh = mi.Mesh(
            piece.name, count, len(piece.triangles), properties, has_vertex_normals=True, has_vertex_texcoords=True
        )
        mesh.add_attribute("vertex_color", 3, np.clip(_bare(piece), 0, MAX_ALBEDO).astype(np.float32).ravel())
        values = mi.traverse(mesh)
        values["vertex_positions"] = np.float32(piece.vertices).ravel()
        values["vertex_normals"] = np.float32(piece.normals).ravel()
        values["vertex_texcoords"] = np.float32(piece.uv * [1, -1] + [0, 1]).ravel()  # v points down
        values["faces"] = np.uint32(piece.triangles).ravel()
        values.update()
        return mesh

    def _material(self, piece: Piece) -> dict[str, Any]:
        """Of gloss 0 a surface is matt; that of skin is at 0.1 to 0.9, of eyes at 1.5, of lenses at 2."""
        if piece.alpha < 0.6:  # a clear lens
            return {"type": "thindielectric"}
        colour: dict[str, Any] = {"type": "mesh_attribute", "name": "vertex_color"}
        opacity: dict[str, Any] | float | None = None
        if piece.texture is not None:
            texels = self.textures[piece.texture]
            colour = self._bitmap(np.clip(LINEAR[texels[..., :3]] * _painted(piece, texels.shape[:2]), 0, MAX_ALBEDO))
            alpha = texels[..., 3:] / 255
            if alpha.min() < 1:
                opacity = self._bitmap(np.where(alpha < piece.cutout, 0, alpha) * piece.alpha)
        elif piece.alpha < 1:
            opacity = piece.alpha
        look = {
            "type": "principled", "base_color": colour, "specular": min(0.45 * piece.gloss, 0.5),
            "roughness": max(0.65 - 0.35 * piece.gloss, 0.1),
        }  # fmt: skip
        surface = {"type": "twosided", "bsdf": look}
        return surface if opacity is None else {"type": "mask", "opacity": opacity, "bsdf": surface}

    def _bitmap(self, image: np.ndarray) -> dict[str, Any]:
        return {"type": "bitmap", "raw": True, "bitmap": self.mitsuba.Bitmap(np.ascontiguousarray(image, np.float32))}


class _Denoiser:
    """Open Image Denoise on one thread, for pictures of one size."""

    def __init__(self, size: int):
        import pyoidn

        self.device = pyoidn.Device()
        self.device.set_int("numThreads", 1)
        self.device.set_bool("setAffinity", False)
        self.device.commit()
        self.filter = pyoidn.Filter(self.device, pyoidn.OIDN_FILTER_TYPE_RT)
        self.colour, self.albedo, self.result = (np.zeros((size, size, 3), np.float32) for _ in range(3))
        for name, image in (("color", self.colour), ("albedo", self.albedo), ("output", self.result)):
            self.filter.set_image(name, image, pyoidn.OIDN_FORMAT_FLOAT3)
        self.filter.set_bool("hdr", True)
        self.filter.set_bool("cleanAux", True)
        self.filter.commit()

    def __call__(self, colour: np.ndarray, albedo: np.ndarray) -> np.ndarray:
        """Colour (S,S,3) without its noise; albedo (S,S,3) has none."""
        self.colour[:], self.albedo[:] = colour, albedo
        self.filter.execute()
        if error := self.device.get_error():
            raise CanthusError(f"the denoiser failed: {error}")
        return self.result.copy()


def _bare(piece: Piece) -> np.ndarray:
    """Colour (V,3) of a piece without painted ambient occlusion, which path tracing adds itself."""
    return piece.colour if piece.shade is None else piece.colour / np.maximum(piece.shade, 0.02)


def _opaque(traced: np.ndarray) -> np.ndarray:
    """Colour (S,S,3) of surfaces from a premultiplied picture (S,S,4): where few paths met one, their neighbours'."""
    wide = np.pad(traced, ((1, 1), (1, 1), (0, 0)))
    h, w = traced.shape[:2]
    around = sum(wide[i : i + h, j : j + w] for i in range(3) for j in range(3))
    some = np.where(traced[..., 3:] < 0.5, around, traced)
    return some[..., :3] / np.maximum(some[..., 3:], 1e-6)


def _painted(piece: Piece, shape: tuple[int, ...]) -> np.ndarray:
    """What a texture of a shape (H,W) is multiplied by: the colours of the vertices, (3,) or (H,W,3)."""
    colour = _bare(piece)
    if np.ptp(colour, 0).max() < 1e-6:
        return colour[0]
    count = max(8, round(2 * PAINT / len(piece.triangles) ** 0.5))
    steps = (np.arange(count) + 0.5) / count  # points of each triangle, folded from those of its parallelogram
    a, b = (x.ravel() for x in np.meshgrid(steps, steps))
    outside = a + b > 1
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    weights = np.stack([1 - a - b, a, b], 1).astype(np.float32)
    uv = weights @ piece.uv[piece.triangles]  # (T,P,2)
    paint = (weights @ colour[piece.triangles].astype(np.float32)).reshape(-1, 3)
    column, row = (np.floor(uv.reshape(-1, 2) * PAINT).astype(int) % PAINT).T
    texel = (PAINT - 1 - row) * PAINT + column
    planes = [np.bincount(texel, p, PAINT**2) for p in (*paint.T, np.ones(len(texel)))]
    sums = np.stack(planes, -1).reshape(PAINT, PAINT, 4)
    levels = [sums]
    while len(levels[-1]) > 1:
        s = levels[-1]
        levels.append(s[::2, ::2] + s[1::2, ::2] + s[::2, 1::2] + s[1::2, 1::2])
    filled = levels.pop()
    for level in reversed(levels):  # holes get what is around them
        filled = np.where(level[..., 3:] > 0, level, filled.repeat(2, 0).repeat(2, 1))
    mean = (filled[..., :3] / filled[..., 3:]).astype(np.float32)
    size = shape[1], shape[0]
    return np.stack([np.asarray(Image.fromarray(m).resize(size, Image.Resampling.BILINEAR))
                     for m in np.moveaxis(mean, -1, 0)], -1)  # fmt: skip
