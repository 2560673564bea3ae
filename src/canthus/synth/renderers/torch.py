"""Renderer in torch: the pictures of `opengl` without OpenGL, many views at a time, on a CPU or a GPU.

Shading is deferred: the rasteriser finds what each pixel sees, and only that is shaded, by the formulas of the shader
in `opengl`. The nearest opaque surface comes first; hair, lashes and glass in front of it are then blended from back to
front, where OpenGL blends them in the order of their triangles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from canthus.geometry.raster import Fragments, Rasteriser
from canthus.io.images import GAMMA
from canthus.synth.light import Light
from canthus.synth.scene import Packed, PerspectiveCamera, Piece, light_matrix

MAX_VIEWS = 64  # drawn together; more would not fit the memory of a GPU


class _Pyramid(NamedTuple):
    """A texture and its mipmaps down to one texel."""

    levels: list[Tensor]  # (H,W,4) uint8
    clear: bool  # whether any texel is transparent


class _Texels:
    """Several textures in one flat tensor, so that one lookup serves all surfaces."""

    def __init__(self, pyramids: Sequence[_Pyramid], device: torch.device):
        self.pyramids = list(pyramids)
        shapes = np.zeros((len(pyramids), max(len(p.levels) for p in pyramids), 3), np.int64)  # w, h, first texel
        start = 0
        for k, pyramid in enumerate(pyramids):
            for level, image in enumerate(pyramid.levels):
                shapes[k, level] = image.shape[1], image.shape[0], start
                start += image.shape[0] * image.shape[1]
        self.shapes = torch.from_numpy(shapes).to(device)
        self.last = torch.tensor([len(p.levels) - 1 for p in pyramids], device=device)
        self.flat = torch.cat([image.reshape(-1, 4) for p in pyramids for image in p.levels])

    def __call__(self, texture: Tensor, uv: Tensor, reach: Tensor) -> Tensor:
        """RGBA (N,4) in 0..1 of textures (N,) at uv (N,2); reach (N,2,2): change of uv for a pixel in x and in y."""
        texels = reach * self.shapes[texture, 0, None, :2]
        level = texels.norm(dim=-1).amax(-1).clamp(min=1).log2().minimum(self.last[texture].float())
        lower = level.long()
        upper = (lower + 1).minimum(self.last[texture])
        return torch.lerp(
            self._bilinear(texture, lower, uv), self._bilinear(texture, upper, uv), (level - lower)[:, None]
        )

    def _bilinear(self, texture: Tensor, level: Tensor, uv: Tensor) -> Tensor:
        shape = self.shapes[texture, level]
        at = uv * shape[:, :2] - 0.5
        low = at.floor()
        right, up = (at - low).unsqueeze(-1).unbind(1)
        x, y = low.long().unbind(-1)
        (x0, x1), (y0, y1) = ((i % n, (i + 1) % n) for i, n in ((x, shape[:, 0]), (y, shape[:, 1])))

        def read(column: Tensor, row: Tensor) -> Tensor:
            return self.flat[shape[:, 2] + row * shape[:, 0] + column].float() / 255

        return torch.lerp(
            torch.lerp(read(x0, y0), read(x1, y0), right), torch.lerp(read(x0, y1), read(x1, y1), right), up
        )


class _Surface(NamedTuple):
    """What was found at pixels, ready to be shaded; N entries."""

    pixel: Tensor  # (N,) view * S * S + row * S + column
    piece: Tensor  # (N,)
    near: Tensor  # (N,) float64
    front: Tensor  # (N,) bool
    position: Tensor  # (N,3) head axes
    normal: Tensor  # (N,3) head axes
    colour: Tensor  # (N,3)
    texel: Tensor  # (N,4)


class Model:
    """A head on a device, and its textures; made by `TorchRenderer.model`."""

    def __init__(self, packed: Packed, pyramids: Sequence[_Pyramid], device: torch.device):
        self.pieces, self.pyramids = packed.pieces, list(pyramids)
        self.vertices = torch.from_numpy(packed.vertices).to(device)
        self.triangles = torch.from_numpy(packed.triangles).to(device).long()
        self.owner = torch.from_numpy(packed.owner).to(device).long()
        material = [[p.gloss, p.alpha, p.cutout, p.casts_shadow, p.alpha < 1 or p.cutout > 0 or t.clear]
                for p, t in zip(packed.pieces, pyramids)]  # fmt: skip
        self.material = torch.tensor(np.reshape(material, (-1, 5)), dtype=torch.float32).to(device)


class Scene(NamedTuple):
    """A model as one camera sees it. shadow: how dark the dominant light's shadows are, 0..1."""

    model: Model
    camera: PerspectiveCamera
    light: Light
    shadow: float


