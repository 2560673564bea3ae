"""A renderer that needs no assets, for worker processes: nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from faces_maker import make_faces

from canthus.errors import RecipeError


class Painter:
    """Two faces a group. `die`: a file that is made, and the process ended, at group 1 unless the file is there."""

    def __init__(self, die: Path | None = None):
        self.die = die

    def group(self, number: int) -> dict[str, np.ndarray]:
        if self.die and number == 1 and not self.die.exists():
            self.die.touch()
            os._exit(1)
        if number == 40:
            raise RecipeError("no head assets")
        faces = make_faces(2, size=40, seed=number)
        faces["image"][:, 0, 0] = [100, number, 0]
        return {**faces, "identity": np.zeros((2, 3))}
