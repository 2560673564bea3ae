"""The ONNX Runtime twin of `Aligner`: the same `predict`, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from canthus.card import Card
from canthus.faces import Alignment
from canthus.inference import Predictor
from canthus.session import MODEL_FILE, open_session


class OnnxAligner(Predictor):
    """A weights folder run by ONNX Runtime.

    The graph takes `crops` (B,S,S,3) uint8 RGB and gives the fields of `Alignment` by name.
    """

    def __init__(self, folder: Path, threads: int | None = None):
        self.card = Card.read(folder)
        self.session = open_session(self.card.checked(folder, MODEL_FILE), threads)
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        return self.finish(Alignment(**dict(zip(self.outputs, self.session.run(self.outputs, {"crops": crops})))))
