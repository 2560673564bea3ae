"""Faces rendered while a training runs: worker processes make groups of them, some ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import numpy as np

from canthus.errors import CanthusError
from canthus.workers import Workers

WORKERS = 2  # processes that render
ATTEMPTS = 3  # for a group whose renderer dies


class GroupMaker(Protocol):
    """Makes groups in a worker process: `SynthGenerator` or `HeadPreparer`."""

    def group(self, number: int) -> Any:
        """Group `number`."""


_maker: GroupMaker | None = None  # one per worker process


def _make_group(make: Callable[[], GroupMaker], number: int) -> Any:
    global _maker
    _maker = _maker or make()
    return _maker.group(number)


def join(groups: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Concatenate groups of faces."""
    return {k: np.concatenate([g[k] for g in groups]) for k in groups[0]}


class LiveFaces:
    """An endless sequence of rendered faces; face number i is always the same.

    make: creates the maker of groups, in the workers, so it must be picklable. views: number of faces in a group.
    finish: turns groups, in this process, into fields as in a shard.
    """

    def __init__(
        self,
        make: Callable[[], GroupMaker],
        views: int,
        workers: int = WORKERS,
        finish: Callable[[list[Any]], dict[str, Any]] = join,
    ):
        self.make, self.finish, self._views, self._workers = make, finish, views, workers
        self._groups: dict[int, Future[Any]] = {}
        self._pool: Workers | None = None

    def take(self, first: int, last: int) -> dict[str, Any]:
        """The fields of the faces first to last, `last` not included. Raises `CanthusError` if workers keep dying."""
        wanted = range(first // self._views, -(-last // self._views))
        ahead = max(len(wanted), 2 * self._workers)
        self._groups = {g: f for g, f in self._groups.items() if g >= wanted.start}
        for g in range(wanted.start, wanted.stop + ahead):
            self._submit(g)
        made = self.finish([self._result(g) for g in wanted])
        place = slice(first - wanted.start * self._views, last - wanted.start * self._views)
        return {k: values[place] for k, values in made.items()}

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
        self._pool, self._groups = None, {}

    def _submit(self, group: int) -> None:
        if self._pool is None:
            self._pool = Workers(self._workers)
        if group not in self._groups:
            self._groups[group] = self._pool.submit(_make_group, self.make, group)

    def _result(self, group: int) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                self._submit(group)
                return self._groups[group].result()
            except BrokenProcessPool as error:  # software OpenGL drivers die now and then
                self.close()
                if attempt == ATTEMPTS - 1:
                    raise CanthusError(f"the renderer died {ATTEMPTS} times at group {group}: {error}") from error
        raise AssertionError
