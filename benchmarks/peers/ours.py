"""canthus itself, by the same call and in the same way as a peer, for `cost.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import canthus

MODULE, SCHEME = "canthus", "ibug68"


def load(model: Path | None, threads: int | None):
    """canthus with its detector; `model` names other weights than the default ones."""
    aligner = canthus.load(model, threads=threads)

    def answer(image: np.ndarray) -> list[np.ndarray]:
        return [*aligner.predict(image).xyz]

    return f"canthus, {aligner.card.title}", answer


def follow(threads: int | None):
    """canthus from frame to frame, as `canthus track` does it."""
    aligner = canthus.load(threads=threads)
    tracker = canthus.Tracker(aligner)
    return f"canthus, {aligner.card.title}, Tracker", lambda image: len(tracker.step(image))
