"""A random person: identity, skin, hair, things worn and held, expressions.

Every trait is drawn from the random stream of its name, so that no trait depends on the share of another.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from canthus.geometry.rotation import matrix_from_vector
from canthus.io.images import GAMMA
from canthus.synth.clothing import cap, glasses, mask, press_under_cap, scarf
from canthus.synth.hairdo import Brows, Cut, middle_colour, sample_brows, sample_cut, sample_hair_colour, thickened
from canthus.synth.hands import free_hand, held_object
from canthus.synth.heads import EYE_PARTS, MOUTH_PARTS, SKIN_PARTS, Head, HeadAssets
from canthus.synth.lids import blinked, uncrossed
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.scene import Piece, Role
from canthus.synth.skins import sample_tone, skin_picture

MAX_GAZE = 35.0  # degrees at weight 1 of a gaze unit

# Expression families: a coherent face is one family at some strength plus a little of everything else.
# ICT names end in _L/_R where a unit has sides; a bare name here moves both.
FAMILIES: dict[str, dict[str, float]] = {
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
FAMILY_ODDS = np.array([0.25, 0.15, 0.2, 0.06, 0.09, 0.07, 0.07, 0.06, 0.05])

IRIS_COLOURS = np.array(
    [(0.22, 0.11, 0.05), (0.30, 0.45, 0.62), (0.35, 0.42, 0.25), (0.10, 0.06, 0.03), (0.42, 0.45, 0.48)]
)


def sample_expression(streams: RandomStreams, names: list[str], recipe: SynthRecipe) -> np.ndarray:
    """Expression coefficients (E,) in 0..1: a family, noise, lids and gaze."""
    index = {n: i for i, n in enumerate(names)}
    e = np.zeros(len(names), np.float32)

    def move(rng: np.random.Generator, unit: str, amount: float, asymmetry: float = 0.12) -> None:
        for name in (unit, unit + "_L", unit + "_R"):
            if name in index:
                i = index[name]
                e[i] = np.clip(e[i] + amount * (1 + rng.normal(0, asymmetry)), 0, 1)

    if (rng := streams.maybe("expression", recipe.expressions)) is not None:
        family = list(FAMILIES)[rng.choice(len(FAMILIES), p=FAMILY_ODDS)]
        strength = rng.uniform(0.3, 1.15)
        for unit, amount in FAMILIES[family].items():
            move(rng, unit, amount * strength)
        for name in names:
            if rng.random() < 0.12 and not name.startswith(("eyeLook", "eyeBlink", "Pupil")):
                i = index[name]
                e[i] = np.clip(e[i] + abs(rng.normal(0, 0.3)), 0, 1)
        if e[index["jawOpen"]] < 0.05 and rng.random() < 0.25:
            move(rng, "jawOpen", rng.uniform(0, 0.25))
    if (rng := streams.maybe("extremes", recipe.extremes)) is not None:
        _move_far(rng, e, index)
    _move_lids(streams, recipe, e, index)
    left, up = streams.generator("gaze").normal(0, recipe.gaze / MAX_GAZE, 2)
    set_gaze(e, index, float(left), float(up))
    return e


def _move_far(rng: np.random.Generator, e: np.ndarray, index: dict[str, int]) -> None:
    """One to three units, three in ten of those with sides on one side alone."""
    moved = [name for name in index if not name.startswith(("eyeLook", "eyeBlink", "Pupil"))]
    units = sorted({name.removesuffix("_L").removesuffix("_R") for name in moved})
    for unit in rng.choice(units, rng.integers(1, 4), replace=False):
        amount, one_side = rng.uniform(0.3, 1.0), rng.random() < 0.3
        names = [name for name in (unit, f"{unit}_L", f"{unit}_R") if name in index]
        if unit == "mouthClose":  # it closes the lips of an open jaw
            names.append("jawOpen")
        elif len(names) == 2 and one_side:
            names = [names[rng.integers(2)]]
        for name in names:
            e[index[name]] = max(e[index[name]], amount)


def _move_lids(streams: RandomStreams, recipe: SynthRecipe, e: np.ndarray, index: dict[str, int]) -> None:
    """Squinting, winking, closed and half-closed eyes, with what the cheeks and brows do along."""

    def add(amounts: dict[str, float], side: str) -> None:
        for unit, amount in amounts.items():
            e[index[unit + side]] = np.clip(e[index[unit + side]] + amount, 0, 1)

    if (rng := streams.maybe("squint", recipe.squints)) is not None:
        a = rng.uniform(0.4, 1.0)
        for side in ("_L", "_R"):
            add({"eyeSquint": a, "cheekSquint": 0.5 * a, "browDown": 0.5 * a, "eyeBlink": 0.25 * a}, side)
    if (rng := streams.maybe("wink", recipe.winks)) is not None:
        side = "_L" if rng.random() < 0.5 else "_R"
        e[index["eyeBlink_L"]] = e[index["eyeBlink_R"]] = 0
        e[index["eyeWide" + side]] = 0
        add({"eyeBlink": rng.uniform(0.8, 1.0), "cheekSquint": 0.6, "mouthSmile": 0.3, "browDown": 0.3}, side)
    elif (rng := streams.maybe("closed eyes", recipe.closed_eyes)) is not None:
        a = rng.uniform(0.85, 1.0)
        for side in ("_L", "_R"):
            e[index["eyeBlink" + side]] = min(a * (1 + rng.normal(0, 0.02)), 1)
            e[index["eyeWide" + side]] = 0
    elif (rng := streams.maybe("half closed", recipe.half_closed)) is not None:
        a = rng.uniform(0.05, 0.6)
        for side in ("_L", "_R"):
            add({"eyeBlink": a * (1 + rng.normal(0, 0.1))}, side)


def set_gaze(e: np.ndarray, index: dict[str, int], left: float, up: float) -> None:
    """Set the gaze units of an expression e (E,): to the subject's left and up, in units of MAX_GAZE."""
    for unit in ("eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeLookDown"):
        e[index[unit + "_L"]] = e[index[unit + "_R"]] = 0
    e[index["eyeLookOut_R" if left < 0 else "eyeLookIn_R"]] = min(abs(left), 1)
    e[index["eyeLookIn_L" if left < 0 else "eyeLookOut_L"]] = min(abs(left), 1)
    for side in ("_L", "_R"):
        e[index[("eyeLookUp" if up > 0 else "eyeLookDown") + side]] = min(abs(up), 1)


