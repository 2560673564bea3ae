"""Tracking in scenes with exact truth: people who cross, a cut, who leave and return, low light, speech, blinks.

    python benchmarks/scenes.py [--assets HEAD_ASSETS] [--rendered out/actors] [--show FOLDER]

Each scene is 640 x 360 px, 100 frames at 25 a second: heads of `canthus synth --sequence` (held-out seed), cut out and
moved over a backdrop, the later ones in front. A face counts if half of its skin is seen; others may be found or not.
A found face belongs to the true one whose middle is nearest, within half a face.

switches: how often a person's number differs from the last one. shared: persons beyond the first under one number.
missed: faces that count and are not found. false: found faces that are nobody's. NME: percent, as of
`benchmarks/track.py`; jitter: of the error. lag: frames by which the landmarks trail the true ones, by least squares of
error on motion; of the mouth, the same of its opening. Blinks: what `find_blinks` says of the true landmarks is the
truth, an event is met by one of the same eye whose peak is at most 3 frames away. CPU ms: process time of a frame
without anybody and of one with one face, searches for newcomers included, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from PIL import Image
from track import Smoothed, show

import canthus
from canthus.evaluation import metrics
from canthus.face.blinks import find_blinks
from canthus.face.faces import TrackedFaces
from canthus.face.measures import eye_aspect_ratio, mouth_opening
from canthus.face.series import TrackedFrame, series_of
from canthus.geometry.crop import box_centres
from canthus.inference.smooth import smoothed
from canthus.inference.tracker import Tracker
from canthus.io.shards import open_shard
from canthus.io.video import RATE
from canthus.synth.recipe import SynthRecipe
from canthus.synth.render_jobs import render_clips
from canthus.synth.truth import REGIONS

SIZE, FRAMES, ACTORS = (640, 360), common.FRAMES, 4
RECIPE = SynthRecipe(
    size=176, face=0.5, yaw=35.0, seed=9003, maps=True, hands=0, objects=0, masks=0, scarves=0, glasses=0,
    low_resolution=0, motion=0, jpeg=0, blur=0,
)  # fmt: skip
MARGIN = 3  # frames between the peaks of one blink


class Place(NamedTuple):
    """Where an actor is: the middle of the picture of the head, px, and its scale."""

    actor: int
    x: float
    y: float
    scale: float = 1.0


class Truth(NamedTuple):
    """A person in a frame: who, the landmarks (68,3) px, and whether the face counts."""

    person: int
    xyz: np.ndarray
    counts: bool


Scene = Callable[[int], list[Place]]  # of a frame, from back to front


def crossing(k: int) -> list[Place]:
    """Two people walk past each other, one in front."""
    return [Place(1, 560 - 4.8 * k, 180, 0.95), Place(0, 80 + 4.8 * k, 185, 1.05)]


def passing(k: int) -> list[Place]:
    """Somebody near passes slowly in front of somebody who stands, and is hidden for more than a second."""
    return [Place(2, 320, 170, 0.8), Place(3, 120 + 4 * k, 190, 1.25)]


def turning_back(k: int) -> list[Place]:
    """Two people meet, one is hidden, and both go back to where they came from."""
    step = 3.2 * min(k, 99 - k)
    return [Place(3, 480 - step, 180, 0.9), Place(1, 160 + step, 185, 1.1)]


def cut_to(actor: int) -> Scene:
    """Another shot from frame 40 to 79, with another person in the same place."""
    return lambda k: [Place(actor if 40 <= k < 80 else 0, 330, 180)]


def returning(k: int) -> list[Place]:
    """Somebody leaves at the left, is gone for two seconds, and returns there."""
    return [Place(0, np.interp(k, [0, 20, 70, 90], [220, -120, -120, 220]), 180), Place(1, 480, 180)]


def replaced(k: int) -> list[Place]:
    """The same, but somebody else comes in."""
    return [Place(0 if k < 45 else 3, np.interp(k, [0, 20, 70, 90], [220, -120, -120, 220]), 180), Place(1, 480, 180)]


def alone(actor: int) -> Scene:
    """One person who speaks and blinks, and hardly moves."""
    return lambda k: [Place(actor, 320 + 0.3 * k, 180)]


def arriving(k: int) -> list[Place]:
    """Nobody, and from frame 50 on one person."""
    return [Place(1, 320, 180)] * (k >= 50)


def actors(folder: Path, assets: Path | None) -> list[dict[str, np.ndarray]]:
    """The clips of which heads are cut out; rendered now if the folder has none."""
    for _ in render_clips(folder, assets, RECIPE, ACTORS, 2, FRAMES):
        pass
    return [
        {
            "image": np.stack([np.asarray(Image.open(p)) for p in sorted(path.glob("frame-*.jpg"))]),
            **open_shard(path / "truth.npz").read(["xyz", "region"]),
        }
        for path in sorted(folder.glob("clip-*"))
    ]


def backdrop(number: int) -> np.ndarray:
    """(H,W,3) float32: blotches of several sizes."""
    rng = np.random.default_rng([RECIPE.seed, number])
    out = np.full((SIZE[1], SIZE[0], 3), rng.uniform(60, 160, 3), np.float32)
    for cells in (3, 9, 30):
        tile = Image.fromarray(rng.integers(0, 256, (cells, cells * 2, 3), np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        out += 0.25 * (np.asarray(tile, np.float32) - 128)
    return out


def draw(
    scene: Scene, k: int, people: list[dict[str, np.ndarray]], behind: np.ndarray
) -> tuple[np.ndarray, list[Truth]]:
    """Frame k (H,W,3) uint8 of a scene, and who is in it."""
    picture, owner = behind.copy(), np.full(behind.shape[:2], -1)
    skin, points = {}, {}
    for place in scene(k):
        clip, side = people[place.actor], round(RECIPE.size * place.scale)
        scale = side / RECIPE.size
        x, y = round(place.x - side / 2), round(place.y - side / 2)
        image, alpha, face = (
            np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BILINEAR), np.float32)
            for layer in (
                clip["image"][k],
                (clip["region"][k] > 0).astype(np.uint8) * 255,
                (clip["region"][k] == REGIONS.index("face")).astype(np.uint8) * 255,
            )
        )
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, SIZE[0]), min(y + side, SIZE[1])
        skin[place.actor] = float((face > 127).sum())
        points[place.actor] = (clip["xyz"][k] + [0.5, 0.5, 0]) * scale - [0.5, 0.5, 0] + [x, y, 0]
        if x0 >= x1 or y0 >= y1:
            continue
        inside, part = np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        cover = alpha[part][..., None] / 255
        picture[inside] = picture[inside] * (1 - cover) + image[part] * cover
        owner[inside][alpha[part] > 127] = -1
        owner[inside][face[part] > 127] = place.actor
    truths = [Truth(who, points[who], (owner == who).sum() >= 0.5 * skin[who]) for who in points]
    return np.clip(picture, 0, 255).astype(np.uint8), truths


def dark(picture: np.ndarray, k: int) -> np.ndarray:
    """A ninth of the light, and the noise of the sensor."""
    noise = np.random.default_rng(k).normal(0, 4, picture.shape)
    return np.clip(picture / 9 + noise, 0, 255).astype(np.uint8)


class Result:
    """What a tracker said about a scene, beside the truth."""

    def __init__(self) -> None:
        self.numbers: dict[int, list[int]] = defaultdict(list)  # of each person, as they came
        self.met: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = defaultdict(list)  # frame, found, true
        self.missed = self.false = 0

    def add(self, k: int, tracked: TrackedFaces, truths: list[Truth]) -> None:
        """One frame."""
        centres, pairs = box_centres(tracked.faces.boxes), []
        for n, truth in enumerate(truths):
            low, high = truth.xyz[:, :2].min(0), truth.xyz[:, :2].max(0)
            apart = np.linalg.norm(centres - (low + high) / 2, axis=1) / np.sqrt(np.prod(high - low))
            pairs += [(float(a), n, j) for j, a in enumerate(apart) if a <= 0.5]
        met: dict[int, int] = {}
        for _, n, j in sorted(pairs):
            if n not in met and j not in met.values():
                met[n] = j
        for n, j in met.items():
            self.numbers[truths[n].person].append(int(tracked.ids[j]))
            self.met[truths[n].person].append((k, tracked.faces.xyz[j], truths[n].xyz))
        self.missed += sum(truth.counts and n not in met for n, truth in enumerate(truths))
        self.false += len(tracked) - len(met)

    def row(self) -> dict[str, float]:
        """The numbers of the scene."""
        switches = sum(int(np.count_nonzero(np.diff(ids))) for ids in self.numbers.values())
        owners = [
            len({p for p, ids in self.numbers.items() if n in ids})
            for n in {i for v in self.numbers.values() for i in v}
        ]
        errors, wobble, trail = [], [], np.zeros(2)
        for met in self.met.values():
            for run in runs(met):
                found, true = (np.stack(v)[..., :2].astype(np.float64) for v in list(zip(*run))[1:])
                size = np.sqrt(np.prod(np.ptp(true, axis=1), axis=1)).mean()
                errors += metrics.nme_box(found, true).tolist()
                if len(run) > 2:
                    wobble.append((len(run) - 2, metrics.jitter((found - true) / size) ** 2))
                    trail += trailing((found - true) / size, true / size)
        total = sum(n for n, _ in wobble)
        return {
            "switches": switches, "shared": sum(n - 1 for n in owners), "missed": int(self.missed), "false": self.false,
            "NME": 100 * float(np.mean(errors)), "jitter": 100 * float(np.sqrt(sum(n * j for n, j in wobble) / total)),
            "lag": float(-trail[0] / max(trail[1], 1e-12)),
        }  # fmt: skip


def runs(met: list) -> list[list]:
    """Parts whose frames follow each other."""
    breaks = np.flatnonzero(np.diff([frame for frame, *_ in met]) != 1) + 1
    return [met[a:b] for a, b in zip([0, *breaks], [*breaks, len(met)])]


def trailing(error: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Sums (2,) of error times motion, and of motion squared, a frame; what is constant in an error is left out."""
    motion = np.gradient(true, axis=0)
    return np.array(
        [((error - error.mean(0)) * (motion - motion.mean(0))).sum(), ((motion - motion.mean(0)) ** 2).sum()]
    )


