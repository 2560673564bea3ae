"""Clips for tracking: one person who turns, speaks, looks around and blinks in front of a moving camera."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from canthus.io.outputs import atomic_folder
from canthus.io.shards import jpeg
from canthus.synth.generator import SynthGenerator, head_rotation, sample_camera, stack
from canthus.synth.person import MAX_GAZE, sample_expression, sample_person, set_gaze
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.scene import PerspectiveCamera

FRAME_RATE = 25.0  # frames per second
CLIPS = 1 << 20  # keeps the random streams of clips apart from those of groups
SPEECH = {"jawOpen": 0.4, "mouthFunnel": 0.35, "mouthLowerDown": 0.3, "mouthStretch": 0.25, "mouthUpperUp": 0.2}
BLINK = 0.28  # seconds from open to open


def frames(
    generator: SynthGenerator, number: int, count: int, rate: float = FRAME_RATE
) -> Iterator[dict[str, np.ndarray]]:
    """The frames of clip `number`: samples as of `SynthGenerator`, and `time` in seconds.

    A clip is a function of the recipe, the number and the rate; its first frames are the same however long it is.
    """
    recipe, names = generator.recipe, generator.assets.expression_names
    streams = RandomStreams(recipe.seed, number, CLIPS)
    person = sample_person(streams, generator.assets, recipe)
    rest = generator.assets.landmarks(generator.assets.shape(person.identity, np.zeros(len(names))))
    for k in range(count):
        time = k / rate
        head, vertices = generator.load(person, expression_at(streams, names, recipe, time))
        camera, pan = camera_at(streams, recipe, rest, time)
        sample = generator.render_view(streams, head, vertices, camera, pan, noise_streams=streams.child(k))
        yield {**sample, "time": np.array(time)}


def smooth_noise(rng: np.random.Generator, time: float, period: float) -> float:
    """A smooth random function of time, about -1..1, with a period of about `period` seconds."""
    share = np.array([0.5, 0.3, 0.2])
    periods = period * np.array([1.0, 0.61, 0.37]) * np.exp(rng.normal(0, 0.15, 3))
    return float((share * np.sin(2 * np.pi * (time / periods + rng.random(3)))).sum())


def camera_at(
    streams: RandomStreams, recipe: SynthRecipe, rest: np.ndarray, time: float
) -> tuple[PerspectiveCamera, float]:
    """The camera at a time for landmarks at rest (68,3), and the angle by which it has panned, radians."""

    def swing(name: str, period: float) -> float:
        return smooth_noise(streams.generator(name), time, period)

    base = sample_camera(streams, recipe, rest)
    rng = streams.generator("turning")
    middle, most = rng.uniform(-0.4, 0.4) * recipe.yaw, rng.uniform(0.3, 1.0) * recipe.yaw
    yaw = np.clip(middle + most * swing("yaw", rng.uniform(2.5, 7)), -recipe.yaw, recipe.yaw)
    pitch = np.clip(1.5 * recipe.pitch * swing("pitch", 4.0), -45, 45)
    roll = np.clip(1.5 * recipe.roll * swing("roll", 5.0), -60, 60)
    drift = np.array([swing("drift x", 6.0), swing("drift y", 8.0)]) * 0.06 * recipe.size
    shake = np.array([swing("shake x", 0.5), swing("shake y", 0.4)]) * 0.004 * recipe.size
    centre = np.full(2, (recipe.size - 1) / 2) + drift + shake
    distance = base.distance * np.exp(0.15 * swing("nearer", 9.0))
    camera = replace(base, rotation=head_rotation(yaw, pitch, roll), distance=distance, centre=centre)
    return camera, float(np.radians(12) * swing("pan", 7.0))


def expression_at(streams: RandomStreams, names: list[str], recipe: SynthRecipe, time: float) -> np.ndarray:
    """Expression coefficients (E,) at a time: moods that blend, speech in bursts, blinks and glances."""
    index = {n: i for i, n in enumerate(names)}
    mood, part = divmod(time / 2.5, 1)  # a new mood every 2.5 seconds, blended over half a second
    now, then = (
        sample_expression(streams.child(int(mood) + k), names, replace(recipe, closed_eyes=0.0)) for k in (1, 0)
    )
    blend = min(part / 0.2, 1.0)
    e = then + (now - then) * np.float32(blend * blend * (3 - 2 * blend))
    loudness = max(smooth_noise(streams.generator("talking"), time, 3.0) * 2.5, 0.0)
    for unit, amount in SPEECH.items():
        voice = 0.5 + 0.5 * smooth_noise(streams.generator(f"voice {unit}"), time, 0.35)
        for name in (unit, unit + "_L", unit + "_R"):
            if name in index:
                e[index[name]] += amount * min(loudness, 1.2) * voice
    second = int(time // 2)  # in every two seconds there is one blink, somewhere
    start = 2 * second + streams.child(second).generator("blink").uniform(0, 2 - BLINK)
    shut = max(1 - abs((time - start) / BLINK * 2 - 1), 0.0)
    for side in ("_L", "_R"):
        e[index["eyeBlink" + side]] = max(e[index["eyeBlink" + side]], min(1.4 * shut, 1.0))
    left, up = streams.child(int(time / 0.8)).generator("glance").normal(0, recipe.gaze / MAX_GAZE, 2)
    set_gaze(e, index, float(left), float(up))
    return np.clip(e, 0, 1).astype(np.float32)


def write_clip(path: Path, clip: Iterable[dict[str, np.ndarray]]) -> None:
    """Write frames as a folder: frame-NNNNN.jpg, and truth.npz with every array of all frames. Whole or not at all.

    Raises `OutputError`.
    """
    truths, arrays = [], io.BytesIO()
    with atomic_folder(path) as folder:
        for k, frame in enumerate(clip):
            (folder / f"frame-{k:05d}.jpg").write_bytes(jpeg(frame["image"]))
            truths.append({key: value for key, value in frame.items() if key != "image"})
        np.savez(arrays, **dict(stack(truths)))  # type: ignore[arg-type]
        (folder / "truth.npz").write_bytes(arrays.getbuffer())
