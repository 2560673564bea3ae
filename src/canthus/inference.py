"""From an image to `Faces`: the steps that every method shares, whatever runs its network.

A `Predictor` knows its card and how to run a batch of crops; finding faces, cropping, batching and mapping back
to the image are written here once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from os import PathLike
from typing import Any

import numpy as np

from canthus.card import Card
from canthus.completion import Completion, complete
from canthus.crop import Crop, as_boxes
from canthus.detect import FaceDetector
from canthus.errors import BoxError, LandmarkError
from canthus.faces import ALIGNMENT_FIELDS, Alignment, Faces
from canthus.images import as_image, crop_image
from canthus.morphable import MorphableModel

Image = str | PathLike | np.ndarray

BATCH = 64  # crops a network call: enough to fill a CPU, little enough for its caches


class Predictor(ABC):
    """Answers `predict`; made by `canthus.load`, or by training."""

    card: Card
    head_model: MorphableModel | None = None  # what `finish` fits; None is the shipped one

    @abstractmethod
    def run(self, crops: np.ndarray) -> Alignment:
        """Align crops (B,S,S,3) uint8 RGB; the answer holds NumPy arrays in crop pixels."""

    def finish(self, alignment: Alignment) -> Alignment:
        """What NumPy does after the network, whatever runs it: a head model completes what the network left open,
        where the card asks for it."""
        how = self.card.completion
        return alignment if how is None else complete(alignment, Completion(**how), self.head_model)

    @cached_property
    def detector(self) -> FaceDetector:
        """The face detector, made when it is first needed."""
        return FaceDetector()

    def predict(self, image: Image, boxes: Any = None) -> Faces:
        """The faces in one image: a path, or an RGB array that `images.as_rgb` accepts.

        `boxes` (B,4) or (4,) are tight boxes (x0,y0,x1,y1) around the landmarks, in pixels; with boxes the
        detector is skipped and the answer has one face a box, in that order. Without, faces come by falling
        detection score; no face found gives empty `Faces`. Raises `ImageError`, `BoxError`.
        """
        return self.predict_many([image], None if boxes is None else [boxes])[0]

    def predict_many(self, images: Sequence[Image], boxes: Sequence[Any] | None = None) -> list[Faces]:
        """`predict` for several images; the crops of all of them go through the network in batches."""
        pictures = [as_image(image) for image in images]
        if boxes is not None and len(boxes) != len(pictures):
            raise BoxError(f"got boxes for {len(boxes)} images and {len(pictures)} images, want the same number")
        if not pictures:
            return []
        crops, cut, scores = [], [], []
        for k, picture in enumerate(pictures):
            size = picture.shape[1], picture.shape[0]
            if boxes is None:
                found, score = self.detector(picture)
            else:
                found = as_boxes(boxes[k], size)
                score = np.full(len(found), np.nan, np.float32)
            crop = Crop.around_boxes(found.astype(np.float64), self.card.crop_scale, self.card.crop_size)
            crops.append(crop)
            cut.append(crop_image(picture, crop))
            scores.append(score)
        aligned = self.run_batches(np.concatenate(cut))
        faces, end = [], 0
        for crop, score, picture in zip(crops, scores, pictures):
            start, end = end, end + len(score)
            one = aligned.each(itemgetter(slice(start, end)))
            size = picture.shape[1], picture.shape[0]
            faces.append(one.to_image(crop, size, detection_scores=score, weights=self.card.title))
        return faces

    def run_batches(self, crops: np.ndarray) -> Alignment:
        """`run` for any number of crops, also none; without what a method drew and its earlier steps."""
        if not len(crops):  # one run on nothing would still need every field of the method
            return Alignment(np.zeros((0, 68, 3)), rotation=np.zeros((0, 3, 3)))
        parts = [self.run(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)]
        columns = {f: [getattr(p, f) for p in parts] for f in ALIGNMENT_FIELDS}
        values: dict[str, Any] = {f: None if c[0] is None else np.concatenate(c) for f, c in columns.items()}
        return Alignment(**values)


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