def eye_texture(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """A procedural iris on a sclera, uint8 (size,size,4)."""
    plain, disc, r, t, outside = _eyeball(size)
    fibres = np.sum([rng.normal() * np.cos(m * t + rng.uniform(0, 6.3)) for m in range(15, 80, 4)], 0) / 6
    base = IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))] * rng.uniform(0.7, 1.3)
    iris = base * (1 + 0.35 * fibres[:, None]) * (1 - 0.5 * np.clip((r - 0.10) / 0.05, 0, 1))
    pupil = np.clip((r - rng.uniform(0.045, 0.075)) / 0.008 + 0.5, 0, 1)
    colour = _sclera(r) * outside + (iris * pupil + 0.01) * (1 - outside)
    out = plain.copy()
    out[disc, :3] = (np.clip(colour, 0, 1) * 255).astype(np.uint8)
    return out


@functools.lru_cache(4)
def _eyeball(size: int) -> tuple[np.ndarray, ...]:
    """What all eyes share: one without an iris, uint8 (size,size,4), where the iris goes, bool (size,size), and the N
    texels' distance to its middle (N,1), direction (N,) and share of sclera (N,1)."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    r, t = np.hypot(x, y), np.arctan2(y, x)
    outside = np.clip((r - 0.155) / 0.015 + 0.5, 0, 1)
    disc = outside < 1
    plain = np.full((size, size, 4), 255, np.uint8)
    plain[..., :3] = (np.clip(_sclera(r[..., None]), 0, 1) * 255).astype(np.uint8)
    return plain, disc, r[disc, None], t[disc], outside[disc, None]


def _sclera(r: np.ndarray) -> np.ndarray:
    """Colour (...,3) of the white of the eye at distances (...,1) from the middle of the iris."""
    return np.array([0.86, 0.83, 0.80]) - 0.25 * np.clip((r - 0.2) / 0.3, 0, 1) * np.array([0.3, 0.9, 0.9])


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


@functools.lru_cache(8)
def _shade(assets: HeadAssets) -> np.ndarray:
    """Share (V,3) of ambient light that reaches the skin; red is lost least."""
    return (assets.occlusion[:, None] ** np.array([0.75, 1.1, 1.2])).astype(np.float32)


def _skin_colour(
    streams: RandomStreams, recipe: SynthRecipe, assets: HeadAssets, vertices: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Paint of the vertices (V,3): ambient occlusion, make-up, freckles, moles; placed on the neutral head."""
    paint = _shade(assets).copy()
    across, up, ahead = np.ascontiguousarray(vertices.T)

    def near(ids: list[int], reach: float) -> np.ndarray:
        squared = np.full(len(vertices), np.inf, np.float32)
        for x, y, z in points[ids]:
            np.minimum(squared, (across - x) ** 2 + (up - y) ** 2 + (ahead - z) ** 2, out=squared)
        return np.clip(1.3 - np.sqrt(squared) / reach, 0, 1)[:, None]

    if (rng := streams.maybe("make-up", recipe.make_up)) is not None:
        tone = np.array([1.0, 0.55, 0.6]) * rng.uniform(0.6, 1.1)
        lips = near(list(range(48, 68)), 0.35) * rng.uniform(0.2, 0.9)
        paint *= 1 - lips * (1 - tone)
        if rng.random() < 0.5:
            lids = near([36, 37, 38, 39, 42, 43, 44, 45], 0.8) * rng.uniform(0.1, 0.7)
            paint *= 1 - lids * (1 - rng.uniform(0.1, 0.9, 3))
        if rng.random() < 0.5:
            paint *= 1 - near([1, 2, 14, 15], 2.2) * rng.uniform(0.0, 0.25) * np.array([0.0, 0.6, 0.5])
    if (rng := streams.maybe("freckles", recipe.freckles)) is not None:  # on cheeks and nose, a vertex each
        where = near([1, 2, 14, 15, 29, 30, 31, 35], 2.2) * rng.uniform(0.1, 0.5)
        spots = (rng.random((len(vertices), 1)) < where) * rng.uniform(0.3, 1.0, (len(vertices), 1))
        paint *= 1 - spots * np.array([0.16, 0.32, 0.4]) * rng.uniform(0.4, 1.2)
    if (rng := streams.maybe("moles", recipe.moles)) is not None:
        skin = np.unique(assets.surfaces[SKIN_PARTS[0]].vertex)
        front = skin[(near(list(range(68)), 3.0)[skin, 0] > 0) & (vertices[skin, 2] > points[[0, 16], 2].mean())]
        some = rng.choice(front, rng.integers(2, 9), replace=False)
        paint[some] *= 1 - rng.uniform(0.4, 0.85, (len(some), 1)) * np.array([0.85, 0.95, 1.0])
    return paint


