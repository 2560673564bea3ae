"""What `overlay` draws, and where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapes import made_up_faces

from canthus.errors import ImageError, LandmarkError
from canthus.face.faces import Faces
from canthus.face.pose import Pose
from canthus.io.draw import depth_colours, overlay

GREY = np.full((480, 640, 3), 128, np.uint8)
BARE = {"box": False, "axes": False}


def changed(image: np.ndarray) -> np.ndarray:
    return (image != 128).any(-1)


def one_point(faces: Faces, x: float, y: float) -> np.ndarray:
    """All landmarks of a face on one point: what is drawn there is round and its middle can be measured."""
    return np.broadcast_to(np.array([x, y, 0.0]), (len(faces), 68, 3))


def test_depth_runs_from_cool_to_warm_and_dark_to_light() -> None:
    colours = depth_colours(np.linspace(-50, 80, 30)).astype(int)
    assert colours[0, 2] > colours[0, 0] and colours[-1, 0] > colours[-1, 2]
    luma = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > 0).all()


def test_flat_faces_have_a_colour() -> None:
    assert (depth_colours(np.zeros(68)) == depth_colours(np.zeros(1))).all()


def test_the_input_is_left_alone_and_no_face_draws_nothing() -> None:
    image = GREY.copy()
    drawn = overlay(image, made_up_faces([(0.0, 0.0, 0.0)]))
    assert (image == 128).all() and changed(drawn).any() and drawn.shape == image.shape
    np.testing.assert_array_equal(overlay(image, Faces.empty((640, 480))), image)


@pytest.mark.parametrize(("x", "y"), [(200.0, 150.0), (200.5, 150.25), (630.4, 3.7)])
def test_a_dot_lies_on_its_point(x: float, y: float) -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    faces = replace(faces, xyz=one_point(faces, x, y))
    black, white = (overlay(np.full_like(GREY, shade), faces, **BARE).astype(float).sum(-1) for shade in (0, 255))
    weight = 3 * 255 - (white - black)  # opacity
    rows, columns = np.indices(weight.shape)
    middle = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
    assert middle == pytest.approx((x, y), abs=0.18)  # the layer's grid is 1/3 px: at most 1/6 px off


def test_hidden_points_are_hollow() -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)], image_size=(640, 480), scale=3.0)
    chin = tuple(faces.xy[0, 8].round().astype(int)[::-1])
    seen = overlay(GREY, replace(faces, visible=np.ones((1, 68))), **BARE)
    hidden = overlay(GREY, replace(faces, visible=np.zeros((1, 68))), **BARE)
    unknown = overlay(GREY, replace(faces, visible=np.full((1, 68), np.nan)), **BARE)
    assert changed(seen)[chin] and not changed(hidden)[chin] and changed(hidden).any()
    np.testing.assert_array_equal(unknown, seen)


def test_axes_point_where_the_head_does() -> None:
    """Seen from the front: red to the image's right (the subject's left), green up."""
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    x, y = faces.xy[0].mean(0)
    size = faces.sizes[0]
    drawn = overlay(GREY, faces, box=False).astype(int)
    red = drawn[round(y), round(x + 0.5 * size)]
    green = drawn[round(y - 0.5 * size), round(x)]
    assert red[0] > red[1:].max() + 100 and green[1] > green[[0, 2]].max() + 80
    blue = drawn[round(y), round(x)]
    assert blue[2] > blue[:2].max() + 80


def test_switches_take_away_what_they_name() -> None:
    faces = made_up_faces([(0.0, 20.0, 0.0)])
    faces = replace(faces, sigma=np.full((1, 68), 6.0))
    amount = {
        name: changed(overlay(GREY, faces, **{**BARE, name: True})).sum() for name in ("box", "axes", "uncertainty")
    }
    bare = changed(overlay(GREY, faces, **BARE)).sum()
    assert min(amount.values()) > bare + 100
    x0, y0 = faces.boxes[0, :2].round().astype(int)
    assert changed(overlay(GREY, faces, axes=False))[y0, x0]


def test_lines_scale_with_the_face() -> None:
    """Twice the face on twice the photo has about four times the paint."""

    def paint(width: int, height: int, scale: float) -> float:
        faces = made_up_faces([(0.0, 0.0, 0.0)], (width, height), scale)
        photo = np.full((height, width, 3), 128, np.uint8)
        return np.abs(overlay(photo, faces, **BARE).astype(float) - 128).sum()

    assert paint(1280, 960, 4.0) / paint(640, 480, 2.0) == pytest.approx(4, rel=0.2)  # constant widths: 2


def test_faces_beside_the_image_are_cut_or_left_out() -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    for shift, any_seen in ((320.0, True), (3000.0, False)):
        moved = replace(faces, xyz=faces.xyz + np.float32([shift, 0, 0]))
        assert changed(overlay(GREY, moved)).any() == any_seen


def test_very_large_faces_are_drawn_too() -> None:
    faces = made_up_faces([(0.0, 30.0, 0.0)], image_size=(3000, 2400), scale=15.0)
    assert changed(overlay(np.full((2400, 3000, 3), 128, np.uint8), faces)).mean() > 0.02


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(LandmarkError, match="got NoneType to draw, want Faces"):
        overlay(GREY, None)
    with pytest.raises(ImageError, match="px of the faces"):
        overlay(GREY[:400], made_up_faces([(0.0, 0.0, 0.0)]))


def test_a_face_that_looks_away_still_has_axes() -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    away = replace(faces, pose=Pose(np.diag([-1.0, 1.0, -1.0])[None]))
    assert changed(overlay(GREY, away)).any()


def test_an_image_whose_rows_are_not_beside_each_other_in_memory_is_drawn_on_as_well() -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    turned = np.ascontiguousarray(GREY.transpose(1, 0, 2)).transpose(1, 0, 2)
    np.testing.assert_array_equal(overlay(turned, faces, names=["7"]), overlay(GREY, faces, names=["7"]))


def test_names_are_written_above_the_boxes_and_cut_at_the_border() -> None:
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    faces = replace(faces, visible=np.zeros((1, 68)))
    named = (overlay(GREY, faces, names=["12"], **BARE) != overlay(GREY, faces, **BARE)).any(-1)
    x0, y0 = faces.boxes[0, :2]
    rows, columns = np.nonzero(named)
    assert rows.max() <= y0 + 1 and abs(columns.min() - x0) < 4 and len(rows) > 30
    for shift in ([-x0 - 5, 0, 0], [640 - x0 - 5, 0, 0], [0, -y0 + 5, 0]):  # half of the text is beyond the border
        moved = replace(faces, xyz=faces.xyz + np.float32(shift))
        beyond = (overlay(GREY, moved, names=["12"], **BARE) != overlay(GREY, moved, **BARE)).any(-1)
        assert 0 < beyond.sum() < named.sum()
