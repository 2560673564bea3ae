"""Run a command as an older x86 processor would: without AVX-512, or with AVX-512 and without VNNI.

    python benchmarks/older_processor.py --without avx512 -- python -m pytest tests/inference

Libraries choose their code by what the instruction `cpuid` says. Where processor and kernel let a process forbid
itself that instruction (Linux; `cpuid_fault` among the flags of /proc/cpuinfo), a small library that is loaded first
answers in its place and leaves out what is newer. So the code of an older processor runs, at the clock of this one.
Wants a C compiler. NumPy, ONNX Runtime and torch obey; what reads /proc/cpuinfo still sees this processor.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
MISSING = ("vnni", "avx512")


def reason_against() -> str:
    """Why this machine cannot do it; empty if it can."""
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or " cpuid_fault " not in cpu.read_text().replace("\n", " "):
        return "the processor or the kernel has no cpuid_fault"
    return "" if shutil.which("cc") else "there is no C compiler 'cc'"


@contextmanager
def environment(without: str) -> Iterator[dict[str, str]]:
    """The environment of processes that do without one of `MISSING`."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "older_processor.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True)
        yield os.environ | {"LD_PRELOAD": str(library), "OLDER_PROCESSOR": without}


def main(given: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--without", choices=MISSING, required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(given)
    if reason := reason_against():
        parser.error(reason)
    with environment(args.without) as variables:
        return subprocess.run(args.command, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
