"""Hands in front of the face, empty or holding a phone, a cup or a microphone.

The frame of a hand: origin in the palm, +y to the fingers, +z out of its back, +x to the thumb of a left hand;
centimetres.
"""

from __future__ import annotations

import numpy as np

from canthus.synth.scene import Piece
from canthus.synth.solids import Mesh, capsule_radii, grid, join, lathe, piece, place, slab, tube

FINGERS = np.array([(-3.2, 5.9, 0.72), (-1.1, 7.5, 0.82), (1.05, 8.0, 0.86), (3.1, 7.2, 0.84)])  # x, length, radius
PHALANGES = np.array([0.45, 0.3, 0.25])
# For a hand on the subject's left: the point of the face that it covers (mean of landmarks), the direction of its back,
# the direction of its fingers, and how far the fingers bend, degrees per joint.
GESTURES: dict[str, tuple[tuple[int, ...], tuple[float, float, float], tuple[float, float, float], float]] = {
    "cheek": ((13, 54, 46), (0.9, -0.1, 0.45), (-0.1, 1.0, 0.15), 14),
    "mouth": ((48, 51, 54, 57), (0.1, 0.0, 1.0), (-1.0, 0.25, 0.0), 10),
    "eye": ((42, 45, 47), (0.2, 0.1, 1.0), (-0.5, 1.0, 0.0), 16),
    "chin": ((8, 9, 57), (0.2, -0.7, 0.7), (-0.8, 0.6, 0.1), 30),
    "brow": ((19, 24, 27), (0.0, 0.3, 1.0), (-1.0, 0.2, 0.0), 8),
    "nose": ((30, 33, 51), (0.2, -0.2, 1.0), (-0.3, 1.0, 0.0), 40),
}


def _finger(base: np.ndarray, direction: np.ndarray, bend: float, length: float, radius: float) -> Mesh:
    """A tapered capsule with three joints that bend towards the palm by `bend` radians each."""
    down = np.array([0.0, 0.0, -1.0])
    down = down - (down @ direction) * direction
    down /= np.linalg.norm(down)
    angles = np.cumsum(np.full(3, bend) * [0.9, 1.1, 0.8])
    steps = np.cos(angles)[:, None] * direction + np.sin(angles)[:, None] * down
    joints = base + np.vstack([np.zeros(3), np.cumsum(steps * (PHALANGES * length)[:, None], axis=0)])
    at, radii = capsule_radii(9, np.array([1.0, 0.78]) * radius, length)
    path = np.column_stack([np.interp(at, np.cumsum([0, *PHALANGES]), joints[:, k]) for k in range(3)])
    knuckles = 1 + 0.07 * np.exp(-(((at[:, None] - [0.45, 0.75]) / 0.05) ** 2)).sum(1)
    return tube(path, radii * knuckles, sides=10)


def hand(rng: np.random.Generator, bend: float, thumb: float) -> Mesh:
    """A left hand without its forearm; bend and thumb (how far it reaches across the palm): radians."""
    y = np.array([-6.5, -5, -3.5, -1, 1.5, 3.5, 4.6, 5.3])
    wide = np.array([2.7, 2.9, 3.5, 4.1, 4.25, 4.2, 3.9, 0.5])
    thick = np.array([1.9, 1.8, 1.7, 1.55, 1.4, 1.15, 0.9, 0.1])
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = np.stack([np.cos(t), np.sin(t)])
    ring = np.sign(ring) * np.abs(ring) ** 0.8
    rows = [np.column_stack([w * ring[0], np.full(20, h), d * ring[1]]) for h, w, d in zip(y, wide, thick)]
    parts = [grid(np.stack(rows), around=True)]
    for k, (x, length, radius) in enumerate(FINGERS):
        spread = np.radians((k - 1.5) * rng.uniform(1, 7))
        direction = np.array([np.sin(spread), np.cos(spread), 0.0])
        parts.append(_finger(np.array([x, 3.9, 0.0]), direction, bend * rng.uniform(0.7, 1.25), length, radius))
    across = np.array([np.cos(thumb) * 0.75, 0.65, -np.sin(thumb)])
    parts.append(_finger(np.array([3.1, -1.6, -0.4]), across / np.linalg.norm(across), 0.3 * bend + 0.1, 6.6, 1.05))
    return join(parts)


