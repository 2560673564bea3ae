"""One video of the verb `track`: its faces are followed frame by frame, and then all that is asked for is written.

The faces are recorded in parts first (`io.recording`), from which a run that was stopped goes on. What is written needs
the whole video: whether an eye blinks is known once it is open again, and smoothing looks ahead.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import import_module
from os.path import isdir  # unlike pathlib's, it says False of a name that cannot be
from pathlib import Path
from typing import Any, Literal

import numpy as np

from canthus.decode import encodable
from canthus.errors import VideoError, amount, first_few
from canthus.face.blinks import Blink
from canthus.face.morphable import MorphableModel
from canthus.face.series import Series, TrackedFrame, series_of
from canthus.inference.smooth import smoothed
from canthus.inference.tracker import Tracker
from canthus.io.animation import live_link_table, motions, view_of
from canthus.io.charts import as_png
from canthus.io.columns import ASSUMED, CANTHUS, OPENFACE, Camera, ImageFaces
from canthus.io.draw import overlay
from canthus.io.gltf import HeadMotion, motions_glb
from canthus.io.inputs import Source, file_of
from canthus.io.lines import frame_line, header_line
from canthus.io.meshes import write_obj_sequence
from canthus.io.outputs import atomic_folder, atomic_open, atomic_write
from canthus.io.recording import Recording
from canthus.io.tables import table_writer
from canthus.io.track_charts import chosen, drawn_on, track_chart
from canthus.io.video import RATE, Video, check_rate, frames_of
from canthus.io.video_writer import writable_suffix, write_video

OVERLAY = ".overlay"
SMOOTH = ".smooth"
SUMMARY = ".summary.json"
PLOT = ".plot.png"
LAYOUTS = {"canthus": CANTHUS, "openface": OPENFACE}
Progress = Callable[[Path, int, int | None], None]
Draw = Callable[[np.ndarray, TrackedFrame], None]


@dataclass(frozen=True)
class Outputs:
    """What is written for each video, beside the lines of JSON and the summary.

    table: ending of a table, or None. columns: whose names and units it has. plot: a chart. smooth: whether lines and
    table are also written smoothed, and overlay and animation show smoothed faces. animation: moving heads, all in one
    GLB, a table of Live Link Face for each, or a folder with an OBJ for each frame and face. camera: for millimetres
    and angles. rate: frames a second of folders of frames. Raises `VideoError` for a rate that is none,
    `ModuleNotFoundError` where a format needs a package that is
    not installed.
    """

    overlay: bool = False
    table: Literal["csv", "parquet"] | None = None
    columns: Literal["canthus", "openface"] = "canthus"
    plot: bool = False
    smooth: bool = False
    animation: Literal["glb", "livelink", "obj"] | None = None
    camera: Camera = ASSUMED
    rate: float = RATE

    def __post_init__(self) -> None:
        check_rate(self.rate)
        for wanted, module in ((self.table == "parquet", "pyarrow"), (self.plot, "matplotlib")):
            if wanted:
                import_module(module)  # missed now rather than when a video is done

    def files(self, people: int) -> list[str]:
        """The endings of the files of a video with `people` faces, without the summary's."""
        faces = [".jsonl", *([f".{self.table}"] if self.table else [])]
        smooth = [SMOOTH + ending for ending in faces] if self.smooth else []
        heads = {"glb": [".heads.glb"], "livelink": [f".livelink.{number}.csv" for number in range(people)]}
        heads["obj"] = [".heads"]
        moving = [(SMOOTH if self.smooth else "") + ending for ending in heads.get(self.animation or "", [])]
        return [*faces, *smooth, *([PLOT] * self.plot), *([self.overlay_ending()] * self.overlay), *moving]

    def overlay_ending(self) -> str:
        """The ending of the video with the faces drawn on it."""
        return (SMOOTH if self.smooth else "") + OVERLAY + writable_suffix()


LINES_ONLY = Outputs()


