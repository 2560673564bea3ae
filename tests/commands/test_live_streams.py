"""`track` on live streams of the network: who is slow gets the newest picture, so that the delay never grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo, resized
from streaming import RATE, mjpeg, rtsp

from canthus.commands.camera import LiveSummary, follow
from canthus.inference.tracker import Tracker
from canthus.io.lines import read_json_lines
from canthus.io.streams import Live

pytest.importorskip("av")
BITS, SIDE = 8, 16  # of the number in a picture, and px of each


def numbered(number: int) -> np.ndarray:
    """A face, and below it the number in black and white squares."""
    bits = np.array([number >> k & 1 for k in range(BITS)], np.uint8) * 255
    squares = np.repeat(np.repeat(bits[None], SIDE, 0), SIDE, 1)
    face = resized(photo()[30:230, 125:325], BITS * SIDE, BITS * SIDE)
    return np.concatenate([face, np.stack([squares] * 3, -1)])


def number_of(image: np.ndarray) -> int:
    middles = image[-SIDE // 2, SIDE // 2 :: SIDE, 0]
    return sum(1 << k for k, level in enumerate(middles[:BITS]) if level > 127)


class Enough(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("serve", [mjpeg, rtsp])
def test_the_delay_of_a_slow_tracker_does_not_grow(serve, tmp_path: Path):
    import time

    behind: list[int] = []  # pictures that were sent after the one that is worked on
    seen: list[int] = []

    class Slow(Tracker):
        def step(self, frame):
            seen.append(number_of(np.asarray(frame)))
            behind.append(live.sent - seen[-1])
            if len(seen) == 12:
                raise Enough
            time.sleep(0.5)  # 12.5 pictures
            return super().step(frame)

    summary = LiveSummary(tmp_path / "a.jsonl")
    with serve(numbered) as (live, address), pytest.raises(Enough):
        follow(Live(address), tmp_path, Slow(aligner()), summary)
    assert seen == sorted(set(seen)) and seen[-1] >= 11 * 0.5 * RATE - 3 * RATE
    # a queue would be 11 pictures further behind with each one that is worked on, over 120 at the end
    assert max(behind[3:]) < 2 * RATE, behind
    assert summary.passed_over > 60
    frames = list(read_json_lines(summary.path))
    assert len(frames) == 11 and all(frame.ids.tolist() == [0] for frame in frames)
