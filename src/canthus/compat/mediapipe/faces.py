"""`Faces` in MediaPipe's numbers and objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.placement import head_poses
from canthus.inference.predictor import Predictor
from canthus.inference.tracker import Tracker

POINTS = "mediapipe478"
FIELD_OF_VIEW = 63.0
"""Degrees from top to bottom, of the camera that MediaPipe assumes."""
BLENDSHAPES = ("_neutral", *(name for name in EXPRESSIONS if name != "tongueOut"))
"""MediaPipe's categories in its order."""


@dataclass
class NormalizedLandmark:
    """A point: x in widths of the image and y in heights from its upper left corner, z in widths, smaller = nearer."""

    x: float | None = None
    y: float | None = None
    z: float | None = None
    visibility: float | None = None
    presence: float | None = None


@dataclass
class Category:
    """One blendshape of a face, 0 at rest and 1 fully done."""

    index: int | None = None
    score: float | None = None
    display_name: str | None = None
    category_name: str | None = None


def best(faces: Faces, most: int, confidence: float) -> Faces:
    """At most `most` faces, with a detection score of at least `confidence`, by falling score."""
    sure = faces.detection_scores >= confidence
    return faces[np.flatnonzero(sure)[:most]]


class Followed:
    """The faces of a video that were once found with a detection score of at least `confidence`, by their numbers."""

    def __init__(self, aligner: Predictor, most: int, confidence: float):
        self._tracker, self._most, self._confidence = Tracker(aligner), most, confidence
        self._trusted = set[int]()

    def step(self, rgb: np.ndarray) -> Faces:
        """At most `most` faces of the next frame (H,W,3) uint8."""
        tracked = self._tracker.step(rgb)
        self._trusted |= set(tracked.ids[tracked.faces.detection_scores >= self._confidence].tolist())
        return tracked.faces[np.flatnonzero(np.isin(tracked.ids, list(self._trusted)))[: self._most]]

    def reset(self) -> None:
        """Forget the faces."""
        self._tracker.reset()
        self._trusted.clear()


def normalized(faces: Faces, count: int = 478) -> list[list[NormalizedLandmark]]:
    """The first `count` points of each face."""
    width, height = faces.image_size
    fractions = (faces.landmarks(POINTS)[:, :count].astype(np.float64) + [0.5, 0.5, 0]) / [width, height, -width]
    return [[NormalizedLandmark(*point) for point in face.tolist()] for face in fractions]


def blendshapes(faces: Faces) -> list[list[Category]]:
    """The categories of each face."""
    order = [EXPRESSIONS.index(name) for name in BLENDSHAPES[1:]]
    scores = np.concatenate([np.zeros((len(faces), 1)), faces.expression[:, order]], axis=1)
    return [
        [Category(k, score, "", name) for k, (score, name) in enumerate(zip(row, BLENDSHAPES))]
        for row in scores.tolist()
    ]


def transformations(faces: Faces) -> list[np.ndarray]:
    """A matrix (4,4) of each face: head points in cm to the camera's frame, x right, y up, z towards the camera."""
    width, height = faces.image_size
    focal = height / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    centre = np.tile([(width - 1) / 2, (height - 1) / 2], (len(faces), 1))
    poses = head_poses(faces, np.full(len(faces), focal), centre)
    matrices = np.tile(np.eye(4), (len(faces), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = poses.rotation, poses.translation / 10
    return list(matrices)
