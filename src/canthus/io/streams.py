"""Cameras and network streams, by PyAV: always the newest frame, so that what is slow never falls behind."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from os import PathLike
from os.path import exists
from typing import Any, NamedTuple

import numpy as np

from canthus.errors import VideoError, pip_install
from canthus.io.inputs import is_address
from canthus.io.video import as_shown

PATIENCE = 10.0  # seconds that a stream may take to open or to give its next frame
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_AT_ONCE = {"flags": "low_delay"}


class LiveFrame(NamedTuple):
    """One frame of a stream.

    number: counts the frames that arrived, from 0; where some were passed over, numbers are left out. time: seconds
    since the first frame arrived. arrived: when this one did, by `time.perf_counter`. image: (H,W,3) uint8 RGB.
    """

    number: int
    time: float
    arrived: float
    image: np.ndarray


def is_live(given: Any) -> bool:
    """Whether this names a camera, by its number, or the address of a stream, and no file or folder."""
    text = str(given)
    if isinstance(given, PathLike) or exists(text):
        return False
    return text.isdecimal() or is_address(text)


class Live:
    """The newest frames of a camera or stream, for as long as it lasts; a context that closes it.

    source: the number of a camera, an address (rtsp://, http:// and others that FFmpeg reads), or the path of a video
    file, which is played at its own speed. A thread decodes all frames and keeps the last one; each iteration waits for
    one that has not been seen, and gives it as a player shows it. `passed_over`: frames that came and went meanwhile.
    Raises `VideoError` for a source that cannot be opened, and while it is read where the stream breaks off.
    """

    def __init__(self, source: int | str | PathLike[str]):
        self.source = str(source)
        self.passed_over = 0
        self._newest: tuple[int, float, Any] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._stop = False
        self._changed = threading.Condition()
        self._container = _opened(self.source)
        self._plays = exists(self.source) and not is_live(self.source)
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            self._container.close()

    def __iter__(self) -> Iterator[LiveFrame]:
        from av.video.reformatter import VideoReformatter

        convert = VideoReformatter().reformat
        last, first = -1, None
        while True:
            with self._changed:
                while not self._ended and (self._newest is None or self._newest[0] <= last):
                    self._changed.wait()
                newest = self._newest
            if newest is None or newest[0] <= last:
                if self._error is not None:
                    raise VideoError(
                        f"got the stream '{self.source}', which broke off ({self._error})"
                    ) from self._error
                if newest is None:
                    raise VideoError(f"got the stream '{self.source}' without a frame, want at least one")
                return
            number, arrived, frame = newest
            self.passed_over += number - last - 1
            last, first = number, arrived if first is None else first
            aspect = float(self._container.streams.video[0].sample_aspect_ratio or 1)
            yield LiveFrame(number, arrived - first, arrived, as_shown(frame, aspect, convert))

    def _read(self) -> None:
        try:
            start: float | None = None
            for number, frame in enumerate(self._container.decode(video=0)):
                now = time.perf_counter()
                if self._plays and frame.time is not None:
                    start = now - frame.time if start is None else start
                    time.sleep(max(start + frame.time - now, 0))
                if self._stop:
                    break
                with self._changed:
                    self._newest = number, time.perf_counter(), frame
                    self._changed.notify()
        except Exception as error:  # what a decoder or driver raises belongs to who waits
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()


def _opened(source: str) -> Any:
    try:
        import av
    except ImportError as error:
        what = f"got the stream '{source}', which needs PyAV: {pip_install('video')}"
        raise VideoError(what) from error
    try:
        if not is_live(source):
            container = av.open(source)
        elif source.isdecimal():
            kind, name = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
            container = av.open(name.format(source), format=kind, options=_AT_ONCE)
        else:
            options = _AT_ONCE | ({"rtsp_transport": "tcp"} if source.startswith("rtsp") else {})
            container = av.open(source, options=options, timeout=PATIENCE)
    except (OSError, ValueError) as error:  # PyAV's errors are among these
        raise VideoError(f"got '{source}', which cannot be opened ({error}), want a camera or a stream") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"got '{source}' without pictures, want a camera or a stream of video")
    return container
