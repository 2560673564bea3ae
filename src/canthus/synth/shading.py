"""Renderer in torch: what `opengl` draws, without OpenGL, many views at a time, on a CPU or a GPU.

Deferred: the rasteriser finds what each pixel sees, all surfaces together, and only that is shaded, by the formulas
of the shader in `opengl`. The nearest solid surface comes first; hair, lashes and glass in front of it are then
blended from back to front, where OpenGL blends them in the order of their triangles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from canthus.synth.heads import Piece
from canthus.synth.lighting import Light
from canthus.synth.raster import Fragments, Rasteriser
from canthus.synth.renderer import BEHIND, PerspectiveCamera, casts_shadow, light_matrix

GAMMA = 2.2
WHITE = torch.full((1, 1, 4), 255, dtype=torch.uint8)


class _Texels:
    """Pyramids of several textures in one flat tensor, so that one look-up serves all surfaces."""

    def __init__(self, pyramids: Sequence[Sequence[Tensor]], device: torch.device):
        shapes = np.zeros((len(pyramids), max(map(len, pyramids)), 3), np.int64)  # width, height, first texel
        start = 0
        for k, pyramid in enumerate(pyramids):
            for level, image in enumerate(pyramid):
                shapes[k, level] = image.shape[1], image.shape[0], start
                start += image.shape[0] * image.shape[1]
        self.shapes = torch.from_numpy(shapes).to(device)
        self.last = torch.tensor([len(p) - 1 for p in pyramids], device=device)
        self.flat = torch.cat([image.reshape(-1, 4) for p in pyramids for image in p])

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


class TorchRenderer:
    """Draws pieces into square pictures; the same methods as `OpenGLRenderer`, and `draw_many`.

    size: side of the picture, px. device: where to draw; by default a GPU where torch finds one.
    """

    def __init__(self, size: int, device: torch.device | str | None = None):
        self.size = size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.pyramids: dict[str, list[Tensor]] = {}
        self.texels: _Texels | None = None
        self.load([])

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """Hand in a texture, a picture or uint8 (H,W,4), under a key; a key handed in again is replaced."""
        rgba = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGBA"))
        levels = [torch.from_numpy(rgba[::-1].copy()).to(self.device)]  # v points up
        while min(levels[-1].shape[:2]) > 1:
            planes = levels[-1].permute(2, 0, 1).float()
            levels.append(F.avg_pool2d(planes, 2).round().byte().permute(1, 2, 0).contiguous())
        self.pyramids[key] = levels
        self.texels = None

    def load(self, pieces: Sequence[Piece]) -> None:
        """Make these the pieces that the next draws show."""
        self.pieces = list(pieces)
        self.texels = None
        joined = [np.column_stack([p.vertices, p.normals, p.colour, p.uv]) for p in pieces]
        starts = np.cumsum([0] + [len(v) for v in joined])
        triangles = [p.triangles.astype(np.int64) + s for p, s in zip(pieces, starts)]
        self.vertices = self._tensor(np.concatenate([np.zeros((0, 11)), *joined]))
        self.triangles = self._tensor(np.concatenate([np.zeros((0, 3), np.int64), *triangles]))
        self.owner = self._tensor(np.repeat(np.arange(len(pieces)), [len(t) for t in triangles]))
        look = [[p.gloss, p.alpha, p.cutout, casts_shadow(p)] for p in pieces]
        self.gloss, self.alpha, self.cutout, casts = self._tensor(np.reshape(look, (-1, 4))).float().T
        self.casts = casts > 0
        thin = ((self.alpha < 1) | (self.cutout > 0))[self.owner]
        self.solid, self.thin = (~thin).nonzero()[:, 0], thin.nonzero()[:, 0]

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> tuple[np.ndarray, np.ndarray]:
        """The picture (S,S,4) uint8, alpha = coverage, and q_z of the nearest opaque surface (S,S) in cm."""
        picture, depth = self.draw_many([camera], [light], [shadow])
        return picture[0].cpu().numpy(), depth[0].cpu().numpy()

    @torch.no_grad()
    def draw_many(
        self, cameras: Sequence[PerspectiveCamera], lights: Sequence[Light], shadows: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """B views at once, left on the device: pictures (B,S,S,4) uint8 and depths (B,S,S) float64."""
        views = len(cameras)
        points, distance, rotation, away = self._project(cameras)
        solid, thin = self._look(points, distance)
        near = self._nearest(solid, thin, views)
        depth = torch.where(near > 0, away[:, None] - 1 / near, -BEHIND)

        sun = _Sun(self, lights, cameras, shadows)
        canvas = torch.zeros((views * self.size**2, 4), device=self.device)
        canvas[solid.pixel] = sun.shade(solid, rotation)
        paint = sun.shade(thin, rotation)
        for layer in _back_to_front(thin):
            a, at = paint[layer, 3:], thin.pixel[layer]
            source = torch.cat([paint[layer, :3] * a, a], 1)
            canvas[at] = source + (1 - a) * canvas[at]
        pictures = (canvas.clamp(0, 1) * 255).round().byte()
        return pictures.view(views, self.size, self.size, 4), depth.view(views, self.size, self.size)

    @torch.no_grad()
    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        points, distance, _, away = self._project([camera])
        only = torch.tensor([wanted(p) for p in self.pieces], dtype=torch.bool, device=self.device)
        near = self._nearest(*self._look(points, distance, size, only), 1, size)[0]
        return torch.where(near > 0, away - 1 / near, -torch.inf).view(size, size).cpu().numpy()

    def _project(self, cameras: Sequence[PerspectiveCamera]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points (B,V,3), distances (B,V), camera-from-head (B,3,3) and distances of the targets (B,)."""
        rotation, target = self._stack([c.rotation for c in cameras]), self._stack([c.target for c in cameras])
        away, focal = self._stack([c.distance for c in cameras]), self._stack([c.focal for c in cameras])
        centre = self._stack([c.centre for c in cameras])
        q = (self.vertices[:, :3] - target[:, None]) @ rotation.mT
        distance = away[:, None] - q[..., 2]
        xy = q[..., :2] * q.new_tensor([1, -1]) * (focal[:, None] / distance)[..., None] + centre[:, None]
        return torch.cat([xy, q[..., 2:]], -1), distance, rotation, away

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _stack(self, values: Sequence[np.ndarray | float]) -> Tensor:
        return self._tensor(np.stack([np.asarray(v, np.float64) for v in values]))

    def _look(
        self, points: Tensor, distance: Tensor | None, size: int | None = None, only: Tensor | None = None
    ) -> tuple[_Surface, _Surface]:
        """The nearest solid surface at each pixel, and every texel of thin ones in front of it; of pieces `only`."""
        size = size or self.size
        if self.texels is None:
            white = [WHITE.to(self.device)]
            used = [white if p.texture is None else self.pyramids[p.texture] for p in self.pieces]
            self.texels = _Texels(used or [white], self.device)
        which = [t if only is None else t[only[self.owner[t]]] for t in (self.solid, self.thin)]
        raster = Rasteriser(points, self.triangles[which[0]], size, distance)
        seen = raster.visible()
        hidden = seen.near.new_full((len(points) * size**2,), -torch.inf)
        hidden[seen.pixel] = seen.near
        solid = self._surface(raster, seen, which[0])
        raster = Rasteriser(points, self.triangles[which[1]], size, distance)
        parts = []
        for f in raster.fragments():
            keep = (f.near > hidden[f.pixel]).nonzero()[:, 0]
            parts.append(Fragments(*(x[keep] for x in f)))
        fragments = Fragments(*(torch.cat(x) for x in zip(*parts))) if parts else Fragments(*(x[:0] for x in seen))
        thin = self._surface(raster, fragments, which[1])
        keep = (thin.texel[:, 3] >= self.cutout[thin.piece]).nonzero()[:, 0]
        return solid, _Surface(*(x[keep] for x in thin))

    def _surface(self, raster: Rasteriser, f: Fragments, which: Tensor) -> _Surface:
        if len(which) == 0:
            f = Fragments(*(x[:0] for x in f))
        triangle = which[f.owner % max(len(which), 1)]
        corners = self.vertices[self.triangles[triangle]]  # (N,3,11)
        slope = raster.edges[f.owner, :, :2] / raster.area[f.owner, None, None]  # of each corner's weight
        reach = slope.mT @ corners[..., 9:]
        values = (f.barycentric[:, None] @ corners)[:, 0].float()
        position, normal, colour, uv = values.split([3, 3, 3, 2], 1)
        assert self.texels is not None
        piece = self.owner[triangle]
        texel = self.texels(piece, uv, reach.float())
        return _Surface(f.pixel, piece, f.near, raster.front[f.owner], position, normal, colour, texel)

    def _nearest(self, solid: _Surface, thin: _Surface, views: int, size: int | None = None) -> Tensor:
        """Nearness (B,S*S) of what casts shadows, -inf where there is nothing."""
        near = solid.near.new_full((views * (size or self.size) ** 2,), -torch.inf)
        for s in (solid, thin):
            keep = self.casts[s.piece] & (s.texel[:, 3] >= self.cutout[s.piece].clamp(min=0.01))
            near.scatter_reduce_(0, s.pixel[keep], s.near[keep], "amax")
        return near.view(views, -1)


