"""face-alignment, FAN with its depth network: pip install face-alignment. It downloads its weights at the first run.

z is taken as it comes, in the sense of 300W-LP on which it was trained: larger = nearer.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import face_alignment
import numpy as np

MODULE, SCHEME = "face_alignment", "ibug68"


def load(model: Path | None, threads: int | None):
    """face-alignment's detector, FAN and depth network on the CPU."""
    network = face_alignment.FaceAlignment(face_alignment.LandmarksType.THREE_D, device="cpu")

    def answer(image: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(p, np.float64) for p in network.get_landmarks(image) or []]

    return f"face-alignment {version('face-alignment')} FAN 3D", answer


def main() -> None:
    import common

    common.main(load, SCHEME)


if __name__ == "__main__":
    main()
