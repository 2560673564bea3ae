"""Runs exported weights with ONNX Runtime; same `predict`, no torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from canthus.decode import decoding
from canthus.errors import WeightsError
from canthus.face.faces import Alignment
from canthus.inference.detect import check_min_face
from canthus.inference.predictor import Predictor, points_within
from canthus.io.card import Card
from canthus.io.providers import check_provider
from canthus.io.session import MODEL_FILE, Session
from canthus.threads import check_threads
from canthus.weights import DEFAULT, find


class OnnxAligner(Predictor):
    """A weights folder run by ONNX Runtime.

    The graph takes `crops` (B,S,S,3) uint8 RGB, and `start` (B,68,3) where the card names weights that find these
    points; it gives the fields of `Alignment` by name. Can be pickled, and shared by Python threads and by processes.
    Raises `WeightsError` for a folder whose card or network is missing or damaged, and for weights that start from
    weights that need a start themselves, `CanthusError` for a provider (see `io.providers`) that is not there.
    """

    def __init__(self, folder: Path, threads: int | None = None, min_face: float | None = None, provider: str = "cpu"):
        self.card = Card.read(folder)
        self.threads, self.min_face = check_threads(threads), check_min_face(min_face)
        self.provider = check_provider(provider)
        start = self.card.start
        if start is not None and Card.read(find(start)).start is not None:
            raise WeightsError(
                f"the weights '{self.card.title}' start from points of '{start}', which start from others themselves; "
                "weights that need no start are wanted"
            )
        self.session = Session(self.card.checked(folder, MODEL_FILE), threads, provider)
        self.outputs = self.session.outputs
        self.tells_sigma = "sigma" in self.outputs

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        return self.finish(self.answer(crops))

    def answer(self, crops: np.ndarray) -> Alignment:
        """What the network says of crops (B,S,S,3) uint8 RGB, before `finish`."""
        given: dict[str, Any] = {"crops": crops}
        if self.card.start is not None:
            given["start"] = points_within(self.starter, crops, self.card.crop_scale)
        with decoding(WeightsError, f"the network of '{self.card.title}' cannot be run as its card says"):
            return Alignment(**dict(zip(self.outputs, self.session.run(self.outputs, given))))

    @cached_property
    def starter(self) -> OnnxAligner:
        """The weights that find the points to start from. Raises `WeightsError`."""
        return OnnxAligner(find(str(self.card.start)), self.threads, provider=self.provider)

    @cached_property
    def judge(self) -> Predictor:
        """See `Predictor.judge`."""
        return self.starter if self.card.start == DEFAULT else super().judge
