"""Worker processes that do not outlive the process that started them, however it ends."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any


class Workers(ProcessPoolExecutor):
    """A pool of spawned processes (an OpenGL context does not survive a fork).

    Each watches a pipe of this process, and exits as soon as the pipe is closed: by `stop`, or by the system when this
    process has died. Interrupts from the keyboard go to this process alone.
    """

    def __init__(self, count: int, start: Callable[[], None] | None = None, grace: float = 0.0):
        """start: called in each process before its first work; it is pickled. grace: seconds that its work has to
        unwind, by a `SystemExit`, before the process exits; SIGTERM raises one, too. 0: it has none.
        """
        spawn = get_context("spawn")
        watched, self._lifeline = spawn.Pipe(duplex=False)
        super().__init__(count, spawn, _begin, (watched, start, grace))

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `ProcessPoolExecutor.submit`, which starts processes."""
        with _interrupts_blocked():
            return super().submit(function, *args, **options)

    def stop(self) -> None:
        """End the processes at once; what they were doing is lost."""
        self._lifeline.close()
        # One that dies while it sends leaves half a result. Whoever waits for the other half is told that nothing more
        # comes once all writing ends are closed, of which this process has one.
        if self._result_queue is not None:
            self._result_queue._writer.close()  # type: ignore[attr-defined]
        self.shutdown(cancel_futures=True)


def _begin(watched: Connection, start: Callable[[], None] | None, grace: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems without masks of signals
    started = threading.Event()
    threading.Thread(target=_exit_with, args=(watched, started, grace), daemon=True).start()
    if start is not None:
        start()
    started.set()
    if grace:  # not before: there was nothing to unwind, and the pool prints what is raised in here
        signal.signal(signal.SIGTERM, _unwind)


def _exit_with(watched: Connection, started: threading.Event, grace: float) -> None:
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        if grace and started.is_set():
            _thread.interrupt_main(signal.SIGTERM)
            time.sleep(grace)
        os._exit(1)


def _unwind(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


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
