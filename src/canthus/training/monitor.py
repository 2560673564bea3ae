"""What a training run records: log, pictures of predictions, learning curve, versions and machine."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from canthus.decode import decoding, read_json
from canthus.errors import OutputError, RecipeError
from canthus.io.charts import Chart, lines, rendered
from canthus.io.images import as_png
from canthus.io.inputs import reason
from canthus.io.outputs import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = "log.csv"
STARTS = "starts.json"
EVENTS = "tensorboard"
PACKAGES = ("canthus", "torch", "numpy", "accelerate", "safetensors", "pillow")
TRUE, PREDICTED = (60, 210, 90), (235, 60, 50)
TILE = 192  # px, side of a face in a picture


class Log:
    """log.csv in a run folder, and TensorBoard's files if asked for: one line a step.

    names: the loss terms with a column; others are not logged. steps: lines to keep of a log that is there, those
    after the checkpoint come again. Raises `OutputError` where it cannot be written.
    """

    def __init__(self, folder: Path, names: list[str], steps: int, tensorboard: bool):
        self.columns = ["step", "stage", "lr", "loss", *names]
        self.path = folder / LOG
        head = ",".join(self.columns) + "\r\n"
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        atomic_write(self.path, head.encode() + b"".join(lines[1 : steps + 1]))
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # its own package

            with self._writing():
                self._events = SummaryWriter(str(folder / EVENTS), purge_step=steps + 1)
        with self._writing():
            self._file = open(self.path, "a", newline="", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Add the line of one step."""
        values = [row.get(name, "") for name in self.columns]
        text = io.StringIO(newline="")
        csv.writer(text).writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
        with self._writing():
            self._file.write(text.getvalue())
            if self._events is not None:
                for name, value in zip(self.columns, values):
                    if isinstance(value, float):
                        self._events.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        """Write buffered lines to the disk."""
        with self._writing():
            self._file.flush()
            if self._events is not None:
                self._events.flush()

    def close(self) -> None:
        """Write what is left and close the files."""
        with self._writing():
            self._file.close()
            if self._events is not None:
                self._events.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"could not write '{self.path}': {reason(error)}") from error


def commit() -> str:
    """The git commit of this code, with `-dirty` if files differ from it; empty if the code is not in a repository."""

    def git(*words: str) -> str:
        here = Path(__file__)
        call = ["git", "-C", str(here.parent), *words]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a repository that merely holds an installation
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def note_start(folder: Path, **facts: Any) -> None:
    """Add to starts.json what a run is started with: `facts`, commit and versions of packages."""
    path = folder / STARTS
    try:
        with decoding(RecipeError, f"'{path}' cannot be read"):
            starts = read_json(path)
    except RecipeError:
        starts = []
    starts = starts if isinstance(starts, list) else []
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    starts.append({**facts, "commit": commit(), "versions": versions, "machine": platform.platform()})
    atomic_write(path, json.dumps(starts, indent=2).encode())


def picture(crops: np.ndarray, true: np.ndarray, predicted: np.ndarray, maps: np.ndarray | None) -> bytes:
    """A PNG of crops (B,S,S,3) uint8 with points (B,L,3), true ones green, predicted ones red; below each its `maps`
    (B,h,w), if any, from least (black) to most (white)."""
    rows = 1 if maps is None else 2
    sheet = Image.new("RGB", (TILE * len(crops), TILE * rows))
    pen = ImageDraw.Draw(sheet)
    scale = TILE / crops.shape[1]
    for k, crop in enumerate(crops):
        sheet.paste(Image.fromarray(crop).resize((TILE, TILE), Image.Resampling.BILINEAR), (k * TILE, 0))
        for points, colour in ((true[k], TRUE), (predicted[k], PREDICTED)):
            for u, v in ((points[:, :2] + 0.5) * scale - 0.5).tolist():
                if 0 <= u < TILE and 0 <= v < TILE:  # also refuses NaN
                    x, y = k * TILE + round(u), round(v)
                    pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
        if maps is not None:
            low, high = float(maps[k].min()), float(maps[k].max())
            grey = ((maps[k] - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
            sheet.paste(Image.fromarray(grey).convert("RGB").resize((TILE, TILE)), (k * TILE, TILE))
    return as_png(sheet)


def learning_curve(folder: Path) -> bytes:
    """A PNG of the columns of log.csv against the step, on a logarithmic axis where all are above zero.

    Needs matplotlib: see `charts.missing`.
    """
    return as_png(rendered(learning_figure(folder)))


def learning_figure(folder: Path) -> Figure:
    """The figure of `learning_curve`: each line is the mean over a two-hundredth of the run, stages are marked."""
    with open(folder / LOG, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = np.array_split(np.arange(len(rows)), min(max(len(rows), 1), 200))

    def averaged(name: str) -> list[float]:
        values = np.array([float(row[name] or "nan") for row in rows])
        return [_mean(values[part]) for part in parts]

    at = averaged("step")
    names = [name for name in (rows[0] if rows else ()) if name not in ("step", "stage", "lr")]
    curves = {name: (at, averaged(name)) for name in names}
    changes = [k for k in range(len(rows)) if k == 0 or rows[k]["stage"] != rows[k - 1]["stage"]]
    positive = all(not value <= 0 for _, values in curves.values() for value in values)
    chart = Chart("Training loss", "step", "loss and its terms", log=positive, size=(900, 500))
    return lines(chart, curves, dots=False, marks={float(rows[k]["step"]): rows[k]["stage"] for k in changes})


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