class TorchRenderer:
    """A `Renderer` in torch, which can also draw any number of scenes at once.

    size: side of the picture, px. device: where to draw; by default a GPU where torch finds one.
    """

    def __init__(self, size: int, device: torch.device | str | None = None):
        self.size = size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.white = _Pyramid([torch.full((1, 1, 4), 255, dtype=torch.uint8, device=self.device)], False)
        self.pyramids: dict[str, _Pyramid] = {}
        self._texels: _Texels | None = None  # of the last scenes
        self._model: Model | None = None  # of what is loaded
        self.load([])

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """See `Renderer.texture`."""
        self.pyramids[key] = self._pyramid(image)
        self._model = None

    def model(self, packed: Packed, textures: Mapping[str, np.ndarray] | None = None) -> Model:
        """A head on the device. textures: uint8 (H,W,4) of its own, which take precedence over those of `texture`."""
        own = {key: self._pyramid(image) for key, image in (textures or {}).items()}
        keys = [p.texture for p in packed.pieces]
        used = [self.white if k is None else own[k] if k in own else self.pyramids[k] for k in keys]
        return Model(packed, used, self.device)

    def load(self, pieces: Sequence[Piece]) -> None:
        """See `Renderer.load`."""
        self._packed = Packed.of(pieces)
        self._model = None

    @property
    def loaded(self) -> Model:
        """The loaded pieces."""
        self._model = self._model or self.model(self._packed)
        return self._model

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> np.ndarray:
        """The picture (S,S,4) uint8, alpha = coverage."""
        return self.draw_scenes([Scene(self.loaded, camera, light, shadow)])[0].cpu().numpy()

    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        return self.depths([self.loaded], [camera], [wanted], size)[0, 0].cpu().numpy()

    @torch.no_grad()
    def draw_scenes(self, scenes: Sequence[Scene]) -> Tensor:
        """Pictures (B,S,S,4) uint8 of B scenes, each of a model of its own or of one they share; on the device."""
        return torch.cat([self._draw(scenes[k : k + MAX_VIEWS]) for k in range(0, len(scenes), MAX_VIEWS)])

    @torch.no_grad()
    def depths(
        self,
        models: Sequence[Model],
        cameras: Sequence[PerspectiveCamera],
        layers: Sequence[Callable[[Piece], bool]],
        size: int,
    ) -> Tensor:
        """As `depth_of`, (L,B,size,size) for each of L kinds of pieces and B models with a camera each."""
        parts = []
        for k in range(0, len(models), MAX_VIEWS):
            batch = _SceneBatch(models[k : k + MAX_VIEWS], self._table(models[k : k + MAX_VIEWS]))
            points, distance, _, away = batch.project(cameras[k : k + MAX_VIEWS])
            count = len(away)
            chosen, picture = [], []
            for layer, wanted in enumerate(layers):
                mask = torch.tensor([wanted(p) for m in batch.models for p in m.pieces], device=self.device).bool()
                chosen.append((batch.casts & mask)[batch.owner].nonzero()[:, 0])
                picture.append(batch.view[chosen[-1]] + layer * count)
            near = batch.nearest(points, distance, torch.cat(chosen), torch.cat(picture), (len(layers) * count, size))
            near = near.view(len(layers), count, size, size)
            parts.append(torch.where(near > 0, away[:, None, None] - 1 / near, -torch.inf))
        return torch.cat(parts, 1)

    def _draw(self, scenes: Sequence[Scene]) -> Tensor:
        count, models = len(scenes), [s.model for s in scenes]
        batch = _SceneBatch(models, self._table(models))
        points, distance, rotation, _ = batch.project([s.camera for s in scenes])
        solid, thin = batch.visible_surfaces(points, distance, (count, self.size))
        sun = _Sun(batch, scenes, self.size)
        canvas = torch.zeros((count * self.size**2, 4), device=self.device)
        canvas[solid.pixel] = sun.shade(solid, rotation)
        paint = sun.shade(thin, rotation)
        for layer in _back_to_front(thin):
            a, at = paint[layer, 3:], thin.pixel[layer]
            source = torch.cat([paint[layer, :3] * a, a], 1)
            canvas[at] = source + (1 - a) * canvas[at]
        return (canvas.clamp(0, 1) * 255).round().byte().view(count, self.size, self.size, 4)

    def _pyramid(self, image: Image.Image | np.ndarray) -> _Pyramid:
        rgba = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGBA"))
        levels = [torch.from_numpy(rgba[::-1].copy()).to(self.device)]  # v points up
        while min(levels[-1].shape[:2]) > 1:
            planes = levels[-1].permute(2, 0, 1).float()
            levels.append(F.avg_pool2d(planes, 2).round().byte().permute(1, 2, 0).contiguous())
        return _Pyramid(levels, bool(rgba[..., 3].min() < 255))

    def _table(self, models: Sequence[Model]) -> _Texels:
        """All textures of the models, each once."""
        used = list({id(p): p for m in models for p in m.pyramids}.values()) or [self.white]
        if self._texels is None or list(map(id, used)) != list(map(id, self._texels.pyramids)):
            self._texels = _Texels(used, self.device)
        return self._texels


