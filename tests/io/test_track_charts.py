"""The chart of a tracked video: which panels it has and what is drawn in them."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import made_up_faces

from canthus.face.blinks import Blink
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import TrackedFaces
from canthus.face.series import Series, TrackedFrame, series_of
from canthus.io.track_charts import MOST_FACES, chosen, drawn_on, track_chart

pytest.importorskip("matplotlib")


def series(number: int, frames: range) -> Series:
    count = len(frames)
    expression = np.zeros((count, 52))
    expression[:, EXPRESSIONS.index("jawOpen")] = np.linspace(0, 1, count)
    flat = np.ones(count)
    return Series(
        number, np.array(frames), np.array(frames) / 25, 0.9 * flat, np.stack([flat, 2 * flat, 3 * flat], 1),
        np.stack([0.3 * flat, 0.2 * flat], 1), 0.1 * flat, expression,
    )  # fmt: skip


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_each_face_has_its_panels_and_a_gap_is_no_line():
    one = series(4, range(0, 100))
    gone = series(7, range(100))
    kept = np.r_[0:40, 60:100]  # 0.8 s without the face
    gone = Series(7, *(getattr(gone, name)[kept] for name in list(Series.__annotations__)[1:]))
    figure = track_chart("a", [one, gone], {4: [Blink("left", 10, 11, 12, 0.8)]}, [(0.0, np.zeros((9, 16, 3)))], 4.0)
    panels = {title: axes for title, axes in zip(titles(figure), figure.axes)}
    assert [t for t in panels if t.startswith("face 4")] == [
        "face 4: head pose, degrees", "face 4: eye aspect ratios, mouth opening, blinks",
        "face 4: expressions that move most",
    ]  # fmt: skip
    yaw = panels["face 7: head pose, degrees"].lines[1]
    assert yaw.get_label() == "yaw" and np.isnan(yaw.get_ydata()).sum() == 1
    assert np.nanmax(yaw.get_ydata()) == 2
    assert panels["face 4: expressions that move most"].lines[0].get_label() == "jawOpen"
    (shade,) = panels["face 4: eye aspect ratios, mouth opening, blinks"].patches
    assert shade.get_x() == pytest.approx(0.38) and shade.get_width() == pytest.approx(
        0.12
    )  # 0.40 to 0.48 s and half a frame
    lanes = panels["numbers of the faces (2)"]
    assert len(lanes.patches) == 3 and lanes.get_xlim() == (0, 4)


def test_many_faces_are_said_to_be_more():
    many = [series(k, range(20 + k)) for k in range(MOST_FACES + 2)]
    found = titles(track_chart("a", many, {}, [], 1.0))
    assert "face 0: head pose, degrees" not in found and f"face {MOST_FACES + 1}: head pose, degrees" in found
    assert (
        found[-1]
        == f"numbers of the faces ({MOST_FACES + 2}); panels above are of the {MOST_FACES} faces seen for longest"
    )
    assert titles(track_chart("a", [], {}, [], 0.0))[-1] == "numbers of the faces (0)"


def test_pictures_are_spread_and_faces_lie_where_they_are():
    assert chosen(list(range(0, 100, 10)), 4) == [0, 30, 60, 90] and chosen([5], 4) == [5] and chosen([], 4) == []
    faces = made_up_faces([(0, 0, 0)])
    picture = drawn_on(np.zeros((120, 160, 3), np.uint8), faces, [0])
    y, x = np.nonzero(picture.sum(-1) > 200)
    x0, y0, x1, y1 = faces.boxes[0] / 4
    assert x0 - 3 < x.min() and x.max() < x1 + 3 and y.max() < y1 + 3 and len(x) > 68


def test_series_are_measured_face_by_face():
    faces = made_up_faces([(0, 10, 0), (0, -20, 0)])
    both = TrackedFaces(faces, np.array([1, 4]), np.array([False, False]))
    alone = TrackedFaces(faces[1], np.array([4]), np.array([True]))
    one, four = series_of([TrackedFrame(0, 0.0, both), TrackedFrame(1, 0.5, alone)])
    assert (one.id, four.id) == (1, 4) and one.frames.tolist() == [0] and four.times.tolist() == [0.0, 0.5]
    np.testing.assert_allclose(four.euler[:, 1], [-20, -20], atol=1e-6)
    assert four.blinks() == [] and series_of([]) == []
    assert four.blinking([Blink("left", 1, 1, 1, 0.9)]).tolist() == [[False, False], [False, True]]
