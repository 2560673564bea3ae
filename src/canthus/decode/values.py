"""Plain data, as JSON and YAML give it: parsed within bounds, and compared with what is wanted."""

from __future__ import annotations

import json
import math
import os
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from canthus.decode.door import read_bytes

DEEPEST = 32  # lists and mappings in each other; no file of ours has ten
LARGEST = 2**63  # beyond this a whole number fits no array


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a file of JSON says. Raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path))


def parse_json(text: str | bytes) -> Any:
    """What a text of JSON says. Raises `ValueError` for other text, and as `check_plain`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise `ValueError` for data that is nested deeper than 32 levels or holds NaN, infinity or integers of more than
    64 bits."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list | tuple | set):
                inner += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"it holds the number {item}; finite ones are wanted")
            elif isinstance(item, int) and not -LARGEST <= item < LARGEST:
                raise ValueError("it holds a whole number of more than 64 bits")
        level = inner
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def fits(value: Any, kind: Any) -> bool:
    """Whether plain data is of the type that an annotation such as `dict[str, float] | None` names.

    Unlike in Python, true and false are no numbers; a float is finite and may be written as a whole number, and a list
    may stand for a tuple.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, k) for k in inner)
    if origin is Literal:
        return any(type(value) is type(k) and value == k for k in inner)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is list or (origin is tuple and inner[1:] == (...,)):
        return isinstance(value, list | tuple) and all(fits(v, inner[0]) for v in value)
    if origin is tuple:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if kind in (None, NoneType):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or kind)


def numbers(value: Any, shape: tuple[int | None, ...], unknown: bool = False) -> np.ndarray:
    """Nested lists of finite numbers as float64 of `shape`, in which None stands for any length.

    unknown: None among the numbers becomes NaN. Raises `ValueError`: `np.asarray` would take texts and truth values for
    numbers.
    """
    wanted = "(" + ", ".join("N" if side is None else str(side) for side in shape) + ")"
    flat, sides = [value], []
    for side in shape:
        if not all(isinstance(v, list) for v in flat):
            raise ValueError(f"there is something else than lists of numbers of shape {wanted}")
        sides.append(side if side is not None else len(flat[0]) if flat else 0)
        if any(len(v) != sides[-1] for v in flat):
            raise ValueError(f"there are lists of another length than in the shape {wanted}")
        flat = [v for one in flat for v in one]
    if not all((type(v) in (int, float) and math.isfinite(v)) or (unknown and v is None) for v in flat):
        raise ValueError(f"there is something else than finite numbers in a list of the shape {wanted}")
    return np.array([math.nan if v is None else v for v in flat], np.float64).reshape(sides)
