"""Heads without assets: the head that comes with canthus, with procedural skin, lashes, brows and hair.

Simpler than the heads of an asset folder, but enough for tests, examples and small trainings, and CC0 throughout.
Lengths here are in cm on the mean head: brows at a height of 5.7, top of the head at 16, tip of the nose at z = 3.9.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import cKDTree

from canthus.face.expressions import ict_name
from canthus.face.morphable import MorphableModel
from canthus.geometry.mesh import VertexNormals
from canthus.synth.heads import EYE_PARTS, MOUTH_PARTS, SKIN_PARTS, HeadAssets, _Surface

SKIN_COLOURS = {  # sRGB
    "pale": (0.87, 0.69, 0.61), "fair": (0.79, 0.60, 0.50), "olive": (0.71, 0.53, 0.41),
    "brown": (0.53, 0.36, 0.27), "deep": (0.36, 0.24, 0.18),
}  # fmt: skip
# Height of the hairline over z, and how far the hair stands off.
HAIRLINES = {
    "buzz": ([-13, -10.5, -7.5, -6, -4.5, 0], [-3, 2, 4.5, 8, 10.5, 12.2], 0.15),
    "short": ([-13, -10.5, -7.5, -6, -4.5, 0], [-4, 2, 4, 7, 10, 11.5], 0.7),
    "full": ([-13, -10.5, -7.5, -6, -4.5, 0], [-5, 1, 3, 6, 9.5, 11], 1.6),
    "high": ([-13, -10.5, -7.5, -6, -4.5, -2], [-4, 2, 4.5, 8, 12.5, 14.5], 0.5),
    "long": ([-9, -8.5, -7, -5.5, -4.5, 0], [-12, -6, 2, 6.5, 9.5, 11.2], 1.8),
}
BROWS = {"thin": 0.22, "plain": 0.34, "thick": 0.48}  # half their height
IRIS = 0.62  # radius on the eyeball; `person.eye_texture` draws it with a radius of 0.155 of the texture
LASHES = 10  # points along a lid


class ShippedHead(HeadAssets):
    """`MorphableModel.default()` as a source of heads, in place of a folder."""

    from_head = np.eye(3)

    def __init__(self) -> None:
        model = MorphableModel.default()
        lids, lashes = _lashes(model)
        bases = (model.mean, *model.identity, *model.expression)
        self.mean, *modes = ((np.concatenate([b, lids @ b]) / 10).astype(np.float32) for b in bases)
        self.mean[len(model.mean) :] += lashes
        self.identity = np.stack(modes[: len(model.identity)]).reshape(len(model.identity), -1)
        self.expression = np.stack(modes[len(model.identity) :]).reshape(len(model.expression), -1)
        self.expression_names = [ict_name(n) for n in model.expression_names]
        balls = np.unique(model.triangles[model.parts["eyes"]])
        for name, mode in zip(self.expression_names, self.expression.reshape(len(self.expression), -1, 3)):
            if name.startswith("eyeLook"):
                mode[balls] = 0  # the lids only: eyeballs turn, which no linear mode says
        self.landmark_ids, self.landmark_weights = model.landmark_ids, model.landmark_weights
        points = self.landmarks(self.mean)

        triangles = {n: model.triangles[r].astype(np.int64) for n, r in model.parts.items()}
        skin = triangles["skin"]
        middle = self.mean[skin].mean(1)
        back = (middle[:, 2] < -7.5) | (middle[:, 1] > 10)
        face, skull = SKIN_PARTS
        self.surfaces = {
            face: _wrapped(self.mean, skin[~back]),
            skull: _wrapped(self.mean, skin[back]),
        }
        for part, name in zip(MOUTH_PARTS, ("tongue", "teeth")):
            self.surfaces[part] = _Surface(triangles[name], triangles[name], self.mean[:, :2])
        for part, side in zip(EYE_PARTS, (1, -1)):
            eye = triangles["eyes"][self.mean[triangles["eyes"][:, 0], 0] * side > 0]
            low, high = (f(self.mean[eye.ravel(), :2], axis=0) for f in (np.min, np.max))
            self.surfaces[part] = _Surface(eye, eye, (self.mean[:, :2] - (low + high) / 2) * (0.155 / IRIS) + 0.5)
        self.surfaces["M_EyeLashes"] = _lash_cards(len(model.mean), len(self.mean))
        self.skin_normals = VertexNormals(skin, len(self.mean))
        cards = self.surfaces["M_EyeLashes"]
        everything = np.concatenate([model.triangles, cards.vertex[cards.triangles]])
        self.all_normals = VertexNormals(everything.astype(np.int64), len(self.mean))
        normals = self.skin_normals(self.mean)
        self.occlusion = _occlusion(self.mean, normals, np.unique(skin))

        self.textures: dict[str, Image.Image] = {}
        self.skins = sorted(SKIN_COLOURS)
        paint = _paint(self.mean[np.unique(skin)], points)
        for name in self.skins:
            image = _skin(name, paint)
            self.textures[f"{name}/{face}"] = self.textures[f"{name}/{skull}"] = image
        self.wearables = {"hair": {}, "brows": {}}
        for style, (z, y, thickness) in HAIRLINES.items():
            self.wearables["hair"][style] = _hair(self.mean, skin, np.interp(self.mean[:, 2], z, y), thickness)
            self.textures[style] = _hair_texture()
        for style, half in BROWS.items():
            self.wearables["brows"][style] = _brows(self.mean, skin, points)
            self.textures[style] = _brow_texture(half)

    def wearable(
        self, kind: str, name: str, vertices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A hair style or brow set on vertices (V,3), the skin pushed out: vertices, normals, uv, triangles."""
        surface, height = self.wearables[kind][name]["surface"], self.wearables[kind][name]["height"]
        normals = self.skin_normals(vertices).astype(np.float32)
        out = vertices + normals * height[:, None]
        return out[surface.vertex], normals[surface.vertex], surface.uv, surface.triangles


