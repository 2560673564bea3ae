"""From an image to `Faces`: the steps that every method shares, whatever runs its network.

A `Predictor` knows its card and how to run a batch of crops; finding faces, cropping, batching and mapping back
to the image are written here once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from os import PathLike
from typing import Any

import numpy as np

from canthus.errors import BoxError, LandmarkError, WeightsError
from canthus.face.completion import Completion, complete
from canthus.face.faces import ALIGNMENT_FIELDS, Alignment, Faces
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop, as_boxes
from canthus.inference.detect import FaceDetector
from canthus.io.card import Card
from canthus.io.images import as_image, crop_image

Image = str | PathLike | np.ndarray

BATCH = 64  # crops a network call: enough to fill a CPU, little enough for its caches
# A detected face is looked at twice if the first answer says that it lies turned by more, or that its box was off by
# more: of the crop's side, of its logarithm. On photos of AFLW2000-3D that is one face in five.
TURNED, ASIDE, OTHER_SIZE = np.deg2rad(20), 0.08, 0.15
LEVEL = 0.3  # heads whose upward axis is shorter in the image plane look down or up so far that they have no upright


class Predictor(ABC):
    """Answers `predict`; made by `canthus.load`, or by training."""

    card: Card
    head_model: MorphableModel | None = None  # what `finish` fits; None is the shipped one

    @abstractmethod
    def run(self, crops: np.ndarray) -> Alignment:
        """Align crops (B,S,S,3) uint8 RGB; the answer holds NumPy arrays in crop pixels."""

    def finish(self, alignment: Alignment) -> Alignment:
        """What NumPy does after the network, whatever runs it: a head model completes what the network left open,
        where the card asks for it. Raises `WeightsError` for an answer of other shapes or with NaN or infinity."""
        how = self.card.completion
        if how is not None:
            alignment = complete(alignment, Completion(**how), self.head_model)
        faces, points = np.shape(alignment.xyz)[:2] if np.ndim(alignment.xyz) == 3 else (0, 0)
        shapes = {"xyz": (faces, points, 3), "rotation": (faces, 3, 3)}
        for name in ALIGNMENT_FIELDS:
            values = getattr(alignment, name)
            wanted = shapes.get(name, (faces, points))
            if values is None:
                continue
            if np.shape(values) != wanted and name != "coefficients":
                raise WeightsError(f"'{self.card.title}' gives {name} of shape {np.shape(values)}, want {wanted}")
            if name != "score" and not np.isfinite(values).all():  # a score may be unknown
                raise WeightsError(f"'{self.card.title}' gives {name} with NaN or infinity, want finite numbers")
        return alignment

    @cached_property
    def detector(self) -> FaceDetector:
        """The face detector, made when it is first needed."""
        return FaceDetector()

    def predict(self, image: Image, boxes: Any = None) -> Faces:
        """The faces in one image: a path, or an RGB array that `images.as_rgb` accepts.

        `boxes` (B,4) or (4,) are tight boxes (x0,y0,x1,y1) around the landmarks, in pixels; with boxes the
        detector is skipped and the answer has one face a box, in that order. Without, faces come by falling
        detection score, and one that its box was a poor guide to (lying turned, say) is looked at once more, upright;
        no face found gives empty `Faces`. Raises `ImageError`, `BoxError`.
        """
        return self.predict_many([image], None if boxes is None else [boxes])[0]

    def predict_many(self, images: Sequence[Image], boxes: Sequence[Any] | None = None) -> list[Faces]:
        """`predict` for several images; the crops of all of them go through the network in batches."""
        pictures = [as_image(image) for image in images]
        if boxes is not None and len(boxes) != len(pictures):
            raise BoxError(f"got boxes for {len(boxes)} images and {len(pictures)} images, want the same number")
        if not pictures:
            return []
        found, scores = [], []
        for k, picture in enumerate(pictures):
            if boxes is None:
                box, score = self.detector(picture)
            else:
                box = as_boxes(boxes[k], (picture.shape[1], picture.shape[0]))
                score = np.full(len(box), np.nan, np.float32)
            found.append(box.astype(np.float64))
            scores.append(score)
        shows = np.repeat(np.arange(len(pictures)), [len(box) for box in found])  # the picture of each face
        crop = Crop.around_boxes(np.concatenate(found), self.card.crop_scale, self.card.crop_size)
        aligned = self._look(pictures, shows, crop)
        if boxes is None:
            crop, aligned = self._look_again(pictures, shows, crop, aligned)
        faces = []
        for k, (picture, score) in enumerate(zip(pictures, scores)):
            size, here = (picture.shape[1], picture.shape[0]), shows == k
            one = aligned.each(itemgetter(here))
            faces.append(one.to_image(crop[here], size, detection_scores=score, weights=self.card.title))
        return faces

    def _look(self, pictures: Sequence[np.ndarray], shows: np.ndarray, crop: Crop) -> Alignment:
        """What the network says of the crops (B,), each of picture shows[b]."""
        cut = [crop_image(picture, crop[shows == k]) for k, picture in enumerate(pictures)]
        return self.run_batches(np.concatenate(cut))

    def _look_again(
        self, pictures: Sequence[np.ndarray], shows: np.ndarray, crop: Crop, aligned: Alignment
    ) -> tuple[Crop, Alignment]:
        """Crops and answers, those of faces that a detector's box was a poor guide to anew, from the first answer."""
        better = upright_crops(aligned.to_image(crop, (1, 1)), self.card)
        aside = np.linalg.norm(better.center - crop.center, axis=1) / crop.side
        size = np.abs(np.log(better.side / crop.side))
        poor = (np.abs(better.angle) > TURNED) | (aside > ASIDE) | (size > OTHER_SIZE)
        if not poor.any():
            return crop, aligned
        second = self._look(pictures, shows[poor], better[poor])

        def replaced(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            mixed = np.array(old)
            mixed[poor] = new
            return mixed

        columns: dict[str, Any] = {
            f: None if getattr(aligned, f) is None else replaced(getattr(aligned, f), getattr(second, f))
            for f in ALIGNMENT_FIELDS
        }
        pairs = (crop.center, better.center), (crop.side, better.side), (crop.angle, better.angle)
        center, side, angle = (replaced(old, new[poor]) for old, new in pairs)
        return Crop(center, side, angle, crop.size), Alignment(**columns)

    def run_batches(self, crops: np.ndarray) -> Alignment:
        """`run` for any number of crops, also none; without what a method drew and its earlier steps."""
        if not len(crops):  # one run on nothing would still need every field of the method
            return Alignment(np.zeros((0, 68, 3)), rotation=np.zeros((0, 3, 3)))
        return Alignment.concat([self.run(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)])


def upright_crops(faces: Faces, card: Card) -> Crop:
    """Crops of weights in which faces found before stand upright."""
    up = faces.pose.matrix[:, :2, 1]  # of the head, in the image plane with y up
    angle = np.where(np.linalg.norm(up, axis=1) > LEVEL, np.arctan2(up[:, 0], up[:, 1]), 0.0)
    crop = Crop.around_points(faces.xy.astype(np.float64), card.crop_scale, card.crop_size, angle)
    return replace(crop, side=np.maximum(crop.side, 1.0))  # untrained weights may put all points on one spot


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
