"""Writes videos: .mp4 by PyAV (the extra `video`), GIF by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canthus.errors import VideoError
from canthus.io.outputs import atomic_open
from canthus.io.sound import Sound
from canthus.io.video import RATE, TICKS, import_av, is_video_of_av

GIF_SIDE = 480  # px, of a GIF that stands in for a video: it is large and slow


def writable_suffix() -> str:
    """Of the videos that can be written here: .mp4, or .gif if PyAV is not there."""
    try:
        import_av(Path())
    except VideoError:
        return ".gif"
    return ".mp4"


@contextmanager
def write_video(
    path: Path, threads: int | None = None, sound: Path | None = None
) -> Iterator[Callable[[np.ndarray, float], None]]:
    """A function to which to give pictures (H,W,3) uint8, all of one size, and their rising times in seconds.

    The file, .mp4 (H.264) or .gif, is there when the block has ended, and is not if it ends by an error. A GIF is
    made smaller. `threads` is the number of CPU threads of the encoder; None leaves it to it. `sound`: a video file
    whose first audio stream the .mp4 gets, from its first picture to the last one here; what has none is left alone.
    Raises `OutputError`, and `VideoError` where PyAV is wanted and not there.
    """
    with atomic_open(path) as file:
        with _write_gif(file) if path.suffix == ".gif" else _write_mp4(path, file, threads, sound) as put:
            yield put


@contextmanager
def _write_mp4(
    path: Path, file: Any, threads: int | None, sound: Path | None
) -> Iterator[Callable[[np.ndarray, float], None]]:
    from fractions import Fraction

    av = import_av(path)
    stream: Any = None
    last = -1
    with ExitStack() as files:
        container = files.enter_context(av.open(file, "w", format="mp4"))
        audio = Sound(container, files, sound) if sound and isfile(sound) and is_video_of_av(sound) else None

        def put(image: np.ndarray, time: float) -> None:
            nonlocal stream, last
            if image.shape[0] % 2 or image.shape[1] % 2:  # H.264 wants even sides
                image = np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)], "edge")
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=TICKS, options={"crf": "23", "preset": "ultrafast", "tune": "zerolatency"}
                )
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
                stream.codec_context.thread_count = threads or 0
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")  # without a copy
            last = max(round(time * TICKS), last + 1)
            frame.pts, frame.time_base = last, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
            if audio:
                audio.write(time)

        yield put
        if stream is not None:
            container.mux(stream.encode())


@contextmanager
def _write_gif(file: Any) -> Iterator[Callable[[np.ndarray, float], None]]:
    pictures: list[Image.Image] = []
    times: list[float] = []

    def put(image: np.ndarray, time: float) -> None:
        picture = Image.fromarray(image)
        picture.thumbnail((GIF_SIDE, GIF_SIDE), reducing_gap=2.0)
        pictures.append(picture.quantize(128))
        times.append(time)

    yield put
    if pictures:
        durations = np.diff([*times, times[-1] + (times[-1] / (len(times) - 1) if len(times) > 1 else 1 / RATE)])
        shown = np.maximum(np.rint(durations * 100), 2).astype(int) * 10  # GIF counts hundredths; viewers refuse 1
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=shown.tolist(), loop=0)
