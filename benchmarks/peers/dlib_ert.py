"""dlib's ensemble of regression trees, 68 points in the plane: pip install dlib, and its shape predictor as --model."""

from __future__ import annotations

import common
import dlib
import numpy as np


def main() -> None:
    chosen = common.options(__doc__.splitlines()[0], "shape_predictor_68_face_landmarks.dat")
    detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(chosen.model))

    def answer(image: np.ndarray) -> list[np.ndarray]:
        shapes = [predictor(image, box) for box in detector(image, 1)]
        return [np.array([[p.x, p.y] for p in shape.parts()], np.float64) for shape in shapes]

    common.run(chosen, f"dlib {dlib.__version__} ERT", "ibug68", answer)


if __name__ == "__main__":
    main()
