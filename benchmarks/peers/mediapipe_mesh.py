"""MediaPipe FaceMesh, 478 points with irises: pip install 'mediapipe<0.10.30', the last with this API and its network.

Its coordinates are fractions of the image; z in units of the image's width, smaller = nearer.
"""

from __future__ import annotations

import common
import mediapipe
import numpy as np


def main() -> None:
    chosen = common.options(__doc__.splitlines()[0])
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=5, refine_landmarks=True)

    def answer(image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        faces = mesh.process(image).multi_face_landmarks or []
        points = [np.array([[p.x, p.y, -p.z] for p in face.landmark]) for face in faces]
        # fractions count from the border of the first pixel, we from its centre
        return [p * [width, height, width] - [0.5, 0.5, 0] for p in points]

    common.run(chosen, f"mediapipe {mediapipe.__version__} FaceMesh", "mediapipe478", answer)


if __name__ == "__main__":
    main()
