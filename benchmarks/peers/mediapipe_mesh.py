"""MediaPipe FaceMesh, 478 points with irises: pip install 'mediapipe<0.10.30', the last with this API and its network.

Its coordinates are fractions of the image; z in units of the image's width, smaller = nearer.
"""

from __future__ import annotations

from pathlib import Path

import mediapipe
import numpy as np

MODULE, SCHEME = "mediapipe", "mediapipe478"


def load(model: Path | None, threads: int | None):
    """MediaPipe's detector and FaceMesh with irises, each picture on its own."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=5, refine_landmarks=True)

    def answer(image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        faces = mesh.process(image).multi_face_landmarks or []
        points = [np.array([[p.x, p.y, -p.z] for p in face.landmark]) for face in faces]
        # fractions count from the border of the first pixel, we from its centre
        return [p * [width, height, width] - [0.5, 0.5, 0] for p in points]

    return f"mediapipe {mediapipe.__version__} FaceMesh", answer


def follow(threads: int | None):
    """FaceMesh's mode for videos, which goes on from the last frame and detects where it has lost a face."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=5, refine_landmarks=True)
    title = f"mediapipe {mediapipe.__version__} FaceMesh, video"
    return title, lambda image: len(mesh.process(image).multi_face_landmarks or [])


def main() -> None:
    import common

    common.main(load, SCHEME)


if __name__ == "__main__":
    main()
