"""Training on partial truth: faces without depth, without rotation, or with few of the 68 points.

Single points that are not known are masked in the methods' losses; here is what needs more of a face than there is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from canthus.data.sample import FaceBatch, Need
from canthus.data.sources import FaceMix
from canthus.errors import RecipeError
from canthus.training.aligner import Aligner, Stage

WORDS: dict[Need, str] = {
    "depth": "depth", "rotation": "a rotation", "points": "all 68 points",
    "visibility": "marks of visible points", "expression": "expression coefficients",
    "vertices": "vertices of the head",
}  # fmt: skip


def counted(term: Tensor, batch: FaceBatch, needs: Sequence[Need]) -> Tensor:
    """A loss term (B,), 0 for the faces whose truth lacks what it needs."""
    for need in needs:
        having = batch.having(need)
        if having is not None:
            term = torch.where(having, term, 0.0)
    return term


def learnable(aligner: Aligner, faces: FaceMix) -> tuple[Stage, ...]:
    """The stages of a method that faces have the truth for; warnings say what is `missing`.

    Raises `RecipeError` if there is none.
    """
    shares = {need: faces.share(need) for need in WORDS}
    stages = _possible(aligner, shares)
    if not stages:
        terms = {term for stage in aligner.stages() for term in stage.terms}
        lacking = {n for term in terms for n in aligner.needs.get(term, ()) if not shares[n]}
        needed = " and ".join(word for need, word in WORDS.items() if need in lacking)
        raise RecipeError(f"{aligner.method} learns from {needed}, which none of the faces has")
    log = logging.getLogger(__name__)
    for line in missing(aligner, faces):
        log.warning(line)
    return stages


def missing(aligner: Aligner, faces: FaceMix) -> list[str]:
    """What truth no face or not every face has, in words with the loss terms that this turns off or thins out, and
    which points no face has, and which stages are left out."""
    shares = {need: faces.share(need) for need in WORDS}
    used = dict.fromkeys(term for stage in aligner.stages() for term in stage.terms)
    lines = [
        f"{'not every' if shares[need] else 'no'} face has {word}: {', '.join(parts)}"
        for need, word in WORDS.items()
        if shares[need] < 1 and (parts := _lost(aligner, used, need, shares))
    ]
    if unseen := faces.unseen():
        points = ", ".join(map(str, unseen))
        lines.append(f"no face has the points {points} of {aligner.scheme}: they are not learnt")
    if gone := [s.name for s in aligner.stages() if s not in _possible(aligner, shares)]:
        lines.append(f"no stage {' and no stage '.join(gone)}: none of its terms can be learnt")
    return lines


def _possible(aligner: Aligner, shares: Mapping[Need, float]) -> tuple[Stage, ...]:
    """The stages of which some term can be learnt."""
    return tuple(s for s in aligner.stages() if any(_share(aligner, term, shares) for term in s.terms))


def _share(aligner: Aligner, term: str, shares: Mapping[Need, float]) -> float:
    """The share of the faces that a loss term can count at most."""
    return min((shares[need] for need in aligner.needs.get(term, ())), default=1.0)


def _lost(aligner: Aligner, terms: Iterable[str], need: Need, shares: Mapping[Need, float]) -> list[str]:
    """What the lack of one need costs each loss term, in words."""
    by_effect: dict[str, list[str]] = {}
    for term in terms:
        if effect := _effect(aligner, term, need, shares):
            by_effect.setdefault(effect, []).append(term)
    return [f"{', '.join(names)} {effect}" for effect, names in by_effect.items()]


def _effect(aligner: Aligner, term: str, need: Need, shares: Mapping[Need, float]) -> str:
    """As `_lost`, of one term; nothing of a term that is off for the lack of another need."""
    share = _share(aligner, term, shares)
    if not share:
        return "off" if need in aligner.needs[term] and not shares[need] else ""
    if need in aligner.needs.get(term, ()):
        return f"for {share:.0%}"
    wanted, how = aligner.without.get(term, (None, ""))
    if wanted != need:
        return ""
    if not shares[need]:
        return how
    # a batch has vertices if all of its faces do
    return f"{how} in batches where one has none" if need == "vertices" else f"{how} for those without"