def _clearance(face: np.ndarray, origin: np.ndarray, normal: np.ndarray, reach: float) -> float:
    """How far the face (V,3) rises along `normal` above `origin` within `reach` cm of the line."""
    d = face - origin
    height = d @ normal
    beside = np.linalg.norm(d - height[:, None] * normal, axis=1) < reach
    return float(height[beside].max()) if beside.any() else 0.0


def _shaken(rng: np.random.Generator, direction: np.ndarray, spread: float) -> np.ndarray:
    d = direction + rng.normal(0, spread, 3)
    return d / np.linalg.norm(d)


def _mirrored(mesh: Mesh) -> Mesh:
    return mesh[0] * [-1, 1, 1], mesh[1][:, ::-1]


def _arm(rng: np.random.Generator, origin: np.ndarray, fingers: np.ndarray, skin: np.ndarray) -> list[Piece]:
    """The forearm of a hand at `origin` whose fingers point along `fingers`: it hangs down; most have a sleeve."""
    hang = _shaken(rng, np.array([0.25 * np.sign(origin[0]), -1.0, 0.1]), 0.2)
    reach = hang - 0.9 * fingers
    wrist = origin - 5.0 * fingers
    t = np.linspace(0, 1, 12)[:, None]
    path = wrist + 40 * (t * reach / np.linalg.norm(reach) * t - fingers * t * (1 - t))
    radius = 2.3 + 1.9 * np.linspace(0, 1, 12) ** 0.7
    out = [piece("hand", tube(path, radius, sides=14), skin, 0.2)]
    if rng.random() < 0.6:
        first = rng.integers(2, 7)
        out.append(piece("sleeve", tube(path[first:], radius[first:] + 0.5, sides=14), rng.uniform(0.01, 0.7, 3), 0.05))
    return out


def _paint(rng: np.random.Generator, mesh: Mesh, skin: np.ndarray) -> Piece:
    mottled = np.exp(rng.normal(0, 0.04, (len(mesh[0]), 1)))
    return piece("hand", mesh, skin * mottled, rng.uniform(0.1, 0.4))


def free_hand(rng: np.random.Generator, face: np.ndarray, points: np.ndarray, skin: np.ndarray) -> list[Piece]:
    """A hand at or in front of the face: vertices of the face (V,3), landmarks (68,3), linear skin colour (3,)."""
    about, back, towards, bend = GESTURES[list(GESTURES)[rng.integers(len(GESTURES))]]
    left = rng.random() < 0.5
    mesh = hand(rng, np.radians(bend) * rng.uniform(0.3, 1.5), rng.uniform(0.0, 0.9))
    mirror = np.array([1.0 if left else -1.0, 1, 1])
    normal = _shaken(rng, np.array(back) * mirror, 0.12)
    fingers = _shaken(rng, np.array(towards) * mirror, 0.25)
    anchor = points[list(about)].mean(0)
    anchor = anchor * mirror if not left else anchor
    anchor = anchor + rng.normal(0, 1.0, 3)
    gap = rng.uniform(0, 1.5) if rng.random() < 0.7 else rng.uniform(2, 9)
    origin = anchor + normal * (_clearance(face, anchor, normal, 3.5) + 1.0 + gap) - fingers * rng.uniform(2, 6)
    fingers = fingers - (fingers @ normal) * normal
    fingers = fingers / np.linalg.norm(fingers)
    moved = place(mesh if left else _mirrored(mesh), origin, fingers, normal)
    return [_paint(rng, moved, skin), *_arm(rng, origin, fingers, skin)]


