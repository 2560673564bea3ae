"""The interface of the PyPI package `face_alignment` (Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D
face alignment problem?", ICCV 2017), answered by the default weights of canthus: change only the import.

    from canthus.compat import face_alignment

    fa = face_alignment.FaceAlignment(face_alignment.LandmarksType.THREE_D, flip_input=False)
    landmarks = fa.get_landmarks("photo.jpg")  # a list of (68,3) float32 arrays, or None

Names, arguments and types of results are those of face_alignment 1.4. What differs:

- x and y: pixels from 0 at the centre of the top left pixel. The jaw line of every kind of landmarks consists of fixed
  points on the skin (`docs/conventions.md`); that of face_alignment's TWO_D follows the contour seen on turned faces.
- z: the same sign (nearer the camera is larger) and unit (image pixels) as there. Its zero is the mean of the face's 68
  landmarks; there it is about the centre of the head.
- Scores are probabilities (`Faces.scores`); there they are heights of heatmap peaks.
- Faces are found by the detector of canthus, whatever `face_detector` says, and come by falling detection score.
- Images that cannot be read or used raise a `CanthusError`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import canthus
from canthus.compat import without_opacity
from canthus.errors import BoxError, ImageError, amount
from canthus.face.faces import Faces
from canthus.face.landmarks import mirror
from canthus.inference.predictor import Predictor, upright_crops
from canthus.inference.retinaface import face_boxes, tight
from canthus.io.images import as_rgb, crop_image, read_image


class LandmarksType(IntEnum):
    """The kinds of landmarks: x and y of the visible face, of the 3D points, or x, y and z."""

    TWO_D = 1
    TWO_HALF_D = 2
    THREE_D = 3
    _2D = 1  # names before 1.4
    _2halfD = 2
    _3D = 3


class NetworkSize(IntEnum):
    """The only network size that face_alignment has."""

    LARGE = 4


class FaceAlignment:
    """Finds 68 landmarks a face, as `face_alignment.FaceAlignment` does.

    `flip_input` averages the landmarks with those of the mirrored face. Everything runs on the CPU: another `device`,
    and `face_detector_kwargs`, are ignored with a warning. `network_size`, `dtype`, `face_detector` and `verbose` have
    no effect.
    """

    def __init__(
        self,
        landmarks_type: LandmarksType,
        network_size: NetworkSize = NetworkSize.LARGE,
        device: str = "cpu",
        dtype: Any = None,
        flip_input: bool = False,
        face_detector: str = "sfd",
        face_detector_kwargs: dict[str, Any] | None = None,
        verbose: bool = False,
    ):
        if str(device) != "cpu":
            warnings.warn(f"got the device {str(device)!r}; canthus runs on the CPU", stacklevel=2)
        if face_detector_kwargs:
            warnings.warn("face_detector_kwargs have no effect: canthus has a detector of its own", stacklevel=2)
        self.landmarks_type = LandmarksType(landmarks_type)
        self.flip_input = flip_input
        self.aligner: Predictor = canthus.load()

    def get_landmarks(
        self,
        image_or_path: Any,
        detected_faces: Sequence[Any] | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """The same as `get_landmarks_from_image`."""
        return self.get_landmarks_from_image(image_or_path, detected_faces, return_bboxes, return_landmark_score)

    def get_landmarks_from_image(
        self,
        image_or_path: Any,
        detected_faces: Sequence[Any] | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """The landmarks of every face in one image: a list of float32 arrays (68,2), or (68,3) for THREE_D, in pixels;
        None, with a warning, if there is no face.

        `image_or_path` is a path, or an RGB array or tensor (H,W), (H,W,3) or (H,W,4) with values 0..255.
        `detected_faces` are boxes (x0, y0, x1, y1, ...) as face detectors give them, from the forehead to the chin; no
        detector runs then. With `return_bboxes` or `return_landmark_score` the answer is (landmarks, scores, boxes):
        scores and boxes are lists of arrays (68,) and (5,) = (x0, y0, x1, y1, detection score), or None if not asked
        for. Raises `ImageError`, `BoxError`.
        """
        image = _image(image_or_path)
        faces = self.aligner.predict(image, None if detected_faces is None else _tight_boxes(detected_faces))
        if not len(faces):
            warnings.warn("No faces were detected.", stacklevel=2)
            return (None, None, None) if return_bboxes or return_landmark_score else None
        xyz = self._averaged(image, faces) if self.flip_input else faces.xyz
        landmarks = list(xyz if self.landmarks_type == LandmarksType.THREE_D else xyz[..., :2].copy())
        if not (return_bboxes or return_landmark_score):
            return landmarks
        boxes = np.column_stack([face_boxes(faces.boxes), faces.detection_scores])
        found = list(boxes) if detected_faces is None else detected_faces
        return landmarks, list(faces.scores) if return_landmark_score else None, found if return_bboxes else None

    def get_landmarks_from_batch(
        self,
        image_batch: Any,
        detected_faces: Sequence[Sequence[Any]] | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """The landmarks of a batch (B,3,H,W) of values 0..255: one array an image, (68 N, 2 or 3), with its N faces one
        below the other; an empty list for an image without a face.

        `detected_faces` are the boxes of each image. With `return_bboxes` or `return_landmark_score` the answer is
        (landmarks, scores, boxes), lists with one entry an image, or None for what was not asked for. Raises as
        `get_landmarks_from_image`.
        """
        batch = _array(image_batch)
        if batch.ndim != 4 or batch.shape[1] != 3:
            raise ImageError(f"got a batch of shape {batch.shape}, want (B, 3, H, W)")
        if detected_faces is not None and len(detected_faces) != len(batch):
            got = f"boxes for {amount(len(detected_faces), 'image')} and {amount(len(batch), 'image')}"
            raise BoxError(f"got {got}, want the same number")
        landmarks: list[Any] = []
        scores: list[Any] = []
        boxes: list[Any] = []
        for k, image in enumerate(batch):
            given = None if detected_faces is None else detected_faces[k]
            points, score, box = self.get_landmarks_from_image(image.transpose(1, 2, 0), given, True, True)
            landmarks.append([] if points is None else np.concatenate(points))
            scores.append(score)
            boxes.append([] if box is None else box)
        if not (return_bboxes or return_landmark_score):
            return landmarks
        return landmarks, scores if return_landmark_score else None, boxes if return_bboxes else None

    def get_landmarks_from_directory(
        self,
        path: str | Path,
        extensions: Sequence[str] = (".jpg", ".png"),
        recursive: bool = True,
        show_progress_bar: bool = True,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> dict[str, Any]:
        """The path of each image in a folder -> what `get_landmarks_from_image` gives for it.

        Raises `ImageError` for a folder that is not there and for an image that cannot be read.
        """
        if not Path(path).is_dir():
            raise ImageError(f"got the path {path}, want a folder of images")
        below = Path(path).rglob("*") if recursive else Path(path).glob("*")
        files = sorted(str(p) for p in below if p.suffix.lower() in {e.lower() for e in extensions} and p.is_file())
        shown = track(files, "face_alignment", disable=not show_progress_bar, console=Console(stderr=True))
        return {file: self.get_landmarks_from_image(file, None, return_bboxes, return_landmark_score) for file in shown}

    def _averaged(self, image: np.ndarray, faces: Faces) -> np.ndarray:
        """The mean (N,68,3) of what the network says of the faces, upright, and of their mirror images."""
        crop = upright_crops(faces, self.aligner.card)
        cut = crop_image(image, crop)
        straight = self.aligner.run_batches(cut).xyz
        flipped = self.aligner.run_batches(np.ascontiguousarray(cut[:, :, ::-1])).xyz
        xyz = crop.image_from_crop((straight + mirror(flipped, faces.scheme, crop.size)) / 2)
        return (xyz - [0, 0, 1] * xyz.mean(1, keepdims=True)).astype(np.float32)


def _image(image_or_path: Any) -> np.ndarray:
    """An image as uint8 (H,W,3) RGB. face_alignment takes values of any type as 0..255 and leaves opacity out."""
    if isinstance(image_or_path, str | Path):
        return read_image(image_or_path)
    image = without_opacity(_array(image_or_path))
    if image.dtype.kind in "iuf" and image.dtype != np.uint8:
        if not (image.size and image.min() >= 0 and image.max() <= 255):  # NaN fails every comparison
            raise ImageError("got an image with values outside 0 to 255 or none, want 0 to 255")
        image = np.rint(image).astype(np.uint8)
    return as_rgb(image)


def _array(given: Any) -> np.ndarray:
    """An array, or a tensor of torch on any device."""
    return given.detach().cpu().numpy() if hasattr(given, "detach") else np.asarray(given)


def _tight_boxes(detected_faces: Sequence[Any]) -> np.ndarray:
    """The tight boxes (N,4) around the landmarks, from those of a face detector, (4,) or (5,) with a score."""
    try:
        boxes = np.array([_array(box)[:4] for box in detected_faces], np.float32).reshape(-1, 4)
    except (IndexError, TypeError, ValueError) as error:
        raise BoxError("got detected_faces that are no boxes, want a list of (x0, y0, x1, y1) in pixels") from error
    return tight(boxes)
