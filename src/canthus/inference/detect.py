"""Face detection: what a detector returns, the two scales at which a picture is searched, and users' detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from canthus.decode import decoding, listed
from canthus.errors import BoxError, WeightsError, amount
from canthus.geometry.crop import Crop, as_boxes, box_centres, box_overlaps
from canthus.io.images import crop_image
from canthus.io.session import MODEL_FILE, Session

OUTPUTS = ("score", "box", "upright", "up", "sigma")  # of a trained network, see `detection.network.Cells`
MAX_OVERLAP = 0.4  # intersection over union above which the weaker of two boxes is dropped
MIN_UP = 0.6  # least length of an upward axis that is trusted; half of the shorter ones are off by over 30 degrees
STRIDE = 32  # the sides of what a network sees are multiples of this

REFINER_FILE = "refiner.onnx"
LOOKS = ("score", "move", "up", "sigma")  # of the second network, see `detection.refiner.Looks`
REFINER_SIZE, REFINER_CONTEXT = 64, 1.8  # of its crops: px, and in sides of a candidate's square

# Least mean point score of landmarks that are returned for a detected face. The lowest of a right answer on 300 photos
# of AFLW2000-3D is 0.16, a profile behind hair; over half of the wrong ones have less.
LEAST_SCORE = 0.15
# Of a `PyramidDetector`, whose score is lower where it doubts, the least product of both: of a face that looks at the
# camera, and of a profile, of whose points half are hidden.
BELIEF, PROFILE_BELIEF = 0.44, 0.25

FINE_SIDE = 1600  # longer side of what the network sees at most, px; more would not fit a small machine

# In pictures up to HINT_RATIO times as large as the coarse search sees, the fine one is confined to places to which the
# coarse one gives a score of at least `hint_score`.
HINT_RATIO = 2.0
HINT_MARGIN = 2.0  # context around these places in the fine search, in their sides


class Detections(NamedTuple):
    """N faces, best first, px of the picture.

    boxes: (N,4) x0, y0, x1, y1, tight around the 68 landmarks. scores: (N,) 0..1. squares: (N,4) centre x, y, side and
    angle (radians, as of `geometry.crop.Crop`) of the tight square around the landmarks of the upright head. sigma:
    (N,) standard deviation of the error of a square, in its sides; NaN where a detector does not say. angle_known: (N,)
    False where the angle is a guess and others are worth a try: the head may lie on its side or upside down.
    least_score: (N,) the mean point score (`Faces.scores`) from which on landmarks confirm that a profile is there;
    facing_score: (N,) that of a face that looks at the camera. Between them it is by the cosine of the yaw.
    """

    boxes: np.ndarray
    scores: np.ndarray
    squares: np.ndarray
    sigma: np.ndarray
    angle_known: np.ndarray
    least_score: np.ndarray
    facing_score: np.ndarray

    @classmethod
    def of_boxes(cls, boxes: np.ndarray, scores: np.ndarray) -> Detections:
        """From a detector that gives boxes and scores alone: the faces are taken to be upright."""
        exact = boxes.astype(np.float64)
        squares = np.column_stack([box_centres(exact), _sides(exact), np.zeros(len(boxes))])
        sigma, known, least = np.full(len(boxes), np.nan), np.zeros(len(boxes), bool), np.full(len(boxes), LEAST_SCORE)
        return cls(boxes, scores, squares, sigma, known, least, least)

    def take(self, index: np.ndarray) -> Detections:
        """Those at `index` (mask or numbers)."""
        return Detections(*(values[index] for values in self))

    def moved(self, x: float, y: float) -> Detections:
        """The same in a picture whose pixel (0, 0) is (-x, -y) of theirs."""
        squares = self.squares + np.array([x, y, 0, 0])
        return self._replace(boxes=self.boxes + np.array([x, y, x, y], np.float32), squares=squares)

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        """The faces of several `Detections`, best first."""
        joined = Detections(*(np.concatenate(values) for values in zip(*parts)))
        return joined.take(np.argsort(-joined.scores, kind="stable"))


class Detector(Protocol):
    """What finds the faces of an image (H,W,3) uint8."""

    def __call__(self, image: np.ndarray) -> Detections:
        """All faces, best first."""

    def quick(self, image: np.ndarray) -> Detections:
        """The same at once, for every frame of a video; it may pass over far faces."""


class FunctionDetector:
    """A user's detector: a function of an image (H,W,3) uint8 RGB that gives boxes (N,4) and scores (N,).

    Boxes are x0, y0, x1, y1 in pixels, as tight around the 68 landmarks as it goes; scores 0..1. Raises `BoxError` for
    answers of other shapes, with NaN or infinity, and for scores outside that range.
    """

    def __init__(self, function: Callable[[np.ndarray], tuple[Any, Any]]):
        self.function = function

    def __call__(self, image: np.ndarray) -> Detections:
        """See `Detector`."""
        answer = self.function(image)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise BoxError(f"the detector gave {type(answer).__name__}, want boxes and scores")
        boxes = as_boxes(answer[0], (image.shape[1], image.shape[0]))
        with decoding(BoxError, "the detector gave scores that are no numbers"):
            scores = np.asarray(answer[1], np.float32)
        if scores.shape != (len(boxes),):
            gave = f"{amount(len(boxes), 'box', 'boxes')} and scores {scores.shape}"
            raise BoxError(f"the detector gave {gave}, want one a box")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise BoxError("the detector gave a score that is not from 0 to 1, want probabilities")
        order = np.argsort(-scores, kind="stable")
        return Detections.of_boxes(boxes[order], scores[order])

    quick = __call__


def as_detector(
    detector: Any, threads: int | None = None, min_face: float | None = None, provider: str = "cpu"
) -> Detector:
    """A `Detector` as it is, a user's function as one, and a folder of `canthus train-detector` as one.

    Raises `BoxError` for anything else, and for a `min_face` beside a detector that is there already; `WeightsError`.
    """
    if isinstance(detector, str | Path):
        return PyramidDetector(detector, threads, min_face, provider)
    if min_face is not None:
        raise BoxError("got min_face beside a detector, want one of the two: the detector decides what it finds")
    if not callable(detector):
        raise BoxError(f"got a detector of type {type(detector).__name__}, want a function of an image, or a folder")
    return detector if hasattr(detector, "quick") else FunctionDetector(detector)


class FaceDetector(ABC):
    """Finds the faces in a picture by a network that handles a limited range of face sizes.

    A picture is searched at two scales: small for near faces, and at up to 1600 px for far ones. In a picture of up to
    twice the coarse size, the fine search is confined to the places where the coarse one left a doubt, so that a photo
    of one near face costs little more than one search.

    min_face: the smallest face to look for and to return: longer side of the tight box, px. The fine search is as fine
    as that takes, or left out; small values in large pictures cost time and memory (about 75 MB a megapixel seen).
    Raises `BoxError` for `min_face` that is not positive.
    """

    # Sizes in the network's input, px: longer side of the picture in the coarse and in the quick search; side of a face
    # from which on the coarse search is relied on; side that a doubt has at most, and at which a face of `min_face` is
    # seen. Then the least scores of a face and of a doubt.
    coarse_side: int
    quick_side: int
    near: float
    reliable: float
    min_score: float
    hint_score: float

    def __init__(self, min_face: float | None = None):
        self.min_face = check_min_face(min_face)

    @abstractmethod
    def detect_at(self, image: np.ndarray, zoom: float, coarse: bool = False) -> Detections:
        """The faces that the network sees in the image at `zoom` (up to 1) times its size, in pixels of the image.

        A coarse search also gives doubts, with scores from `hint_score` on, and may pass over what a fine one finds.
        """

    def __call__(self, image: np.ndarray) -> Detections:
        """The faces of image (H,W,3) uint8."""
        zoom = min(1.0, self.coarse_side / max(image.shape[:2]))
        coarse = self.detect_at(image, zoom, coarse=True)
        found = coarse.scores >= self.min_score
        fine_zoom = self._fine_zoom(image)
        area = self._doubtful_area(image, coarse.boxes, found, zoom) if fine_zoom > zoom else None
        coarse = coarse.take(found)
        if area is None:
            return self._wanted(coarse)
        x, y, right, bottom = area
        fine = self.detect_at(image[y:bottom, x:right], fine_zoom).moved(x, y)
        return self._wanted(_merged(coarse, fine, self.near / zoom if len(coarse.scores) else np.inf))

    def quick(self, image: np.ndarray) -> Detections:
        """The same of near faces alone, from the coarse search: for the frames of a video between two calls."""
        found = self.detect_at(image, min(1.0, self.quick_side / max(image.shape[:2])), coarse=True)
        return self._wanted(found.take(found.scores >= self.min_score))

    def _wanted(self, found: Detections) -> Detections:
        """Those that are large enough."""
        return found.take(_sides(found.boxes) >= (self.min_face or 0))

    def _fine_zoom(self, image: np.ndarray) -> float:
        """The zoom of the fine search."""
        if self.min_face is not None:
            return min(1.0, self.reliable / self.min_face)
        return min(1.0, FINE_SIDE / max(image.shape[:2]))

    def _doubtful_area(
        self, image: np.ndarray, boxes: np.ndarray, found: np.ndarray, zoom: float
    ) -> tuple[int, int, int, int] | None:
        """The part x0, y0, x1, y1 of the picture that is worth a fine search; None: no part is."""
        height, width = image.shape[:2]
        if self.min_face is not None or zoom * HINT_RATIO < 1 or not found.any():
            return 0, 0, width, height
        hints = boxes[~found & (_sides(boxes) < self.reliable / zoom) & ~_centred_in(boxes, boxes[found])]
        if not len(hints):
            return None
        margin = HINT_MARGIN * _sides(hints)[:, None]
        low = np.clip(np.floor((hints[:, :2] - margin).min(0)), 0, None).astype(int)
        high = np.clip(np.ceil((hints[:, 2:] + margin).max(0)), None, [width, height]).astype(int)
        return low[0], low[1], high[0], high[1]


def reduced(image: np.ndarray, zoom: float) -> np.ndarray:
    """An image (H,W,3) uint8 at `zoom` (up to 1) times its size, at least one pixel."""
    if zoom >= 1:
        return image
    size = max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))


def check_min_face(min_face: Any) -> float | None:
    """`min_face` as a float, or None. Raises `BoxError` for anything but a positive number."""
    if min_face is None:
        return None
    if not isinstance(min_face, Real) or isinstance(min_face, bool) or not 0 < float(min_face) < np.inf:
        raise BoxError(f"got min_face={min_face!r}, want a positive number of pixels, or None")
    return float(min_face)


def _merged(coarse: Detections, fine: Detections, near: float) -> Detections:
    """The faces of a coarse and a fine search of one picture, best first.

    Of faces with sides of `near` px and more only the coarse ones count, and nothing that the fine search found inside
    these; among the others, the better score wins.
    """
    sure = _sides(coarse.boxes) >= near
    new = (_sides(fine.boxes) < near) & ~_centred_in(fine.boxes, coarse.boxes[sure])
    far = Detections.concat([coarse.take(~sure), fine.take(new)])
    return Detections.concat([coarse.take(sure), far.take(suppress(far.boxes, far.scores))])


def _sides(boxes: np.ndarray) -> np.ndarray:
    """The longer sides (N,) of boxes (N,4)."""
    return (boxes[:, 2:] - boxes[:, :2]).max(1)


def _centred_in(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the boxes (N,4) have their centre in one of the others."""
    centre = box_centres(boxes)[:, None]
    return ((centre > others[:, :2]) & (centre < others[:, 2:])).all(2).any(1)


