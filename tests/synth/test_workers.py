"""Jobs that are stopped or killed: no process and no unfinished file is left, and nothing finished is lost."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("scipy")

import canthus  # noqa: E402
from canthus.errors import CanthusError, OutputError  # noqa: E402
from canthus.io.outputs import PART, atomic_folder  # noqa: E402
from canthus.synth import render_jobs  # noqa: E402
from canthus.synth.recipe import SynthRecipe  # noqa: E402
from canthus.workers import Workers  # noqa: E402

# `canthus synth` whose shards are folders with a number; shard 1 and those after it are never finished.
SYNTH = """
import sys, time
from canthus.io.outputs import atomic_folder
from canthus.synth import render_jobs

def write(job, layout, number, path):
    with atomic_folder(path) as folder:
        (folder / "number").write_text(str(number))
        if number and not (path.parent / "quick").exists():
            (path.parent / f"busy-{number}").touch()
            time.sleep(600)

render_jobs._render_shard = write
if __name__ == "__main__":
    from canthus.cli import app
    app(["synth", "--out", sys.argv[1], "--format", "300wlp", "--count", str(4 * render_jobs.SHARD_SIZE)])
"""


def start(tmp_path: Path, code: str, *arguments: str) -> subprocess.Popen:
    script = tmp_path / "job.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(canthus.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, str(script), *arguments], env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(*paths: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, [path.name for path in paths if not path.exists()]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_stopped_synth_leaves_no_process_and_keeps_what_is_finished(tmp_path, name):
    out = tmp_path / "out"
    job = start(tmp_path, SYNTH, str(out))
    wait_for(out / "shard-00000", out / "busy-1", out / "busy-2")  # two workers
    number = signal.Signals[name]
    # Ctrl-C goes to every process of the terminal, the others to one
    os.killpg(job.pid, number) if name == "SIGINT" else job.send_signal(number)
    # Workers and the resource tracker hold the pipes, so that reading them to the end waits for all of these.
    _, errors = job.communicate(timeout=20)
    assert job.returncode == (-9 if name == "SIGKILL" else 128 + number)
    unfinished = list(out.glob(PART.format("*", "*")))
    if name == "SIGKILL":
        assert len(unfinished) == 2
    else:
        assert not unfinished and "Traceback" not in errors and f"canthus: stopped by {name}" in errors
    assert (out / "shard-00000" / "number").read_text() == "0"
    if name != "SIGKILL":
        return
    written = (out / "shard-00000" / "number").stat().st_mtime_ns
    (out / "quick").touch()
    again = start(tmp_path, SYNTH, str(out))
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert [(out / f"shard-{n:05d}" / "number").read_text() for n in range(4)] == ["0", "1", "2", "3"]
    assert not list(out.glob(PART.format("*", "*")))
    assert (out / "shard-00000" / "number").stat().st_mtime_ns == written


def fail(job: tuple, layout: str, number: int, path: Path) -> None:
    """A renderer that fails with a sentence."""
    raise CanthusError("no head assets")


def fill_the_disk(job: tuple, layout: str, number: int, path: Path) -> None:
    """A shard that does not fit on the disk."""
    import resource

    import numpy as np

    from canthus.io.shards import write_shard

    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    write_shard(path, {"image": np.zeros((9, 64, 64, 3), np.uint8), "xyz": np.zeros((9, 68, 3))}, 0, layout)


def test_an_error_of_a_worker_ends_the_job_with_its_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(render_jobs, "_render_shard", fail)
    with pytest.raises(CanthusError, match="^no head assets$"):
        list(render_jobs.render_shards(tmp_path, None, SynthRecipe(), 1, 1))


@pytest.mark.parametrize("layout", ["npz", "tar"])
def test_a_full_disk_ends_the_job_with_the_reason_and_leaves_nothing(tmp_path, monkeypatch, capfd, layout):
    pytest.importorskip("resource")
    monkeypatch.setattr(render_jobs, "_render_shard", fill_the_disk)
    with pytest.raises(OutputError, match=rf"could not write '.*shard-00000\.{layout}': File too large"):
        list(render_jobs.render_shards(tmp_path, None, SynthRecipe(), 1, 1, layout))
    assert [path.name for path in tmp_path.iterdir()] == [render_jobs.JOB]
    assert not capfd.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not make the folder '.*file/out': Not a directory"):
        next(render_jobs.render_shards(tmp_path / "file" / "out", None, SynthRecipe(), 1, 1))


def test_workers_are_ended_at_once():
    pool = Workers(2)
    jobs = [pool.submit(time.sleep, 600) for _ in range(4)]
    begin = time.monotonic()
    pool.stop()
    assert time.monotonic() - begin < 30 and all(job.done() for job in jobs)


def begin(path: Path) -> None:
    path.touch()
    time.sleep(600)


def test_workers_that_have_not_begun_are_ended_at_once_without_a_word(tmp_path, capfd):
    # with a grace only what has begun is unwound; before, a pool would print the exception of what each begins with
    pool = Workers(1, functools.partial(begin, tmp_path / "begun"), grace=60)
    job = pool.submit(time.sleep, 600)
    wait_for(tmp_path / "begun")
    start = time.monotonic()
    pool.stop()
    assert time.monotonic() - start < 30 and job.done()
    assert not capfd.readouterr().err


LIVE = """
import threading, time
from canthus.synth.live import LiveFaces

class Sleeper:
    def group(self, number):
        time.sleep(600)

if __name__ == "__main__":
    faces = LiveFaces(Sleeper, 2)
    threading.Thread(target=faces.take, args=(0, 2), daemon=True).start()
    while faces._pool is None or not faces._pool._processes:
        time.sleep(0.05)
    time.sleep(1)
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_training_leaves_no_renderer(tmp_path):
    job = start(tmp_path, LIVE)
    assert job.stdout is not None and job.stdout.readline() == "begun\n"
    job.kill()
    job.communicate(timeout=20)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(OutputError, match="could not write '.*x': No such file"), atomic_folder(tmp_path / "x") as part:
        (part / "a").write_bytes(b"a")
        (part / "no" / "b").write_bytes(b"b")
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "x") as part:
        (part / "a").write_bytes(b"a")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"] and len(list(tmp_path.iterdir())) == 1


def large(begun: Path) -> bytes:
    begun.touch()
    return bytes(2**28)  # takes a while to send


@pytest.mark.parametrize("pause", [0.15, 0.3, 0.5, 0.8])
def test_workers_that_are_stopped_while_they_send_are_not_waited_for(tmp_path, pause):
    workers = Workers(1)
    workers.submit(large, tmp_path / "begun")
    wait_for(tmp_path / "begun")
    time.sleep(pause)
    stopped = threading.Thread(target=workers.stop, daemon=True)
    stopped.start()
    stopped.join(30)
    assert not stopped.is_alive()
