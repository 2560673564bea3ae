"""The ONNX Runtime twin of `Aligner`: the same `predict`, without torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from canthus.decode import decoding
from canthus.errors import WeightsError
from canthus.face.faces import Alignment
from canthus.inference.predictor import Predictor, points_within
from canthus.io.card import Card
from canthus.io.session import MODEL_FILE, open_session
from canthus.weights import find


class OnnxAligner(Predictor):
    """A weights folder run by ONNX Runtime.

    The graph takes `crops` (B,S,S,3) uint8 RGB, and `start` (B,68,3) where the card names weights that find these
    points; it gives the fields of `Alignment` by name. Raises `WeightsError` for a folder whose card or network is
    missing or damaged, and for weights that start from weights that need a start themselves.
    """

    def __init__(self, folder: Path, threads: int | None = None):
        self.card, self.threads = Card.read(folder), threads
        start = self.card.start
        if start is not None and Card.read(find(start)).start is not None:
            raise WeightsError(
                f"the weights '{self.card.title}' start from points of '{start}', which start from others themselves; "
                "weights that need no start are wanted"
            )
        self.session = open_session(self.card.checked(folder, MODEL_FILE), threads)
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        given: dict[str, Any] = {"crops": crops}
        if self.card.start is not None:
            given["start"] = points_within(self.starter, crops, self.card.crop_scale)
        with decoding(WeightsError, f"the network of '{self.card.title}' cannot be run as its card says"):
            alignment = Alignment(**dict(zip(self.outputs, self.session.run(self.outputs, given))))
        return self.finish(alignment)

    @cached_property
    def starter(self) -> OnnxAligner:
        """The weights that find the points to start from. Raises `WeightsError`."""
        return OnnxAligner(find(str(self.card.start)), self.threads)
