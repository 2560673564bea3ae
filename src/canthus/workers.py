"""Worker processes that do not outlive the process that started them, however it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


class Workers(ProcessPoolExecutor):
    """A pool of spawned processes (an OpenGL context does not survive a fork).

    Each watches a pipe of this process, and exits as soon as the pipe is closed: by `stop`, or by the system when this
    process has died. Interrupts from the keyboard go to this process alone.
    """

    def __init__(self, count: int, start: Callable[[], None] | None = None):
        """start: called in each process before its first work; it is pickled."""
        spawn = get_context("spawn")
        watched, self._lifeline = spawn.Pipe(duplex=False)
        super().__init__(count, spawn, _begin, (watched, start))

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `ProcessPoolExecutor.submit`, which starts processes."""
        with _interrupts_blocked():
            return super().submit(function, *args, **options)

    def stop(self) -> None:
        """End the processes at once; what they were doing is lost."""
        self._lifeline.close()
        self.shutdown(cancel_futures=True)


def _begin(watched: Connection, start: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without masks of signals
    threading.Thread(target=_exit_with, args=(watched,), daemon=True).start()
    if start is not None:
        start()


def _exit_with(watched: Connection) -> None:
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that are started in the block inherit that SIGINT is blocked, from their first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
