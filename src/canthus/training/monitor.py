"""What a training run shows of itself: the log, pictures of predictions, the learning curve, what it ran on."""

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
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from canthus.errors import OutputError
from canthus.io.images import as_png
from canthus.io.outputs import atomic_write

LOG = "log.csv"
STARTS = "starts.json"
EVENTS = "tensorboard"
PACKAGES = ("canthus", "torch", "numpy", "accelerate", "safetensors", "pillow")
TRUE, PREDICTED = (60, 210, 90), (235, 60, 50)
COLOURS = ((30, 30, 30), (214, 69, 65), (46, 110, 200), (60, 160, 80), (200, 130, 20), (140, 80, 180), (20, 150, 160))
TILE = 192  # px, side of a face in a picture


class Log:
    """log.csv in a run folder, and TensorBoard's files if asked for: one line a step.

    names: the loss terms with a column; others are not logged. steps: lines to keep of a log that is there, those
    after the checkpoint come again. Raises `OutputError` where it cannot be written.
    """

    def __init__(self, folder: Path, names: list[str], steps: int, tensorboard: bool):
        self.columns = ["step", "stage", "rate", "loss", *names]
        self.path = folder / LOG
        head = ",".join(self.columns) + "\r\n"
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        atomic_write(self.path, head.encode() + b"".join(lines[1 : steps + 1]))
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # its own package

            self._events = SummaryWriter(str(folder / EVENTS), purge_step=steps + 1)
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
        """Have what was written on the disk."""
        with self._writing():
            self._file.flush()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Write what is left and let go of the files."""
        with self._writing():
            self._file.close()
        if self._events is not None:
            self._events.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"could not write '{self.path}': {error.strerror}") from error


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
        starts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        starts = []
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


def learning_curve(folder: Path, width: int = 900, height: int = 500) -> bytes:
    """A PNG of the columns of log.csv against the step, on a logarithmic axis where all are above zero."""
    with open(folder / LOG, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in rows[0] if n not in ("step", "stage", "rate")]
    curves = {n: np.array([float(r[n] or "nan") for r in rows]) for n in names}
    steps = np.array([float(r["step"]) for r in rows])
    for name, values in curves.items():  # the mean of up to a hundredth of the run
        parts = np.array_split(np.arange(len(values)), min(len(values), 200))
        curves[name] = np.array([_mean(values[p]) for p in parts])
    at = np.array([steps[p].mean() for p in np.array_split(np.arange(len(steps)), min(len(steps), 200))])
    every = np.concatenate(list(curves.values()))
    every = every[np.isfinite(every)]
    log = bool((every > 0).all())
    shown = (lambda v: np.log10(v)) if log else (lambda v: v)
    low, high = (float(f(shown(every))) for f in (np.min, np.max))
    left, right, top, bottom = 70, 150, 20, 40
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)

    def place(step: np.ndarray, value: np.ndarray) -> list[tuple[float, float]]:
        x = left + (step - at[0]) / max(at[-1] - at[0], 1) * (width - left - right)
        y = top + (high - shown(value)) / max(high - low, 1e-9) * (height - top - bottom)
        return [(a, b) for a, b in zip(x.tolist(), y.tolist()) if math.isfinite(b)]

    pen.rectangle([left, top, width - right, height - bottom], outline=(180, 180, 180))
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        y = height - bottom - share * (height - top - bottom)
        pen.text((5, y - 6), f"{10**value if log else value:.3g}", fill="black")
        pen.line([left - 4, y, left, y], fill="black")
        x = left + share * (width - left - right)
        pen.text((x - 15, height - bottom + 8), f"{at[0] + share * (at[-1] - at[0]):.0f}", fill="black")
    changes = [k for k in range(1, len(rows)) if rows[k]["stage"] != rows[k - 1]["stage"]]
    for k in [0, *changes]:
        (x, _), *_ = place(steps[k : k + 1], every[:1]) or [(left, 0)]
        pen.line([x, top, x, height - bottom], fill=(200, 200, 200))
        pen.text((x + 4, top + 2), rows[k]["stage"], fill=(120, 120, 120))
    for k, (name, values) in enumerate(curves.items()):
        colour = COLOURS[k % len(COLOURS)]
        pen.line(place(at, values), fill=colour, width=3 if name == "loss" else 1)
        pen.text((width - right + 10, top + 16 * k), name, fill=colour)
    return as_png(sheet)


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan
