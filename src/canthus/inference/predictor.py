"""From an image to `Faces`: the steps that every method shares, whatever runs its network.

A `Predictor` knows its card and how to run a batch of crops; finding faces, cropping, batching and mapping back
to the image are written here once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Sized
from dataclasses import replace
from functools import cached_property
from io import IOBase
from operator import itemgetter
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image as Pillow

from canthus.errors import BoxError, ImageError, LandmarkError, WeightsError, amount
from canthus.face.completion import Completion, complete
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import ALIGNMENT_FIELDS, Alignment, Faces
from canthus.face.landmarks import scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop, as_boxes
from canthus.inference.detect import Detections, Detector, PyramidDetector, suppress
from canthus.io.card import Card
from canthus.io.images import ImageLike, as_image, crop_image
from canthus.threads import blas_threads
from canthus.weights import DEFAULT, DETECTOR, ROOT, find

BATCH = 64  # crops a network call: enough to fill a CPU, little enough for its caches

# On 75 photos of AFLW2000-3D turned by 12 angles, with the weights `swift`: of first answers to faces turned by more
# than 100 degrees all have a mean point score under 0.4, of upright ones 3 % have. After the other quarter turns and
# the refinement, answers within 10 % of the face size have 0.3 and more, also for faces of 16 to 48 px. A turned
# answer has to be TURN_GAIN times as sure as the upright one: most faces stand upright, and the scores of a face
# that is hidden are all alike. On 75 of these photos, upright and turned by quarters, gains of 1.25 and 1.5 lose
# no right answer that 1 has.
TURN_SCORE = 0.4  # mean point score under which the crop is turned
TURN_GAIN = 1.5

SAME_FACE = 0.5  # intersection over union above which the landmarks of two detections are of one face

# A detected face is aligned again on a better crop if by the first answer its roll is larger (radians), or its box was
# off by more (sides of the crop, logarithm of the side). On photos of AFLW2000-3D that is one face in five.
REFINE_ROLL, REFINE_SHIFT, REFINE_SCALE = np.deg2rad(15), 0.06, 0.1
REFINEMENTS = 2  # at most: a box twice as large as the face takes two
HOPE = 0.4  # share of the score that its detector wants of a frontal face under which one is given up before that

MIN_UP = 0.3  # heads whose upward axis is shorter in the image plane look down or up so far that they have no upright


_ONE_IMAGE = (str, bytes, bytearray, PathLike, IOBase, Pillow.Image)  # of which some could be iterated


class Predictor(ABC):
    """Predicts `Faces` from images; made by `canthus.load`, or by training."""

    card: Card
    threads: int | None = None  # CPU threads of networks and linear algebra; None is no limit
    min_face: float | None = None  # see `FaceDetector`
    provider: str = "cpu"  # what runs the detector, see `io.providers`
    head_model: MorphableModel | None = None  # what `finish` fits; None is the shipped one
    tells_sigma = True  # so that its own answers tell a detected face from what is none

    @abstractmethod
    def run(self, crops: np.ndarray) -> Alignment:
        """Align crops (B,S,S,3) uint8 RGB; the answer holds NumPy arrays in crop pixels."""

    def finish(self, alignment: Alignment) -> Alignment:
        """What NumPy does after the network, whatever runs it: a head model completes what the network left open,
        where the card asks for it. Raises `WeightsError` for an answer of other shapes or with NaN or infinity."""
        how = self.card.completion
        if how is not None:
            alignment = complete(alignment, Completion(**how), self.head_model, self.card.scheme)
        faces, points = np.shape(alignment.xyz)[:2] if np.ndim(alignment.xyz) == 3 else (0, 0)
        coefficients = faces, len(EXPRESSIONS)
        shapes: dict[str, tuple[int, ...]] = {
            "xyz": (faces, points, 3),
            "rotation": (faces, 3, 3),
            "placement": (faces, 3),
        }
        shapes |= {"expression": coefficients, "expression_sigma": coefficients}
        for name in ALIGNMENT_FIELDS:
            values = getattr(alignment, name)
            wanted = shapes.get(name, (faces, points))
            if values is None:
                continue
            if np.shape(values) != wanted and name != "coefficients":
                raise WeightsError(f"'{self.card.title}' gives {name} of shape {np.shape(values)}, want {wanted}")
            # a score and single expressions may be unknown
            if name not in ("score", "expression") and not np.isfinite(values).all():
                raise WeightsError(f"'{self.card.title}' gives {name} with NaN or infinity, want finite numbers")
        return alignment

    @cached_property
    def detector(self) -> Detector:
        """The face detector, made when it is first needed."""
        return PyramidDetector(ROOT / DETECTOR, self.threads, self.min_face, self.provider)

    def predict(self, image: ImageLike, boxes: Any = None) -> Faces:
        """The faces in one image: a path, a binary file or its bytes, a Pillow image, or an RGB array that
        `images.as_rgb` accepts. Files are turned upright by their EXIF tag; pixels of a Pillow image or array are not.

        `boxes` (B,4) or (4,) are tight boxes (x0,y0,x1,y1) around the landmarks of upright faces, in pixels; with boxes
        the detector is skipped and the answer has one face a box, in that order. Without, faces come by falling
        detection score; one that lies turned or upside down, or whose detected box was off, is aligned again on an
        upright crop, and one whose mean point score (`Faces.scores`) stays under what its detector wants (of the
        shipped one 0.44 divided by its score, for a profile 0.25) is left out, because such points are mostly wrong; so
        is the second of two that lie on one face. No face found gives empty `Faces`. Raises `ImageError`, `BoxError`.
        """
        return self.predict_many([image], None if boxes is None else [boxes])[0]

    def predict_many(self, images: Sequence[ImageLike], boxes: Sequence[Any] | None = None) -> list[Faces]:
        """`predict` for several images, whose crops share the network's batches. Raises as `predict`."""
        if not isinstance(images, Iterable) or isinstance(images, _ONE_IMAGE) or getattr(images, "ndim", 4) < 4:
            raise ImageError(f"got one image ({type(images).__name__}), want several; `predict` takes one")
        pictures = [as_image(image) for image in images]
        if boxes is not None and not isinstance(boxes, Sized):
            raise BoxError(f"got boxes of type {type(boxes).__name__}, want those of each image, (N,4), in a list")
        if boxes is not None and len(boxes) != len(pictures):
            got = f"boxes for {amount(len(boxes), 'image')} and {amount(len(pictures), 'image')}"
            raise BoxError(f"got {got}, want the same number")
        if not pictures:
            return []
        if boxes is None:
            return self.align_detected(pictures, [self.detector(picture) for picture in pictures])
        return self._given(pictures, boxes)

    def _given(self, pictures: Sequence[np.ndarray], boxes: Sequence[Any]) -> list[Faces]:
        """The faces in boxes that the caller gave."""
        checked = [as_boxes(box, (p.shape[1], p.shape[0])).astype(np.float64) for p, box in zip(pictures, boxes)]
        owner = np.repeat(np.arange(len(pictures)), [len(box) for box in checked])
        crop = Crop.around_boxes(np.concatenate(checked), self.card.crop_scale, self.card.crop_size)
        aligned = self._run_crops(pictures, owner, crop)
        return self._faces(pictures, owner, crop, aligned, np.full(len(owner), np.nan))

    def align_detected(self, pictures: Sequence[np.ndarray], found: Sequence[Detections]) -> list[Faces]:
        """The faces of pictures (H,W,3) uint8, in each of which a detector has `found` some.

        Where the weights give no sigma, the default weights confirm the faces, and say where they are.
        """
        if not self.tells_sigma:
            return self.align_known(pictures, self.judge.align_detected(pictures, found))
        squares = np.concatenate([detections.squares.astype(np.float64) for detections in found])
        scores = np.concatenate([detections.scores for detections in found])
        owner = np.repeat(np.arange(len(pictures)), [len(detections.scores) for detections in found])
        crop = Crop(squares[:, :2], squares[:, 2] * self.card.crop_scale, squares[:, 3], self.card.crop_size)
        aligned = self._run_crops(pictures, owner, crop)
        angle_known = np.concatenate([detections.angle_known for detections in found])
        crop, aligned = self._turn_crops(pictures, owner, crop, aligned, angle_known)
        least, facing = (
            np.concatenate([getattr(detections, name) for detections in found])
            for name in ("least_score", "facing_score")
        )
        hopeful = aligned.confidence() >= HOPE * facing
        owner, crop, scores = owner[hopeful], crop[hopeful], scores[hopeful]
        crop, aligned = self._refine_crops(pictures, owner, crop, aligned.map(itemgetter(hopeful)))
        wanted = least[hopeful] + _facing(aligned) * (facing - least)[hopeful]
        believed = aligned.confidence() >= wanted
        owner, crop, scores = owner[believed], crop[believed], scores[believed]
        aligned = aligned.map(itemgetter(believed))
        return [_told_apart(faces) for faces in self._faces(pictures, owner, crop, aligned, scores)]

    @cached_property
    def judge(self) -> Predictor:
        """The default weights, for those that give no sigma."""
        from canthus.inference.runtime import OnnxAligner  # which is a Predictor itself

        return OnnxAligner(find(DEFAULT), self.threads, provider=self.provider)

    def align_known(self, pictures: Sequence[np.ndarray], known: Sequence[Faces]) -> list[Faces]:
        """The `known` faces of each picture, on crops from their landmarks."""
        owner = np.repeat(np.arange(len(pictures)), [len(faces) for faces in known])
        crops = [known_crops(faces, self.card) for faces in known]
        center, side, angle = (np.concatenate([getattr(c, f) for c in crops]) for f in ("center", "side", "angle"))
        crop = Crop(center, side, angle, self.card.crop_size)
        scores = np.concatenate([faces.detection_scores for faces in known])
        return self._faces(pictures, owner, crop, self._run_crops(pictures, owner, crop), scores)

    def _faces(
        self, pictures: Sequence[np.ndarray], owner: np.ndarray, crop: Crop, aligned: Alignment, scores: np.ndarray
    ) -> list[Faces]:
        """The faces of each picture; face b is in picture owner[b]."""
        faces = []
        for k, picture in enumerate(pictures):
            size, here = (picture.shape[1], picture.shape[0]), owner == k
            one = aligned.map(itemgetter(here))
            known = {"scheme": self.card.scheme, "weights": self.card.title}
            faces.append(one.to_image(crop[here], size, detection_scores=scores[here], **known))
        return faces

    def _run_crops(self, pictures: Sequence[np.ndarray], owner: np.ndarray, crop: Crop) -> Alignment:
        """The network's answers for crops (B,), crop b of picture owner[b]."""
        cut = [crop_image(picture, crop[owner == k]) for k, picture in enumerate(pictures)]
        return self.run_batches(np.concatenate(cut))

    def _turn_crops(
        self, pictures: Sequence[np.ndarray], owner: np.ndarray, crop: Crop, aligned: Alignment, angle_known: np.ndarray
    ) -> tuple[Crop, Alignment]:
        """Re-run faces with low scores whose detector does not know how they lie on crops rotated by quarter turns; the
        most confident answer counts, if it is clearly surer than the first."""
        unsure = np.flatnonzero(~angle_known & (aligned.confidence() < TURN_SCORE))
        if not len(unsure):
            return crop, aligned
        upright, best = crop, TURN_GAIN * aligned.confidence()[unsure]
        for quarter in (1, 2, 3):
            turned = replace(upright[unsure], angle=upright.angle[unsure] + quarter * np.pi / 2)
            answer = self._run_crops(pictures, owner[unsure], turned)
            sure = answer.confidence()
            surer = sure > best
            best = np.where(surer, sure, best)
            crop, aligned = _replaced(crop, aligned, unsure[surer], turned[surer], answer.map(itemgetter(surer)))
        return crop, aligned

    def _refine_crops(
        self, pictures: Sequence[np.ndarray], owner: np.ndarray, crop: Crop, aligned: Alignment
    ) -> tuple[Crop, Alignment]:
        """Re-run faces whose detector box was off, or that lie turned, on crops from their answers."""
        poor = np.arange(len(owner))
        for _ in range(REFINEMENTS):
            given, answer = crop[poor], aligned.map(itemgetter(poor))
            better = upright_crops(answer.to_image(given, (1, 1), scheme=self.card.scheme), self.card)
            roll = np.abs((better.angle - given.angle + np.pi) % (2 * np.pi) - np.pi)
            shift = np.linalg.norm(better.center - given.center, axis=1) / given.side
            scale = np.abs(np.log(better.side / given.side))
            off = (roll > REFINE_ROLL) | (shift > REFINE_SHIFT) | (scale > REFINE_SCALE)
            if not off.any():
                break
            poor, better = poor[off], better[off]
            again = self._run_crops(pictures, owner[poor], better)
            crop, aligned = _replaced(crop, aligned, poor, better, again)
        return crop, aligned

    def run_batches(self, crops: np.ndarray) -> Alignment:
        """`run` for any number of crops, also none; earlier steps and maps are left out."""
        if not len(crops):  # one run on nothing would still need every field of the method
            return Alignment(np.zeros((0, scheme(self.card.scheme).count, 3)), rotation=np.zeros((0, 3, 3)))
        with blas_threads(self.threads):
            return Alignment.concat([self.run(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)])


