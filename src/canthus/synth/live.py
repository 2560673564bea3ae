"""Rendering while something else learns: groups of faces from worker processes, some of them ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Protocol

import numpy as np

from canthus.errors import CanthusError

WORKERS = 2  # processes that render
ATTEMPTS = 3  # at a group whose renderer dies


class Renderer(Protocol):
    """What `synth.generator.SynthGenerator` does."""

    def group(self, number: int) -> dict[str, np.ndarray]:
        """The faces of group `number`, fields as in a shard."""


_renderer: Renderer | None = None  # one a worker process


def _render(make: Callable[[], Renderer], number: int) -> dict[str, np.ndarray]:
    global _renderer
    _renderer = _renderer or make()
    return _renderer.group(number)


class LiveFaces:
    """An endless row of faces; face number i is always the same.

    make: gives a renderer; it goes to the workers, so it must be picklable. views: faces of a group.
    """

    def __init__(self, make: Callable[[], Renderer], views: int, workers: int = WORKERS):
        self.make, self._views, self._workers = make, views, workers
        self._groups: dict[int, Future[dict[str, np.ndarray]]] = {}
        self._pool: ProcessPoolExecutor | None = None

    def take(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The fields of the faces first to last, `last` not included. Raises `CanthusError` if renderers keep dying."""
        wanted = range(first // self._views, -(-last // self._views))
        ahead = max(len(wanted), 2 * self._workers)
        self._groups = {g: f for g, f in self._groups.items() if g >= wanted.start}
        for g in range(wanted.start, wanted.stop + ahead):
            self._submit(g)
        groups = [self._result(g) for g in wanted]
        place = slice(first - wanted.start * self._views, last - wanted.start * self._views)
        return {k: np.concatenate([g[k] for g in groups])[place] for k in groups[0]}

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._groups = None, {}

    def _submit(self, group: int) -> None:
        if self._pool is None:
            # an OpenGL context does not survive a fork
            self._pool = ProcessPoolExecutor(self._workers, get_context("spawn"))
        if group not in self._groups:
            self._groups[group] = self._pool.submit(_render, self.make, group)

    def _result(self, group: int) -> dict[str, np.ndarray]:
        for attempt in range(ATTEMPTS):
            try:
                self._submit(group)
                return self._groups[group].result()
            except BrokenProcessPool as error:  # software OpenGL drivers die now and then
                self.close()
                if attempt == ATTEMPTS - 1:
                    raise CanthusError(f"the renderer died {ATTEMPTS} times at group {group}: {error}") from error
        raise AssertionError