@dataclass
class ClipSummary:
    """What became of one video.

    frames: that were read. missing: frames that the file should hold and that could not be read, as far as it tells.
    problems: why they are missing, one sentence each. faces: in all frames together. people: numbers that were given.
    without_face: frames. reinitialisations: how often a known face was aligned again from a detection. losses: how
    often a face of one frame is not in the next. tracked: frames that this run tracked; an earlier one did the others.
    """

    frames: int = 0
    missing: int = 0
    problems: list[str] = field(default_factory=list)
    faces: int = 0
    people: int = 0
    without_face: int = 0
    reinitialisations: int = 0
    losses: int = 0
    tracked: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames that were tracked a second, reading and writing included."""
        return self.tracked / self.seconds if self.seconds else 0.0

    @property
    def faces_per_frame(self) -> float:
        """Mean number of faces of a frame."""
        return self.faces / self.frames if self.frames else 0.0

    @property
    def damage(self) -> str:
        """How many frames are missing and why, as a sentence; empty where the video is whole."""
        if not self.problems:
            return ""
        return f"{self.missing} of {self.frames + self.missing} frames are missing: {first_few(self.problems, 3, '; ')}"


class Clip:
    """One video and the results that are written to it.

    Raises `VideoError` for a video that cannot be read.
    """

    def __init__(self, path: Path, target: Path, tracker: Tracker, outputs: Outputs):
        self.video = Video(path, outputs.rate, tracker.aligner.threads)
        self.name = encodable(self.video.path.name)  # in results
        self.target, self.tracker, self.outputs = target, tracker, outputs
        self.source = source_of(path)
        self.summary = ClipSummary()
        self.size, self.end = (1, 1), 0.0  # of the last frame: width and height, seconds

    def run(self, resume: bool, replaced: Callable[[], Sequence[str]], progress: Progress) -> ClipSummary:
        """Follow the faces, from where parts of an earlier run end if `resume`, and write everything, the summary last.

        `replaced` is called when all is written and before it takes the place of older files; it gives the names of
        other files that stay true.
        """
        start = time.perf_counter()
        about = {"source": self.source._asdict() | {"path": ""}, "settings": settings_of(self.tracker, self.outputs)}
        folder = self.target.with_name(f".{self.target.name}.parts")
        recording = Recording(folder, json.loads(json.dumps(about)), resume)
        with ExitStack() as files:
            draw = self._overlay(files) if self.outputs.overlay else None
            # what is shown as it was found, and from the start, can be drawn at once: this saves decoding again
            at_once = None if self.outputs.smooth or recording.frames else draw
            self._follow(recording, at_once, progress)
            series = series_of(recording, self.outputs.camera.euler)
            blinks = {one.id: one.blinks() for one in series}
            self._count(recording)
            self._write_faces(files, recording, "", _Blinking(series, blinks))
            shown: Iterable[TrackedFrame] = recording
            if self.outputs.smooth:
                shown = list(smoothed(recording))
                self._write_faces(files, shown, SMOOTH, _Blinking(series, blinks))
            if self.outputs.plot:
                self._write_plot(files, recording, series, blinks)
            if draw and not at_once:
                for seen, frame in zip(self.video, shown):
                    draw(seen.image, frame)
            if self.outputs.animation:
                self._write_heads(files, motions(shown, self.outputs.camera))
            kept = replaced()
        self.summary.seconds = time.perf_counter() - start
        self._write_summary(series, blinks, kept)
        recording.remove()
        return self.summary

    def _follow(self, recording: Recording, draw: Draw | None, progress: Progress) -> None:
        self.tracker.reset()
        if recording.state is not None:
            self.tracker.restore(recording.state)
        begun = recording.frames
        for number, seen in enumerate(self.video.since(begun), begun + 1):
            frame = TrackedFrame(seen.number, seen.time, self.tracker.step(seen.image))
            if recording.add(frame, seen.image):
                recording.flush(self.tracker.state())
            if draw:
                draw(seen.image, frame)
            self.summary.tracked += 1
            progress(self.video.path, number, self.video.count)
        self.summary.missing, self.summary.problems = self.video.missing, self.video.problems
        self.summary.reinitialisations = self.tracker.reinitialisations

    def _write_summary(self, series: Sequence[Series], blinks: dict[int, list[Blink]], kept: Sequence[str]) -> None:
        clip = self.summary
        text = {
            **asdict(clip),
            "faces_per_frame": round(clip.faces_per_frame, 3),
            "fps": round(clip.fps, 1),
            "blinks": [
                {"id": one.id, "eye": blink.eye, "depth": round(blink.depth, 3)}
                | {name: round(float(one.times[getattr(blink, name)]), 6) for name in ("start", "peak", "end")}
                for one in series
                for blink in blinks[one.id]
            ],
            "camera": self.outputs.camera.about(),
            "source": self.source._asdict(),
            "settings": settings_of(self.tracker, self.outputs),
            "files": [*self.names(), *kept],
        }
        atomic_write(file_of(self.target, SUMMARY), json.dumps(text, indent=2).encode() + b"\n")

    def names(self) -> list[str]:
        """The names of the files that are written, the summary's left out."""
        return [self.target.name + ending for ending in self.outputs.files(self.summary.people)]

    def _count(self, recording: Recording) -> None:
        known, clip = set[int](), self.summary
        for frame in recording:
            now = set(frame.tracked.ids.tolist())
            clip.losses += len(known - now)
            known = now
            clip.frames += 1
            clip.faces += len(now)
            self.size, self.end = frame.tracked.faces.image_size, frame.time
            clip.people = max([clip.people, *(i + 1 for i in now)])
            clip.without_face += not now

    def _write_faces(self, files: ExitStack, frames: Iterable[TrackedFrame], ending: str, blinking: _Blinking) -> None:
        """Lines and table of frames, as files that are there when `files` ends."""
        titles = [self.tracker.aligner.card.title, self.tracker.tracking.card.title]
        lines = files.enter_context(atomic_open(file_of(self.target, f"{ending}.jsonl")))
        lines.write(header_line(self.name, titles, self.tracker.aligner.card.scheme))
        put = None
        if self.outputs.table:
            path = file_of(self.target, f"{ending}.{self.outputs.table}")
            layout = LAYOUTS[self.outputs.columns]
            weights = ", ".join(dict.fromkeys(titles))
            put = files.enter_context(table_writer(path, layout, self.outputs.camera, weights))
        for frames_together in _chunks(frames):
            images = [blinking.image(self.name, frame) for frame in frames_together]
            for image in images:
                lines.write(frame_line(image))
            if put:
                put(images)

    def _write_plot(
        self, files: ExitStack, recording: Recording, series: list[Series], blinks: dict[int, list[Blink]]
    ) -> None:
        pictures, drawn = recording.pictures(chosen(recording.picture_numbers())), []
        for frame in recording:
            if frame.number in pictures:
                tracked = frame.tracked
                drawn.append((frame.time, drawn_on(pictures[frame.number], tracked.faces, tracked.ids.tolist())))
        clip = self.summary
        missing = f", {clip.missing} missing" if clip.missing else ""
        people = amount(clip.people, "person", "people")
        title = f"{self.name}: {amount(clip.frames, 'frame')}{missing}, {people}"
        figure = track_chart(title, series, blinks, drawn, self.end)
        files.enter_context(atomic_open(file_of(self.target, PLOT))).write(as_png(figure))

    def _write_heads(self, files: ExitStack, heads: Sequence[HeadMotion]) -> None:
        start, model = SMOOTH if self.outputs.smooth else "", MorphableModel.default()
        if self.outputs.animation == "obj":
            folder = files.enter_context(atomic_folder(file_of(self.target, f"{start}.heads")))
            for head in heads:
                write_obj_sequence(folder, model, head)
            return
        if self.outputs.animation == "glb":
            view = view_of(self.outputs.camera, self.size)
            about = {"video": self.name, "frames_per_second": self.video.rate}
            made = {".heads.glb": motions_glb(model, heads, view, self.end, about)}
        else:
            made = {f".livelink.{number}.csv": live_link_table(head) for number, head in enumerate(heads)}
        for ending, data in made.items():
            files.enter_context(atomic_open(file_of(self.target, start + ending))).write(data)

    def _overlay(self, files: ExitStack) -> Draw:
        """A function that draws the next frame of the overlay, with the sound of the video."""
        path = file_of(self.target, self.outputs.overlay_ending())
        put = files.enter_context(write_video(path, self.tracker.aligner.threads, self.video.path))

        def draw(image: np.ndarray, frame: TrackedFrame) -> None:
            names = [str(number) for number in frame.tracked.ids]
            put(overlay(image, frame.tracked.faces, names=names), frame.time)

        return draw


