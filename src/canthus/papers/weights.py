"""The weights that the rows of a paper are run with: opened, identified by their configs, or made from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from canthus.errors import WeightsError
from canthus.papers.published import Paper, Wanted
from canthus.training.aligner import WEIGHTS_FILE, Aligner
from canthus.training.recipe import Recipe
from canthus.weights import find


@dataclass(frozen=True, eq=False)
class Given:
    """Weights of one row: the predictor, and in words where it comes from. twins: names of other rows whose changes are
    in their config already."""

    predictor: Aligner
    source: str
    twins: tuple[str, ...] = ()


def open_weights(paper: Paper, given: Sequence[str]) -> dict[str, Given]:
    """Weights by the names that `paper` knows them by, from folders or names of shipped weights, FOLDER or NAME=FOLDER.

    Without a name, the config of the weights tells which ones of the paper they are. What nobody gives is made, where
    the paper's file says so, from other weights by changed keys. Raises `WeightsError` for weights of another method,
    without a network that torch can load, that fit no row, or for two of one row.
    """
    found: dict[str, Given] = {}
    for text in given:
        name, _, where = text.rpartition("=")
        aligner = _opened(paper, where)
        name = name or _told_by(paper, aligner, where)
        if name not in paper.weights:
            raise WeightsError(f"got weights for '{name}', want one of {', '.join(paper.weights)}")
        if misfit := paper.weights[name].misfit(asdict(aligner.config)):
            raise WeightsError(f"the weights '{where}' are no '{name}': {misfit}")
        if name in found:
            raise WeightsError(f"got '{found[name].source}' and '{where}' for '{name}', want one of them")
        found[name] = Given(aligner, where)
    for name, wanted in paper.weights.items():  # in their order, so that one may be made from one that was made
        origin = next((other for other in wanted.of if other in found), None)
        if name not in found and origin is not None:
            base = found[origin]
            if wanted.change and not wanted.altered(asdict(base.predictor.config)):
                found[origin] = replace(base, twins=(*base.twins, name))
                continue
            keys = ", ".join(f"{key}: {value}" for key, value in wanted.change.items())
            source = f"{base.source} with {keys}" if keys else base.source
            found[name] = Given(changed(base.predictor, wanted.change), source)
    return found


def changed(aligner: Aligner, keys: Any) -> Aligner:
    """The same weights under other keys of the config; parts that this does not have are left out."""
    if not keys:
        return aligner
    other = type(aligner)(replace(aligner.config, **keys))
    weights = aligner.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    words = ", ".join(f"{key} {value}" for key, value in keys.items())
    other.card = replace(other.card, name=f"{aligner.card.name} ({words})", version=aligner.card.version)
    return other.eval()


def departures(aligner: Aligner, wanted: Wanted) -> list[str]:
    """What the config of weights has otherwise than the paper's recipe: "key value (the recipe's)", without the keys
    that make the row what it is."""
    printed = asdict(type(aligner.config)(**Recipe.read(f"{aligner.method}-paper").config))
    own = {*wanted.config, *wanted.told, *wanted.change}
    other = {key: value for key, value in asdict(aligner.config).items() if value != printed[key] and key not in own}
    return [f"{key} {_plain(value)} ({_plain(printed[key])})" for key, value in other.items()]


def _plain(value: Any) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _opened(paper: Paper, where: str) -> Aligner:
    folder = Path(find(where))
    if not (folder / WEIGHTS_FILE).is_file():
        raise WeightsError(f"no '{WEIGHTS_FILE}' in '{folder}': weights as training writes them are wanted")
    aligner = Aligner.load(folder)
    if aligner.method != paper.method:
        raise WeightsError(f"the weights '{where}' are of the method {aligner.method}, {paper.method} is wanted")
    return aligner


def _told_by(paper: Paper, aligner: Aligner, where: str) -> str:
    misfits = {name: w.misfit(asdict(aligner.config), told=True) for name, w in paper.weights.items() if w.config}
    for name, misfit in misfits.items():
        if not misfit:
            return name
    raise WeightsError(f"the weights '{where}' fit no row of the paper; for '{[*misfits][0]}' {[*misfits.values()][0]}")
