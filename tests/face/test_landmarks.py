"""Landmark schemes: their data is consistent, flips mirror faces, and maps keep what they promise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from shapes import MIRROR, head68

from canthus.errors import LandmarkError
from canthus.face import landmarks
from canthus.face.landmarks import QUALITIES, convert, mirror, scheme, scheme_names

COUNTS = {
    "3dfaw66": 66,
    "aflw19": 19,
    "aflw21": 21,
    "cofw29": 29,
    "ibug68": 68,
    "lapa106": 106,
    "mediapipe478": 478,
    "menpo84": 84,
    "wflw98": 98,
}
NAMED = ("ibug68", "aflw21", "aflw19", "cofw29")
STORED = tuple(landmarks._load_maps())


def random_points(name: str, *leading: int, dims: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 30, (*leading, COUNTS[name], dims))


def swap_sides(word: str) -> str:
    return word.replace("right", "*").replace("left", "right").replace("*", "left")


# Schemes


def test_every_scheme_is_listed_and_read_once() -> None:
    assert scheme_names() == tuple(COUNTS)
    assert scheme("ibug68") is scheme("ibug68")


@pytest.mark.parametrize("name", COUNTS)
def test_scheme_is_complete(name: str) -> None:
    found = scheme(name)
    assert (found.name, found.count) == (name, COUNTS[name])
    assert found.title and found.source
    assert len(found.points) == len(set(found.points)) == found.count
    assert found.jaw in ("mesh points", "visible contour", "none")
    assert ("jaw" in found.parts or "face_oval" in found.parts) == (found.jaw != "none")
    assert found.edges.min() >= 0 and found.edges.max() < found.count
    members = np.concatenate(list(found.parts.values()))
    assert members.min() >= 0 and members.max() < found.count
    assert len(np.unique(members)) == len(members)  # a point belongs to one part
    if name != "mediapipe478":  # most of its vertices belong to no part
        assert len(members) == found.count


@pytest.mark.parametrize("name", COUNTS)
def test_data_cannot_be_changed(name: str) -> None:
    found = scheme(name)
    for array in (found.mirror, found.edges, *found.parts.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(TypeError):
        found.parts["jaw"] = found.mirror  # type: ignore[index]


@pytest.mark.parametrize("name", COUNTS)
def test_mirror_is_an_involution_that_swaps_sides(name: str) -> None:
    found = scheme(name)
    assert found.mirror.min() >= 0  # no point was forgotten
    assert (found.mirror[found.mirror] == np.arange(found.count)).all()
    for part, indices in found.parts.items():
        assert set(found.mirror[indices]) == set(found.parts[swap_sides(part)])
    right, left = found.eye_corners
    assert found.mirror[right] == left != right
    assert right in found.parts["right_eye"] and left in found.parts["left_eye"]


@pytest.mark.parametrize("name", COUNTS)
def test_the_drawing_is_its_own_mirror_image(name: str) -> None:
    found = scheme(name)
    drawn = {frozenset(edge) for edge in found.edges.tolist()}
    assert {frozenset(edge) for edge in found.mirror[found.edges].tolist()} == drawn


@pytest.mark.parametrize("name", NAMED)
def test_anatomical_names_mirror_with_the_points(name: str) -> None:
    found = scheme(name)
    assert [found.points[i] for i in found.mirror] == [swap_sides(point) for point in found.points]


def test_68_permutation_written_out() -> None:
    np.testing.assert_array_equal(scheme("ibug68").mirror, MIRROR)


def test_mesh_permutation_pairs_the_sides_in_order() -> None:
    # Face Mesh numbers the midline and the right side 0-247, and the left side 248-467 in the same order.
    found = scheme("mediapipe478").mirror
    right = np.flatnonzero(found[:248] != np.arange(248))
    assert len(right) == 220
    np.testing.assert_array_equal(found[right], np.arange(248, 468))
    assert found[[33, 133, 61, 234, 70, 468, 159]].tolist() == [263, 362, 291, 454, 300, 473, 386]
    # An iris rim runs image right, top, image left, bottom on both sides: a flip trades its points 1 and 3.
    assert found[469:473].tolist() == [476, 475, 474, 477]


def test_lines_stay_open_and_loops_close() -> None:
    drawn = {frozenset(edge) for edge in scheme("ibug68").edges.tolist()}
    assert {36, 41} in drawn and {0, 16} not in drawn and {26, 27} not in drawn
    assert len(drawn) == 16 + 4 + 4 + 3 + 4 + 6 + 6 + 12 + 8


def test_unknown_scheme_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(LandmarkError, match="'ibug86', want 'ibug68'"):
        scheme("ibug86")
    with pytest.raises(LandmarkError, match="want 'wflw98'"):
        convert(random_points("ibug68"), "ibug68", "WFLW-98")


# Flips


def test_flip_by_hand(xp: Callable[[Any], Any]) -> None:
    # In an image 100 px wide x becomes 99 - x. The right outer eye corner (36) becomes the left one (45).
    points = np.zeros((2, 68, 3))
    points[1, 36] = [30, 40, 5]
    points[1, 8] = [50, 90, 7]
    flipped = np.asarray(mirror(xp(points), "ibug68", 100))
    assert flipped[1, 45].tolist() == [69, 40, 5]
    assert flipped[1, 8].tolist() == [49, 90, 7]
    assert flipped[1, 36].tolist() == [99, 0, 0]


@pytest.mark.parametrize(("name", "dims"), list(product(COUNTS, (2, 3))))
def test_flip_twice_is_nothing(name: str, dims: int) -> None:
    points = random_points(name, 4, dims=dims)
    np.testing.assert_allclose(mirror(mirror(points, name, 640), name, 640), points, atol=1e-12)


def test_a_symmetric_face_is_its_own_mirror_image() -> None:
    face = head68() * [1, -1, 1] + [(640 - 1) / 2, 200, 0]
    np.testing.assert_allclose(mirror(face, "ibug68", 640), face, atol=1e-12)


# Maps


@pytest.mark.parametrize(("source", "target"), STORED)
def test_weights_sum_to_one(source: str, target: str) -> None:
    found = landmarks._route(source, target)
    present = found.quality != "missing"
    np.testing.assert_allclose(found.weights[present].sum(-1), 1, atol=1e-12)
    assert found.indices.min() >= 0 and found.indices.max() < COUNTS[source]
    assert set(found.quality) <= set(QUALITIES)


@pytest.mark.parametrize(
    ("source", "target"), [*STORED, ("mediapipe478", "cofw29"), ("wflw98", "aflw19"), ("lapa106", "aflw21")]
)
def test_maps_commute_with_flips(source: str, target: str) -> None:
    points = random_points(source, 2)
    flipped_last = mirror(convert(points, source, target)[0], target, 640)
    converted_last, quality = convert(mirror(points, source, 640), source, target)
    np.testing.assert_allclose(converted_last, flipped_last, atol=1e-12)
    np.testing.assert_array_equal(quality, quality[scheme(target).mirror])


@pytest.mark.parametrize("source", ["menpo84", "wflw98", "lapa106", "mediapipe478"])
def test_another_jaw_line_is_approximate(source: str) -> None:
    # Other points of the skin (menpo84, mediapipe478) or of the outline that is seen (wflw98, lapa106).
    _, quality = convert(random_points(source), source, "ibug68")
    assert set(quality[:17]) == {"approximate"}


@pytest.mark.parametrize(("source", "target"), STORED)
def test_exact_points_are_copied_and_sides_stay_sides(source: str, target: str) -> None:
    points = random_points(source)
    converted, quality = convert(points, source, target)
    found = landmarks._route(source, target)
    exact = np.flatnonzero(quality == "exact")
    np.testing.assert_array_equal(converted[exact], points[found.indices[exact, 0]])
    side_of = {i: part.split("_")[0] for part, indices in scheme(source).parts.items() for i in indices.tolist()}
    for part in ("right_eye", "left_eye", "right_brow", "left_brow"):
        used = found.indices[scheme(target).parts[part]][quality[scheme(target).parts[part]] != "missing"]
        assert {side_of[i] for i in used.ravel().tolist()} == {part.split("_")[0]}


def test_points_by_hand(xp: Callable[[Any], Any]) -> None:
    # Point i lies at (i, 2i, 3i), so a blend lies at the mean of its indices.
    def ramp(name: str) -> Any:
        return xp(np.arange(COUNTS[name])[:, None] * [1.0, 2.0, 3.0])

    x = np.asarray(convert(ramp("ibug68"), "ibug68", "aflw21")[0])
    assert x[7].tolist() == [38.5, 77, 115.5]  # right eye centre: (36 + ... + 41) / 6
    assert x[[0, 12, 14, 16, 20], 0].tolist() == [17, 2, 30, 14, 8]
    assert x[18, 0] == pytest.approx(63.5)  # mouth centre: (60 + ... + 67) / 8
    x = np.asarray(convert(ramp("3dfaw66"), "3dfaw66", "ibug68")[0])
    assert x[60, 0] == pytest.approx(0.9 * 48 + 0.05 * (60 + 65))
    assert x[[59, 61, 63, 65, 67], 0].tolist() == [59, 60, 62, 63, 65]
    x = np.asarray(convert(ramp("menpo84"), "menpo84", "ibug68")[0])
    assert x[[0, 8, 16, 17, 36, 67], 0].tolist() == [0, 16, 32, 33, 52, 83]
    x = np.asarray(convert(ramp("wflw98"), "wflw98", "ibug68")[0])
    assert x[[8, 21, 22, 27, 38, 45, 47, 48, 67], 0].tolist() == [16, 37, 42, 51, 63, 72, 75, 76, 95]
    x = np.asarray(convert(ramp("lapa106"), "lapa106", "ibug68")[0])
    assert x[[8, 21, 22, 27, 31, 38, 45, 47, 48, 67], 0].tolist() == [16, 37, 42, 51, 58, 69, 79, 82, 84, 103]
    x = np.asarray(convert(ramp("mediapipe478"), "mediapipe478", "ibug68")[0])
    assert x[[3, 8, 30, 36, 45, 62], 0].tolist() == [(132 + 58) / 2, 152, 4, 33, 263, 13]


def test_to_itself_changes_nothing() -> None:
    points = random_points("cofw29", 2)
    converted, quality = convert(points, "cofw29", "cofw29")
    np.testing.assert_array_equal(converted, points)
    assert set(quality) == {"exact"}


def test_68_to_66_and_back_keeps_all_but_two_points() -> None:
    face = head68()
    back, quality = convert(convert(face, "ibug68", "3dfaw66")[0], "3dfaw66", "ibug68")
    assert np.flatnonzero(quality != "exact").tolist() == [60, 64]
    others = np.delete(np.arange(68), [60, 64])
    np.testing.assert_array_equal(back[others], face[others])
    # The two corners come back to within 4 % of the width of the face, 140 units.
    assert np.linalg.norm((back - face)[[60, 64]], axis=-1).max() < 0.04 * 140


def test_missing_points_are_nan_and_said_to_be() -> None:
    converted, quality = convert(random_points("ibug68", 3), "ibug68", "cofw29")
    assert np.flatnonzero(quality == "missing").tolist() == [5, 7]  # the lower edges of the brows
    assert np.isnan(converted[:, [5, 7]]).all()
    assert np.isfinite(np.delete(converted, [5, 7], axis=1)).all()


@pytest.mark.parametrize(
    ("source", "middle", "target"),
    [
        ("menpo84", "ibug68", "aflw21"),
        ("mediapipe478", "ibug68", "cofw29"),
        ("3dfaw66", "ibug68", "aflw19"),
        ("ibug68", "aflw21", "aflw19"),  # also stored: both ways must agree
    ],
)
def test_two_maps_in_turn(source: str, middle: str, target: str) -> None:
    points = random_points(source)
    halfway, first_quality = convert(points, source, middle)
    expected, second_quality = convert(halfway, middle, target)
    converted, quality = convert(points, source, target)
    np.testing.assert_allclose(converted, expected, atol=1e-12)
    # Worst of both, point by point, from the stored maps.
    second = landmarks._route(middle, target)
    for i, word in enumerate(quality):
        used = [first_quality[j] for j, w in zip(second.indices[i], second.weights[i], strict=True) if w]
        if second_quality[i] != "missing":
            assert QUALITIES.index(word) == max(map(QUALITIES.index, [second_quality[i], *used]))


def test_a_point_without_annotation_does_not_spread() -> None:
    points = random_points("ibug68")
    points[40] = np.nan
    converted, _ = convert(points, "ibug68", "aflw21")
    assert np.flatnonzero(np.isnan(converted[:, 0])).tolist() == [7]  # only the centre of that eye


@pytest.mark.parametrize("points", [[], [[0.0, 0.0]] * 68, None, "points"])
def test_points_that_are_no_array_are_refused(points) -> None:
    with pytest.raises(LandmarkError, match=f"of type {type(points).__name__}, want an array"):
        convert(points, "ibug68", "aflw21")


def test_a_pair_without_maps_names_those_there_are() -> None:
    with pytest.raises(
        LandmarkError,
        match="no map from ibug68 to wflw98; from ibug68 the maps lead to 3dfaw66, menpo84, aflw21.*Faces.landmarks",
    ):
        convert(random_points("ibug68"), "ibug68", "wflw98")


@pytest.mark.parametrize("name", ["aflw19", "aflw21", "cofw29"])
def test_points_that_come_from_one_of_the_68_go_back_to_it(name: str) -> None:
    points = random_points("ibug68")
    own, _ = convert(points, "ibug68", name)
    back, quality = convert(own, name, "ibug68")
    kept = quality != "missing"
    assert kept.sum() >= 16
    np.testing.assert_array_equal(back[kept], points[kept])
    # each point of the scheme that one of the 68 gives, but for the ears, which are only beside the jaw's points
    single = [
        k for k in range(len(own)) if (own[k] == points).all(1).any() and not (name == "aflw21" and k in (12, 16))
    ]
    assert kept.sum() == len(single)


@pytest.mark.parametrize("shape", [(68,), (66, 3), (68, 4), (3, 68)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LandmarkError, match="want .*68, 2 or 3"):
        convert(np.zeros(shape), "ibug68", "aflw21")
    with pytest.raises(LandmarkError, match="want .*68, 2 or 3"):
        mirror(np.zeros(shape), "ibug68", 10)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(LandmarkError, match="want floating-point"):
        convert(np.zeros((68, 2), dtype=int), "ibug68", "aflw21")


def test_torch_keeps_type_and_gradient() -> None:
    torch = pytest.importorskip("torch")
    points = torch.zeros(2, 68, 3, dtype=torch.float32, requires_grad=True)
    converted, _ = convert(points, "ibug68", "aflw21")
    assert converted.dtype == torch.float32 and converted.shape == (2, 21, 3)
    converted[0, 7].sum().backward()
    # The right eye's centre is the mean of six points.
    assert points.grad[0, 36:42].numpy() == pytest.approx(np.full((6, 3), 1 / 6))
    assert points.grad.sum().item() == pytest.approx(3)
    assert mirror(points, "ibug68", 256).dtype == torch.float32
