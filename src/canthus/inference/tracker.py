"""Following faces from frame to frame: `Tracker`.

The loop of "Combining Local and Global Features for 3D Face Tracking", ICCV Workshops 2017 (Menpo 3D), sect. 3.4: one
model places a face that the detector found; a second one goes on from where the face was in the frame before. The
paper detects faces in every frame and gives no test of failure; what is done instead is told at `Tracker`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from canthus.face.faces import Alignment, Faces, Pose
from canthus.geometry.crop import Crop, box_centres
from canthus.inference.predictor import Image, Predictor, upright_crops
from canthus.io.images import as_image, crop_image

MAX_GROWTH = 0.4  # of the log of a face's size from frame to frame
MIN_OVERLAP = 0.3  # intersection over union of a face and the detection that confirms it
SAME_FACE = 0.5  # two faces that overlap by more are one
REACH = 1.0  # face sizes between where a lost face should be and a detection that is taken for it


@dataclass
class _Followed:
    """One face: as it was last seen, how it moves (px a frame), and for how many frames it has been missing."""

    id: int
    face: Faces
    velocity: np.ndarray
    missing: int = 0
    followed: bool = False

    def expected(self, frames: int) -> np.ndarray:
        """Where its centre (2,) should be so many frames after it was last seen."""
        return box_centres(self.face.boxes)[0] + frames * self.velocity


class Tracker:
    """Follows all faces of a video, each under a number that it keeps.

    aligner: the model that places faces which the detector (`aligner.detector`) found.
    tracking: the model that goes on from the frame before; None is the same. Its crop is the box of the last landmarks,
    turned upright by the last pose, or, where its card has a mean shape, aligned to that by a similarity. Weights
    that were trained on crops shifted, turned and scaled by a little suit it best (docs/training.md).
    detect_every: frames after which to look for newcomers; 0: only while somebody is missing or nobody is there.
    min_score: mean confidence below which a face is unhealthy: of `Faces.scores`, or of a method's own scores
    where it gives no sigma.
    memory: frames that a lost face is remembered for. If a detection then comes up where it should be by its speed, it
    gets its number back.

    A face is healthy while its score suffices, its size does not jump, its centre is in the picture, no other face
    lies in the same place, and no detection centred in its box disagrees about that box. The detector and `aligner`
    place an unhealthy one anew in the same frame, or else it is lost.
    """

    def __init__(
        self,
        aligner: Predictor,
        tracking: Predictor | None = None,
        *,
        detect_every: int = 12,
        min_score: float = 0.3,
        memory: int = 25,
    ):
        self.aligner, self.tracking = aligner, aligner if tracking is None else tracking
        self.detect_every, self.min_score, self.memory = detect_every, min_score, memory
        self.reset()

    def reset(self) -> None:
        """Forget everyone, as before another video; numbers start at 0 again."""
        self._all: list[_Followed] = []
        self._size: tuple[int, int] | None = None
        self._since = 0
        self._next = 0
        self.reinitialisations = 0
        """How often a face that was known has been placed anew."""

    @property
    def ids(self) -> np.ndarray:
        """The numbers (N,) of the faces that the last `step` gave, rising."""
        return np.array([f.id for f in self._present()], int)

    @property
    def followed(self) -> np.ndarray:
        """Which of the faces (N,) that the last `step` gave were followed; the detector has found the others."""
        return np.array([f.followed for f in self._present()], bool)

    def step(self, frame: Image) -> Faces:
        """The faces in the next frame, a path or an RGB array; empty where there are none. See `ids`.

        `detection_scores` are unknown but for faces that the detector saw in this frame. A frame of another size than
        the last one ends every track. Raises `ImageError`.
        """
        picture = as_image(frame)
        size = picture.shape[1], picture.shape[0]
        if size != self._size:
            self._size, self._all = size, []
        self._since += 1
        self._follow(picture)
        due = self.detect_every and self._since >= self.detect_every
        if due or not self._all or any(f.missing for f in self._all):
            self._look(picture)
        self._all = [f for f in self._all if f.missing <= self.memory]
        return _together([f.face for f in self._present()], size)

    def _present(self) -> list[_Followed]:
        return [f for f in self._all if not f.missing]

    def _follow(self, picture: np.ndarray) -> None:
        """Place everyone who was there from where they were; the unhealthy become missing."""
        for gone in (f for f in self._all if f.missing):
            gone.missing += 1
        there = self._present()
        if not there:
            return
        last = _together([f.face for f in there], self._size)
        faces, scores = _align(self.tracking, picture, self._crops(last))
        centres = box_centres(faces.boxes)
        growth = np.abs(np.log(np.maximum(faces.sizes, 1e-6) / last.sizes))
        inside = ((centres >= -0.5) & (centres < np.array(self._size) - 0.5)).all(1)
        healthy = (scores >= self.min_score) & (growth <= MAX_GROWTH) & inside
        surprise = np.linalg.norm(centres - [f.expected(1) for f in there], axis=1)
        for a, b in zip(*np.nonzero(np.triu(overlaps(faces.boxes, faces.boxes), 1) > SAME_FACE)):
            if healthy[a] and healthy[b]:  # one has jumped onto the other
                healthy[a if surprise[a] > surprise[b] else b] = False
        for one, face, well, centre in zip(there, faces, healthy, centres):
            if well:
                one.velocity = (one.velocity + centre - box_centres(one.face.boxes)[0]) / 2
                one.face, one.followed = face, True
            else:
                one.missing = 1

    def _crops(self, last: Faces) -> Crop:
        card = self.tracking.card
        if card.mean_shape is not None:
            return Crop.around_shapes(last.xy.astype(np.float64), np.array(card.mean_shape), card.crop_size)
        return upright_crops(last, card)

    def _look(self, picture: np.ndarray) -> None:
        """Detect: confirm who is there, find the missing again, and newcomers."""
        self._since = 0
        boxes, scores = self.aligner.detector(picture)
        if not len(boxes):
            return
        self._confirm(boxes, scores)
        there = self._present()
        taken = overlaps(_boxes(there), boxes).max(0, initial=0) >= MIN_OVERLAP
        boxes, scores = boxes[~taken].astype(np.float64), scores[~taken]
        if not len(boxes):
            return
        crop = Crop.around_boxes(boxes, self.aligner.card.crop_scale, self.aligner.card.crop_size)
        found, _ = _align(self.aligner, picture, crop, scores)
        back = self._recognised(boxes)
        for k, face in enumerate(found):
            if (overlaps(_boxes(self._present()), face.boxes) > SAME_FACE).any():
                continue
            if k in back:
                known, back[k].face, back[k].missing, back[k].followed = back[k], face, 0, False
                known.velocity = np.zeros(2)
                self.reinitialisations += 1
            else:
                self._all.append(_Followed(self._next, face, np.zeros(2)))
                self._next += 1

    def _confirm(self, boxes: np.ndarray, scores: np.ndarray) -> None:
        """Give faces that are there the score of their detection; those that it disagrees with become missing."""
        there = self._present()
        shared = overlaps(_boxes(there), boxes)
        for one, row, others in zip(there, shared, (np.delete(shared, k, 0) for k in range(len(there)))):
            best = row.argmax()
            x0, y0, x1, y1 = one.face.boxes[0]
            x, y = box_centres(boxes[[best]])[0]
            if row[best] >= MIN_OVERLAP:
                one.face = replace(one.face, detection_scores=scores[[best]])
            elif x0 < x < x1 and y0 < y < y1 and others[:, best].max(initial=0) < MIN_OVERLAP:
                one.missing = 1

    def _recognised(self, boxes: np.ndarray) -> dict[int, _Followed]:
        """Number of a detection -> the missing face that it is taken for, nearest pairs first."""
        missing, centres = [f for f in self._all if f.missing], box_centres(boxes)
        pairs = sorted(
            (np.linalg.norm(centre - f.expected(f.missing)) / f.face.sizes[0], k, j)
            for j, f in enumerate(missing) for k, centre in enumerate(centres)
        )  # fmt: skip
        back: dict[int, _Followed] = {}
        for distance, k, j in pairs:
            if distance < REACH and k not in back and missing[j] not in back.values():
                back[k] = missing[j]
        return back


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (N,M) of boxes a (N,4) and b (M,4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 2)
    area, other = np.prod(a[:, 2:] - a[:, :2], 1), np.prod(b[:, 2:] - b[:, :2], 1)
    return shared / np.maximum(area[:, None] + other[None] - shared, 1e-12)


def _boxes(faces: Iterable[_Followed]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 4)), *(f.face.boxes for f in faces)])


def _align(
    aligner: Predictor, picture: np.ndarray, crop: Crop, detection_scores: np.ndarray | None = None
) -> tuple[Faces, np.ndarray]:
    """The faces in the crops of a picture, and how sure the aligner is of each, (N,) 0..1; 1 if it does not say."""
    alignment = aligner.run_batches(crop_image(picture, crop))
    size = picture.shape[1], picture.shape[0]
    faces = alignment.to_image(crop, size, detection_scores=detection_scores, weights=aligner.card.title)
    return faces, _confidence(faces, alignment)


def _confidence(faces: Faces, alignment: Alignment) -> np.ndarray:
    scores = faces.scores.mean(1)
    own = np.ones(len(faces)) if alignment.score is None else np.mean(alignment.score, axis=1)
    return np.where(np.isnan(scores), own, scores)


def _together(faces: Sequence[Faces], size: tuple[int, int] | None) -> Faces:
    """Faces of one image, which may have been found by different weights, as one; those of the last are named."""
    assert size is not None
    if not faces:
        return Faces.empty(size)
    names = ("xyz", "detection_scores", "sigma", "visible")
    columns: dict[str, Any] = {name: np.concatenate([getattr(f, name) for f in faces]) for name in names}
    pose = Pose(np.concatenate([f.pose.matrix for f in faces]))
    return Faces(**columns, pose=pose, image_size=size, weights=faces[-1].weights)
