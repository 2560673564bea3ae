"""Streams: the newest frame wins, what is slow does not fall behind, and an end or a break is told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from canthus.errors import VideoError
from canthus.io import streams
from canthus.io.streams import Live, is_live
from canthus.io.video_writer import write_video

pytest.importorskip("av")
RATE = 50


@pytest.fixture
def film(tmp_path) -> Path:
    """A second of pictures whose brightness is their number."""
    path = tmp_path / "film.mp4"
    with write_video(path, 1) as put:
        for number in range(50):
            put(np.full((48, 64, 3), 4 * number, np.uint8), number / RATE)
    return path


def test_a_file_is_played_at_its_own_speed(film):
    start = time.perf_counter()
    with Live(film) as stream:
        frames = list(stream)
    assert 0.9 < time.perf_counter() - start < 3
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers)) and len(frames) + stream.passed_over == numbers[-1] + 1 == 50
    for frame in frames:
        assert abs(frame.image.mean() - 4 * frame.number) < 4
        assert frame.time == pytest.approx(frame.number / RATE, abs=0.3)  # as they arrive; the machine may be busy


def test_frames_are_as_a_player_shows_them(tmp_path):
    import av

    path = tmp_path / "wide.mp4"  # stored pixels that are twice as wide as high
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    with Live(path) as live:
        assert next(iter(live)).image.shape == (48, 128, 3)


def test_who_is_slow_gets_the_newest_frame(film):
    ages, numbers = [], []
    with Live(film) as stream:
        for frame in stream:
            ages.append(time.perf_counter() - frame.arrived)
            numbers.append(frame.number)
            time.sleep(0.1)  # five frames
    assert 4 < len(numbers) < 20 and stream.passed_over == 50 - len(numbers)
    assert max(ages) < 0.5  # a queue would be a second behind at the end; the machine may be busy


def test_who_stops_early_closes_the_stream(film):
    with Live(film) as stream:
        next(iter(stream))
    assert not stream._thread.is_alive()


def test_a_stream_that_breaks_off_is_told(film, monkeypatch):
    class Broken:
        streams = type("Streams", (), {"video": [1]})

        def decode(self, video):
            raise OSError("the cable is out")

        def close(self):
            pass

    monkeypatch.setattr(streams, "_opened", lambda source: Broken())
    with Live("rtsp://10.0.0.1/1") as stream, pytest.raises(VideoError, match="broke off .the cable is out"):
        list(stream)


@pytest.mark.parametrize("source", ["97", "none.mp4", "http://127.0.0.1:9/a"])
def test_what_cannot_be_opened_is_told(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match="cannot be opened"):
        Live(source)


def test_what_is_a_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_live("0") and is_live("rtsp://a/b") and is_live("http://a/b.mp4")
    (tmp_path / "0").mkdir()
    assert not is_live("0") and not is_live("clip.mp4") and not is_live(Path("1")) and not is_live("*/a.mp4")
