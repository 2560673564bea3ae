"""Blinks in the series of a followed face: when each eye closes, is most closed, and is open again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canthus.errors import LandmarkError

LEAST = 0.4  # closure that a blink reaches at its peak
LONGEST = 0.8  # seconds; who keeps an eye closed for longer does not blink
AROUND = 5.0  # seconds before and after a moment from which its open eye is known
LONGEST_GAP = 0.25  # seconds without the face, within which it may have blinked unseen: a series ends there
SIDES = ("right", "left")
"""The order of eyes; the subject's."""


class Blink(NamedTuple):
    """One blink of one eye. start, peak, end: indices into the series. Between start and end, both included, the eye is
    at least half as closed as at the peak, where its closure is `depth` (0..1)."""

    eye: str
    start: int
    peak: int
    end: int
    depth: float


def eye_closure(times: np.ndarray, ratios: np.ndarray, coefficients: np.ndarray | None = None) -> np.ndarray:
    """How far an eye is closed, (T,): 0 as open as in the seconds around, 1 closed.

    times: (T,) seconds, rising. ratios: (T,) eye aspect ratios (`measures.eye_aspect_ratio`). coefficients: (T,) of
    eyeBlink, 0..1; None or NaN where unknown. Each is compared with its median over `AROUND` seconds before and after,
    as eyes differ in width and lids follow the gaze; the closure is the mean of what the two say.
    Raises `LandmarkError` for arrays that do not fit.
    """
    times, ratios = np.asarray(times, np.float64), np.asarray(ratios, np.float64)
    coefficients = np.full(len(times), np.nan) if coefficients is None else np.asarray(coefficients, np.float64)
    if not times.shape == ratios.shape == coefficients.shape == (len(times),):
        got = f"{times.shape}, {ratios.shape} and {coefficients.shape}"
        raise LandmarkError(f"got times, ratios and coefficients of shapes {got}, want three of one length")
    by_ratio = 1 - ratios / np.maximum(_median_around(times, ratios), 1e-6)
    usual = np.minimum(_median_around(times, coefficients), 0.9)
    by_coefficient = (coefficients - usual) / (1 - usual)
    both = np.where(np.isnan(by_coefficient), by_ratio, (by_ratio + by_coefficient) / 2)
    return np.clip(both, 0, 1)


def find_blinks(times: np.ndarray, ratios: np.ndarray, coefficients: np.ndarray | None = None) -> list[Blink]:
    """The blinks of one face in the order of their starts, for each eye separately.

    times: (T,) seconds, rising. ratios: (T,2) right and left. coefficients: (T,2) or None, as of `eye_closure`.
    A blink is a peak of the closure of at least `LEAST` with more open eyes on both sides within `LONGEST` seconds, so
    a closed eye at an end of the series, or beside a gap in it of over `LONGEST_GAP` seconds, is none.
    Raises `LandmarkError` as `eye_closure`.
    """
    times, ratios = np.asarray(times, np.float64), np.asarray(ratios, np.float64)
    coefficients = None if coefficients is None else np.asarray(coefficients, np.float64)
    for name, values in {"ratios": ratios, "coefficients": coefficients}.items():
        if values is not None and values.shape != (len(times), 2):
            raise LandmarkError(f"got {name} of shape {values.shape}, want ({len(times)}, 2) for as many times")
    found = []
    breaks = [0, *(np.flatnonzero(np.diff(times) > LONGEST_GAP) + 1).tolist(), len(times)]
    for low, high in zip(breaks, breaks[1:]):
        part = slice(low, high)
        for side, eye in enumerate(SIDES):
            known = None if coefficients is None else coefficients[part, side]
            closure = eye_closure(times[part], ratios[part, side], known)
            found += [
                Blink(eye, low + start, low + peak, low + end, float(closure[peak]))
                for start, peak, end in _peaks(times[part], closure)
            ]
    return sorted(found, key=lambda blink: (blink.start, SIDES.index(blink.eye)))


def _peaks(times: np.ndarray, closure: np.ndarray) -> list[tuple[int, int, int]]:
    """First frame, peak and last frame of each peak of a closure (T,), highest first where they overlap."""
    free = np.ones(len(closure), bool)
    peaks = []
    for peak in np.argsort(-closure, kind="stable").tolist():
        if closure[peak] < LEAST:
            break
        if not free[peak]:
            continue
        below = np.flatnonzero(closure < closure[peak] / 2)
        before, after = below[below < peak], below[below > peak]
        start = int(before[-1]) + 1 if len(before) else 0
        end = int(after[0]) - 1 if len(after) else len(closure) - 1
        whole = len(before) > 0 and len(after) > 0 and free[start : end + 1].all()
        free[start : end + 1] = False
        if whole and times[end] - times[start] <= LONGEST:
            peaks.append((start, peak, end))
    return sorted(peaks)


def _median_around(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The median (T,) of the values within `AROUND` seconds of each time; NaN are left out, and stay where all are.

    It is taken at every tenth of these seconds and interpolated in between.
    """
    if not len(times):
        return values.copy()
    at = np.arange(times[0], times[-1] + AROUND / 10, AROUND / 10)
    first, last = np.searchsorted(times, at - AROUND), np.searchsorted(times, at + AROUND, "right")
    windows = [values[a:b][np.isfinite(values[a:b])] for a, b in zip(first, last)]
    medians = np.array([np.median(window) if len(window) else np.nan for window in windows])
    known = np.isfinite(medians)
    if not known.any():
        return np.full(len(times), np.nan)
    return np.interp(times, at[known], medians[known])
