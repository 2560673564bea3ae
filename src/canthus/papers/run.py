"""Running what a paper's tables and figures need: `reproduce`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from canthus.data.formats import FaceSample
from canthus.errors import CanthusError
from canthus.evaluation.collect import Progress, collect, silent
from canthus.evaluation.protocols import protocol
from canthus.evaluation.scores import Scores, score
from canthus.evaluation.table import Table
from canthus.papers.annotation import annotation_tables
from canthus.papers.published import Column, Curve, Paper, PaperFigure, PaperTable, Row
from canthus.papers.weights import Given


class Missing(Exception):
    """Why something cannot be run, as a clause."""


class Run(NamedTuple):
    """One pass of weights over a set: which, over what, and how long a face took, seconds, reading included."""

    weights: str
    tracking: str
    protocol: str
    boxes: str


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run gave. tables: those of the scores, and of the dense annotation where the method has one."""

    scores: Scores
    tables: list[Table]
    seconds: float

    def cell(self, at: tuple[str, str, str], row: str) -> float:
        """The number at (table, row, column); an empty row stands for the paper's own. Raises `Missing` where the truth
        of the set does not give it."""
        if not self.scores.pairs.found.any():
            raise Missing("none of the faces was found")
        for table in self.tables:
            if table.title.startswith(at[0]) and (at[1] or row) in table.rows and at[2] in table.columns:
                if np.isfinite(number := table.cell(at[1] or row, at[2])):
                    return number
                raise Missing(f"the set has too few faces for '{at[2]}'")
        raise Missing(f"the truth of the set does not give '{', '.join(filter(None, at[:2]))}'")