def _replaced(
    crop: Crop, aligned: Alignment, where: np.ndarray, new_crop: Crop, new: Alignment
) -> tuple[Crop, Alignment]:
    """Crops and answers, those at numbers `where` replaced by new ones."""

    def put(old: np.ndarray, values: np.ndarray) -> np.ndarray:
        mixed = np.array(old)
        mixed[where] = values
        return mixed

    columns: dict[str, Any] = {
        f: None if getattr(aligned, f) is None else put(getattr(aligned, f), getattr(new, f)) for f in ALIGNMENT_FIELDS
    }
    center, side = put(crop.center, new_crop.center), put(crop.side, new_crop.side)
    return Crop(center, side, put(crop.angle, new_crop.angle), crop.size), Alignment(**columns)


def _facing(aligned: Alignment) -> np.ndarray | float:
    """The cosine of the yaw of each face (B,): 1 if it looks at the camera, 0 for a profile; 1 where none is known."""
    return 1.0 if aligned.rotation is None else np.sqrt(1 - np.clip(np.asarray(aligned.rotation)[:, 2, 0], -1, 1) ** 2)


def _told_apart(faces: Faces) -> Faces:
    """Faces by falling detection score without those whose landmarks lie on a face before them."""
    kept = suppress(faces.boxes, -np.arange(len(faces)), SAME_FACE)
    return faces if len(kept) == len(faces) else faces[kept]


