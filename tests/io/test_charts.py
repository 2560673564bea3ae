"""Charts: what is drawn where, and what they need."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.io import charts  # noqa: E402
from canthus.io.charts import Chart, beside, face_map, lines, part_map, rendered  # noqa: E402


def mean_face() -> np.ndarray:
    """The 68 points (68,2) of the mean head, y down."""
    return MorphableModel.default().landmarks()[0][:, :2] * [1, -1]


def test_a_chart_names_its_axes_and_holds_the_numbers():
    series = {"one": ([0, 5, 10], [50, np.nan, 40]), "two": ([0, 10], [1, 2])}
    (axes,) = lines(Chart("title", "yaw, degrees", "error, %", (0, 10), (0, 100)), series).axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("title", "yaw, degrees", "error, %")
    assert axes.get_xlim() == (0, 10) and axes.get_ylim() == (0, 100)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [50, np.nan, 40])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]


def test_errors_start_at_zero_and_values_below_zero_are_not_cut():
    (axes,) = lines(Chart("", "", ""), {"one": ([0, 1], [3, 4])}).axes
    assert axes.get_ylim()[0] == 0 and axes.get_legend() is None
    (axes,) = lines(Chart("", "", ""), {"one": ([0, 1], [-3, 4])}).axes
    assert axes.get_ylim()[0] < -3


def test_ticks_and_marks_carry_their_labels():
    (axes,) = lines(Chart("", "", ""), {"one": ([0, 1], [3, 4])}, ticks={0: "a", 1: "b"}, marks={0.5: "stage"}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axes.texts] == ["stage"]


def test_a_face_map_shows_every_known_value_upright():
    values = np.arange(68.0)
    values[3] = np.nan
    axes, bar = face_map("title", mean_face(), values, "ibug68", "% of the face").axes
    (discs,) = axes.collections
    np.testing.assert_array_equal(discs.get_array(), np.delete(values, 3))
    assert axes.yaxis_inverted() and bar.get_ylabel() == "% of the face"


def test_a_part_map_writes_the_number_of_each_known_part():
    axes, _ = part_map("title", mean_face(), {"jaw": 4.25, "nose": np.nan}, "ibug68", "%").axes
    assert [text.get_text() for text in axes.texts] == ["jaw 4.2"]


def test_a_figure_is_rendered_at_its_size_and_twice_the_same():
    first, second = (rendered(lines(Chart("", "", "", size=(400, 300)), {"one": ([0, 1], [3, 4])})) for _ in range(2))
    assert first.size == (400, 300) and first.mode == "RGB" and first.tobytes() == second.tobytes()
    assert beside([first, second]).size == (800, 300)


def test_drawing_leaves_pyplot_alone():
    sys.modules.pop("matplotlib.pyplot", None)
    rendered(lines(Chart("", "", ""), {"one": ([0, 1], [3, 4])}))
    assert "matplotlib.pyplot" not in sys.modules


def test_where_matplotlib_is_missing_a_sentence_says_how_to_get_it(monkeypatch):
    assert charts.missing() == ""
    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    assert "plots]" in charts.missing() and "matplotlib" in charts.missing()
