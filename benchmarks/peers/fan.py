"""face-alignment, FAN with its depth network: pip install face-alignment. It downloads its weights at the first run.

z is taken as it comes, in the sense of 300W-LP on which it was trained: larger = nearer.
"""

from __future__ import annotations

from importlib.metadata import version

import common
import face_alignment
import numpy as np


def main() -> None:
    chosen = common.options(__doc__.splitlines()[0])
    network = face_alignment.FaceAlignment(face_alignment.LandmarksType.THREE_D, device="cpu")

    def answer(image: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(p, np.float64) for p in network.get_landmarks(image) or []]

    common.run(chosen, f"face-alignment {version('face-alignment')} FAN 3D", "ibug68", answer)


if __name__ == "__main__":
    main()