def upright_crops(faces: Faces, card: Card) -> Crop:
    """Crops of weights in which faces found before stand upright."""
    up = faces.pose.matrix[:, :2, 1]  # of the head, in the image plane with y up
    angle = np.where(np.linalg.norm(up, axis=1) > MIN_UP, np.arctan2(up[:, 0], up[:, 1]), 0.0)
    crop = Crop.around_points(faces.xy.astype(np.float64), card.crop_scale, card.crop_size, angle)
    return replace(crop, side=np.maximum(crop.side, 1.0))  # untrained weights may put all points on one spot


def known_crops(faces: Faces, card: Card) -> Crop:
    """Crops of weights for faces with known landmarks: by the mean shape of the card, or upright around them."""
    if card.mean_shape is None or not len(faces):
        return upright_crops(faces, card)
    return Crop.around_shapes(faces.landmarks()[..., :2].astype(np.float64), np.array(card.mean_shape), card.crop_size)


def points_within(predictor: Predictor, crops: np.ndarray, crop_scale: float) -> np.ndarray:
    """The 68 points (B,68,3) that a predictor finds on crops (B,S,S,3) uint8 of other weights, cut at `crop_scale`, in
    pixels of these crops. Raises `LandmarkError` for a predictor of other points."""
    card, size = predictor.card, crops.shape[1]
    pixel = size * card.crop_scale / crop_scale / card.crop_size  # of the predictor's crop, in ours
    middle = (size - 1) / 2
    places = middle + pixel * (np.arange(card.crop_size) - (card.crop_size - 1) / 2)
    weights = _resampling(places, size, max(1.0, pixel))
    rows = (weights @ crops.reshape(len(crops), size, -1)).reshape(len(crops), -1, size, 3)
    xyz = np.asarray(predictor.run(np.rint(weights @ rows).astype(np.uint8)).xyz)
    if xyz.shape[1:] != (68, 3):
        raise LandmarkError(f"the weights '{card.name}' give points {tuple(xyz.shape)}, want (B, 68, 3)")
    origin = np.array([middle, middle, 0]) - pixel * (card.crop_size - 1) / 2 * np.array([1, 1, 0])
    return (xyz * pixel + origin).astype(np.float32)


def _resampling(places: np.ndarray, size: int, reach: float) -> np.ndarray:
    """Weights (P,size) float32 of pixels at places (P,): a triangle of `reach` px to each side, mirrored beyond the
    border."""
    weights = np.maximum(0, 1 - np.abs(np.arange(-size, 2 * size) - places[:, None]) / reach)
    before, inside, after = np.split(weights, 3, axis=1)
    folded = before[:, ::-1] + inside + after[:, ::-1]
    return (folded / folded.sum(1, keepdims=True)).astype(np.float32)