@dataclass(eq=False)
class Reproduction:
    """A paper, the weights and data that are given, and what was run of it.

    weights: name in the paper -> weights. data: protocol -> folder. only: names of faces, or of the videos or folders
    that they are in, which count; None: all. It chooses from the sets that have some of them; of others all faces
    count. Each set is read once, each run made once. Raises `CanthusError` for a protocol that no part of the paper
    uses, and for names that no set has.
    """

    paper: Paper
    weights: Mapping[str, Given]
    data: Mapping[str, Path]
    only: frozenset[str] | None = None
    progress: Callable[[str, int, int], None] | None = None
    runs: dict[Run, Measured] = field(default_factory=dict)
    _samples: dict[str, list[FaceSample]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.data:
            if name not in self.paper.protocols:
                wanted = ", ".join(self.paper.protocols)
                raise CanthusError(f"the paper is not run on '{name}'; data for some of {wanted} are wanted")
        if self.only is not None:
            unknown = set(self.only)
            for name, folder in self.data.items():
                faces = protocol(name).faces(folder)
                self._samples[name] = [s for s in faces if _names(s) & self.only] or faces
                unknown -= set().union(*map(_names, faces))
            if unknown:
                raise CanthusError(f"no face, video or folder of the data is called '{min(unknown)}'")

    def numbers(self, table: PaperTable, row: Row) -> list[float]:
        """Ours of one row, in the printed unit; NaN where it cannot be run."""
        out = []
        for column in table.columns:
            try:
                out.append(self._number(table, row, column))
            except Missing:
                out.append(float("nan"))
        return out

    def errors(self, figure: PaperFigure, curve: Curve) -> tuple[Scores, np.ndarray]:
        """The scores behind a curve, and its error (N,) of each face. Raises `Missing`."""
        scores = self.measured(curve.weights, curve, figure.boxes).scores
        if curve.error not in scores.errors:
            raise Missing(f"the truth of the set does not give '{curve.error}'")
        return scores, scores.errors[curve.error]

    def missing(self, part: PaperTable | PaperFigure) -> list[str]:
        """What is missing for the rows or curves that can be run in principle, one sentence each."""
        if isinstance(part, PaperTable) and part.impossible:
            return [part.impossible]
        wanted: list[tuple[str, Callable[[], object]]] = []
        if isinstance(part, PaperTable):
            cells = [(row, column) for row in part.rows if row.weights for column in part.columns]
            wanted = [(row.name, partial(self._number, part, row, column)) for row, column in cells]
        elif part.kind == "pictures":
            wanted = [(curve.name, partial(self._drawable, curve)) for curve in part.curves]
        else:
            wanted = [(curve.name, partial(self.errors, part, curve)) for curve in part.curves]
        reasons: dict[str, list[str]] = {}
        for name, get in wanted:
            try:
                get()
            except Missing as reason:
                reasons.setdefault(str(reason), []).append(name)
        return [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in reasons.items()]

    def _number(self, table: PaperTable, row: Row, column: Column) -> float:
        """Ours in the printed unit. Raises `Missing`."""
        if not row.weights or table.impossible:
            raise Missing("nothing can be run for it")
        return table.scale * self.measured(row.weights, column, table.boxes, row.tracking).cell(column.at, row.name)

    def _drawable(self, curve: Curve) -> None:
        """Raises `Missing` where weights or data for pictures are."""
        self._all(curve.weights, "", curve)

    def measured(self, weights: str, where: Column | Curve, boxes: str, tracking: str = "") -> Measured:
        """The run for a column or a curve, made now if it was not yet. Raises `Missing`."""
        given, second, name = self._all(weights, tracking, where)
        run = Run(weights, tracking, name, boxes)
        if run not in self.runs:
            rules = protocol(name)
            samples = self.samples(name)
            if boxes == "tracked" and not rules.video:
                raise CanthusError(f"'{name}' is a set of single photos; only frames of videos can be tracked")
            began = time.perf_counter()
            model_2 = second.predictor if second else None
            answers = collect(given.predictor, samples, boxes, self._shown(f"{weights} on {name}"), model_2)
            seconds = (time.perf_counter() - began) / len(samples)
            scores = score(rules, samples, answers)
            dense = annotation_tables(given.predictor, samples, self.data[name]) if name == "renders" else []
            self.runs[run] = Measured(scores, [*scores.tables, *dense], seconds)
        return self.runs[run]

    def samples(self, name: str) -> list[FaceSample]:
        """The faces of a protocol that count."""
        if name not in self._samples:
            self._samples[name] = protocol(name).faces(self.data[name])
        return self._samples[name]

    def shown_samples(self, curve: Curve, count: int = 4) -> list[FaceSample]:
        """A few faces for pictures, evenly spaced. Raises `Missing`."""
        samples = self.samples(self._protocol(curve.protocols))
        chosen = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
        return [samples[k] for k in chosen]

    def given(self, weights: str) -> Given:
        """Weights by name. Raises `Missing`."""
        return self._given(weights)

    def _all(self, weights: str, tracking: str, where: Column | Curve) -> tuple[Given, Given | None, str]:
        """Both weights and the protocol. Raises `Missing` with all that is."""
        wanted: list[Callable[[], object]] = [partial(self._given, name) for name in (weights, tracking) if name]
        wanted.append(partial(self._protocol, where.protocols))
        reasons = []
        for get in wanted:
            try:
                get()
            except Missing as reason:
                reasons.append(str(reason))
        if reasons:
            raise Missing("; ".join(reasons))
        return self._given(weights), self._given(tracking) if tracking else None, self._protocol(where.protocols)

    def _given(self, weights: str) -> Given:
        if weights not in self.weights:
            wanted = self.paper.weights[weights]
            for other, given in self.weights.items():
                if weights in given.twins:
                    raise Missing(f"the weights '{other}' are that already, {wanted.title}")
            keys = ", ".join(
                f"{k}: {' or '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in wanted.config.items()
            )
            raise Missing(f"no weights '{weights}', {wanted.title}" + (f" ({keys})" if keys else ""))
        return self.weights[weights]

    def _protocol(self, names: tuple[str, ...]) -> str:
        for name in names:
            if name in self.data:
                return name
        raise Missing(f"no data of {' or '.join(names)}")

    def _shown(self, what: str) -> Progress:
        show = self.progress
        return silent if show is None else lambda done, total: show(what, done, total)


def _names(sample: FaceSample) -> set[str]:
    """The name of a face and those of the folders around it."""
    name = sample.name
    return {name, *(name.rsplit("/", k)[0] for k in range(1, name.count("/") + 1))}
