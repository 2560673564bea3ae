"""A thread that does one job after another."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Closed(Exception):
    """The thread takes no more jobs."""


class JobThread(ABC, Generic[Job]):
    """Does jobs in the order in which they come, until it is closed; at most `capacity` wait, 0: any number.

    A subclass sets its own attributes first, as the thread starts here.
    """

    def __init__(self, name: str, capacity: int = 0):
        self._jobs: queue.Queue[Job | None] = queue.Queue(capacity)  # None is the last one
        self._lock, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return self._jobs.qsize()

    @property
    def ready(self) -> bool:
        """Whether jobs are taken."""
        return not self._closed and self._thread.is_alive()

    def close(self) -> None:
        """Take no more jobs, do those that wait, and end the thread."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._jobs.put(None)
        self._thread.join()

    def _put(self, job: Job) -> None:
        """Add a job. Raises `Closed`, and `queue.Full` if as many wait as may."""
        with self._lock:
            if self._closed:
                raise Closed
            self._jobs.put_nowait(job)

    @abstractmethod
    def _run(self) -> None:
        """Do the jobs of `_jobs` up to None, on the thread."""
