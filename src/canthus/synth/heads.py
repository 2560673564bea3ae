"""The parts that heads are made of, read from an asset folder. Frame and units are those of `scene`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from canthus.decode import decoding
from canthus.errors import ModelError
from canthus.geometry.mesh import VertexNormals
from canthus.geometry.rotation import matrix_from_euler
from canthus.synth.scene import Piece

LANDMARKS = Path(__file__).with_name("landmarks68_ict.json")  # tools/slide_landmarks.py
SKIN_PARTS = ("M_Face", "M_BackHead")
MOUTH_PARTS = ("M_GumsTongue", "M_Teeth")
EYE_PARTS = ("M_ScleraLeft", "M_ScleraRight")
# The ICT head at rest looks 1.5 degrees further down than the canthus head (docs/conventions.md). This rotation aligns
# its inner landmarks with those of `MorphableModel.default()`; every stored rotation refers to the canthus head.
ICT_FROM_HEAD = matrix_from_euler(np.array([np.deg2rad(1.512), 0.0, 0.0]), "aflw")
MAX_SHINE = 1.6  # of the brightest strands over the others


@dataclass(frozen=True)
class Head:
    """A sampled head: its surfaces, its landmarks and the coefficients that made it."""

    pieces: tuple[Piece, ...]
    landmarks: np.ndarray  # (68,3) cm
    albedo: float  # mean linear reflectance of the face skin, 0..1
    identity: np.ndarray  # (K,)
    expression: np.ndarray  # (E,)


class _Surface:
    """A fixed selection of triangles with texture coordinates: the part of a mesh that does not depend on its shape."""

    def __init__(self, faces: np.ndarray, faces_uv: np.ndarray, uv: np.ndarray):
        key = faces.astype(np.int64).ravel() * len(uv) + faces_uv.ravel()
        unique, inverse = np.unique(key, return_inverse=True)
        self.vertex = unique // len(uv)
        tile = uv[unique % len(uv)]
        self.uv = (tile - np.floor(tile.min(0))).astype(np.float32)
        self.triangles = inverse.reshape(-1, 3).astype(np.int32)


def model_file(folder: str | Path) -> Path:
    """The head model in a folder of parts. Raises `ModelError` where there is none."""
    path = Path(folder) / "ict" / "ict_facekit_light.npz"
    if not path.is_file():
        raise ModelError(
            f"no head assets at '{folder}': a folder with ict/{path.name} is wanted "
            "(docs/data.md says where to get the parts)"
        )
    return path


class HeadAssets:
    """A folder of parts: head model, skins, brows and hair; docs/data.md describes its layout.

    Everything is read once; the object is immutable afterwards.
    from_head: rotation (3,3) from the canthus head frame to the frame of this head.
    """

    from_head: np.ndarray = ICT_FROM_HEAD

    def __init__(self, folder: str | Path):
        root, model = Path(folder), model_file(folder)
        with decoding(ModelError, f"the head assets at '{root}' cannot be read"):
            self._read(root, model)

    def _read(self, root: Path, model: Path) -> None:
        with np.load(model, allow_pickle=False) as d:
            self.mean = d["mean"].astype(np.float32)
            self.identity = (d["id_q"] * d["id_scale"][:, None, None].astype(np.float32)).reshape(len(d["id_q"]), -1)
            self.expression = (d["exp_q"] * d["exp_scale"][:, None, None].astype(np.float32)).reshape(
                len(d["exp_q"]), -1
            )
            self.expression_names = [str(n) for n in d["exp_names"]]
            faces, faces_uv, uv = d["faces"].astype(np.int64), d["faces_uv"].astype(np.int64), d["uv"]
            material = d["material"]
            names = [str(n) for n in d["material_names"]]
        points = json.loads(LANDMARKS.read_text())["points"]
        self.landmark_ids = np.array([p["ids"] for p in points])
        self.landmark_weights = np.array([p["weights"] for p in points], np.float32)
        of = {n: material == names.index(n) for n in names}
        self.surfaces = {
            n: _Surface(faces[of[n]], faces_uv[of[n]], uv)
            for n in (*SKIN_PARTS, *MOUTH_PARTS, *EYE_PARTS, "M_EyeLashes")
        }
        self.skin_normals = VertexNormals(faces[of["M_Face"] | of["M_BackHead"]], len(self.mean))
        self.all_normals = VertexNormals(faces, len(self.mean))
        self.occlusion = np.load(root / "ict" / "ao_neutral.npy", allow_pickle=False).astype(np.float32)
        if self.occlusion.shape != (len(self.mean),):
            raise ValueError(f"ao_neutral.npy has the shape {self.occlusion.shape}, want ({len(self.mean)},)")
        self.skins = sorted(p.name[: -len("_M_Face.jpg")] for p in (root / "skins_ict_uv").glob("*_M_Face.jpg"))
        self.textures: dict[str, Image.Image] = {}
        for skin in self.skins:
            for part in SKIN_PARTS:
                path = root / "skins_ict_uv" / f"{skin}_{part}.jpg"
                self.textures[f"{skin}/{part}"] = Image.open(path).convert("RGBA")
        self.wearables = {kind: _load_wearables(root / kind, self.textures) for kind in ("hair", "brows")}
        for name, there in {"skins_ict_uv": self.skins, **self.wearables}.items():
            if not there:
                raise ValueError(f"{name}/ holds none; one or more is wanted")
        for kind in self.wearables.values():
            for style in kind:
                self.textures[style] = _uncoloured(self.textures[style])
        with np.load(root / "hair" / "mh_to_ict_binding.npz", allow_pickle=False) as b:
            self._binding = {k: b[k] for k in b.files}

    def shape(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Vertices (V,3) in cm of identity (K,) in sigmas and expression (E,) in 0..1."""
        offset = identity.astype(np.float32) @ self.identity + expression.astype(np.float32) @ self.expression
        return self.mean + offset.reshape(-1, 3)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """The 68 points (68,3) on vertices (V,3)."""
        return (vertices[self.landmark_ids] * self.landmark_weights[..., None]).sum(1)

    def wearable(
        self, kind: str, name: str, vertices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A hair style or brow set fitted to vertices (V,3): vertices, normals, uv, triangles."""
        part = self.wearables[kind][name]
        base = self._makehuman_vertices(vertices)
        span = base[part["scale_ref"][:, 0]] - base[part["scale_ref"][:, 1]]
        scale = np.abs(np.diagonal(span)) / part["scale_div"]
        fitted = (base[part["ref"]] * part["w"][..., None]).sum(1) + part["off"] * scale
        fitted = fitted[part["vi"]].astype(np.float32)
        return fitted, part["normal_operator"](fitted), part["uv"][part["ti"]], part["faces"]

    def _makehuman_vertices(self, vertices: np.ndarray) -> np.ndarray:
        """The MakeHuman base mesh deformed with the head; hair and brows are attached to its vertices."""
        b = self._binding
        skin = (vertices[b["EF"]] * b["EB"][..., None]).sum(1) + b["EO"]
        base = b["mh_mean"] + (skin - b["mh_mean"][b["mh_idx"]])[b["mh_near"]]
        base[b["mh_idx"]] = skin
        return base


def _load_wearables(folder: Path, textures: dict[str, Image.Image]) -> dict[str, dict]:
    out: dict[str, dict] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as d:
            if "faces" not in d.files:
                continue
            part = {k: d[k] for k in d.files}
        part["normal_operator"] = VertexNormals(part["faces"].astype(np.int64), len(part["vi"]))
        textures[path.stem] = Image.open(path.with_suffix(".webp")).convert("RGBA")
        out[path.stem] = part
    return out


def _uncoloured(strands: Image.Image) -> Image.Image:
    """Strands as grey levels around 128, for people to colour, with painted shine held back."""
    grey, alpha = np.asarray(strands.convert("L"), np.float32) + 4, strands.getchannel("A")
    inside = grey[np.asarray(alpha) > 128]
    middle, bright = np.percentile(inside, [50, 95]) if len(inside) else (128, 128)
    power = min(1, np.log(MAX_SHINE) / np.log(max(bright / middle, 1.01)))
    level = Image.fromarray(np.clip(128 * (grey / middle) ** power, 0, 255).astype(np.uint8))
    return Image.merge("RGBA", [level, level, level, alpha])