def suppress(boxes: np.ndarray, scores: np.ndarray, most: float = MAX_OVERLAP) -> np.ndarray:
    """Indices that greedy non-maximum suppression keeps, best first; they overlap by `most` at most."""
    order, keep = np.argsort(-scores), []
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        order = order[box_overlaps(boxes[[best]], boxes[order])[0] <= most]
    return np.array(keep, int)


def best_cells(boxes: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """Indices of the cells with a score of at least `least` whose boxes `suppress` keeps, best first."""
    seen = np.flatnonzero(scores >= least)
    return seen[suppress(boxes[seen], scores[seen])]


def rolls(up: np.ndarray) -> np.ndarray:
    """The angles (N,), radians, of upward axes (N,2), y down; 0 for those so short that a network is unsure of them."""
    return np.where(_sure(up), np.arctan2(up[:, 0], -up[:, 1]), 0)


def _sure(up: np.ndarray) -> np.ndarray:
    """Which upward axes (N,2) are long enough to be trusted."""
    return np.linalg.norm(up, axis=1) >= MIN_UP


def refiner_crop(squares: np.ndarray) -> Crop:
    """The crops in which the second network looks at squares (N,4)."""
    return Crop(squares[:, :2], squares[:, 2] * REFINER_CONTEXT, squares[:, 3], REFINER_SIZE)


def corrected(
    candidates: Detections, score: np.ndarray, move: np.ndarray, up: np.ndarray, sigma: np.ndarray
) -> Detections:
    """N candidates after a look at `refiner_crop`: what the second network said of each, see
    `detection.refiner.Looks`, sigma and scores 0..1 in place of their logarithms and logits."""
    x, y, side, angle = candidates.squares.T
    c, s, ratio = np.cos(angle), np.sin(angle), np.exp(move[:, 2])
    shift = side[:, None] * np.column_stack([c * move[:, 0] - s * move[:, 1], s * move[:, 0] + c * move[:, 1]])
    squares = np.column_stack([x + shift[:, 0], y + shift[:, 1], side * ratio, angle + rolls(up)])
    half = (candidates.boxes[:, 2:] - candidates.boxes[:, :2]) / 2 * ratio[:, None]
    middle = box_centres(candidates.boxes) + shift
    boxes = np.column_stack([middle - half, middle + half]).astype(np.float32)
    doubt = 1 / np.maximum(score, 1e-6)
    return Detections(boxes, score, squares, sigma, _sure(up), PROFILE_BELIEF * doubt, BELIEF * doubt)


class PyramidDetector(FaceDetector):
    """The two networks that `canthus train-detector` trained: one that sees the whole picture
    (`detection.network.DetectorNetwork`) and one that looks at each candidate (`detection.refiner.RefinerNetwork`).
    They tell roll and uncertainty as well.

    weights: the folder that training wrote. threads: CPU threads; None leaves their number to ONNX Runtime. provider:
    what runs it, see `io.providers`. Raises `WeightsError` if a network is missing or is not the one that its card
    lists, `CanthusError` for `threads` that are no positive integer and for a provider that is not there, `BoxError`.
    """

    coarse_side, quick_side, near, reliable, min_score, hint_score = 256, 224, 40, 24, 0.65, 0.2
    # Least score of the first network at which the second looks; in a coarse search at places that are not near, which
    # a fine one would see better, it is the second number. That one alone loses faces seen from the side, the first
    # alone takes a third more time.
    candidate_score, far_candidate_score = 0.15, 0.25

    def __init__(
        self, weights: str | Path, threads: int | None = None, min_face: float | None = None, provider: str = "cpu"
    ):
        super().__init__(min_face)
        self.session = Session(listed(Path(weights), MODEL_FILE, WeightsError), threads, provider)
        self.refiner = Session(listed(Path(weights), REFINER_FILE, WeightsError), threads, provider)

    def detect_at(self, image: np.ndarray, zoom: float, coarse: bool = False) -> Detections:
        """See `FaceDetector.detect_at`."""
        candidates = self._candidates(image, zoom)
        if coarse:
            near = candidates.squares[:, 2] * zoom >= self.near
            candidates = candidates.take(near | (candidates.scores >= self.far_candidate_score))
        looked, _ = self._refined(image, candidates)
        looked = looked.take(looked.scores >= (self.hint_score if coarse else self.min_score))
        return self._turned(image, looked.take(suppress(looked.boxes, looked.scores)))

    def _candidates(self, image: np.ndarray, zoom: float) -> Detections:
        """What the first network sees in the image at `zoom`."""
        small = reduced(image, zoom)
        rows, columns = (-(-side // STRIDE) * STRIDE for side in small.shape[:2])
        padded = np.zeros((1, rows, columns, 3), np.uint8)
        padded[0, : small.shape[0], : small.shape[1]] = small
        scores, *values = (v[0] for v in self.session.run(list(OUTPUTS), {"pictures": padded}))
        keep = best_cells(values[0], scores, self.candidate_score)
        boxes, upright, up, sigma = (v[keep] for v in values)
        scale = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
        boxes = (boxes + 0.5) * np.array(scale * 2, np.float32) - np.float32(0.5)
        centre = (upright[:, :2] + 0.5) * scale - 0.5
        squares = np.column_stack([centre, upright[:, 2] * scale[0], rolls(up)])
        least = np.full(len(keep), LEAST_SCORE)
        return Detections(boxes, scores[keep], squares, sigma, _sure(up), least, least)

    def _refined(self, image: np.ndarray, candidates: Detections) -> tuple[Detections, np.ndarray]:
        """The same candidates as the second network sees them, and how upright their heads stand in its crops (N,):
        1 upright, -1 upside down, 0 if they lie or it cannot tell."""
        if not len(candidates.scores):
            return candidates, np.zeros(0)
        crops = crop_image(image, refiner_crop(candidates.squares))
        score, move, up, sigma = self.refiner.run(list(LOOKS), {"crops": crops})
        return corrected(candidates, score, move, up, sigma), -up[:, 1]

    def _turned(self, image: np.ndarray, found: Detections) -> Detections:
        """Faces whose roll is not known as the second network sees them where they stand most upright, of four quarter
        turns, unless it sees none there."""
        unknown = np.flatnonzero(~found.angle_known & (found.scores >= self.min_score))
        if not len(unknown):
            return found
        squares = np.repeat(found.squares[unknown], 4, 0)
        squares[:, 3] += np.tile(np.arange(4) * np.pi / 2, len(unknown))
        looked, upright = self._refined(image, found.take(np.repeat(unknown, 4))._replace(squares=squares))
        best = 4 * np.arange(len(unknown)) + upright.reshape(-1, 4).argmax(1)
        there = looked.scores[best] >= self.min_score
        others = np.delete(np.arange(len(found.scores)), unknown[there])
        return Detections.concat([found.take(others), looked.take(best[there])])
