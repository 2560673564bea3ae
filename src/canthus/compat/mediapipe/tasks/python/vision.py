"""`mediapipe.tasks.python.vision.FaceLandmarker`, see `canthus.compat.mediapipe`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

import canthus
from canthus.compat.mediapipe.faces import (
    Category,
    Followed,
    NormalizedLandmark,
    best,
    blendshapes,
    normalized,
    transformations,
)
from canthus.compat.mediapipe.image import Image, pixels
from canthus.compat.mediapipe.tasks.python.options import BaseOptions
from canthus.errors import CanthusError
from canthus.face.faces import Faces


class RunningMode(Enum):
    """Single images, or frames of one video. Live streams are refused: `detect_for_video` follows cameras too."""

    IMAGE = "IMAGE"
    VIDEO = "VIDEO"
    LIVE_STREAM = "LIVE_STREAM"


@dataclass
class FaceLandmarkerOptions:
    """As MediaPipe's. The confidences of presence and tracking, and the model, are not used."""

    base_options: BaseOptions
    running_mode: RunningMode = RunningMode.IMAGE
    num_faces: int = 1
    min_face_detection_confidence: float = 0.5
    min_face_presence_confidence: float = 0.5
    min_tracking_confidence: float = 0.5
    output_face_blendshapes: bool = False
    output_facial_transformation_matrixes: bool = False
    result_callback: Callable[..., None] | None = None


@dataclass
class FaceLandmarkerResult:
    """One entry a face in each list; the last two are empty unless asked for."""

    face_landmarks: list[list[NormalizedLandmark]]
    face_blendshapes: list[list[Category]] = field(default_factory=list)
    facial_transformation_matrixes: list[np.ndarray] = field(default_factory=list)


class FaceLandmarker:
    """Finds faces in images, or in the frames of a video."""

    def __init__(self, options: FaceLandmarkerOptions):
        if options.running_mode == RunningMode.LIVE_STREAM:
            raise CanthusError(
                "got the running mode LIVE_STREAM, want IMAGE or VIDEO: nothing runs asynchronously here"
            )
        self._options = options
        self._aligner = canthus.load()
        self._followed = Followed(self._aligner, options.num_faces, options.min_face_detection_confidence)
        self._time = -1

    @classmethod
    def create_from_options(cls, options: FaceLandmarkerOptions) -> FaceLandmarker:
        """A landmarker. Raises `CanthusError` for live streams."""
        return cls(options)

    @classmethod
    def create_from_model_path(cls, model_path: str) -> FaceLandmarker:
        """A landmarker of single images with the default options."""
        return cls(FaceLandmarkerOptions(BaseOptions(model_asset_path=model_path)))

    def detect(self, image: Image, image_processing_options: Any = None) -> FaceLandmarkerResult:
        """The faces of one image. Raises `CanthusError` in another running mode, `ImageError`."""
        self._check(RunningMode.IMAGE, image_processing_options)
        most, confidence = self._options.num_faces, self._options.min_face_detection_confidence
        return self._result(best(self._aligner.predict(pixels(image)), most, confidence))

    def detect_for_video(
        self, image: Image, timestamp_ms: int, image_processing_options: Any = None
    ) -> FaceLandmarkerResult:
        """The faces of the next frame of a video, followed from the last one. Raises `CanthusError` in another running
        mode and for a time that does not increase, `ImageError`."""
        self._check(RunningMode.VIDEO, image_processing_options)
        if timestamp_ms <= self._time:
            raise CanthusError(f"got the time {timestamp_ms} ms after {self._time} ms, want a later one")
        self._time = timestamp_ms
        return self._result(self._followed.step(pixels(image)))

    def close(self) -> None:
        """Nothing is held that must be given back."""

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def _check(self, mode: RunningMode, processing: Any) -> None:
        if self._options.running_mode != mode:
            raise CanthusError(
                f"got the running mode {self._options.running_mode.name}, want {mode.name} for this call"
            )
        if processing is not None:
            raise CanthusError("got image_processing_options, want a whole upright image instead")

    def _result(self, faces: Faces) -> FaceLandmarkerResult:
        options = self._options
        return FaceLandmarkerResult(
            normalized(faces),
            blendshapes(faces) if options.output_face_blendshapes else [],
            transformations(faces) if options.output_facial_transformation_matrixes else [],
        )
