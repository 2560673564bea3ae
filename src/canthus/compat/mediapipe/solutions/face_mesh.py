"""`mediapipe.solutions.face_mesh.FaceMesh`, see `canthus.compat.mediapipe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import canthus
from canthus.compat.mediapipe.faces import Followed, NormalizedLandmark, best, normalized
from canthus.io.images import as_rgb

FACEMESH_NUM_LANDMARKS = 468
FACEMESH_NUM_LANDMARKS_WITH_IRISES = 478


@dataclass
class NormalizedLandmarkList:
    """The points of one face."""

    landmark: list[NormalizedLandmark]


@dataclass
class FaceMeshResults:
    """The faces of one image, or None if there is none."""

    multi_face_landmarks: list[NormalizedLandmarkList] | None


class FaceMesh:
    """Finds faces in images, or follows them through the frames of a video if `static_image_mode` is False.

    `refine_landmarks` adds the irises, points 468 to 477. `min_tracking_confidence` has no effect.
    """

    def __init__(
        self,
        static_image_mode: bool = False,
        max_num_faces: int = 1,
        refine_landmarks: bool = False,
        min_detection_confidence: float = 0.5,
        min_tracking_confidence: float = 0.5,
    ):
        self._static, self._most, self._confidence = static_image_mode, max_num_faces, min_detection_confidence
        self._count = FACEMESH_NUM_LANDMARKS_WITH_IRISES if refine_landmarks else FACEMESH_NUM_LANDMARKS
        self._aligner = canthus.load()
        self._followed = Followed(self._aligner, max_num_faces, min_detection_confidence)

    def process(self, image: np.ndarray) -> FaceMeshResults:
        """The faces of an RGB image (H,W,3) of uint8. Raises `ImageError`."""
        rgb = as_rgb(image)
        if self._static:
            found = best(self._aligner.predict(rgb), self._most, self._confidence)
        else:
            found = self._followed.step(rgb)
        faces = normalized(found, self._count)
        return FaceMeshResults([NormalizedLandmarkList(face) for face in faces] or None)

    def reset(self) -> None:
        """Forget the faces that were followed."""
        self._followed.reset()

    def close(self) -> None:
        """Nothing is held that must be given back."""

    def __enter__(self) -> FaceMesh:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()