class _SceneBatch:
    """The models of B views concatenated, as if they were one."""

    def __init__(self, models: Sequence[Model], texels: _Texels):
        self.models, self.texels, device = models, texels, texels.flat.device
        points, pieces = ([0, *itertools.accumulate(map(len, x))] for x in
                          ([m.vertices for m in models], [m.pieces for m in models]))  # fmt: skip
        self.vertices = torch.cat([m.vertices for m in models])
        self.triangles = torch.cat([m.triangles + start for m, start in zip(models, points)])
        self.owner = torch.cat([m.owner + start for m, start in zip(models, pieces)])
        counts = torch.tensor([len(m.triangles) for m in models], device=device)
        self.view = torch.arange(len(models), device=device).repeat_interleave(counts)
        self.gloss, self.alpha, self.cutout, casts, thin = torch.cat([m.material for m in models]).T
        self.casts, self.thin = casts > 0, thin > 0
        place = {id(p): k for k, p in enumerate(texels.pyramids)}
        self.texture = torch.tensor([place[id(p)] for m in models for p in m.pyramids], device=device).long()

    def stack(self, values: Sequence[np.ndarray | float]) -> Tensor:
        """One value a view, float64 on the device."""
        return torch.from_numpy(np.stack([np.asarray(v, np.float64) for v in values])).to(self.vertices.device)

    def project(self, cameras: Sequence[PerspectiveCamera]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points (V,3) in pixels, distances (V,), camera-from-head (B,3,3) and distances of the targets (B,)."""
        rotation, target = self.stack([c.rotation for c in cameras]), self.stack([c.target for c in cameras])
        away, focal = self.stack([c.distance for c in cameras]), self.stack([c.focal for c in cameras])
        centre = self.stack([c.centre for c in cameras])
        points, distances = [], []
        for k, m in enumerate(self.models):
            q = (m.vertices[:, :3] - target[k]) @ rotation[k].mT
            distances.append(away[k] - q[:, 2])
            xy = q[:, :2] * q.new_tensor([1, -1]) * (focal[k] / distances[-1])[:, None] + centre[k]
            points.append(torch.cat([xy, q[:, 2:]], 1))
        return torch.cat(points), torch.cat(distances), rotation, away

    def visible_surfaces(self, points: Tensor, distance: Tensor, shape: tuple[int, int]) -> tuple[_Surface, _Surface]:
        """The nearest opaque surface at each pixel, and all transparent ones in front of it."""
        thin = self.thin[self.owner]
        which = (~thin).nonzero()[:, 0]
        raster = Rasteriser(points, self.triangles[which], self.view[which], shape, distance)
        seen = raster.visible()
        hidden = seen.near.new_full((shape[0] * shape[1] ** 2,), -torch.inf)
        hidden[seen.pixel] = seen.near
        solid = self._surface(raster, seen, which)
        which = thin.nonzero()[:, 0]
        raster = Rasteriser(points, self.triangles[which], self.view[which], shape, distance)
        parts = [Fragments(*(x[:0] for x in seen))]
        for f in raster.fragments():
            keep = (f.near > hidden[f.pixel]).nonzero()[:, 0]
            parts.append(Fragments(*(x[keep] for x in f)))
        found = self._surface(raster, Fragments(*(torch.cat(x) for x in zip(*parts))), which)
        keep = (found.texel[:, 3] >= self.cutout[found.piece]).nonzero()[:, 0]
        return solid, _Surface(*(x[keep] for x in found))

    def nearest(
        self, points: Tensor, distance: Tensor | None, which: Tensor, picture: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        """Nearness (pictures*S*S,) of the triangles `which`, each in its picture, without what their textures leave
        out; -inf where there is nothing."""
        thin = self.thin[self.owner[which]]
        part = (~thin).nonzero()[:, 0]
        near = Rasteriser(points, self.triangles[which[part]], picture[part], shape, distance).nearest()
        part = thin.nonzero()[:, 0]
        raster = Rasteriser(points, self.triangles[which[part]], picture[part], shape, distance)
        for f in raster.fragments():
            keep = (f.near > near[f.pixel]).nonzero()[:, 0]
            f = Fragments(*(x[keep] for x in f))
            triangle = which[part[f.owner]]
            piece = self.owner[triangle]
            texel = self._texel(raster, f, piece, self.vertices[self.triangles[triangle], 9:])
            opaque = (texel[:, 3] >= self.cutout[piece].clamp(min=0.01)).nonzero()[:, 0]
            near.scatter_reduce_(0, f.pixel[opaque], f.near[opaque], "amax")
        return near

    def _surface(self, raster: Rasteriser, f: Fragments, which: Tensor) -> _Surface:
        triangle = which[f.owner]
        corners, piece = self.vertices[self.triangles[triangle]], self.owner[triangle]  # (N,3,11)
        values = (f.barycentric[..., None].float() * corners[..., :9]).sum(1)
        texel = self._texel(raster, f, piece, corners[..., 9:])
        position, normal, colour = values.split(3, 1)
        return _Surface(f.pixel, piece, f.near, raster.front[f.owner], position, normal, colour, texel)

    def _texel(self, raster: Rasteriser, f: Fragments, piece: Tensor, uv: Tensor) -> Tensor:
        """RGBA (N,4) in 0..1 of fragments of pieces (N,) whose triangles have texture coordinates (N,3,2)."""
        slope = raster.edges[f.owner, :, :2] / raster.area[f.owner, None, None]  # of each corner's weight
        reach = (slope.float()[..., None] * uv[:, :, None]).sum(1)
        return self.texels(self.texture[piece], (f.barycentric[..., None].float() * uv).sum(1), reach)


class _Sun:
    """Lights of several views with their shadow maps of `size` px."""

    def __init__(self, batch: _SceneBatch, scenes: Sequence[Scene], size: int):
        self.batch, self.size = batch, size
        lights, cameras = [s.light for s in scenes], [s.camera for s in scenes]
        self.ambient, self.direction, self.sun, self.shadow = (
            batch.stack(x).float() for x in ([i.ambient for i in lights], [i.direction for i in lights],
                                             [np.broadcast_to(i.sun, 3) for i in lights], [s.shadow for s in scenes])
        )  # fmt: skip
        m = self.light_from_head = batch.stack(
            [light_matrix(c.rotation.T @ i.direction, c.target) for c, i in zip(cameras, lights)]
        )
        clip = torch.cat(
            [v.vertices[:, :3].double() @ m[k, :3, :3].mT + m[k, :3, 3] for k, v in enumerate(batch.models)]
        )
        place = (clip * 0.5 + 0.5) * clip.new_tensor([size, size, -1]) - clip.new_tensor([0.5, 0.5, 0])
        which = batch.casts[batch.owner].nonzero()[:, 0]
        near = batch.nearest(place, None, which, batch.view[which], (len(scenes), size))
        self.depth = -near.clamp(min=-1).float()

    def shade(self, s: _Surface, rotation: Tensor) -> Tensor:
        """Colour and opacity (N,4), as the fragment shader of `opengl` has them."""
        view = s.pixel.div(self.size**2, rounding_mode="floor")
        n = F.normalize((rotation.float()[view] * s.normal[:, None]).sum(-1), dim=1)
        n = torch.where(s.front[:, None], n, -n)
        albedo = s.texel[:, :3] ** GAMMA * s.colour
        x, y, z = n.T
        basis = torch.stack([
            torch.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
            1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ], 1)  # fmt: skip
        irradiance = (basis[..., None] * self.ambient[view]).sum(1).clamp(min=0)
        direction = self.direction[view]
        facing = (n * direction).sum(1, keepdim=True)
        soft = n.new_tensor([0.30, 0.12, 0.08])
        wrapped = ((facing + soft) / (1 + soft)).clamp(0, 1)
        h = F.normalize(direction + n.new_tensor([0, 0, 1]), dim=1)
        fresnel = 0.04 + 0.96 * (1 - h[:, 2:].clamp(min=0)) ** 5
        sun = self.sun[view] * self._lit(s, view)[:, None]
        shine = fresnel * (n * h).sum(1, keepdim=True).clamp(min=0) ** 28 * 8 * facing.clamp(min=0)
        colour = albedo * (irradiance + sun * wrapped) + sun * self.batch.gloss[s.piece, None] * shine
        alpha = s.texel[:, 3:] * self.batch.alpha[s.piece, None]
        return torch.cat([(colour.clamp(min=0) ** (1 / GAMMA)).clamp(max=1), alpha], 1)

    def _lit(self, s: _Surface, view: Tensor) -> Tensor:
        """Share of the dominant light (N,) that reaches each point: nine comparisons with the shadow map."""
        m, size = self.light_from_head.float()[view], self.size
        at = ((m[:, :3, :3] * s.position[:, None]).sum(-1) + m[:, :3, 3]) * 0.5 + 0.5
        lit = torch.zeros_like(at[:, 0])
        for i in (-1.5, 0.0, 1.5):
            for j in (-1.5, 0.0, 1.5):
                place = (at[:, :2] * size - 0.5 + at.new_tensor([i, j])).clamp(0, size - 1)
                low = place.floor().clamp(max=size - 2)
                right, up = (place - low).unbind(1)
                corner = (view * size + low[:, 1].long()) * size + low[:, 0].long()
                bottom = torch.lerp(self.depth[corner], self.depth[corner + 1], right)
                top = torch.lerp(self.depth[corner + size], self.depth[corner + size + 1], right)
                lit += (torch.lerp(bottom, top, up) > at[:, 2] - 0.008) / 9
        return torch.lerp(torch.ones_like(lit), lit, self.shadow[view])


def _back_to_front(s: _Surface) -> tuple[Tensor, ...]:
    """Indices of the entries, the farthest of every pixel first, then the second farthest and so on."""
    if len(s.pixel) == 0:
        return ()
    order = s.near.argsort(stable=True)
    order = order[s.pixel[order].argsort(stable=True)]
    count = s.pixel[order].unique_consecutive(return_counts=True)[1]
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count).repeat_interleave(count)
    by_rank = rank.argsort(stable=True)
    return order[by_rank].split(rank.bincount().tolist())
