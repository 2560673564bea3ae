"""Plain data: what is parsed, what fits a type, which numbers are taken."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from mutations import nested

from canthus.decode import check_plain, fits, numbers, parse_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested(100_000), "nested deeper than 32"),
        (nested(33), "nested deeper than 32"),
        ("[1e999]", "the number inf"),
        ('{"a": [NaN]}', "the number nan"),
        ("[-Infinity]", "the number -inf"),
        ("1" + "0" * 19, "64 bits"),
        ("", "Expecting value"),
        ("[1,]", "Expecting value|trailing comma"),
    ],
)
def test_json_beyond_bounds_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_json_within_bounds_is_parsed():
    assert parse_json('{"a": [1, 2.5, null, true, "b"]}') == {"a": [1, 2.5, None, True, "b"]}
    assert parse_json(nested(31)) is not None
    check_plain([-(2**63), 2**63 - 1])


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [0, 1.5], [False, "1", None, float("nan"), float("inf")]),
        (bool, [True, False], [0, 1, "no"]),
        (str, ["", "a"], [1, None, b"a"]),
        (str | None, ["a", None], [1]),
        (list[float], [[], [1, 2.5]], [[True], (float("nan"),), 3, "ab"]),
        (tuple[int, ...], [[1, 2], (1,), []], [[1.5], {1: 2}]),
        (tuple[int, float], [[1, 2.5]], [[1], [1, 2, 3], [1.5, 1]]),
        (dict[str, float], [{}, {"a": 1}], [{"a": "1"}, {1: 1.0}, []]),
        (Literal["a", "b"], ["a"], ["c", 1]),
        (Literal[1], [1], [True, 1.0]),
        (Any, [None, 3], []),
    ],
)
def test_what_fits_a_type(kind, good, bad):
    assert all(fits(value, kind) for value in good)
    assert not any(fits(value, kind) for value in bad)


def test_numbers_are_taken_in_the_shape_that_is_wanted():
    np.testing.assert_array_equal(numbers([[1, 2.5], [3, 4]], (None, 2)), [[1, 2.5], [3, 4]])
    np.testing.assert_array_equal(numbers([1, None], (2,), unknown=True), [1, np.nan])
    assert numbers([], (None, 68, 3)).shape == (0, 68, 3) and numbers(3, ()) == 3.0


@pytest.mark.parametrize(
    "value",
    [[["1", 2]], [[True, 2]], [[None, 2]], [[1, 2], [3]], [[1, 2, 3]], [1, 2], "12", {"a": 1}, [[float("inf"), 1]]],
)
def test_what_are_no_numbers_of_the_shape_is_refused(value):
    with pytest.raises(ValueError, match=r"of (the )?shape|in the shape"):
        numbers(value, (None, 2))