def _lashes(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """Weights (L,V) that put points on the edges of the lids, each twice, and offsets (L,3) that lift the second."""
    at = np.zeros((68, len(model.mean)), np.float32)
    np.add.at(at, (np.arange(68)[:, None], model.landmark_ids), model.landmark_weights)
    rows, offsets = [], []
    for lid, up, out in (([36, 37, 38, 39], 0.25, 0.75), ([42, 43, 44, 45], 0.25, 0.75),
                         ([36, 41, 40, 39], -0.2, 0.4), ([42, 47, 46, 45], -0.2, 0.4)):  # fmt: skip
        knots, t = np.arange(4), np.linspace(0, 3, LASHES)
        cubic = np.stack(
            [np.prod([(t - k) / (i - k) for k in knots if k != i], axis=0) for i in knots], 1
        )  # Lagrange's polynomials: a cubic through the four points
        rows += [cubic @ at[lid]] * 2
        offsets += [np.zeros((LASHES, 3)), np.tile([0.0, up, out], (LASHES, 1))]
    return np.concatenate(rows).astype(np.float32), np.concatenate(offsets).astype(np.float32)


def _lash_cards(first: int, count: int) -> _Surface:
    """Strips between the lid points and their lifted twins, over one cell of `person.lash_texture`."""
    strips = np.arange(first, count).reshape(-1, 2, LASHES)
    a, b, c, d = strips[:, 0, :-1], strips[:, 0, 1:], strips[:, 1, :-1], strips[:, 1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    uv = np.zeros((count, 2), np.float32)
    uv[first:, 0] = np.tile(np.linspace(0.01, 0.48, LASHES), strips.shape[0] * 2)
    uv[first:, 1] = 1 - np.repeat(np.tile([0.005, 0.13], strips.shape[0]), LASHES)
    return _Surface(triangles, triangles, uv)


def _occlusion(vertices: np.ndarray, normals: np.ndarray, skin: np.ndarray, reach: float = 1.6) -> np.ndarray:
    """How open the skin is (V,), 1: nothing near rises above it. Hollows and the inside of the mouth come out dark."""
    pairs = cKDTree(vertices[skin]).query_pairs(reach, output_type="ndarray")
    i, j = skin[np.concatenate([pairs, pairs[:, ::-1]])].T
    offset = vertices[j] - vertices[i]
    rise = (offset * normals[i]).sum(1) / np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
    total, count = (np.bincount(i, w, len(vertices)) for w in (np.clip(rise, 0, 1), np.ones(len(i))))
    return np.clip(1.05 - 1.1 * total / np.maximum(count, 1), 0.15, 1).astype(np.float32)


def _around(points: np.ndarray) -> np.ndarray:
    """Azimuth about the middle of the skull of points (...,3), in turns from -0.5 to 0.5, 0 in front."""
    return np.arctan2(points[..., 0], points[..., 2] + 7) / (2 * np.pi)


def _wrapped(vertices: np.ndarray, triangles: np.ndarray) -> _Surface:
    """Triangles with a cylinder's texture coordinates: u runs around the head, v is height."""
    u = _around(vertices)
    uv = np.stack([u + 0.5, (vertices[:, 1] + 15) / 32], 1)
    corners = u[triangles]
    over = (np.ptp(corners, axis=1, keepdims=True) > 0.5) & (corners < 0)  # the seam at the back of the head
    return _Surface(triangles, triangles + len(uv) * over, np.concatenate([uv, uv + [1, 0]]))


def _paint(vertices: np.ndarray, points: np.ndarray, size: int = 512) -> np.ndarray:
    """How much lip, blush and eye socket each texel of the skin is: (size,size,3)."""
    mouth = points[48:60]
    inside = (np.abs(vertices[:, :2] - mouth[:, :2].mean(0)) < np.ptp(mouth[:, :2], axis=0) / 2).all(1)
    vertices = vertices[~inside | (vertices[:, 2] > mouth[:, 2].mean() - 0.7)]  # of the mouth only its outside
    u = _around(vertices)
    v, at = (np.mgrid[:size, :size] + 0.5) / size
    place = LinearNDInterpolator(np.stack([u + 0.5, (vertices[:, 1] + 15) / 32], 1), vertices, 99.0)(at, 1 - v)

    def near(where: np.ndarray, reach: float) -> np.ndarray:
        return np.exp(-((cKDTree(where).query(place, distance_upper_bound=3 * reach)[0] / reach) ** 4))

    outer = [48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59]
    inner = [60, 61, 61, 62, 63, 63, 64, 65, 65, 66, 67, 67]
    along = 0.6 * points[outer] + 0.4 * points[inner]
    lips = np.concatenate([along, (along + np.roll(along, 1, 0)) / 2, points[60:]])
    cheeks = points[[1, 15]] * 0.45 + points[[31, 35]] * 0.55
    return np.stack([near(lips, 0.42), near(np.vstack([cheeks, points[30:31]]), 2.0), near(points[36:48], 0.8)], 2)


def _skin(name: str, paint: np.ndarray) -> Image.Image:
    """A skin in the UV layout of the head."""
    rng = np.random.default_rng(sorted(SKIN_COLOURS).index(name))
    size, base = len(paint), np.array(SKIN_COLOURS[name])
    lips, blush, socket = np.moveaxis(paint, -1, 0)[..., None]
    colour = base * (1 - lips * [0.06, 0.26, 0.20]) * (1 - blush * [0.0, 0.09, 0.08]) * (1 - socket * 0.08)
    for cells, strength in ((6, 0.035), (24, 0.03), (96, 0.03), (size, 0.02)):
        noise = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        colour = colour * (1 + strength * np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))[..., None])
    return Image.fromarray((np.clip(colour, 0, 1) * 255).astype(np.uint8)).convert("RGBA")