@dataclass(frozen=True)
class Person:
    """Everything about a person that does not change with the expression.

    identity: (K,) sigmas. skin: key of the skin. tint: factors (3,) on its colour. albedo: mean linear reflectance.
    paint: factors (V,3) on top of it. hair: key or None. hair_colour: (3,) linear. worn: rigid pieces
    that move with the skull. dome: of the cap, see `clothing.cap`. textures: uint8 RGBA by key, `skin` and `eye`.
    """

    streams: RandomStreams
    recipe: SynthRecipe
    identity: np.ndarray
    skin: str
    tint: np.ndarray
    albedo: float
    gloss: float
    paint: np.ndarray
    brows: Brows
    hair: str | None
    cut: Cut
    hair_colour: np.ndarray
    worn: tuple[Piece, ...]
    dome: tuple[np.ndarray, np.ndarray] | None
    textures: dict[str, np.ndarray]


def sample_person(streams: RandomStreams, assets: HeadAssets, recipe: SynthRecipe) -> Person:
    """A random person: a function of the streams and the recipe."""
    rng = streams.generator("identity")
    identity = (rng.standard_normal(len(assets.identity)) * rng.uniform(0.7, 1.25)).astype(np.float32)
    neutral = assets.shape(identity, np.zeros(len(assets.expression)))
    points = assets.landmarks(neutral)
    rng = streams.generator("skin")
    skin = assets.skins[rng.integers(len(assets.skins))]
    flesh = _flesh(assets, skin)
    # skin textures vary more in redness than people do: the ratios red/green and green/blue are sampled instead
    redness, warmth = rng.uniform(1.6, 2.2), rng.uniform(1.3, 1.7)
    wanted = flesh[0] * np.array([1, 1 / redness, 1 / (redness * warmth)])
    tint = wanted / flesh * np.clip(rng.normal(1, 0.12), 0.65, 1.4)
    if flesh[0] < 0.2:
        tint = tint * rng.uniform(1, 2.2)
    gloss = rng.uniform(0.1, 0.9)
    if (rng := streams.maybe("tone of skin", recipe.tones)) is not None:  # type: ignore[assignment]
        tint = np.clip(sample_tone(rng) / flesh, 0.2, 5)
    flesh = flesh * tint
    worn: list[Piece] = []
    dome = None
    if (rng := streams.maybe("glasses", recipe.glasses)) is not None:  # type: ignore[assignment]
        worn += glasses(rng, points)
    if (rng := streams.maybe("headwear", recipe.headwear)) is not None:  # type: ignore[assignment]
        skull = np.concatenate([assets.surfaces[part].vertex for part in SKIN_PARTS])
        hat, dome = cap(rng, neutral[skull], points)
        worn.append(hat)
    front = neutral[assets.surfaces["M_Face"].vertex]
    if (rng := streams.maybe("hands", recipe.hands)) is not None:  # type: ignore[assignment]
        worn += free_hand(rng, front, points, flesh)
    if (rng := streams.maybe("objects", recipe.objects)) is not None:  # type: ignore[assignment]
        worn += held_object(rng, front, points, flesh)
    style = streams.maybe("hair", recipe.hair)
    hair = None if style is None else str(style.choice(list(assets.wearables["hair"])))
    hair_colour = sample_hair_colour(streams, recipe)
    return Person(
        streams, recipe, identity, skin, tint, float(flesh.mean()), gloss,
        _skin_colour(streams, recipe, assets, neutral, points),
        sample_brows(streams, assets, recipe, hair_colour), hair, sample_cut(streams, recipe), hair_colour,
        tuple(worn), dome,
        {"eye": eye_texture(streams.generator("eyes")),
         "skin": skin_picture(streams, assets, recipe, skin, hair_colour / tint)},
    )  # fmt: skip