class _Blinking:
    """Whether eyes are in a blink, frame by frame."""

    def __init__(self, series: Sequence[Series], blinks: dict[int, list[Blink]]):
        self._frames = {one.id: one.frames for one in series}
        self._flags = {one.id: one.blinking(blinks[one.id]) for one in series}

    def image(self, video: str, frame: TrackedFrame) -> ImageFaces:
        """A frame with the flags of its faces."""
        tracked = frame.tracked
        flags = [self._flags[i][np.searchsorted(self._frames[i], frame.number)] for i in tracked.ids.tolist()]
        together = np.array(flags, bool).reshape(-1, 2)
        return ImageFaces(video, frame.number, frame.time, tracked.faces, tracked.ids, tracked.followed, together)


def _chunks(frames: Iterable[TrackedFrame], size: int = 256) -> Iterator[list[TrackedFrame]]:
    chunk: list[TrackedFrame] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def settings_of(tracker: Tracker, outputs: Outputs) -> dict[str, Any]:
    """What decides about the numbers in the results."""
    return {
        "weights": tracker.aligner.card.title,
        "tracking": tracker.tracking.card.title,
        "initial": None if tracker.initial is None else tracker.initial.card.title,
        "detect_every": tracker.detect_every,
        "min_score": tracker.min_score,
        "memory": tracker.memory,
        "rate": outputs.rate,
        "columns": outputs.columns,
        "camera": outputs.camera._asdict(),
    }


def source_of(path: Path) -> Source:
    """What tells a video from others; of a folder, its frames together. Raises `VideoError`."""
    try:
        if not isdir(path):
            return Source.of(path)
        digest, length = hashlib.sha256(), 0
        for frame in frames_of(path):
            one = Source.of(frame) if frame.exists() else Source("", 0, "")
            digest.update(f"{frame.name}\0{one.sha256}\0".encode("utf-8", "surrogateescape"))
            length += one.bytes
        return Source(encodable(os.fspath(path)), length, digest.hexdigest())
    except OSError as error:
        raise VideoError(f"got {path}, which cannot be read ({error.strerror}), want it intact") from error
