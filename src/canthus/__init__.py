"""canthus: 3D face landmarks, head pose and face shape from photos, offline on a CPU.

import canthus
aligner = canthus.load()
faces = aligner.predict("photo.jpg")
faces.xyz  # (N,68,3) image pixels
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from canthus.errors import CanthusError
from canthus.face.faces import Alignment, FaceMeshes, Faces, Pose
from canthus.face.landmarks import LandmarkScheme, convert, scheme
from canthus.face.morphable import MorphableModel
from canthus.io.draw import overlay
from canthus.io.images import read_image

if TYPE_CHECKING:
    from canthus.inference.runtime import OnnxAligner

__version__ = version("canthus")
__all__ = [
    "Alignment",
    "CanthusError",
    "FaceMeshes",
    "Faces",
    "LandmarkScheme",
    "MorphableModel",
    "Pose",
    "convert",
    "load",
    "overlay",
    "read_image",
    "scheme",
]


def load(weights: str | Path | None = None, *, threads: int | None = None) -> OnnxAligner:
    """An aligner that runs shipped weights by name, or those of a folder; None: the default weights.

    `threads` is the number of CPU threads of a network call; None leaves it to ONNX Runtime. Nothing is downloaded.
    Raises `WeightsError` for weights that are unknown, damaged or incomplete.
    """
    from canthus.inference.runtime import (
        OnnxAligner,  # ONNX Runtime takes a while to import: only who aligns waits for it
    )
    from canthus.weights import DEFAULT, find

    return OnnxAligner(find(DEFAULT if weights is None else weights), threads)
