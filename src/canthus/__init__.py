"""3D face landmarks, head pose and face shape from photos and videos, offline on a CPU.

import canthus
aligner = canthus.load()
faces = aligner.predict("photo.jpg")
faces.xyz  # (N,68,3) image pixels

The names below are imported when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from canthus.errors import CanthusError
    from canthus.face.faces import Alignment, Faces, TrackedFaces
    from canthus.face.landmarks import LandmarkScheme, convert, scheme
    from canthus.face.meshes import FaceMeshes
    from canthus.face.morphable import MorphableModel
    from canthus.face.pose import Pose
    from canthus.inference.detect import Detector
    from canthus.inference.predictor import Predictor
    from canthus.inference.tracker import Tracker
    from canthus.io.draw import overlay
    from canthus.io.images import read_image
    from canthus.io.tables import read_faces
    from canthus.io.video import Video

__version__ = version("canthus")
__all__ = [
    "Alignment",
    "CanthusError",
    "FaceMeshes",
    "Faces",
    "LandmarkScheme",
    "MorphableModel",
    "Pose",
    "TrackedFaces",
    "Tracker",
    "Video",
    "convert",
    "load",
    "overlay",
    "read_faces",
    "read_image",
    "scheme",
]
_MODULES = {
    "errors": ["CanthusError"],
    "face.faces": ["Alignment", "Faces", "TrackedFaces"],
    "face.meshes": ["FaceMeshes"],
    "face.pose": ["Pose"],
    "face.landmarks": ["LandmarkScheme", "convert", "scheme"],
    "face.morphable": ["MorphableModel"],
    "inference.tracker": ["Tracker"],
    "io.draw": ["overlay"],
    "io.images": ["read_image"],
    "io.tables": ["read_faces"],
    "io.video": ["Video"],
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"canthus.{module}"), name)
    raise AttributeError(f"module 'canthus' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    weights: str | Path | None = None,
    *,
    accuracy: Literal["normal", "high"] = "normal",
    threads: int | None = None,
    min_face: float | None = None,
    detector: str | Path | Callable[[np.ndarray], tuple[Any, Any]] | Detector | None = None,
    provider: str = "cpu",
) -> Predictor:
    """An aligner that runs shipped weights, by name, or the weights in a folder; None: the default weights.

    `accuracy="high"` asks the network about four views of each face and averages the answers, which takes three times
    the time of the network (docs/methods/swift.md). `threads` is the number of CPU threads of a call of `predict`, of
    its networks and its linear algebra alike; None leaves it to the libraries. `min_face` is the smallest face to look
    for, by the longer side of its tight box in px: a large one saves time in large pictures; None: as small as can be
    seen at 1600 px. `detector` finds faces instead of the shipped network: a folder that `canthus train-detector`
    wrote, or a function of an RGB image (H,W,3) uint8 that gives boxes (N,4) = (x0, y0, x1, y1) and scores (N,).
    `provider` is what ONNX Runtime runs the networks on: 'cpu', 'cuda', 'coreml', 'directml' or 'openvino', where the
    installed package of ONNX Runtime has it, or 'auto', the first of the others that works on this machine, else the
    CPU. Nothing is downloaded. Weights that training wrote and that were not exported are run by torch, on the CPU.
    Raises `WeightsError` for weights that are unknown, damaged or incomplete, or that need torch where it is not
    installed, and for an `accuracy` that is neither, `CanthusError` for `threads` that are no positive integer and for
    a provider that is not there, `BoxError` for a `min_face` that is not positive, or that is given beside a detector.
    """
    from canthus.errors import WeightsError
    from canthus.inference.detect import as_detector
    from canthus.inference.runtime import OnnxAligner
    from canthus.inference.views import ManyViews
    from canthus.io.session import MODEL_FILE
    from canthus.weights import DEFAULT, find

    if accuracy not in ("normal", "high"):
        raise WeightsError(f"got the accuracy {accuracy!r}, want 'normal' or 'high'")
    folder = find(DEFAULT if weights is None else weights)
    exported = (folder / MODEL_FILE).exists() or not (folder / "model.safetensors").exists()
    aligner: Predictor = (OnnxAligner if exported else _by_torch)(folder, threads, min_face, provider)
    if accuracy == "high":
        aligner = ManyViews(aligner)
    if detector is not None:
        aligner.detector = as_detector(detector, threads, min_face, provider)
    return aligner


def _by_torch(folder: Path, threads: int | None, min_face: float | None, provider: str) -> Predictor:
    """Weights as training left them; the provider is for the detector alone."""
    from canthus.errors import WeightsError, pip_install
    from canthus.inference.detect import check_min_face
    from canthus.io.providers import check_provider
    from canthus.threads import check_threads

    try:
        load_aligner = import_module("canthus.training.aligner").Aligner.load
    except ImportError as error:
        raise WeightsError(
            f"the weights in '{folder}' were not exported to ONNX, and running them as they are needs torch: "
            f"{pip_install('train')}"
        ) from error
    aligner: Predictor = load_aligner(folder)
    aligner.threads, aligner.min_face = check_threads(threads), check_min_face(min_face)
    aligner.provider = check_provider(provider)
    return aligner
