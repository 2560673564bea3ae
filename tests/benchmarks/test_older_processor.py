"""benchmarks/older_processor.py: what a process sees of its processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "older_processor.py"
FOUND = "import numpy; print(*numpy.show_config(mode='dicts')['SIMD Extensions']['found'])"
CRASH = "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)"


@pytest.fixture
def older(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import older_processor

    if reason := older_processor.reason_against():
        pytest.skip(reason)
    return older_processor


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)


def newer(found: str) -> set[str]:
    """What NumPy calls instructions that came after AVX2; X86_V4 is the AVX-512 of the first processors that had it."""
    return {name for name in found.split() if name.startswith("AVX512") or name == "X86_V4"}


def test_a_process_does_without_what_is_left_out(older):
    here = newer(run("-c", FOUND).stdout)
    for without, wanted in (("avx512", set()), ("vnni", here & {"X86_V4", "AVX512F", "AVX512CD", "AVX512_SKX"})):
        seen = run(str(SCRIPT), "--without", without, "--", sys.executable, "-c", FOUND)
        assert seen.returncode == 0 and ("X86_V3" in seen.stdout or "AVX2" in seen.stdout)
        assert newer(seen.stdout) == wanted


def test_a_crash_stays_a_crash(older):
    seen = run(str(SCRIPT), "--without", "avx512", "--", sys.executable, "-c", CRASH)
    assert seen.returncode != 0 and "Segmentation fault" in seen.stderr


def test_a_machine_that_cannot_is_told_why(older, monkeypatch, capsys):
    monkeypatch.setattr(older, "reason_against", lambda: "there is no C compiler")
    with pytest.raises(SystemExit):
        older.main(["--without", "vnni", "true"])
    assert "no C compiler" in capsys.readouterr().err
