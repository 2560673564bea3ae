"""`track` on a stream: lines and packets come frame by frame."""

from __future__ import annotations

import functools
import http.server
import json
import socket
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photos import aligner, photo, resized
from typer.testing import CliRunner

from canthus.cli import app
from canthus.commands.camera import LiveSummary, follow, lines_path
from canthus.errors import OutputError, VideoError
from canthus.face.faces import Faces, TrackedFaces
from canthus.inference.tracker import Tracker
from canthus.io.lines import read_json_lines
from canthus.io.streams import Live
from canthus.io.video import Video
from canthus.io.video_writer import write_video

av = pytest.importorskip("av")


@pytest.fixture
def film(tmp_path) -> Path:
    path = tmp_path / "film.mp4"
    picture = resized(photo()[30:230, 125:325], 128, 128)
    with write_video(path, 1) as put:
        for number in range(12):
            put(np.ascontiguousarray(np.roll(picture, number, axis=1)), number / 12)
    return path


def test_a_file_at_its_own_speed_stands_for_a_camera(film, tmp_path):
    summary = LiveSummary(tmp_path / "out" / "a.jsonl")
    with Live(film) as stream:
        pass
    follow(Live(film), tmp_path / "out", Tracker(aligner()), summary, smooth=True)
    frames = list(read_json_lines(summary.path))
    assert len(frames) == summary.frames == len(summary.delays) and summary.frames + summary.passed_over == 12
    assert all(frame.ids.tolist() == [0] for frame in frames)
    assert [frame.frame for frame in frames] == sorted({frame.frame for frame in frames})
    assert f"{summary.frames} frames, {summary.passed_over} passed over" in str(summary)
    assert stream.passed_over == 0


def test_a_stream_that_breaks_off_after_frames_exits_with_1_and_before_with_2(film, tmp_path, monkeypatch):
    class Broken(Live):
        """A file that stands for the stream, and ends by an error after its first frames."""

        def __init__(self, source):
            super().__init__(film)

        def __iter__(self):
            yield from islice(super().__iter__(), count)
            raise VideoError("got a stream, which broke off")

    monkeypatch.setattr("canthus.io.streams.Live", Broken)
    for count, code in ((2, 1), (0, 2)):
        out = tmp_path / str(count)
        result = CliRunner().invoke(app, ["track", "udp://10.0.0.7:5000", "--out", str(out)])
        assert result.exit_code == code and "broke off" in result.output, result.output


def test_the_command_on_an_address(film, tmp_path):
    with av.open(str(tmp_path / "film.ts"), "w") as container:  # unlike .mp4 it can be read from the front
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 128
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for frame in Video(film):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image)))
        container.mux(stream.encode())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        address = f"http://127.0.0.1:{server.server_address[1]}/film.ts"
        to = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        command = ["track", address, "--send", to, "--out", str(tmp_path / "out"), "--threads", "1"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert json.loads(receiver.recv(70_000))["faces"][0]["id"] == 0
        server.shutdown()
    (lines,) = (tmp_path / "out").iterdir()
    assert lines.name.startswith("127-0-0-1-") or "film-ts" in lines.name
    assert list(read_json_lines(lines))[-1].ids.tolist() == [0]
    assert "passed over" in result.output and "ms from arrival to result" in result.output


@pytest.mark.parametrize("more", [["clip.mp4"], ["--overlay"], ["--resume"], ["--table", "csv"]])
def test_a_camera_is_alone(more, tmp_path):
    result = CliRunner().invoke(app, ["track", "0", *more, "--out", str(tmp_path)])
    assert result.exit_code == 2 and "want it alone" in " ".join(result.output.split())


def test_files_are_not_sent(film, tmp_path):
    result = CliRunner().invoke(app, ["track", str(film), "--send", "udp://127.0.0.1:9", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "--send with files" in " ".join(result.output.split())


def test_names_of_lines_hold_no_password():
    assert lines_path(Path("o"), "0").name.startswith("camera0-")
    assert lines_path(Path("o"), "rtsp://me:secret@10.0.0.1/live?x=1").name.startswith("10-0-0-1-live-x-1-")


def test_a_full_disk_ends_a_stream_with_whole_lines(film, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    summary = LiveSummary(tmp_path / "a.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"could not write '.*a\.jsonl': File too large"):
            follow(Live(film), tmp_path, Tracker(aligner()), summary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < summary.frames == len(list(read_json_lines(summary.path))) < 12


def test_the_lines_name_the_scheme_of_the_points(film, tmp_path, monkeypatch):
    monkeypatch.setattr("canthus.commands.camera.frame_line", lambda image: b"")
    tracker = Tracker(aligner())
    monkeypatch.setattr(tracker, "step", lambda image: TrackedFaces(Faces.empty((1, 1)), [], []))
    tracker.aligner = SimpleNamespace(card=replace(aligner().card, scheme="menpo84"))
    summary = LiveSummary(tmp_path / "a.jsonl")
    follow(Live(film), tmp_path, tracker, summary)
    assert json.loads(summary.path.read_text())["scheme"] == "menpo84"