def follow(tracker: Tracker, pictures: list[np.ndarray]) -> list[TrackedFrame]:
    return [TrackedFrame(k, k / RATE, tracker.step(picture)) for k, picture in enumerate(pictures)]


def blinks_and_speech(people: list[dict[str, np.ndarray]], aligner: canthus.Predictor) -> dict[str, dict[str, float]]:
    """Blinks as `track` tells them, and the lag of the mouth, raw, smoothed afterwards, and smoothed live."""
    met = found = there = 0
    trails = {name: np.zeros(2) for name in ("mouth", "mouth, --smooth", "mouth, live")}
    times = np.arange(FRAMES) / RATE
    for actor in range(len(people)):
        frames = [draw(alone(actor), k, people, backdrop(0)) for k in range(FRAMES)]
        pictures, truth = [f[0] for f in frames], np.stack([f[1][0].xyz for f in frames])
        tracked = follow(Tracker(aligner), pictures)
        (series, *_) = series_of(tracked)
        true = find_blinks(times, eye_aspect_ratio(truth))
        said = [(b.eye, int(series.frames[b.peak])) for b in series.blinks()]
        there, found = there + len(true), found + len(said)
        for blink in true:
            hit = [s for s in said if s[0] == blink.eye and abs(s[1] - blink.peak) <= MARGIN]
            if hit:
                said.remove(hit[0])
                met += 1
        live = follow(Smoothed(aligner), pictures)
        for name, kind in zip(trails, (tracked, list(smoothed(tracked)), live)):
            mouth = series_of(kind)[0]
            opening = mouth_opening(truth)[mouth.frames]
            trails[name] += trailing(mouth.mouth - opening, opening)
    lags = {name: {"lag": float(-a / b)} for name, (a, b) in trails.items()}
    blinks = {"true": there, "found": found, "precision": met / max(found, 1), "recall": met / max(there, 1)}
    return {"blinks": blinks} | lags


