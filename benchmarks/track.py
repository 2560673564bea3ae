"""Tracking: error, jitter, losses and time on rendered clips, and what becomes of the faces of real ones.

    python benchmarks/track.py [--assets HEAD_ASSETS] [--data FOLDER] [--clips 6] [--frames 100]

Rendered clips have exact truth. "followed": the default tracker. "unturned": the same with crops that are not turned
by the last pose. "detected": every frame as a photo of its own. "true boxes": the static level, crops from the true
landmarks. NME = mean 2D distance of the 68 points / sqrt(w h) of their true box, in percent, of the faces found; jitter
is that of the error, in the same unit, so that true motion counts nothing. FOLDER holds `video/`; its clips have no
truth. "frames to find": from the end of a black-out of ten frames in the middle of each clip.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.table import Table

import canthus
from canthus.evaluation import metrics
from canthus.evaluation.metrics import yaw_bins
from canthus.face.faces import Faces, TrackedFaces
from canthus.geometry.crop import Crop
from canthus.inference.smooth import Smoother
from canthus.inference.tracker import Tracker
from canthus.io.shards import read_shard
from canthus.io.video import FILES, RATE, Video


class Unturned(Tracker):
    """Followed by the box of the last landmarks alone."""

    def _crops(self, last: Faces) -> Crop:
        card = self.tracking.card
        return Crop.around_boxes(last.boxes.astype(np.float64), card.crop_scale, card.crop_size)


class Smoothed(Tracker):
    """Followed, and smoothed for the eye."""

    def reset(self) -> None:
        super().reset()
        self.smoother, self.time = Smoother(), 0.0

    def step(self, frame: np.ndarray) -> TrackedFaces:
        tracked, self.time = super().step(frame), self.time + 1 / RATE
        return self.smoother(tracked, self.time)


def rendered(folder: Path, clips: int, frames: int) -> list[dict[str, np.ndarray]]:
    paths = sorted(folder.glob("clip-*"))[:clips]
    return [{key: values[:frames] for key, values in read_shard(path).items()} for path in paths]


def over_clips(clips: list[dict[str, np.ndarray]], start: Callable, step: Callable) -> dict[str, float]:
    """`start()` before each clip, then `step(state, frame, truth (68,3))` -> xyz (68,3), or None for no face."""
    errors, wobble, yaws, missed, seconds, again = [], [], [], 0, 0.0, 0
    for clip in clips:
        state, residuals = start(), []
        for image, truth, rotation in zip(clip["image"], clip["xyz"], clip["rotation"]):
            begin = time.perf_counter()
            xyz = step(state, image, truth)
            seconds += time.perf_counter() - begin
            if xyz is None:
                missed += 1
                residuals.append(np.full((68, 2), np.nan))
                continue
            size = np.sqrt(np.prod(np.ptp(truth[:, :2], axis=0)))
            residuals.append((xyz - truth)[:, :2] / size)
            errors.append(float(metrics.nme_box(xyz[None], truth[None])[0]))
            yaws.append(np.arcsin(np.clip(-rotation[2, 0], -1, 1)))
        second = np.diff(np.stack(residuals), n=2, axis=0)
        wobble.append(second[np.isfinite(second).all((1, 2))] ** 2)
        again += getattr(state, "reinitialisations", 0)
    row = metrics.table_row(np.array(errors), yaw_bins(np.array(yaws)))
    count = len(errors) + missed
    out = {
        "NME": 100 * float(np.mean(errors)), "0-30": 100 * float(row.bins[0]), "30-60": 100 * float(row.bins[1]),
        "60-90": 100 * float(row.bins[2]), "95 %": 100 * float(np.percentile(errors, 95)),
        "jitter": 100 * float(np.sqrt(np.concatenate(wobble).mean() / 6)),
        "no face": missed, "re-initialised": again, "frames": count, "ms a frame": 1e3 * seconds / count,
    }  # fmt: skip
    return {name: value for name, value in out.items() if not np.isnan(value)}  # a bin may be empty


def synthetic(clips: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    aligner = canthus.load(threads=1)

    def nearest(faces: Faces, truth: np.ndarray) -> np.ndarray | None:
        away = np.linalg.norm((faces.xy.mean(1) - truth[:, :2].mean(0)), axis=1)
        return faces.xyz[away.argmin()] if len(away) else None

    def follow(tracker: Tracker, image: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
        return nearest(tracker.step(image).faces, truth)

    def boxed(_: None, image: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return aligner.predict(image, boxes=[*truth[:, :2].min(0), *truth[:, :2].max(0)]).xyz[0]

    def detect(_: None, image: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
        return nearest(aligner.predict(image), truth)

    return {
        "followed": over_clips(clips, lambda: Tracker(aligner), follow),
        "unturned": over_clips(clips, lambda: Unturned(aligner), follow),
        "followed, smoothed": over_clips(clips, lambda: Smoothed(aligner), follow),
        "detected": over_clips(clips, lambda: None, detect),
        "true boxes": over_clips(clips, lambda: None, boxed),
    }


def after_black(clips: list[dict[str, np.ndarray]]) -> list[int]:
    """Frames from the end of the black-out to the first face, 1 at best, a clip each."""
    out = []
    for clip in clips:
        tracker, middle = Tracker(canthus.load(threads=1)), len(clip["image"]) // 2
        for k, image in enumerate(clip["image"]):
            black = middle <= k < middle + 10
            if len(tracker.step(np.zeros_like(image) if black else image)) and k >= middle + 10:
                out.append(k - middle - 9)
                break
    return out


def real(folder: Path) -> dict[str, dict[str, float]]:
    """No truth: jitter is that of the landmarks, in percent of the face's size, and holds real motion too."""
    rows = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in FILES):
        tracker, seconds, tracks, counts, again = Tracker(canthus.load(threads=1)), 0.0, {}, [], 0
        for frame in Video(path):
            begin = time.perf_counter()
            tracked = tracker.step(frame.image)
            seconds += time.perf_counter() - begin
            counts.append(len(tracked))
            for number, face in zip(tracked.ids.tolist(), tracked.faces):
                tracks.setdefault(number, []).append((frame.number, face.xy[0] / face.sizes[0], face.scores.mean()))
        again = tracker.reinitialisations
        wobble = [metrics.jitter(np.stack([t[1] for t in track])) for track in tracks.values() if len(track) > 2]
        scores = np.array([t[2] for track in tracks.values() for t in track])
        rows[path.name] = {
            "frames": len(counts), "faces a frame": round(float(np.mean(counts)), 3), "people": len(tracks),
            "no face": counts.count(0), "re-initialised": again,
            "jitter": 100 * float(np.mean(wobble)) if wobble else 0.0,
            "lowest score": float(scores.min()) if len(scores) else 0.0, "ms a frame": 1e3 * seconds / len(counts),
        }  # fmt: skip
    return rows


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    table = Table(title, *next(iter(rows.values())))
    for name, row in rows.items():
        table.add_row(name, *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--rendered", type=Path, default=Path("out/clips"), help="rendered clips, made now if absent")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--clips", type=int, default=common.CLIPS)
    parser.add_argument("--frames", type=int, default=common.FRAMES)
    given = parser.parse_args()
    clips = rendered(common.clips(given.rendered, given.assets), given.clips, given.frames)
    results: dict = {"rendered": synthetic(clips), "frames to find": after_black(clips)}
    print("frames to find after a black-out:", results["frames to find"])
    show(f"rendered, {len(clips)} clips of {len(clips[0]['image'])} frames", results["rendered"])
    if given.data:
        results["real"] = real(given.data / "video")
        show("real", results["real"])
    print(common.write("track", results))


if __name__ == "__main__":
    main()
