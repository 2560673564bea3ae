"""How well predictions tell what a face does: eyes, mouth, brows, and the 52 expression coefficients.

Where the labels say which points are seen, a measure counts on the faces on which the part that it is about is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canthus.errors import LandmarkError
from canthus.evaluation import metrics
from canthus.evaluation.pairs import Pairs
from canthus.evaluation.table import Table
from canthus.face.expressions import EXPRESSIONS
from canthus.face.measures import brow_height, eye_aspect_ratio, mouth_opening

CLOSED, OPEN = 0.1, 0.2
"""Eyes count as closed up to, and as open from these true aspect ratios; those between are half-closed."""
SEEN = 2 / 3
"""A part of a face is seen if at least this share of its points is."""
BINS = ("0-30", "30-60", "60-90")
GAZE = tuple(name for name in EXPRESSIONS if name.startswith("eyeLook"))
NOT_SEEN = ("cheekPuff", "tongueOut")
"""Expressions that move no landmark and hardly the picture of a rendered head: listed, but in no median."""
SIDES = ("right", "left")


def movement_tables(pairs: Pairs, lids_move: bool = True) -> list[Table]:
    """The tables of what faces do, as far as labels and predictions tell, of faces that were found.

    lids_move: whether the labels show how far eyes are open. Ratios are fractions of a width of the face
    (`face.measures`), not percent.
    """
    if not pairs.samples:
        return []
    return [*_landmark_tables(pairs, lids_move), *_expression_table(pairs)]


def _landmark_tables(pairs: Pairs, lids_move: bool) -> list[Table]:
    try:
        ratios = {
            "eye aspect ratio": [eye_aspect_ratio(p, pairs.scheme) for p in (pairs.prediction, pairs.truth)],
            "mouth opening": [mouth_opening(p, pairs.scheme)[:, None] for p in (pairs.prediction, pairs.truth)],
            "brow height": [brow_height(p, pairs.scheme) for p in (pairs.prediction, pairs.truth)],
        }
    except LandmarkError:  # a scheme without lids or lips
        return []
    seen = _seen_parts(pairs)
    parts = {
        "eye aspect ratio": [f"{s}_eye" for s in SIDES], "mouth opening": ["mouth"],
        "brow height": [f"{s}_brow" for s in SIDES],
    }  # fmt: skip
    yaw = _yaw(pairs)
    bins = np.full(len(pairs.samples), -1) if yaw is None else metrics.yaw_bins(yaw)
    rows: dict[str, list[float]] = {}
    kept = {}
    for name, (predicted, true) in ratios.items():
        known = np.isfinite(predicted) & np.isfinite(true) & np.stack([seen[p] for p in parts[name]], axis=1)
        kept[name] = known
        if known.any() and (lids_move or name != "eye aspect ratio"):
            by_yaw = [
                metrics.correlation(predicted[k], true[k]) for b in range(3) for k in (known & (bins == b)[:, None],)
            ]
            a, b = predicted[known], true[known]
            means = float(np.abs(a - b).mean()), float(b.mean()), float(a.mean())
            rows[name] = [float(known.sum()), metrics.correlation(a, b), *by_yaw, *means]
    if not rows:
        return []
    columns: tuple[str, ...] = ("values", "correlation", *BINS, "mean absolute error", "true mean", "predicted mean")
    if yaw is None:
        keep = [k for k, c in enumerate(columns) if c not in BINS]
        columns, rows = tuple(columns[k] for k in keep), {n: [r[k] for k in keep] for n, r in rows.items()}
    where = "in space" if pairs.truth.shape[2] == 3 else "in the plane"
    title = f"eyes, mouth and brows, {where}" if lids_move else f"mouth and brows, {where}; the labels close no eyes"
    tables = [Table(title, columns, rows)]
    if lids_move:
        predicted, true = ratios["eye aspect ratio"]
        tables += _closed_table(pairs, predicted, true, kept["eye aspect ratio"])
    return tables


def _closed_table(pairs: Pairs, predicted: np.ndarray, true: np.ndarray, known: np.ndarray) -> list[Table]:
    closed, opened = (known & (true <= CLOSED)), (known & (true >= OPEN))
    if not closed.any() or not opened.any():
        return []
    rows = {"eye aspect ratio": _separation(predicted, true, -predicted, closed, opened, known)}
    blink = [EXPRESSIONS.index(f"eyeBlink{side.capitalize()}") for side in SIDES]
    coefficients = pairs.predictions.expression[:, blink]
    answered = known & np.isfinite(coefficients)
    if (answered & closed).any() and (answered & opened).any():
        truth = _true_expressions(pairs)[:, blink]
        rows["eyeBlink"] = _separation(
            coefficients, truth, coefficients, closed & answered, opened & answered, answered
        )  # fmt: skip
    columns = (
        "closed eyes", "open eyes", "true mean, closed", "true mean, open", "predicted mean, closed",
        "predicted mean, open", "AUC, %", "AUC against all others, %",
    )  # fmt: skip
    return [Table(f"closed eyes (true aspect ratio up to {CLOSED}) and open ones (from {OPEN})", columns, rows)]


def _separation(
    predicted: np.ndarray,
    true: np.ndarray,
    closedness: np.ndarray,
    closed: np.ndarray,
    opened: np.ndarray,
    all_: np.ndarray,
) -> list[float]:
    either = closed | opened
    areas = [100 * metrics.roc_auc(closedness[k], closed[k]) for k in (either, all_)]
    means = [float(values[k].mean()) for values in (true, predicted) for k in (closed, opened)]
    return [float(closed.sum()), float(opened.sum()), *means, *areas]


def _expression_table(pairs: Pairs) -> list[Table]:
    predicted, true = pairs.predictions.expression, _true_expressions(pairs)
    known = np.isfinite(predicted) & np.isfinite(true)
    if not known.any():
        return []
    seen, sigma = _seen_parts(pairs), pairs.predictions.expression_sigma
    columns = ["faces", "correlation", "mean absolute error", "true mean", "predicted mean"]
    if np.isfinite(sigma).any():
        columns.append("within one sigma, %")
    rows = {}
    for k, name in enumerate(EXPRESSIONS):
        here = known[:, k] & seen[_part_of(name)]
        if here.any():
            a, b, s = predicted[here, k], true[here, k], sigma[here, k]
            row = [float(here.sum()), metrics.correlation(a, b), float(np.abs(a - b).mean()), float(b.mean())]
            sure = np.isfinite(s)
            within = 100 * float(np.mean(np.abs(a - b)[sure] <= s[sure])) if sure.any() else np.nan
            rows[name] = [*row, float(a.mean()), within][: len(columns)]
    face = [row for name, row in rows.items() if name not in (*GAZE, *NOT_SEEN)]
    gaze = [row for name, row in rows.items() if name in GAZE]
    medians = {
        f"median, {what}": [_median(column) for column in zip(*group)]
        for what, group in (("face", face), ("gaze", gaze))
        if group
    }
    return [Table("expressions", tuple(columns), medians | rows)]


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.median(known)) if known else float("nan")


def _true_expressions(pairs: Pairs) -> np.ndarray:
    """(N,52), NaN where unknown."""
    unknown = np.full(len(EXPRESSIONS), np.nan)
    return np.stack([unknown if s.expression is None else np.asarray(s.expression, float) for s in pairs.samples])


def _part_of(name: str) -> str:
    """The part of the face, a key of `_seen_parts`, that shows an expression."""
    side = next((f"{s}_" for s in SIDES if name.endswith(s.capitalize())), "")
    if name.startswith(("jaw", "tongue", "cheekPuff")) or name in ("mouthLeft", "mouthRight"):
        return "mouth"
    for start, part in (("mouth", "mouth"), ("nose", "nose"), ("browInner", "brow"), ("brow", "brow")):
        if name.startswith(start):
            return side + part
    return side + "eye"


def _seen_parts(pairs: Pairs) -> dict[str, np.ndarray]:
    """Whether each part is seen (N,), by name; all are where the labels do not say."""
    mouth, nose = [*range(48, 60)], [*range(31, 36)]
    points = {
        "right_eye": range(36, 42), "left_eye": range(42, 48), "right_brow": range(17, 22),
        "left_brow": range(22, 27), "brow": range(17, 27), "nose": nose, "right_nose": nose[:3], "left_nose": nose[2:],
        "mouth": mouth, "right_mouth": [48, 49, 50, 51, 57, 58, 59], "left_mouth": range(51, 58),
    }  # fmt: skip
    known = all(s.visible is not None and s.scheme == "ibug68" for s in pairs.samples) and pairs.scheme == "ibug68"
    if not known:
        return {part: np.ones(len(pairs.samples), bool) for part in points}
    visible = np.stack([np.asarray(s.visible) for s in pairs.samples])
    return {part: visible[:, list(index)].mean(axis=1) >= SEEN for part, index in points.items()}


def _yaw(pairs: Pairs) -> np.ndarray | None:
    if any(s.angles is None for s in pairs.samples):
        return None
    return np.array([np.asarray(s.angles)[1] for s in pairs.samples])
