"""What a random person looks like: identity, expression, skin, hair, glasses. Every draw comes from one generator."""

from __future__ import annotations

import numpy as np

from canthus.synth.accessories import cap, glasses
from canthus.synth.heads import EYE_PARTS, MOUTH_PARTS, SKIN_PARTS, Head, HeadAssets, Piece

# Expression families: a coherent face is one family at some strength plus a little of everything else.
# ICT names end in _L/_R where a unit has sides; a bare name here moves both.
FAMILIES: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 0.8, "cheekSquint": 0.5, "cheekRaiser": 0.4, "mouthDimple": 0.2, "eyeSquint": 0.2},
    "laugh": {"mouthSmile": 0.9, "jawOpen": 0.35, "mouthUpperUp": 0.5, "mouthLowerDown": 0.4, "cheekSquint": 0.7},
    "speech": {"jawOpen": 0.25, "mouthFunnel": 0.25, "mouthLowerDown": 0.3, "mouthStretch": 0.2, "mouthUpperUp": 0.2},
    "shout": {"jawOpen": 0.8, "mouthStretch": 0.4, "browDown": 0.5, "noseSneer": 0.4, "mouthLowerDown": 0.4},
    "surprise": {"jawOpen": 0.45, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.8},
    "anger": {"browDown": 0.9, "noseSneer": 0.6, "mouthPress": 0.6, "eyeSquint": 0.5, "mouthFrown": 0.4},
    "sad": {"browInnerUp": 0.8, "mouthFrown": 0.8, "mouthShrugLower": 0.4, "eyeSquint": 0.2},
    "pucker": {"mouthPucker": 0.9, "mouthFunnel": 0.3},
    "disgust": {"noseSneer": 0.9, "mouthUpperUp": 0.7, "browDown": 0.5, "cheekSquint": 0.4},
}
FAMILY_ODDS = np.array([0.2, 0.2, 0.12, 0.16, 0.05, 0.07, 0.06, 0.05, 0.05, 0.04])

HAIR_COLOURS = np.array([(0.35, 0.3, 0.3), (0.7, 0.6, 0.5), (1.0, 0.9, 0.8), (1.7, 1.4, 1.0), (1.4, 1.4, 1.45)])
IRIS_COLOURS = np.array(
    [(0.22, 0.11, 0.05), (0.30, 0.45, 0.62), (0.35, 0.42, 0.25), (0.10, 0.06, 0.03), (0.42, 0.45, 0.48)]
)


def sample_expression(rng: np.random.Generator, names: list[str]) -> np.ndarray:
    """Expression coefficients (E,) in 0..1: a family, noise, lids and gaze."""
    index = {n: i for i, n in enumerate(names)}
    e = np.zeros(len(names), np.float32)

    def move(unit: str, amount: float, asymmetry: float = 0.12) -> None:
        for name in (unit, unit + "_L", unit + "_R"):
            if name in index:
                i = index[name]
                e[i] = np.clip(e[i] + amount * (1 + rng.normal(0, asymmetry)), 0, 1)

    family = list(FAMILIES)[rng.choice(len(FAMILIES), p=FAMILY_ODDS)]
    strength = rng.uniform(0.3, 1.15)
    for unit, amount in FAMILIES[family].items():
        move(unit, amount * strength)
    for name in names:
        if rng.random() < 0.12 and not name.startswith(("eyeLook", "eyeBlink", "Pupil")):
            i = index[name]
            e[i] = np.clip(e[i] + abs(rng.normal(0, 0.3)), 0, 1)
    if rng.random() < 0.15:
        move("eyeBlink", rng.uniform(0.6, 1.0), 0.02)
    elif rng.random() < 0.25:
        move("eyeBlink", rng.uniform(0.05, 0.6), 0.1)
    elif rng.random() < 0.04:
        e[index["eyeBlink_L" if rng.random() < 0.5 else "eyeBlink_R"]] = rng.uniform(0.7, 1.0)
    if e[index["jawOpen"]] < 0.05 and rng.random() < 0.25:
        move("jawOpen", rng.uniform(0, 0.25))
    right, up = rng.normal(0, 0.35, 2)
    e[index["eyeLookOut_R" if right < 0 else "eyeLookIn_R"]] = min(abs(right), 1)
    e[index["eyeLookIn_L" if right < 0 else "eyeLookOut_L"]] = min(abs(right), 1)
    for side in ("_L", "_R"):
        e[index[("eyeLookUp" if up > 0 else "eyeLookDown") + side]] = min(abs(up), 1)
    return e