@functools.lru_cache(256)
def _flesh(assets: HeadAssets, skin: str) -> np.ndarray:
    """Median linear colour (3,) of a skin texture."""
    image = np.asarray(assets.textures[f"{skin}/M_Face"].resize((128, 128)))[..., :3]
    uv = assets.surfaces["M_Face"].uv[::16] % 1
    return np.median((image[((1 - uv[:, 1]) * 127).astype(int), (uv[:, 0] * 127).astype(int)] / 255) ** GAMMA, axis=0)


def pose_head(assets: HeadAssets, person: Person, expression: np.ndarray) -> tuple[Head, np.ndarray]:
    """The person with an expression (E,), and the vertices (V,3) of the bare head."""
    recipe, streams = person.recipe, person.streams
    vertices = blinked(assets, assets.shape(person.identity, expression), expression)
    points = uncrossed(assets.landmarks(vertices))
    vertices = _turn_eyes(assets, vertices, expression)
    skin_normals, normals = assets.skin_normals(vertices), assets.all_normals(vertices)
    pieces: list[Piece] = []

    def add(part: str, role: Role, normal: np.ndarray, colour: np.ndarray, **look) -> None:
        s = assets.surfaces[part]
        geometry = vertices[s.vertex], normal[s.vertex], s.uv, colour[s.vertex], s.triangles
        pieces.append(Piece(part, *geometry, role=role, **look))

    shade = _shade(assets)
    roles: tuple[Role, ...] = ("face", "skull")
    for part, role in zip(SKIN_PARTS, roles):
        paint, blocked = person.paint * person.tint, shade[assets.surfaces[part].vertex]
        texture = "skin" if role == "face" else f"{person.skin}/{part}"
        add(part, role, skin_normals, paint, texture=texture, gloss=person.gloss, shade=blocked)
    white = np.ones_like(vertices)
    for part, colour in zip(MOUTH_PARTS, ((0.45, 0.14, 0.12), (0.80, 0.74, 0.64))):
        # deep in the mouth is dark: brightness falls with the depth behind the lips
        depth = np.clip(1 + (vertices[:, 2:] - points[62, 2]) * 0.35, 0.15, 1)
        dark = depth[assets.surfaces[part].vertex]
        add(part, "face", normals, white * colour * depth, gloss=0.6, shade=dark)
    for part in EYE_PARTS:
        add(part, "face", normals, white * 0.85, texture="eye", gloss=1.5)
    add("M_EyeLashes", "lashes", normals, white, texture="lash", gloss=0.1, cutout=0.2)

    for style in person.brows.styles:
        v, n, uv, f = assets.wearable("brows", style, vertices)
        v = thickened(v, points, person.brows.thickness) + np.array([0, 0, 0.05], np.float32)
        colour = np.ones_like(v) * person.brows.colour / middle_colour(assets, style)
        pieces.append(Piece("brows", v, n, uv, colour, f, style, gloss=0.12, cutout=0.12, role="brows"))
    if person.hair is not None:
        v, n, uv, f = assets.wearable("hair", person.hair, vertices)
        v = person.cut(v, points)
        if person.cut.flip:
            n, f = n * np.array([-1, 1, 1], n.dtype), f[:, ::-1]
        if person.dome is not None:
            v = press_under_cap(v, person.dome)
        colour = np.ones_like(v) * person.hair_colour / middle_colour(assets, person.hair)
        pieces.append(Piece("hair", v, n, uv, colour, f, person.hair, gloss=0.12, cutout=0.35, role="hair"))
    skin = vertices[np.concatenate([assets.surfaces[part].vertex for part in SKIN_PARTS])]
    face = vertices[assets.surfaces["M_Face"].vertex]
    if (rng := streams.maybe("mask", recipe.masks)) is not None:
        pieces += mask(rng, face, points)
    if (rng := streams.maybe("scarf", recipe.scarves)) is not None:
        pieces += scarf(rng, skin, points)
    return Head((*pieces, *person.worn), points, person.albedo, person.identity, expression), vertices


def _turn_eyes(assets: HeadAssets, vertices: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The head with its eyeballs rotated by the gaze units; the units themselves move the lids only."""
    amount = dict(zip(assets.expression_names, expression))
    for part, side, outward in (("M_ScleraRight", "_R", -1), ("M_ScleraLeft", "_L", 1)):
        yaw = outward * (amount["eyeLookOut" + side] - amount["eyeLookIn" + side])
        pitch = amount["eyeLookDown" + side] - amount["eyeLookUp" + side]
        ball = np.unique(assets.surfaces[part].vertex)
        centre = (vertices[ball].min(0) + vertices[ball].max(0)) / 2
        turn = matrix_from_vector(np.radians(MAX_GAZE) * np.array([pitch, yaw, 0.0], float))
        # linear lids cut into the eyeball when they close, so it shrinks a little
        size = 1 - 0.15 * amount["eyeBlink" + side] ** 2
        vertices[ball] = size * (vertices[ball] - centre) @ turn.T + centre
    return vertices
