"""How many CPU threads a call may use: one number for networks, linear algebra and video codecs alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from threading import Lock
from typing import Any

import threadpoolctl

from canthus.errors import CanthusError

MOST_THREADS = 1024  # or processes, that a call may be told to start


def check_threads(threads: Any) -> int | None:
    """`threads` as an int, or None for "not limited". Raises `CanthusError` for anything but these, and for more than
    MOST_THREADS: libraries start as many as they are told, until memory ends."""
    if threads is None:
        return None
    if not isinstance(threads, Integral) or isinstance(threads, bool) or not 1 <= int(threads) <= MOST_THREADS:
        raise CanthusError(
            f"got threads={threads!r}, want a positive integer up to {MOST_THREADS}, or None for no limit"
        )
    return int(threads)


def cores() -> int:
    """How many CPU cores this process may use: those that a batch system gave it, where it says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_lock = Lock()
_limits: list[Any] = []  # the one in force, and once for each call that relies on it


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Limits the threads of NumPy's linear algebra while the block runs; None does not.

    The libraries know one limit a process, so among blocks that overlap in several Python threads the first one's holds
    for all, until the last one ends and restores what was set before.
    """
    if threads is None:
        yield
        return
    with _lock:
        if not _limits:
            _release_control()
        _limits.append(_limits[0] if _limits else _controller().limit(limits=threads, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                _release_control()
                limit.restore_original_limits()
                _release_control()


def _release_control() -> None:
    """From 3.8 on, threadpoolctl ignores every Python thread but the one that set a limit first; here the last one to
    leave, which need not be the first one that came, restores it."""
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)


@cache
def _controller() -> threadpoolctl.ThreadpoolController:
    """Found once: looking through the loaded libraries takes longer than a network call."""
    return threadpoolctl.ThreadpoolController()
