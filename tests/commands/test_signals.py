"""How the command line ends when a signal asks it to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from photos import photo
from PIL import Image

from canthus.commands.terminal import stopped_by_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_unwinds_the_block_and_gives_its_exit_code(name, capsys):
    number, cleaned = getattr(signal, name), []
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, stopped_by_signals():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(name)
    assert ended.value.code == 128 + number and cleaned == [name]
    assert f"stopped by {name}" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_exit_without_a_signal_is_left_alone(capsys):
    with pytest.raises(SystemExit) as ended, stopped_by_signals():
        raise SystemExit(3)
    assert ended.value.code == 3 and capsys.readouterr().err == ""


def test_an_error_after_a_signal_does_not_hide_it(capsys):
    with pytest.raises(SystemExit) as ended, stopped_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except SystemExit as stopped:  # as compiled modules do while they are imported
            raise ImportError("initialization failed") from stopped
    assert ended.value.code == 130 and "stopped by SIGINT" in capsys.readouterr().err


def test_ctrl_c_while_modules_are_imported_ends_with_one_line():
    code = """
import os, signal, sys
from canthus.__main__ import main

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "canthus.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
main()
"""
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (end.returncode, end.stdout, end.stderr) == (130, "", "canthus: stopped by SIGINT\n")


def test_a_stopped_run_leaves_no_unfinished_files(tmp_path: Path):
    frames = [Image.fromarray(photo()[:256, :256]) for _ in range(300)]
    frames[0].save(tmp_path / "v.webp", save_all=True, append_images=frames[1:], duration=[40] * 150 + [41] * 150)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "canthus", "track", str(tmp_path / "v.webp"), "--overlay", "--out", str(out)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (out.exists() and list(out.iterdir())) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, told
    assert "stopped by SIGTERM" in told and list(out.iterdir()) == []
