"""One video of the verb `track`: a run that was killed goes on, and blinks are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo, resized
from PIL import Image
from typer.testing import CliRunner

from canthus.cli import app
from canthus.commands.clip import Outputs
from canthus.commands.videos import find_videos, track
from canthus.inference.tracker import Tracker
from canthus.io import recording
from canthus.io.lines import read_json_lines
from canthus.io.video import Video


def moving(count: int) -> list[Image.Image]:
    return [Image.fromarray(resized(photo()[30 + k : 230 + k, 125:325], 100, 100)) for k in range(count)]


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.webp"
    first, *rest = moving(12)
    first.save(path, save_all=True, append_images=rest, duration=40)
    return path


def stopping(after: int):
    def progress(video: Path, frame: int, count: int | None) -> None:
        if frame == after:
            raise KeyboardInterrupt

    return progress


def test_frames_from_a_number_on_are_those_of_the_whole_video(clip):
    whole = list(Video(clip))
    for first in (0, 5, 12, 40):
        rest = list(Video(clip).since(first))
        assert [frame[:2] for frame in rest] == [frame[:2] for frame in whole[first:]]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, whole[first:]))


def test_a_run_that_was_stopped_goes_on_and_gives_the_same(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "PART_FRAMES", 5)
    videos, seen = find_videos([clip]), []
    track(videos, tmp_path / "whole", Tracker(aligner()), Outputs(table="csv"))
    with pytest.raises(KeyboardInterrupt):
        track(videos, tmp_path / "parts", Tracker(aligner()), Outputs(table="csv"), progress=stopping(8))
    assert [p.name for p in (tmp_path / "parts").iterdir()] == [".clip.parts"]  # five of the eight frames
    track(
        videos, tmp_path / "parts", Tracker(aligner()), Outputs(table="csv"), True, lambda *call: seen.append(call[1])
    )
    assert seen[:2] == [6, 7] and seen[6] == 12
    for name in ("clip.jsonl", "clip.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "parts" / ".clip.parts").exists()
    told = [json.loads((tmp_path / name / "clip.summary.json").read_text()) for name in ("whole", "parts")]
    assert told[0]["frames"] == told[1]["frames"] == 12 and told[0]["people"] == told[1]["people"] == 1


def test_parts_of_other_settings_are_not_used(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "PART_FRAMES", 5)
    videos, seen = find_videos([clip]), []
    with pytest.raises(KeyboardInterrupt):
        track(videos, tmp_path / "out", Tracker(aligner()), progress=stopping(8))
    other = Tracker(aligner(), detect_every=3)
    track(videos, tmp_path / "out", other, Outputs(), True, lambda *call: seen.append(call[1]))
    assert seen[0] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_resume_tells_again_which_frames_are_missing(tmp_path, workers):
    (tmp_path / "frames").mkdir()
    for k in range(3):
        Image.fromarray(photo()).save(tmp_path / "frames" / f"{k}.png")
    (tmp_path / "frames" / "1.png").write_bytes(b"not a picture")
    videos, out, tracker = find_videos([tmp_path / "frames"]), tmp_path / "out", Tracker(aligner())
    first = track(videos, out, tracker, workers=workers)
    again = track(videos, out, tracker, resume=True, workers=workers)
    assert first.failed and again.failed and again.skipped == 1 and not again.clips
    assert again.damaged == [(path, clip.damage) for path, clip in first.clips] and again.damaged[0][1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_was_killed_goes_on(tmp_path):
    frames = [Image.fromarray(photo()[k % 7 : 256 + k % 7, :256]) for k in range(110)]
    path, out = tmp_path / "v.webp", tmp_path / "out"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    command = [sys.executable, "-m", "canthus", "track", str(path), "--threads", "1", "--out", str(out), "--resume"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(out.glob(".v.parts/0*.npz")) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)
    assert not (out / "v.jsonl").exists() and list(out.glob(".v.parts/0*.npz"))
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert sorted(p.name for p in out.iterdir()) == ["v.jsonl", "v.summary.json"]
    assert [frame.frame for frame in read_json_lines(out / "v.jsonl")] == list(range(110))


def test_a_chart_of_each_video_and_a_page_over_all(clip, tmp_path):
    pytest.importorskip("matplotlib")
    bad = tmp_path / "b&d.gif"
    bad.write_bytes(b"no video")
    out = tmp_path / "out"
    for _ in range(2):  # the second skips what is done, and the page still has it
        result = CliRunner().invoke(app, ["track", str(clip), str(bad), "--plot", "--resume", "--out", str(out)])
        assert result.exit_code == 1, result.output
        page = (out / "tracks.html").read_text()
        assert 'src="clip.plot.png"' in page and "<td>12</td>" in page
        assert "b&amp;d.gif" in page and page.count("not done") == 1
    assert Image.open(out / "clip.plot.png").width == 1400


def test_a_video_without_a_face_says_that_there_is_nothing_to_animate(tmp_path):
    Image.new("RGB", (64, 48), "grey").save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    )
    Image.new("RGB", (64, 48)).save(tmp_path / "a.webp")
    command = ["track", str(tmp_path), "--animation", "glb", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "no face to animate" in result.output, result.output
    assert "passed over: 1 .webp (videos only where they are named)" in result.output


def test_a_sequence_of_obj_is_a_folder_that_the_next_run_replaces(clip, tmp_path):
    out = tmp_path / "out"
    command = ["track", str(clip), "--animation", "obj", "--out", str(out)]
    for more, said in (([], "1 video"), (["--resume"], "1 skipped"), ([], "1 video")):
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0 and said in result.output, result.output
        names = [path.name for path in sorted((out / "clip.heads").iterdir())]
        assert names == [f"face_0.{frame:06d}.obj" for frame in range(12)]
        assert sorted(path.name for path in out.iterdir()) == ["clip.heads", "clip.jsonl", "clip.summary.json"]
    assert json.loads((out / "clip.summary.json").read_text())["files"] == ["clip.jsonl", "clip.heads"]
    track(find_videos([clip]), out, Tracker(aligner(), detect_every=3))  # by other settings, without heads
    assert sorted(path.name for path in out.iterdir()) == ["clip.jsonl", "clip.summary.json"]


def test_the_first_crop_of_a_face_comes_from_the_points_of_other_weights(clip, tmp_path):
    """Found by swift-int8, aligned by swift on a crop around those points: another first frame, and another setting."""
    seen = {}
    for name, more in (("plain", []), ("other", ["--initial", "swift-int8"])):
        result = CliRunner().invoke(app, ["track", str(clip), *more, "--threads", "1", "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        _, first, *_ = (tmp_path / name / "clip.jsonl").read_text().splitlines()
        seen[name] = np.array(json.loads(first)["faces"][0]["landmarks"])
    away = np.linalg.norm(seen["plain"] - seen["other"], axis=-1).mean()
    assert 0 < away < 0.1 * np.ptp(seen["plain"][:, 1])
    again = ["track", str(clip), "--resume", "--threads", "1", "--out", str(tmp_path / "other")]
    assert "0 skipped" in CliRunner().invoke(app, again).output