def cost(people: list[dict[str, np.ndarray]], aligner: canthus.Predictor) -> dict[str, float]:
    """CPU time of frames with nobody and with one face, ms, mean over 48 frames each; the median of five runs."""
    pictures = [draw(arriving, k, people, backdrop(0))[0] for k in (0, 60)]
    out = {}
    for name, picture in zip(("nobody", "one face"), pictures):
        times = []
        for _ in range(5):
            tracker = Tracker(aligner)
            tracker.step(picture)
            begin = time.process_time()
            for _ in range(48):
                tracker.step(picture)
            times.append(1e3 * (time.process_time() - begin) / 48)
        out[name] = float(np.median(times))
    return out | {"ratio": out["nobody"] / out["one face"]}


SCENES: dict[str, Scene] = {
    "crossing": crossing, "passing": passing, "turning back": turning_back, "cut": cut_to(1), "cut, alike": cut_to(2),
    "returning": returning, "replaced": replaced, "low light": alone(0), "speech": alone(2), "arriving": arriving,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--rendered", type=Path, default=Path("out/actors"), help="rendered heads, made now if absent")
    parser.add_argument("--show", type=Path, help="folder for a picture of every tenth frame of each scene")
    given = parser.parse_args()
    people, aligner = actors(given.rendered, given.assets), canthus.load(threads=1)
    rows: dict[str, dict[str, float]] = {}
    for name, scene in SCENES.items():
        tracker, result = Tracker(aligner), Result()
        for k in range(FRAMES):
            picture, truths = draw(scene, k, people, backdrop(int(name.startswith("cut") and 40 <= k < 80)))
            picture = dark(picture, k) if name == "low light" else picture
            tracked = tracker.step(picture)
            result.add(k, tracked, truths)
            if given.show and k % 10 == 0:
                write_picture(given.show, name, k, picture, tracked)
        rows[name] = result.row()
    show("scenes", rows)
    more = blinks_and_speech(people, aligner)
    print(more)
    times = cost(people, aligner)
    print(times)
    print(common.write("scenes", {"scenes": rows, **more, "CPU ms a frame": times}))


def write_picture(folder: Path, name: str, k: int, picture: np.ndarray, tracked: TrackedFaces) -> None:
    from canthus.io.draw import overlay

    folder.mkdir(parents=True, exist_ok=True)
    drawn = overlay(picture, tracked.faces, names=[str(i) for i in tracked.ids])
    Image.fromarray(drawn).save(folder / f"{name.replace(' ', '-')}-{k:03d}.jpg")


if __name__ == "__main__":
    main()