def held_object(rng: np.random.Generator, face: np.ndarray, points: np.ndarray, skin: np.ndarray) -> list[Piece]:
    """A phone, a cup or a microphone in front of the face and the hand around it; arguments as of `free_hand`."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    mouth, kind = points[48:60].mean(0), rng.choice(["call", "picture", "cup", "microphone"])
    colour = rng.uniform(0.01, 0.08, 3) if rng.random() < 0.5 else rng.uniform(0.05, 0.8, 3)
    if kind == "call":  # a phone at the ear
        ear = points[16 if side > 0 else 0]
        normal = _shaken(rng, np.array([side, 0.0, 0.25]), 0.05)
        axis = _shaken(rng, np.array([0.0, 0.8, -0.45]), 0.08)
        centre = ear + [0, -2.5, 1.5]
        centre = centre + normal * (_clearance(face, centre, normal, 5.0) + 0.5)
        thing, girth, grip, back = slab(7.3, 15.0, 0.85), 0.9, centre - axis * rng.uniform(0, 2), normal
    elif kind == "picture":  # a phone held up between the face and the camera
        normal = _shaken(rng, np.array([0.0, 0.0, 1.0]), 0.1)
        axis = _shaken(rng, np.array([0.0, 1.0, 0.0]) if rng.random() < 0.6 else np.array([1.0, 0.1, 0.0]), 0.1)
        centre = mouth + rng.normal(0, [2.5, 2.0, 0]) + normal * rng.uniform(4, 12)
        thing, girth, grip, back = slab(7.3, 15.0, 0.85), 0.9, centre - axis * rng.uniform(2, 5), -normal
    elif kind == "cup":
        normal, axis = np.array([side * 0.3, 0.0, 1.0]), _shaken(rng, np.array([0.0, 1.0, -0.25]), 0.1)
        radius, height = rng.uniform(2.8, 4.0), rng.uniform(7, 12)
        wall = [(0.0, -1.0), (0.8, -1.0), (1.0, 1.0), (0.95, 1.02), (0.75, -0.9), (0.0, -0.9)]
        thing = lathe(np.array(wall) * [radius, height / 2])
        centre = mouth - axis * height * 0.5 + np.array([0, rng.uniform(-2, 0.8), radius + rng.uniform(0.2, 1.5)])
        girth, grip, back = radius, centre, np.array([side, 0.0, 0.3])
    else:
        axis = _shaken(rng, np.array([-side * 0.25, 0.75, -0.6]), 0.15)
        normal = np.array([0.0, 0.3, 1.0])
        outline = [(0, 2.3), (1.2, 2.0), (2.1, 1.0), (2.3, 0), (1.9, -1.4), (1.3, -2), (1.1, -9), (0.9, -17), (0, -17)]
        thing = lathe(np.array(outline, float))
        centre = mouth - axis * rng.uniform(2.5, 6.0) + [0, 0, rng.uniform(0.5, 2.0)]
        girth, grip, back = 1.2, centre - axis * rng.uniform(5, 9), np.array([side * 0.7, -0.3, 0.6])
    out = [piece("object", place(thing, centre, axis, normal), colour, rng.uniform(0.2, 1.2))]
    # the fingers bend around the object's axis, so the hand's x lies along it
    back = back - (back @ axis) * axis
    back = back / np.linalg.norm(back)
    holding = hand(rng, np.radians(48 if girth < 2 else 30), 0.8)
    fingers = np.cross(back, axis)  # the thumb's side, fingers x back, is up the object
    if fingers[0] * side > 0:  # the arm comes from the side that the object is held on
        fingers, holding = -fingers, _mirrored(holding)
    origin = grip + back * (girth + 1.2) - fingers * 2.5
    return [*out, _paint(rng, place(holding, origin, fingers, back), skin), *_arm(rng, origin, fingers, skin)]
