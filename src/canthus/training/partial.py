"""Training on partial truth: faces without depth, without rotation, or with few of the 68 points.

Single points that are not known are masked in the methods' losses; here is what needs more of a face than there is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from canthus.data.sample import FaceBatch, Need
from canthus.data.sources import FaceMix
from canthus.errors import RecipeError
from canthus.training.aligner import Aligner, Stage

WORDS: dict[Need, str] = {"depth": "depth", "rotation": "a rotation", "points": "all 68 points"}


def counted(term: Tensor, batch: FaceBatch, needs: Sequence[Need]) -> Tensor:
    """A loss term (B,), 0 for the faces whose truth lacks what it needs."""
    for need in needs:
        having = batch.having(need)
        if having is not None:
            term = torch.where(having, term, 0.0)
    return term


def learnable(aligner: Aligner, faces: FaceMix) -> tuple[Stage, ...]:
    """The stages of a method that faces have the truth for; warnings say which terms and stages are off, and which
    points no face has.

    Raises `RecipeError` if there is none.
    """
    needs: tuple[Need, ...] = ("depth", "rotation", "points")
    shares = {need: faces.share(need) for need in needs}
    counts = {term: min((shares[n] for n in wanted), default=1.0) for term, wanted in aligner.needs.items()}
    used = {term for stage in aligner.stages() for term in stage.terms}
    lacking = {n for term, wanted in aligner.needs.items() if term in used for n in wanted if shares[n] < 1}
    stages = tuple(s for s in aligner.stages() if any(counts.get(term, 1.0) for term in s.terms))
    if not stages:
        raise RecipeError(f"{aligner.method} learns from {_of(lacking)}, which none of the faces has")
    if lacking:
        parts = [
            f"{term} {f'for {share:.0%}' if share else 'off'}"
            for term, share in counts.items()
            if share < 1 and term in used
        ]
        gone = [f"; no stage {s.name}" for s in aligner.stages() if s not in stages]
        text = f"not every face has {_of(lacking)}: {', '.join(parts)}{''.join(gone)}"
        logging.getLogger(__name__).warning(text)
    if unseen := faces.unseen():
        points = ", ".join(map(str, unseen))
        logging.getLogger(__name__).warning(f"no face has the points {points} of {aligner.scheme}: they are not learnt")
    return stages


def _of(needs: set[Need]) -> str:
    return " and ".join(WORDS[need] for need in WORDS if need in needs)
