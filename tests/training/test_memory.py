"""Large blocks that are freed and needed again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from canthus.training.memory import keep_freed_memory
import numpy as np

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(2**24, 1.0)  # 128 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

mapped = faults()
keep_freed_memory()
faults()
print(mapped, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_freed_block_is_used_again():
    told = subprocess.run([sys.executable, "-c", FAULTS], check=True, stdout=subprocess.PIPE, text=True).stdout
    mapped, kept = map(int, told.split())
    # Each of ten blocks touches its pages for the first time; kept, none does.
    assert kept < mapped / 5
