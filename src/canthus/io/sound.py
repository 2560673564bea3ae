"""The sound of a video, carried over to another one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

COPIED = frozenset({"aac", "ac3", "alac", "eac3", "mp2", "mp3"})  # what an .mp4 can hold as it is
log = logging.getLogger(__name__)


class Sound:
    """Writes the first audio stream of a file into a container, beside pictures that are written at the same time.

    container: an .mp4 that PyAV writes. files: closes the source. Formats that an .mp4 does not hold are encoded as
    AAC. Where the sound is damaged it ends, and a warning says so.
    """

    def __init__(self, container: Any, files: ExitStack, path: Path):
        import av

        self._container, self._path = container, path
        self._waiting: Any = None
        self._packets: Iterator[Any] = iter(())
        source = files.enter_context(av.open(str(path)))
        if not source.streams.audio:
            return
        stream = source.streams.audio[0]
        pictures: Any = source.streams.video[0] if source.streams.video else stream
        self._origin = float((pictures.start_time or 0) * pictures.time_base)
        if stream.codec_context.name in COPIED:
            self._packets = self._copied(source, stream, container.add_stream_from_template(stream))
        else:
            made = container.add_stream("aac", rate=stream.codec_context.sample_rate)
            self._packets = self._encoded(source, stream, made)

    def write(self, time: float) -> None:
        """Write the sound up to `time`, seconds from the first picture."""
        import av

        try:
            while (packet := self._waiting or next(self._packets, None)) is not None:
                self._waiting = packet
                if float(packet.pts * packet.time_base) > time:
                    return
                self._container.mux(packet)
                self._waiting = None
        except av.FFmpegError as error:
            log.warning(
                "the sound of %s ends at %.1f s, where it cannot be read (%s)", self._path, time, error.strerror
            )
            self._packets, self._waiting = iter(()), None

    def _copied(self, source: Any, stream: Any, made: Any) -> Iterator[Any]:
        shift = round(self._origin / stream.time_base)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.pts < shift:
                continue  # the empty packet at the end, and what is heard before the first picture
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, made
            yield packet

    def _encoded(self, source: Any, stream: Any, made: Any) -> Iterator[Any]:
        for frame in source.decode(stream):
            if frame.time is None or frame.time < self._origin:
                continue
            frame.pts -= round(self._origin / frame.time_base)
            yield from made.encode(frame)
        yield from made.encode(None)