def eye_texture(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """A procedural iris on a sclera, uint8 (size,size,4)."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    r, t = np.hypot(x, y), np.arctan2(y, x)
    fibres = sum(rng.normal() * np.cos(m * t + rng.uniform(0, 6.3)) for m in range(15, 80, 4)) / 6
    base = IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))] * rng.uniform(0.7, 1.3)
    iris = base * (1 + 0.35 * fibres[..., None]) * (1 - 0.5 * np.clip((r[..., None] - 0.10) / 0.05, 0, 1))
    sclera = np.array([0.86, 0.83, 0.80]) - 0.25 * np.clip((r[..., None] - 0.2) / 0.3, 0, 1) * np.array([0.3, 0.9, 0.9])
    outside = np.clip((r - 0.155) / 0.015 + 0.5, 0, 1)[..., None]
    pupil = np.clip((r - rng.uniform(0.045, 0.075)) / 0.008 + 0.5, 0, 1)[..., None]
    colour = sclera * outside + (iris * pupil + 0.01) * (1 - outside)
    return np.dstack([np.clip(colour, 0, 1) * 255, np.full((size, size), 255)]).astype(np.uint8)


def lash_texture(size: int = 256) -> np.ndarray:
    """Dark strokes on transparent ground for the lash cards of the ICT head, uint8 (size,size,4)."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((size, size))
    for row in range(6):
        for column in range(2):
            top, bottom = int(row * size / 6), int((row + 0.83) * size / 6)
            left, right = int(column * size / 2), int((column + 0.98) * size / 2)
            for _ in range(40):
                x, lean = rng.uniform(left, right), rng.normal(0, 4)
                t = (np.arange(top, bottom) - top) / (bottom - top)
                xs = (x + lean * t**2).astype(int)
                ok = (xs >= left) & (xs < right)
                alpha[np.arange(top, bottom)[ok], xs[ok]] = np.maximum(
                    alpha[np.arange(top, bottom)[ok], xs[ok]], 0.9 - 0.5 * t[ok]
                )
    out = np.zeros((size, size, 4), np.uint8)
    out[..., :3] = (18, 12, 10)
    out[..., 3] = alpha * 255
    return out


def _skin_colour(rng: np.random.Generator, assets: HeadAssets, vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Per-vertex paint (V,3): occlusion, beard, lips, cheeks. Drawn on the neutral head so that it moves with it."""
    paint = np.repeat(assets.occlusion[:, None] ** np.array([0.75, 1.1, 1.2]), 1, 0).astype(np.float32)

    def near(ids: list[int], reach: float) -> np.ndarray:
        d = np.linalg.norm(vertices[:, None] - points[ids], axis=2).min(1)
        return np.clip(1.3 - d / reach, 0, 1)[:, None]

    if rng.random() < 0.35:  # stubble to full beard, grown where jaw, chin and upper lip are
        lips = near(list(range(48, 60)), 0.7)
        beard = np.maximum(
            near(list(range(2, 15)), 1.8), near([33, 50, 51, 52, 57, 8], 1.7) * (vertices[:, 1:2] < points[33, 1])
        )
        grain = 0.75 + 0.25 * rng.random((len(vertices), 1))
        shade = rng.uniform(0.15, 0.85) * beard * (1 - lips) * grain
        paint *= 1 - shade * np.array([0.75, 0.8, 0.85])
    if rng.random() < 0.4:
        tone = np.array([1.0, 0.55, 0.6]) * rng.uniform(0.6, 1.1)
        lips = near(list(range(48, 68)), 0.35) * rng.uniform(0.2, 0.9)
        paint *= 1 - lips * (1 - tone)
    if rng.random() < 0.3:
        paint *= 1 - near([1, 2, 14, 15], 2.2) * rng.uniform(0.0, 0.25) * np.array([0.0, 0.6, 0.5])
    if rng.random() < 0.2:
        lids = near([36, 37, 38, 39, 42, 43, 44, 45], 0.8) * rng.uniform(0.1, 0.7)
        paint *= 1 - lids * (1 - rng.uniform(0.1, 0.9, 3))
    return paint


def sample_head(rng: np.random.Generator, assets: HeadAssets) -> tuple[Head, dict[str, np.ndarray]]:
    """A random head and the textures it brings along (uint8 RGBA by key)."""
    identity = (rng.standard_normal(len(assets.identity)) * rng.uniform(0.7, 1.25)).astype(np.float32)
    expression = sample_expression(rng, assets.expression_names)
    vertices = assets.shape(identity, expression)
    neutral = assets.shape(identity, np.zeros_like(expression))
    points = assets.landmarks(vertices)
    skin = assets.skins[rng.integers(len(assets.skins))]
    tint = np.clip(rng.normal(1, 0.06, 3) * rng.normal(1, 0.12), 0.65, 1.4)
    if "dark" in skin:
        # the dark skins are deeply saturated; brightened as they are they would turn red
        tint = tint * rng.uniform(1, 2.2) * np.array([1, rng.uniform(1.1, 1.6), rng.uniform(1.1, 2.0)])
    paint = _skin_colour(rng, assets, neutral, assets.landmarks(neutral))
    skin_normals, normals = assets.skin_normals(vertices), assets.all_normals(vertices)
    gloss = rng.uniform(0.1, 0.9)
    pieces: list[Piece] = []

    def add(name: str, surface: str, normal: np.ndarray, colour: np.ndarray, **look) -> None:
        s = assets.surfaces[surface]
        pieces.append(Piece(name, vertices[s.vertex], normal[s.vertex], s.uv, colour[s.vertex], s.triangles, **look))

    for part in SKIN_PARTS:
        add(part, part, skin_normals, paint * tint, texture=f"{skin}/{part}", gloss=gloss)
    white = np.ones_like(vertices)
    for part, colour in zip(MOUTH_PARTS, ((0.45, 0.14, 0.12), (0.80, 0.74, 0.64))):
        # deep in the mouth is dark: brightness falls with the depth behind the lips
        depth = np.clip(1 + (vertices[:, 2:] - points[62, 2]) * 0.35, 0.15, 1)
        add(part, part, normals, white * colour * depth, gloss=0.6)
    for part in EYE_PARTS:
        add(part, part, normals, white * 0.85, texture="eye", gloss=1.5)
    add("lash", "M_EyeLashes", normals, white, texture="lash", gloss=0.1, cutout=0.2)

    hair_colour = HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.7, 1.2)

    def wear(kind: str, style: str, colour: np.ndarray, push: float, cutout: float) -> None:
        v, n, uv, f = assets.wearable(kind, style, vertices)
        pieces.append(
            Piece(
                kind,
                v + np.array([0, 0, push], np.float32),
                n,
                uv,
                np.ones_like(v) * colour,
                f,
                style,
                0.12,
                cutout=cutout,
            )
        )

    brow = str(rng.choice(list(assets.wearables["brows"])))
    wear("brows", brow, hair_colour * 0.8, 0.05, 0.12)
    style = "bald"
    if rng.random() < 0.82:
        style = str(rng.choice(list(assets.wearables["hair"])))
        wear("hair", style, hair_colour * 0.8, 0.0, 0.35)
    if rng.random() < 0.22:
        pieces += glasses(rng, points)
    if rng.random() < 0.12:
        pieces.append(cap(rng, vertices[assets.surfaces["M_BackHead"].vertex], points))
    textures = {"eye": eye_texture(rng), "lash": lash_texture()}
    return Head(
        tuple(pieces),
        points,
        assets.albedo[skin] * float(tint.mean()),
        identity,
        expression,
        {"skin": skin, "hair": style, "brows": brow},
    ), textures
