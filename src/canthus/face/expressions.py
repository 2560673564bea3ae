"""The names of the 52 expression coefficients, and their conversion from those of ICT-FaceKit."""

from __future__ import annotations

import numpy as np

from canthus.errors import ModelError

EXPRESSIONS = tuple(
    """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
    cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight
    eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight
    jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight
    mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
    mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft
    mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight tongueOut""".split()
)
"""The names of ARKit's blend shapes in alphabetical order, also that of `MorphableModel.default()`: 0 at rest, 1 fully
done. Left and right are the subject's. https://developer.apple.com/documentation/arkit/arfaceanchor/blendshapelocation
"""

ICT_EXPRESSIONS = tuple(
    """PupilDilate_L PupilDilate_R browDown_L browDown_R browInnerUp_L browInnerUp_R browOuterUp_L browOuterUp_R
    cheekPuff_L cheekPuff_R cheekRaiser_L cheekRaiser_R cheekSquint_L cheekSquint_R eyeBlink_L eyeBlink_R eyeLookDown_L
    eyeLookDown_R eyeLookIn_L eyeLookIn_R eyeLookOut_L eyeLookOut_R eyeLookUp_L eyeLookUp_R eyeSquint_L eyeSquint_R
    eyeWide_L eyeWide_R jawForward jawLeft jawOpen jawRight mouthClose mouthDimple_L mouthDimple_R mouthFrown_L
    mouthFrown_R mouthFunnel mouthLeft mouthLowerDown_L mouthLowerDown_R mouthPress_L mouthPress_R mouthPucker
    mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmile_L mouthSmile_R mouthStretch_L
    mouthStretch_R mouthUpperUp_L mouthUpperUp_R noseSneer_L noseSneer_R""".split()
)
"""The names of ICT-FaceKit's expressions in the order of its asset file, which is that of `expression` in renders."""


def ict_name(name: str) -> str:
    """One of `EXPRESSIONS` in the spelling of ICT-FaceKit: eyeBlink_L for eyeBlinkLeft. jawLeft, a direction, stays."""
    for side in ("Left", "Right"):
        stem = name.removesuffix(side)
        if stem not in (name, "jaw", "mouth"):
            return f"{stem}_{side[0]}"
    return name


def arkit_from_ict(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients (...,57) of ICT-FaceKit as those (...,52) of `EXPRESSIONS`.

    ICT-FaceKit splits browInnerUp and cheekPuff into sides: the mean of the two is taken. It has no tongueOut, which is
    NaN; its PupilDilate and cheekRaiser have no counterpart and are dropped. Raises `ModelError` for another shape.
    """
    given = np.asarray(coefficients, np.float64)
    if given.shape[-1:] != (len(ICT_EXPRESSIONS),):
        raise ModelError(f"got expressions of shape {given.shape}, want (..., {len(ICT_EXPRESSIONS)}) of ICT-FaceKit")
    columns = []
    for name in EXPRESSIONS:
        names = (ict_name(name), f"{name}_L", f"{name}_R")
        here = [ICT_EXPRESSIONS.index(n) for n in names if n in ICT_EXPRESSIONS]
        columns.append(given[..., here].mean(axis=-1) if here else np.full(given.shape[:-1], np.nan))
    return np.stack(columns, axis=-1)


def as_arkit(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients of a rendered head as those (...,52) float32 of `EXPRESSIONS`: the shipped head has these, the asset
    head the 57 of ICT-FaceKit. Raises `ModelError` for another shape."""
    given = np.asarray(coefficients)
    return (given if given.shape[-1:] == (len(EXPRESSIONS),) else arkit_from_ict(given)).astype(np.float32)


def mirror_expressions() -> list[int]:
    """For each of `EXPRESSIONS` the index of its counterpart in a mirrored face: itself, or that of the other side."""
    swapped = [n.replace("Left", "*").replace("Right", "Left").replace("*", "Right") for n in EXPRESSIONS]
    return [EXPRESSIONS.index(n) for n in swapped]
