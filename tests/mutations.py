"""Seeded damage to files: bytes flipped, lost, doubled or overwritten, and values of JSON replaced by others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator

# what damaged counters look like, as little-endian bytes
EXTREMES = [b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00", b"\xff" * 8]
# Values that a field of JSON or YAML may turn out to have. The last of them are beyond what JSON allows.
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e300, 10**30, "", "x", "1", "no", "../x", "/etc/passwd", "a\x1b[31mb", "a\0b",
    "\ud800", [], {}, [1], [[1, 2], [3]], {"a": 1}, [None] * 3, float("nan"), float("inf"), 10**400,
]  # fmt: skip


def damaged(data: bytes, rng: Rng) -> bytes:
    """The bytes with one kind of damage; never as they were unless they are empty."""
    out = bytearray(data)
    size = len(out)
    kind = rng.integers(8)
    start = int(rng.integers(size))
    stop = min(size, start + int(2 ** rng.uniform(0, 8)))
    if kind == 0:
        return bytes(out[:start])
    if kind == 1:
        del out[start:stop]
    elif kind == 2:
        out[start:start] = out[start:stop]
    elif kind == 3:
        out[start:stop] = rng.bytes(stop - start)
    elif kind == 4:
        extreme = EXTREMES[rng.integers(len(EXTREMES))]
        place = start // 4 * 4
        out[place : place + len(extreme)] = extreme
    elif kind == 5:  # early bytes are headers
        place = int(rng.integers(min(size, 256)))
        out[place] ^= 1 << int(rng.integers(8))
    elif kind == 6:
        out[start:stop] = bytes(stop - start)
    if kind == 7 or bytes(out) == data:
        for place in rng.integers(size, size=int(rng.integers(1, 20))):
            out[place] ^= 1 << int(rng.integers(8))
    return bytes(out) if bytes(out) != data else data + b"\0"


def with_odd_value(document: Any, rng: Rng) -> Any:
    """JSON data with one value replaced by another kind, missing, nested deep, or under a wrong key."""
    document = json.loads(json.dumps(document))
    places = list(_places(document))
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(10)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == 2:
        value: Any = 1
        for _ in range(int(rng.choice([5, 90]))):
            value = [value]
        holder[key] = value
    elif kind == 3 and isinstance(holder[key], list):
        holder[key] = holder[key] + holder[key][:1]
    else:
        holder[key] = ODD[rng.integers(len(ODD))]
    return document


def nested(depth: int) -> str:
    """A list in a list in a list ..., as JSON and YAML write it."""
    return "[" * depth + "]" * depth


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        if not isinstance(inner, list) or len(inner) < 20:  # of long lists one number stands for all
            yield from _places(inner)
        elif inner:
            yield inner, len(inner) // 2
