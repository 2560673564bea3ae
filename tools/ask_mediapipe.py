"""What MediaPipe says of rendered heads, for `tools/build_surface.py`: run by a Python that has mediapipe 0.10.14.

    python tools/ask_mediapipe.py FOLDER OUT

FOLDER holds shards (`canthus synth --set dense=true`), OUT becomes an npz with `points` (N,478,3), our pixels: x right
and y down from the centre of the first pixel, z nearer when larger; NaN where no face was found. Pictures are shown
with a border of half their side, as the detector of FaceMesh wants more than a face, at twice their size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mediapipe
import numpy as np
from PIL import Image


def main(folder: Path, out: Path) -> None:
    """See the module."""
    answers = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for shard in sorted(folder.glob("shard-*.npz")):
            for image in np.load(shard)["image"]:
                side, pad = len(image), len(image) // 2
                wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
                seen = np.asarray(Image.fromarray(wide).resize((4 * side, 4 * side), Image.Resampling.BICUBIC))
                found = mesh.process(seen).multi_face_landmarks
                points = np.full((478, 3), np.nan)
                if found:
                    fractions = np.array([(p.x, p.y, -p.z) for p in found[0].landmark])
                    points = fractions * len(wide) - [pad + 0.5, pad + 0.5, 0]
                answers.append(points)
    points = np.array(answers, np.float32)
    np.savez_compressed(out, points=points)
    print(f"{np.isfinite(points[:, 0, 0]).sum()} of {len(points)} found")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
