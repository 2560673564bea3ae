"""One head for all frames of a video: a person's shape does not change, so it is taken from many frames together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canthus.face.faces import MESH_ITERATIONS, Faces
from canthus.face.morphable import MorphableModel

MOST_FRAMES = 64


def pooled_identity(faces: Sequence[Faces], model: MorphableModel | None = None) -> np.ndarray:
    """The identity coefficients (K,) of one face in T frames, T > 0: the mean of what its frames say by themselves.

    faces: the face alone, frame by frame. At most MOST_FRAMES of them are fitted, evenly spread over the T. A single
    frame confuses shape with expression and pose; the mean of frames under many poses does so less. `model` None: the
    default one.
    """
    model = MorphableModel.default() if model is None else model
    taken = np.unique(np.linspace(0, len(faces) - 1, min(MOST_FRAMES, len(faces))).round().astype(int))
    together = Faces.concat([faces[k] for k in taken], faces[0].image_size).converted()
    fit = model.fit(together.xyz, together.fit_weights(), iterations=MESH_ITERATIONS)
    return fit.identity.mean(0)
