"""What the papers print: tables, figures and the weights that their rows need, read from one TOML file a paper.

Notation of the files:

[weights.NAME]   weights that a row needs. `title`; `config`: keys by which they differ from other weights of the
                 method, with the value or the list of values that fit; `told`: more such keys, which count where
                 nobody says which row weights are for; `of` and `change`: where no weights are given, those of the
                 first of these names with these keys of their config changed.
[[tables]]       `name`, `caption`; `scale`: what one percent is in the printed unit; `boxes`, `protocols` (the first
                 one that data is given for is used): see `evaluation`; `columns`: `name` and `at`, the title of the
                 table of `Scores`, its row and its column; a column may have `protocols` of its own; `rows`: `name`,
                 `printed` (NaN where the paper has none) and, where it can be run, `weights` and, for videos,
                 `tracking`; `impossible`: why no row can be run.
[[figures]]      `name`, `caption`, `kind` ("cumulative", "pose" or "pictures"), `boxes`, and `curves`: `name`,
                 `weights`, `protocols`, `error`; `limit`: where the axis of errors ends, in percent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from canthus.errors import CanthusError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAPERS = ("local_global", "part_heatmap", "pose_aware", "jvcr", "cprfa")
"""In the order of their years; the names of their methods."""

Boxes = Literal["true", "aligned", "tracked"]


@dataclass(frozen=True)
class Wanted:
    """Weights that a row needs, see the module's docstring."""

    title: str
    config: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    of: Sequence[str] = ()
    change: Mapping[str, Any] = field(default_factory=dict)

    def misfit(self, config: Mapping[str, Any], told: bool = False) -> str:
        """The first key of a config that has another value than these weights need, as words; "" if all fit. told:
        with the keys by which they are told from others."""
        for key, value in {**self.config, **(self.told if told else {})}.items():
            values = value if isinstance(value, list) else [value]
            if config.get(key) not in values:
                return f"`{key}` is {config.get(key)!r}, {' or '.join(map(repr, values))} is wanted"
        return ""

    def altered(self, config: Mapping[str, Any]) -> bool:
        """Whether `change` changes anything about a config."""
        return any(config.get(key) != value for key, value in self.change.items())


@dataclass(frozen=True)
class Column:
    """One column of numbers: its name, the cell of `Scores` that it is, and the protocols that can give it."""

    name: str
    at: tuple[str, str, str]
    protocols: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One row: what the paper prints in each column, and the names of the weights that can be run for it, or ""."""

    name: str
    printed: tuple[float, ...]
    weights: str = ""
    tracking: str = ""


@dataclass(frozen=True)
class PaperTable:
    """One table of a paper."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    boxes: Boxes = "true"
    scale: float = 1.0
    impossible: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a figure, or one row of its pictures."""

    name: str
    weights: str
    protocols: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper; limit: in percent."""

    name: str
    caption: str
    kind: Literal["cumulative", "pose", "pictures"]
    curves: tuple[Curve, ...]
    boxes: Boxes = "true"
    limit: float = 10.0


@dataclass(frozen=True)
class Paper:
    """One paper: `method` is its file in `canthus.methods`; the first of `weights` is the paper's own method."""

    method: str
    title: str
    venue: str
    weights: Mapping[str, Wanted]
    tables: tuple[PaperTable, ...]
    figures: tuple[PaperFigure, ...]

    @property
    def protocols(self) -> tuple[str, ...]:
        """Every protocol that a part of it can be run on."""
        lines = [c for part in self.tables for c in part.columns] + [c for part in self.figures for c in part.curves]
        return tuple(dict.fromkeys(p for line in lines for p in line.protocols))


def published(name: str) -> Paper:
    """The paper whose method is called `name`. Raises `CanthusError` for another one."""
    if name not in PAPERS:
        raise CanthusError(f"no paper '{name}': one of {', '.join(PAPERS)} is wanted")
    data = tomllib.loads(files("canthus.papers").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return Paper(
        name, data["title"], data["venue"], {key: Wanted(**values) for key, values in data["weights"].items()},
        tuple(_table(dict(values)) for values in data.get("tables", [])),
        tuple(_figure(dict(values)) for values in data.get("figures", [])),
    )  # fmt: skip


def _table(values: dict[str, Any]) -> PaperTable:
    common = values.pop("protocols", [])
    columns = tuple(Column(c["name"], tuple(c["at"]), tuple(c.get("protocols", common))) for c in values.pop("columns"))
    rows = tuple(Row(**{**row, "printed": tuple(map(float, row["printed"]))}) for row in values.pop("rows"))
    return PaperTable(columns=columns, rows=rows, **values)


def _figure(values: dict[str, Any]) -> PaperFigure:
    common = values.pop("protocols", [])
    curves = (Curve(**{**c, "protocols": tuple(c.get("protocols", common))}) for c in values.pop("curves"))
    return PaperFigure(curves=tuple(curves), **values)
