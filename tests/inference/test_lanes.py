"""Many photos side by side: order, memory, and what ends early."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from photos import aligner

from canthus.errors import CanthusError
from canthus.inference.lanes import AHEAD, CHUNK, LANE_MEMORY, Lanes, chunked, loads


def total(aligner, chunk):
    time.sleep(0.002 * (chunk[0] % 3))  # later chunks may be done before earlier ones
    return aligner.card.name, sum(chunk)


def deadly(aligner, chunk):
    if CHUNK + 1 in chunk:
        os.kill(os.getpid(), signal.SIGKILL)
    return aligner.card.name, sum(chunk)


def cannot_start():
    raise RuntimeError("no copy of these can be made")


class Unloadable:
    """What no process can be given."""

    def __reduce__(self):
        return cannot_start, ()


def lost(item):
    return "lost", item


@pytest.mark.parametrize("count", [1, 3])
def test_answers_come_in_order_and_of_all_items(count):
    with Lanes(aligner(), count) as lanes:
        for items in (range(5 * CHUNK + 3), range(1)):  # threads are used again
            wanted = [("swift", sum(chunk)) for chunk in chunked(items, CHUNK)]
            assert list(lanes.map(total, items, lost)) == wanted


def test_lanes_run_side_by_side_and_take_no_more_items_than_they_need():
    meet, taken = threading.Barrier(3, timeout=20), []

    def items():
        for number in range(100 * CHUNK):
            taken.append(number)
            yield number

    with Lanes(aligner(), 3) as lanes:
        answers = lanes.map(lambda aligner, chunk: meet.wait() if chunk[0] < 3 * CHUNK else 0, items(), lost)
        next(answers)  # three chunks meet, so three lanes ran at a time
        assert len(taken) <= (AHEAD * 3 + 1) * CHUNK
        answers.close()


def test_an_error_of_a_chunk_ends_the_run():
    def fails(aligner, chunk):
        if chunk[0]:
            raise ValueError("the second chunk")
        return 1

    with Lanes(aligner(), 2) as lanes:
        answers = lanes.map(fails, range(4 * CHUNK), lost)
        assert next(answers) == 1
        with pytest.raises(ValueError, match="the second chunk"):
            list(answers)


@pytest.mark.slow
def test_processes_give_what_threads_give_and_one_that_dies_costs_the_item_that_it_died_of():
    with Lanes(aligner(), 2, processes=True) as lanes:
        # 0 + ... + 7 and 8 + ... + 15
        assert list(lanes.map(total, range(2 * CHUNK), lost)) == [("swift", 28), ("swift", 92)]
        singles = [("lost", n) if n == CHUNK + 1 else ("swift", n) for n in range(CHUNK, 2 * CHUNK)]
        wanted = [("swift", 28), *singles, ("swift", 156)]  # 16 + ... + 23
        assert list(lanes.map(deadly, range(3 * CHUNK), lost)) == wanted


@pytest.mark.slow
def test_processes_that_cannot_start_are_told():
    with Lanes(Unloadable(), 2, processes=True) as lanes:
        with pytest.raises(CanthusError, match="cannot be started"):
            list(lanes.map(total, range(1), lost))


def test_memory_limits_lanes_and_then_their_pictures():
    small = Lanes(aligner(), 8, memory=LANE_MEMORY * 3)
    assert small.count * (LANE_MEMORY + small.share) <= 3 * LANE_MEMORY and small.count == 2
    assert Lanes(aligner(), 8, memory=1).count == 1
    large = Lanes(aligner(), 2, memory=LANE_MEMORY * 20)
    assert large.count == 2 and large.share == 9 * LANE_MEMORY


def test_loads_fit_into_the_share_and_what_does_not_comes_alone():
    sizes = [3, 4, 5, 20, 1, 9, 0, 30]  # 3 + 4 + 5 > 10, 1 + 9 = 10
    assert list(loads(sizes, lambda n: n, lambda n: n or None, 10)) == [[3, 4], [5], [20], [1, 9], [30]]
