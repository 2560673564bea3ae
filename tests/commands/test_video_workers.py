"""Videos in several processes: the same files as from one, whatever ends a process."""

from __future__ import annotations

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
from canthus.commands.videos import LOST, find_videos, track
from canthus.inference.tracker import Tracker
from canthus.io.outputs import PART
from canthus.io.recording import PART_FRAMES

WHITE = 250  # mean of a picture that ends a process


class Dying(Tracker):
    """Ends its process at the sight of a white picture."""

    def step(self, frame):
        if np.asarray(frame).mean() > WHITE:
            os._exit(9)
        return super().step(frame)


def film(path: Path, count: int, shift: int = 0, ending: bool = False) -> Path:
    first, *rest = [
        Image.fromarray(resized(photo()[30 + (k + shift) % 9 : 230 + (k + shift) % 9, 125:325], 100, 100))
        for k in range(count)
    ]
    rest += [Image.new("RGB", first.size, "white")] * ending
    first.save(path, save_all=True, append_images=rest, duration=40)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".summary.json")}


def test_processes_write_what_one_does_and_a_dead_one_loses_one_video(tmp_path):
    films = [film(tmp_path / f"{n}.webp", 6 + n, n, ending=n == 1) for n in range(4)]
    found, seen = find_videos(films), []
    wanted = Outputs(table="csv", smooth=True)
    one = track(find_videos([films[0], *films[2:]]), tmp_path / "one", Tracker(aligner()), wanted)
    several = track(found, tmp_path / "two", Dying(aligner()), wanted, False, lambda *call: seen.append(call), 2)
    assert several.failures == [(films[1], LOST)] and several.failed
    assert [path for path, _ in several.clips] == [path for path, _ in one.clips] == [films[0], *films[2:]]
    assert [clip.frames for _, clip in several.clips] == [6, 8, 9]
    written = contents(tmp_path / "two")
    assert written == contents(tmp_path / "one") and "0.jsonl" in written and "3.smooth.csv" in written
    last = {path: (frame, count) for path, frame, count in seen}
    assert {last[film] for film in (films[0], *films[2:])} == {(6, 6), (8, 8), (9, 9)}
    again = track(found, tmp_path / "two", Dying(aligner()), wanted, True, workers=2)
    assert again.skipped == 3 and again.failures == [(films[1], LOST)]


def test_errors_come_in_the_order_of_the_videos(tmp_path):
    good, bad, none = film(tmp_path / "good.webp", 3), tmp_path / "bad.gif", tmp_path / "none.gif"
    bad.write_bytes(b"no video")
    none.touch()
    command = [
        "track",
        str(none),
        str(good),
        str(bad),
        "--workers",
        "2",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    told = [line for line in result.output.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in told] == [str(none), str(bad)]
    assert "good.webp: 3 frames" in result.output and "1 video, 2 failures" in result.output


def start(films: list[Path], out: Path, *more: str) -> tuple[list[str], subprocess.Popen]:
    command = [sys.executable, "-m", "canthus", "track", *map(str, films), "--workers", "2", "--threads", "2"]
    command += ["--out", str(out), *more]
    return command, subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(run: subprocess.Popen, there) -> None:
    end = time.monotonic() + 90
    while not there() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert run.poll() is None and there()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path):
    films = [film(tmp_path / f"{n}.webp", PART_FRAMES + 60, n) for n in range(2)]
    out = tmp_path / "out"
    command, run = start(films, out, "--resume")
    wait_for(run, lambda: any(out.glob(".?.parts/0*.npz")))  # one process may be far behind the other
    run.kill()
    run.communicate(timeout=30)  # its processes hold the pipes, so this waits for their end
    assert any(out.glob(".?.parts/0*.npz")) and not list(out.glob("*.jsonl"))
    assert not list(out.glob(PART.format("*", "*")))
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    track(find_videos(films), tmp_path / "one", Tracker(aligner()))
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stopped_run_removes_the_unfinished_files_of_its_processes(tmp_path, name):
    pytest.importorskip("av")
    films = [film(tmp_path / f"{n}.webp", 90, n) for n in range(2)]
    out = tmp_path / "out"
    _, run = start(films, out, "--overlay")
    wait_for(run, lambda: any(out.glob(PART.format("*", "*"))))  # one process may be far behind the other
    run.send_signal(getattr(signal, name))
    _, told = run.communicate(timeout=30)
    assert run.returncode == 128 + getattr(signal, name), told
    assert f"stopped by {name}" in told and "Traceback" not in told and list(out.iterdir()) == []
