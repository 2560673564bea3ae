"""Memory that a training on a CPU frees and needs again in the next step."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
LARGEST = 2**31 - 1  # bytes: all that its argument can say


def keep_freed_memory() -> None:
    """Have the process keep large blocks that are freed, instead of returning them to the system.

    Every step of a training allocates the same large tensors. By default glibc maps each anew, and the kernel fills its
    pages with zeros: a fifth of a step's time on two cores. Peak memory stays the same. Other C libraries are left as
    they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGEST)
        library.mallopt(TRIM_THRESHOLD, LARGEST)
