"""The sound of a video beside other pictures: it is there, in time, and damage to it harms nothing else."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from canthus.io.video import Video
from canthus.io.video_writer import write_video

av = pytest.importorskip("av")
RATE = 16000


def film(path: Path, codec: str | None, late: int = 0) -> Path:
    """Two seconds of pictures with a tone from the second one on; the sound begins `late` samples before them."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        if codec:
            sound = container.add_stream(codec, rate=RATE, layout="mono")
            time = (np.arange(2 * RATE + late) - late) / RATE
            tone = (np.sin(2 * np.pi * 440 * time) * (time >= 1) * 20000).astype(np.int16)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
                container.mux(sound.encode(frame))
        for k in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * k, np.uint8))
            picture.pts, picture.time_base = k + late * 25 // RATE, Fraction(1, 25)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode())
        if codec:
            container.mux(sound.encode())
    return path


def again(source: Path, out: Path, seconds: float = 9.0) -> Path:
    with write_video(out, 1, source) as put:
        for frame in Video(source):
            if frame.time < seconds:
                put(frame.image, frame.time)
    return out


def heard(path: Path) -> tuple[float, float]:
    """When the tone begins, and when the sound ends."""
    with av.open(str(path)) as container:
        parts = [(f.time, np.abs(f.to_ndarray().astype(float)).max(0)) for f in container.decode(audio=0)]
    times = np.concatenate([time + np.arange(len(values)) / RATE for time, values in parts])
    values = np.concatenate([values for _, values in parts])
    return float(times[values > 0.3 * values.max()].min()), float(times.max())


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "pcm_s16le"), ("a.mov", "pcm_s16le")])
def test_the_sound_is_kept_in_time(tmp_path, name, codec):
    start, end = heard(again(film(tmp_path / name, codec), tmp_path / "out.mp4"))
    assert start == pytest.approx(1.0, abs=0.01) and end == pytest.approx(2.0, abs=0.1)
    assert len(list(Video(tmp_path / "out.mp4"))) == 50


def test_sound_that_begins_before_the_pictures_is_in_time_too(tmp_path):
    start, _ = heard(again(film(tmp_path / "a.mkv", "pcm_s16le", late=RATE // 5), tmp_path / "out.mp4"))
    assert start == pytest.approx(1.0, abs=0.03)


def test_sound_ends_with_the_pictures(tmp_path):
    assert heard(again(film(tmp_path / "a.mp4", "aac"), tmp_path / "out.mp4", 1.5))[1] == pytest.approx(1.5, abs=0.15)


def test_a_silent_video_stays_silent(tmp_path):
    with av.open(str(again(film(tmp_path / "a.mp4", None), tmp_path / "out.mp4"))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_damaged_sound_is_told_and_the_pictures_are_written(tmp_path, monkeypatch, caplog):
    source = film(tmp_path / "a.mkv", "pcm_s16le")
    from canthus.io.sound import Sound

    def broken(self, *streams):
        yield from ()
        raise av.error.InvalidDataError(1094995529, "Invalid data")

    monkeypatch.setattr(Sound, "_encoded", broken)
    with caplog.at_level(logging.WARNING, "canthus"):
        again(source, tmp_path / "out.mp4")
    assert "the sound of" in caplog.text and len(list(Video(tmp_path / "out.mp4"))) == 50
