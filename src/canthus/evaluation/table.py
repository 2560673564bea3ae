"""A table of numbers with names for rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows of numbers: errors in percent, angles in degrees, counts, correlations and ratios of a face as they are; NaN
    where there is nothing."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, list[float]]

    def cell(self, row: str, column: str) -> float:
        """One number."""
        return self.rows[row][self.columns.index(column)]

    def to_json(self) -> dict[str, Any]:
        """As plain data, null for NaN."""
        rows = {
            name: {c: None if not np.isfinite(v) else round(float(v), 4) for c, v in zip(self.columns, values)}
            for name, values in self.rows.items()
        }
        return {"title": self.title, "rows": rows}