def _hair(vertices: np.ndarray, skin: np.ndarray, hairline: np.ndarray, thickness: float) -> dict:
    """The scalp above the hairline (V,): v of its texture is the height above the line / 8 cm, u runs around."""
    x, y, z = vertices.T
    ears = (np.abs(x) > 8) & (y < 4.5) & (z > -13)
    above = np.where(ears, -9, y - hairline)
    scalp = skin[(above[skin] > -1).all(1) & (above[skin] > 0).any(1)]
    surface = _wrapped(vertices, scalp)
    surface.uv[:, 0] *= 6  # the strands repeat
    surface.uv[:, 1] = np.clip(above[surface.vertex] / 8 * 0.9 + 0.06, 0.0, 0.99)
    height = 0.04 + thickness * np.clip(above / 3, 0, 1) ** 0.7
    return {"surface": surface, "height": height.astype(np.float32)}


def _hair_texture(size: int = 256) -> Image.Image:
    """Strands from the bottom, where the hairline frays, to the top."""
    rng = np.random.default_rng(1)
    strands = np.sum([np.repeat(rng.normal(size=n), size // n) for n in (size, size // 2, size // 8)], 0) * 0.12
    length = 0.03 + 0.07 * rng.random(size)
    v = 1 - (np.arange(size)[:, None] + 0.5) / size
    grain = rng.normal(0, 0.05, (size, size))
    colour = np.array([0.45, 0.36, 0.28]) * (1 + strands[:, None] + grain[..., None])
    alpha = np.clip((v - length) / 0.02, 0, 1)
    return Image.fromarray((np.dstack([np.clip(colour, 0, 1), alpha]) * 255).astype(np.uint8), "RGBA")


def _brows(vertices: np.ndarray, skin: np.ndarray, points: np.ndarray) -> dict:
    """The skin around the brows. In the texture a brow runs from u = 0.25 to 0.75 along v = 0.5; v = 1 is 2 cm up."""
    parts, uvs = [], []
    for brow in (points[17:22], points[26:21:-1]):
        bend = np.polynomial.Polynomial.fit(brow[:, 0], brow[:, 1], 2)
        x, y, z = vertices.T
        along = (x - brow[0, 0]) / (brow[-1, 0] - brow[0, 0])
        uv = np.column_stack([0.25 + 0.5 * along, 0.5 + (y - bend(x)) / 4])
        inside = np.all((uv > 0) & (uv < 1) & (z[:, None] > -5), axis=1)
        close = np.all(np.abs(uv - 0.5) < [0.32, 0.2], axis=1)
        parts.append(skin[inside[skin].all(1) & close[skin].any(1)])
        uvs.append(uv)
    faces_uv = np.concatenate([parts[0], parts[1] + len(vertices)])
    surface = _Surface(np.concatenate(parts), faces_uv, np.concatenate(uvs))
    return {"surface": surface, "height": np.full(len(vertices), 0.03, np.float32)}


def _brow_texture(half: float, size: int = 256) -> Image.Image:
    """Hairs that lean outwards; `half` is half the brow's height at its thickest, cm."""
    rng = np.random.default_rng(2)
    alpha = np.zeros((size, size))
    for _ in range(900):
        along = rng.random()
        spread = half / 4 * size * np.sin(np.pi * (0.12 + 0.8 * along)) ** 0.5
        column = (0.25 + 0.5 * (1 - along)) * size
        row = size / 2 + rng.uniform(-1, 1) * spread
        t = np.linspace(0, 1, 24)
        columns = np.rint(column - t * (4 + 10 * along)).astype(int)
        rows = np.rint(row - t * 7 * (1 - along) + t * 2 * along).astype(int)
        alpha[rows, columns] = np.maximum(alpha[rows, columns], 0.95 - 0.5 * t)
    grey = np.full((size, size, 3), [0.30, 0.24, 0.19])
    return Image.fromarray((np.dstack([grey, alpha]) * 255).astype(np.uint8), "RGBA")
