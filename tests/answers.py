"""What the tests of the service ask of its answers."""

from __future__ import annotations

import time
from collections.abc import Callable


def detail(response, status: int) -> str:
    """What an answer of this status says is wrong."""
    assert response.status_code == status, response.text
    return response.json()["detail"]


def until(true: Callable[[], object]) -> None:
    """Wait until something is so, 30 seconds at most."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
