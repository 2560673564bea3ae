"""dlib's ensemble of regression trees, 68 points in the plane: pip install dlib (or dlib-bin), and its shape predictor
as --model; the package face-recognition-models holds one."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np

MODULE, SCHEME, MODEL = "dlib", "ibug68", "shape_predictor_68_face_landmarks.dat"


def load(model: Path | None, threads: int | None):
    """dlib's frontal face detector and its ensemble of regression trees."""
    detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model))

    def answer(image: np.ndarray) -> list[np.ndarray]:
        shapes = [predictor(image, box) for box in detector(image, 1)]
        return [np.array([[p.x, p.y] for p in shape.parts()], np.float64) for shape in shapes]

    return f"dlib {dlib.__version__} ERT", answer


def main() -> None:
    import common

    common.main(load, SCHEME, MODEL)


if __name__ == "__main__":
    main()
