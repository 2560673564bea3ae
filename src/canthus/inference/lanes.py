"""Many photos at a time: chunks of them go through lanes side by side, threads of this process or processes.

Each lane does all of the work on its chunk, from reading to writing, so that decoding in one lane overlaps with the
networks in another; answers come in the order of the chunks. What a chunk gives does not depend on the other lanes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from canthus.errors import CanthusError
from canthus.inference.predictor import Predictor
from canthus.workers import Workers

CHUNK = 8  # photos of a chunk; their faces share network batches
AHEAD = 4  # chunks a lane that wait or whose answers do; answers take some kB
LANE_MEMORY = 2**28  # bytes of a lane's networks at work, by and large: the detector's fine search takes most
SHARE = 2**28  # bytes of pictures that a lane holds, unless it is told otherwise: 8 photos of 4 megapixels

T = TypeVar("T")
R = TypeVar("R")

_large = threading.Lock()  # held while a picture is in memory that exceeds its lane's share


class Lanes:
    """Runs functions over chunks of photos; a context manager.

    aligner: what each lane is given; a process gets a copy. count: how many lanes. processes: whether lanes are
    processes of their own, which share nothing, instead of threads, which share the networks. memory: bytes that all
    lanes together may take, networks included; it lowers the number of lanes if need be. A single picture that exceeds
    the share of a lane is read all the same, one at a time in each process. None: SHARE for the pictures of each lane.
    """

    def __init__(self, aligner: Predictor, count: int = 1, processes: bool = False, memory: int | None = None):
        self.aligner, self.processes = aligner, processes
        self.count = count if memory is None else max(1, min(count, memory // (LANE_MEMORY + 2**26)))
        self.share = SHARE if memory is None else max(2**26, memory // self.count - LANE_MEMORY)

        self._pool: Executor | None = None

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads or processes, when they have done the chunks under way."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(
        self, function: Callable[[Predictor, list[T]], R], items: Iterable[T], lost: Callable[[T], R]
    ) -> Iterator[R]:
        """`function(aligner, chunk)` of each CHUNK of items, in order; items are taken as they are needed.

        With processes, function and items are pickled. If a process dies, the chunks that it may have died of are run
        again, in the end item by item, each in a process of its own; `lost` gives the result of an item that ends that
        one, too. Raises what `function` raises, and `CanthusError` if processes cannot start. Within `with lanes:`
        threads and processes stay for the next call.
        """
        chunks = chunked(items, CHUNK)
        if self.count == 1 and not self.processes:
            yield from (function(self.aligner, chunk) for chunk in chunks)
            return
        call = partial(_with_held, function) if self.processes else partial(function, self.aligner)
        waiting = deque[tuple[list[T], Future[R]]]()

        def first() -> Iterator[R]:
            chunk, future = waiting.popleft()
            try:
                yield future.result()
                return
            except BrokenProcessPool:
                self.__exit__()
            yield from self._alone(call, chunk, lost)
            for number, (other, pending) in enumerate(waiting):
                if pending.cancelled() or pending.exception() is not None:
                    waiting[number] = other, self._submit(call, other)

        try:
            for chunk in chunks:
                while True:
                    try:
                        waiting.append((chunk, self._submit(call, chunk)))
                        break
                    except BrokenProcessPool:
                        self.__exit__()
                        if waiting:
                            yield from first()
                if len(waiting) >= AHEAD * self.count:
                    yield from first()
            while waiting:
                yield from first()
        finally:
            for _, future in waiting:
                future.cancel()

    def _submit(self, call: Callable[[list[T]], R], chunk: list[T]) -> Future[R]:
        if self._pool is None and self.processes:
            self._pool = Workers(self.count, partial(_hold, self.aligner))
        elif self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "lane")
        return self._pool.submit(call, chunk)

    def _alone(self, call: Callable[[list[T]], R], chunk: list[T], lost: Callable[[T], R]) -> Iterator[R]:
        """What a chunk gives in a process of its own; if that dies, what each of its items does."""
        for part in ([chunk], [[item] for item in chunk]):
            answers, died = list[R](), False
            for some in part:
                with Workers(1, partial(_hold, self.aligner)) as pool:
                    try:
                        pool.submit(_ready).result()
                    except BrokenProcessPool as error:
                        raise CanthusError("worker processes cannot be started, want more memory for them") from error
                    try:
                        answers.append(pool.submit(call, some).result())
                    except BrokenProcessPool:
                        died = True
                        answers += [lost(item) for item in some]
            if not died or len(part) == len(chunk):
                break
        yield from answers


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one of what is left."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def loads(items: Iterable[T], need: Callable[[T], int], read: Callable[[T], R | None], share: int) -> Iterator[list[R]]:
    """What `read` gives of the items, as much at a time as fits into `share` bytes; None is left out.

    need: bytes that reading an item takes. An item that takes more than the share comes alone, one such at a time in
    all lanes of this process. Drop each list before the next one is asked for.
    """
    load, held = list[R](), 0
    for item in items:
        size = need(item)
        if load and held + size > share:
            yield load
            load, held = [], 0
        if size > share:
            with _large:
                if (got := read(item)) is not None:
                    yield [got]
                del got
        elif (got := read(item)) is not None:
            load.append(got)
            held += size
    if load:
        yield load


_held: Any = None  # the aligner of a process that is a lane


def _hold(aligner: Predictor) -> None:
    global _held
    _held = aligner


def _ready() -> None:
    """Does nothing; its result shows that a process has started."""


def _with_held(function: Callable[[Predictor, list[T]], R], chunk: list[T]) -> R:
    return function(_held, chunk)