class _Sun:
    """Lights of several views with their shadow maps."""

    def __init__(
        self,
        renderer: TorchRenderer,
        lights: Sequence[Light],
        cameras: Sequence[PerspectiveCamera],
        shadows: Sequence[float],
    ):
        r = self.renderer = renderer
        self.ambient, self.direction, self.sun = (
            r._stack(x).float() for x in ([i.ambient for i in lights], [i.direction for i in lights],
                                          [np.broadcast_to(i.sun, 3) for i in lights])
        )  # fmt: skip
        self.shadow = r._stack(shadows).float()
        self.light_from_head = r._stack(
            [light_matrix(c.rotation.T @ i.direction, c.target) for c, i in zip(cameras, lights)]
        )
        m = self.light_from_head
        clip = r.vertices[:, :3] @ m[:, :3, :3].mT + m[:, None, :3, 3]
        place = (clip * 0.5 + 0.5) * clip.new_tensor([r.size, r.size, -1]) - clip.new_tensor([0.5, 0.5, 0])
        self.depth = -r._nearest(*r._look(place, None, only=r.casts), len(lights)).flatten().clamp(min=-1).float()

    def shade(self, s: _Surface, rotation: Tensor) -> Tensor:
        """Colour and opacity (N,4), as the fragment shader of `opengl` has them."""
        view = s.pixel.div(self.renderer.size**2, rounding_mode="floor")
        n = F.normalize((rotation.float()[view] @ s.normal[..., None])[..., 0], dim=1)
        n = torch.where(s.front[:, None], n, -n)
        albedo = s.texel[:, :3] ** GAMMA * s.colour
        x, y, z = n.T
        basis = torch.stack([
            torch.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
            1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ], 1)  # fmt: skip
        irradiance = (basis[:, None] @ self.ambient[view])[:, 0].clamp(min=0)
        direction = self.direction[view]
        facing = (n * direction).sum(1, keepdim=True)
        soft = n.new_tensor([0.30, 0.12, 0.08])
        wrapped = ((facing + soft) / (1 + soft)).clamp(0, 1)
        h = F.normalize(direction + n.new_tensor([0, 0, 1]), dim=1)
        fresnel = 0.04 + 0.96 * (1 - h[:, 2:].clamp(min=0)) ** 5
        sun = self.sun[view] * self._lit(s, view)[:, None]
        shine = fresnel * (n * h).sum(1, keepdim=True).clamp(min=0) ** 28 * 8 * facing.clamp(min=0)
        colour = albedo * (irradiance + sun * wrapped) + sun * self.renderer.gloss[s.piece, None] * shine
        alpha = s.texel[:, 3:] * self.renderer.alpha[s.piece, None]
        return torch.cat([(colour.clamp(min=0) ** (1 / GAMMA)).clamp(max=1), alpha], 1)

    def _lit(self, s: _Surface, view: Tensor) -> Tensor:
        """Share of the dominant light (N,) that reaches each point: nine comparisons with the shadow map."""
        m, size = self.light_from_head.float()[view], self.renderer.size
        at = ((m[:, :3, :3] @ s.position[..., None])[..., 0] + m[:, :3, 3]) * 0.5 + 0.5
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
