"""Scoring: predictions and labels in, tables out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from canthus.data.formats import FaceSample
from canthus.errors import amount
from canthus.evaluation import metrics
from canthus.evaluation.movements import movement_tables
from canthus.evaluation.pairs import Pairs, pair
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.protocols import DEPTH, HALVES, SECOND, Protocol
from canthus.evaluation.table import Table
from canthus.evaluation.tracks import track_table
from canthus.face.landmarks import scheme
from canthus.face.uncertainty import MEAN_RADIUS, SCORE_RADIUS, scores_of
from canthus.geometry.crop import box_sizes, tight_boxes
from canthus.geometry.rotation import euler_from_matrix, geodesic

BINS = ("0-30", "30-60", "60-90")


@dataclass(frozen=True, eq=False)
class Scores:
    """What came of scoring N faces by a protocol.

    errors: name -> (N,) fractions, NaN where the face was not found. tables: all of them. pairs: the points.
    calibration: tenths of the points by score, (mean score, share within 5 % of the face's size); empty without sigma.
    """

    title: str
    errors: dict[str, np.ndarray]
    tables: list[Table]
    pairs: Pairs
    limits: tuple[float, ...]
    calibration: list[tuple[float, float]] = field(default_factory=list)

    @property
    def main(self) -> str:
        """The name of the first error, "" for a protocol of poses."""
        return next(iter(self.errors), "")

    def table(self, title: str) -> Table:
        """The table whose title begins so."""
        return next(t for t in self.tables if t.title.startswith(title))

    def headline(self) -> str:
        """One sentence: what was measured, on how many faces, and the mean of the first error or of the pose angles."""
        found = self.pairs.found
        faces = f"{amount(len(found), 'face')}, {int((~found).sum())} not found"
        points = compared(self.pairs)
        if self.errors and f"{points.partition(' ')[0]} points" not in self.title:  # others than the set's own
            faces += f", {points}"
        what = f"{self.title}: {self.pairs.predictions.system or 'predictions'}, {faces}"
        if self.errors:
            text = f"{self.main} {100 * _mean(self.errors[self.main][found]):.2f} %, mean of images"
            bins = [t for t in self.tables if t.columns[:3] == BINS]
            if bins:
                means = [bins[0].cell(self.main, name) for name in BINS]
                parts = " / ".join(f"{value:.2f}" if np.isfinite(value) else "none found" for value in means)
                degrees = f"({parts} for {', '.join(BINS)} degrees)"
                mean = bins[0].cell(self.main, "mean of bins")
                text += f"; {f'{mean:.2f} %,' if np.isfinite(mean) else 'no'} mean of three bins of |yaw| {degrees}"
            return f"{what}; {text}"
        poses = [t for t in self.tables if t.title.startswith("pose")]
        return f"{what}; mean absolute error {poses[0].cell('angles up to 99', 'MAE'):.2f} degrees" if poses else what

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "protocol": self.title,
            "system": self.pairs.predictions.system,
            "compared": compared(self.pairs),
            "faces": len(self.pairs.found),
            "lost": int((~self.pairs.found).sum()),
            "tables": [t.to_json() for t in self.tables],
            "calibration": [{"score": round(a, 4), "measured": round(b, 4)} for a, b in self.calibration],
        }


def score(protocol: Protocol, samples: Sequence[FaceSample], predictions: Predictions) -> Scores:
    """Score predictions by a protocol. Faces without a prediction are lost: means are over the others, and the table
    of curves counts them as failures. Raises `LandmarkError` where points cannot be compared."""
    pairs = pair(samples, predictions)
    kept = pairs.part(pairs.found)
    names = [
        n for n in protocol.errors
        if not (n in DEPTH and pairs.truth.shape[2] < 3) and not (n in SECOND and pairs.relabelled is None)
    ]  # fmt: skip
    errors: dict[str, np.ndarray] = {}
    for name in names:
        errors[name] = np.full(len(samples), np.nan)
        if len(kept.samples):
            errors[name][pairs.found] = protocol.errors[name](kept)
    tables = [*_yaw_tables(protocol, samples, pairs.found, errors), *_group_table(samples, pairs.found, errors)]
    if errors:
        tables += [_all_table(pairs.found, errors), _curve_table(protocol.limits, errors), _part_table(kept)]
        tables += [*_seen_table(kept), *_sure_table(kept), *movement_tables(kept, protocol.lids_move)]
    tables += _pose_table(kept)
    if protocol.video:
        tables.append(Table(*track_table(pairs, errors[names[0]])))
    return Scores(protocol.title, errors, tables, pairs, protocol.limits, calibration(kept))


def compared(pairs: Pairs) -> str:
    """Which points were compared, in words."""
    known = np.isfinite(pairs.truth).all(axis=-1)
    if not known.any():
        return "poses"
    count, labels = int(known.any(axis=0).sum()), scheme(pairs.scheme).count
    hidden = "" if known[:, known.any(axis=0)].all() else ", annotated ones only"
    return f"{count} of {labels} points of {pairs.scheme} in {pairs.truth.shape[2]}D{hidden}"


def calibration(pairs: Pairs) -> list[tuple[float, float]]:
    """Tenths of the points by score: the mean score, and the share that lies within 5 % of the face's size.

    Scores are those of `Faces.scores`, from the predicted sigma and the predicted face's size.
    """
    sigma, distance = pairs.predictions.sigma, pairs.distance
    if sigma.shape != distance.shape or not np.isfinite(sigma).any():
        return []
    scores = scores_of(sigma, box_sizes(tight_boxes(pairs.prediction)))
    known = np.isfinite(scores) & np.isfinite(distance)
    return tenths(scores[known], distance[known] < SCORE_RADIUS)


def tenths(predicted: np.ndarray, measured: np.ndarray) -> list[tuple[float, float]]:
    """Means of what was said (P,) and of what was measured (P,), by tenths of what was said, the least first; fewer
    than ten for less than ten values."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), 10)
    return [(float(predicted[p].mean()), float(measured[p].mean())) for p in parts if len(p)]


def yaws(samples: Sequence[FaceSample]) -> dict[str, np.ndarray]:
    """The yaws (N,) in radians that the labels give: of the fitted pose, and as labelled."""
    found = {}
    if all(s.angles is not None for s in samples):
        found["yaw of the pose"] = np.array([np.asarray(s.angles)[1] for s in samples])
    if all(s.yaw is not None for s in samples):
        found["labelled yaw"] = np.array([s.yaw for s in samples], float)
    return found


def by_steps_of_yaw(yaw: np.ndarray, values: np.ndarray) -> tuple[list[float], list[float]]:
    """Steps of 10 degrees of |yaw|, the last one open: their middles in degrees, and the mean of values (N,) with yaw
    (N,) in radians in each; NaN are left out, and is the mean of none."""
    steps = np.minimum(np.rad2deg(np.abs(yaw)) // 10, 8).astype(int)
    known = np.isfinite(values)
    return [10 * k + 5.0 for k in range(9)], [_mean(values[(steps == k) & known]) for k in range(9)]


def _yaw_tables(
    protocol: Protocol, samples: Sequence[FaceSample], found: np.ndarray, errors: dict[str, np.ndarray]
) -> list[Table]:
    tables = []
    halves = {half: np.array([half in s.groups for s in samples]) for half in HALVES}
    for title, yaw in yaws(samples).items():
        bins, full = metrics.yaw_bins(yaw), protocol.full_set.get(title)
        columns: tuple[str, ...] = (*BINS, "mean of bins", "std (ddof 1)", "std (ddof 0)", "mean of images")
        columns += ("weighted as the full set",) if full else ()

        def means(values: np.ndarray, chosen: np.ndarray) -> list[float]:
            row = metrics.table_row(values[chosen], bins[chosen])  # noqa: B023
            several = [*row.bins, row.mean_of_bins, row.std, row.std_population, row.mean_of_images]
            return [100 * float(v) for v in (*several, *([row.weighted(full)] if full else []))]  # noqa: B023

        rows = {name: means(values, found) for name, values in errors.items()}
        for half, members in halves.items():
            shown = [n for n in ("NME box", "GTE") if n in errors and members.any()]
            rows |= {f"{name}, {half}": means(errors[name], found & members) for name in shown}
        for name, chosen in (("faces", np.ones_like(found)), ("lost", ~found)):
            counts = np.bincount(bins[chosen], minlength=3).astype(float).tolist()
            rows[name] = [*counts, np.nan, np.nan, np.nan, float(chosen.sum()), np.nan][: len(columns)]
        if errors:
            tables.append(Table(f"by {title}", columns, rows))
    return tables


def _group_table(samples: Sequence[FaceSample], found: np.ndarray, errors: dict[str, np.ndarray]) -> list[Table]:
    groups = sorted({g for s in samples for g in s.groups})
    if not groups or not errors:
        return []
    members = [np.array([g in s.groups for s in samples]) for g in groups]
    rows = {n: [_mean(100 * v[m & found]) for m in members] for n, v in errors.items()}
    rows["faces"] = [float(m.sum()) for m in members]
    rows["lost"] = [float((m & ~found).sum()) for m in members]
    return [Table("by subset, means of images", tuple(groups), rows)]


def _all_table(found: np.ndarray, errors: dict[str, np.ndarray]) -> Table:
    columns = ("mean", "median", "p90", "p95", "p99")
    rows = {}
    for name, values in errors.items():
        kept = 100 * values[found]
        tail = np.percentile(kept, [50, 90, 95, 99]).tolist() if len(kept) else [np.nan] * 4
        rows[name] = [_mean(kept), *tail]
    return Table("all images, found ones", columns, rows)


def _curve_table(limits: Sequence[float], errors: dict[str, np.ndarray]) -> Table:
    columns = tuple(f"{what}@{100 * limit:g}" for limit in limits for what in ("AUC", "FR"))
    rows = {
        name: [100 * f(values, limit) for limit in limits for f in (metrics.auc, metrics.failure_rate)]
        for name, values in errors.items()
    }
    return Table("area under the curve and failure rate, lost faces fail", columns, rows)


def _part_table(pairs: Pairs) -> Table:
    parts = scheme(pairs.scheme).parts
    distance = 100 * pairs.distance
    rows = {part: [_mean(distance[:, i][np.isfinite(distance[:, i])])] for part, i in parts.items()}
    return Table("by part of the face", ("NME box",), rows)


def _seen_table(pairs: Pairs) -> list[Table]:
    if not len(pairs.samples) or any(s.visible is None or s.scheme != pairs.scheme for s in pairs.samples):
        return []
    seen, distance = np.stack([np.asarray(s.visible) for s in pairs.samples]), 100 * pairs.distance
    known = np.isfinite(distance)
    values = [_mean(distance[known & seen]), _mean(distance[known & ~seen])]
    tables = [Table("NME box of points", ("visible", "hidden"), {"NME box": values})]
    predicted = pairs.predictions.visible
    if predicted.shape == seen.shape and np.isfinite(predicted).all() and 0 < seen.sum() < seen.size:
        tables.append(
            Table(
                "visibility, area under the ROC curve", ("AUC",), {"visible": [100 * metrics.roc_auc(predicted, seen)]}
            )
        )
    return tables


def _sure_table(pairs: Pairs) -> list[Table]:
    sigma, distance = pairs.predictions.sigma, 100 * pairs.distance
    if sigma.shape != distance.shape:
        return []
    expected = 100 * MEAN_RADIUS * sigma / box_sizes(pairs.boxes)[:, None]
    known = np.isfinite(expected) & np.isfinite(distance)
    if known.sum() < 10:
        return []
    predicted, measured = (list(column) for column in zip(*tenths(expected[known], distance[known])))
    rows = {"predicted": predicted, "measured": measured}
    return [Table("error by tenths of the predicted error", tuple(map(str, range(1, 11))), rows)]


def _pose_table(pairs: Pairs) -> list[Table]:
    rotation = pairs.predictions.rotation
    if any(s.rotation is None or s.angles is None for s in pairs.samples) or not pairs.samples:
        return []
    known = np.isfinite(rotation).all(axis=(1, 2))
    if not known.any():
        return []
    true = np.stack([np.asarray(s.rotation) for s in pairs.samples])[known]
    angles = np.stack([np.asarray(s.angles) for s in pairs.samples])[known]
    guess = euler_from_matrix(rotation[known], "aflw")
    keep = metrics.pose_kept(angles)
    turn = np.rad2deg(geodesic(rotation[known], true))
    mae = np.rad2deg(metrics.pose_mae(guess, angles)) if keep.any() else np.full(3, np.nan)
    rows = {
        "angles up to 99": [*mae.tolist(), float(mae.mean()), _mean(turn[keep]), float(keep.sum())],
        "all": [np.nan, np.nan, np.nan, np.nan, _mean(turn), float(len(turn))],
    }
    return [Table("pose, degrees", ("pitch", "yaw", "roll", "MAE", "geodesic", "faces"), rows)]


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
