"""Faces of a video as tracks: noise between frames, lost frames, new starts."""

from __future__ import annotations

import re

import numpy as np

from canthus.evaluation import metrics
from canthus.evaluation.pairs import Pairs
from canthus.geometry.crop import box_sizes

COLUMNS = ("NME", "jitter", "jitter of labels", "jitter of error", "frames", "lost", "restarts")


def track_table(pairs: Pairs, errors: np.ndarray) -> tuple[str, tuple[str, ...], dict[str, list[float]]]:
    """Title, columns and a row a video (the part of a name before the last slash), and one for all.

    NME: percent, found frames. jitter: `metrics.jitter` of the plane's points in percent of the root of the mean box's
    area, over frames that follow each other without a gap; of the labels too, whose own noise bounds what can be told,
    and of the difference, in which true motion counts nothing. restarts: how often the face had to be
    searched for again.
    """
    videos = np.array([s.name.rpartition("/")[0] for s in pairs.samples])
    frames = np.array([_number(s.name) for s in pairs.samples])
    rows: dict[str, list[float]] = {}
    for video in [*dict.fromkeys(videos.tolist())]:
        rows[video or "video"] = _row(pairs, errors, frames, videos == video)
    table = np.array(list(rows.values()))
    known = np.isfinite(table[:, :4])
    means = np.where(known, table[:, :4], 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    rows["mean of videos, sums of counts"] = [*means.tolist(), *table[:, 4:].sum(0).tolist()]
    return "video", COLUMNS, rows


def _row(pairs: Pairs, errors: np.ndarray, frames: np.ndarray, here: np.ndarray) -> list[float]:
    seen = here & pairs.found
    size = box_sizes(pairs.boxes[here]).mean()
    noise = []
    for points in (pairs.prediction, pairs.truth, pairs.prediction - pairs.truth):
        runs = np.split(points[seen][..., :2], np.flatnonzero(np.diff(frames[seen]) != 1) + 1)
        long = [r for r in runs if len(r) > 2]
        # runs of different length weigh as many second differences as they have
        squares = sum((len(r) - 2) * metrics.jitter(r) ** 2 for r in long)
        noise.append(100 * np.sqrt(squares / sum(len(r) - 2 for r in long)) / size if long else np.nan)
    starts = float(np.nansum(pairs.predictions.restarted[here]))
    nme = 100 * float(np.mean(errors[seen])) if seen.any() else np.nan
    return [nme, *map(float, noise), float(here.sum()), float((here & ~pairs.found).sum()), starts]


def _number(name: str) -> int:
    digits = re.findall(r"\d+", name.rpartition("/")[2])
    return int(digits[-1]) if digits else -1
