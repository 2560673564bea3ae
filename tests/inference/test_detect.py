"""The face detector: its arithmetic against plain loops and by hand, and what it finds in real pictures."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from photos import BOX, PUPILS, aligner, on_canvas, photo, resized

import canthus
from canthus.errors import BoxError, CanthusError, WeightsError
from canthus.geometry.crop import Crop, box_overlaps
from canthus.inference.detect import Detections, FaceDetector, FunctionDetector, PyramidDetector, _merged, suppress
from canthus.weights import DETECTOR, ROOT

REPORTS = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "reports"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return aligner().detector


# Arithmetic


def plain_suppress(boxes, scores):
    def overlap(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return shared / (sum(areas) - shared)

    keep = []
    for k in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        if all(overlap(boxes[k], boxes[other]) <= 0.4 for other in keep):
            keep.append(k)
    return keep


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_that_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    corner, extent = rng.uniform(0, 100, (80, 2)), rng.uniform(5, 60, (80, 2))
    boxes, scores = np.concatenate([corner, corner + extent], 1), rng.permutation(80) / 80
    keep = suppress(boxes, scores)
    assert 1 < len(keep) < 80
    assert keep.tolist() == plain_suppress(boxes, scores)


def test_suppression_by_hand():
    # the second shares 6 of 10 columns with the first: 60 / (100 + 100 - 60) = 0.43 > 0.4, so the weaker goes;
    # the third shares 5: 50 / 150 = 0.33, so both stay
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [-5, 0, 5, 10]], float)
    assert suppress(boxes, np.array([0.7, 0.9, 0.8])).tolist() == [1, 2]
    assert suppress(boxes, np.array([0.9, 0.8, 0.7])).tolist() == [0, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0)).tolist() == []


class OneFace:
    """Stands in for the network: two cells, of which the first has a face of 16 px at (12, 12), the second a doubt."""

    def __init__(self, doubt=None):
        self.doubt = doubt
        self.seen = []

    def run(self, names, feed):
        pictures = feed["pictures"]
        self.seen.append(pictures)
        box = np.array([[4, 4, 20, 20], [0, 0, 8, 8] if self.doubt is None else self.doubt], np.float32)
        score = np.array([0.9, 0 if self.doubt is None else 0.3], np.float32)
        upright = np.array([[13, 11, 15], [0, 0, 8]], np.float32)
        up = np.array([[1.0, 0], [0, -1]], np.float32)  # the first head lies on its left side: its top is to the right
        return [v[None] for v in (score, box, upright, up, np.array([0.1, 0.5], np.float32))]


class NoFace(OneFace):
    def run(self, names, feed):
        score, *rest = super().run(names, feed)
        return [score * 0, *rest]


class Agrees:
    """Stands in for the second network: it says of both cells what the first says, or what it is given."""

    def __init__(self, move=(0, 0, 0), up=(0, -1)):
        self.move, self.up, self.seen = move, up, []

    def run(self, names, feed):
        self.seen.append(feed["crops"])
        count = len(feed["crops"])
        score, sigma = np.array([0.9, 0.2], np.float32)[:count], np.array([0.1, 0.5], np.float32)[:count]
        return [score, *(np.tile(np.float32(v), (count, 1)) for v in (self.move, self.up)), sigma]


def with_network(network, min_face=None, refiner=None) -> PyramidDetector:
    detector = PyramidDetector.__new__(PyramidDetector)
    FaceDetector.__init__(detector, min_face)
    detector.session, detector.refiner = network, refiner or Agrees()
    return detector


def test_the_second_network_corrects_the_first():
    # The head lies on its left side: its own right is up in the picture, its own down to the left. It is found to be
    # a fifth of 15 px further to its right in the crop, a tenth further down, a quarter larger, and to look up by
    # atan(3 / 4) more to the right.
    refiner = Agrees((0.2, 0.1, np.log(1.25)), (0.6, -0.8))
    found = with_network(OneFace(), refiner=refiner).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(found.squares, [[13 - 1.5, 11 + 3, 18.75, np.pi / 2 + np.arctan2(3, 4)]], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [[12 - 1.5 - 10, 12 + 3 - 10, 12 - 1.5 + 10, 12 + 3 + 10]], atol=1e-5)
    assert refiner.seen[0].shape == (1, 64, 64, 3)


def test_the_second_network_sees_the_candidate_upright_with_its_surroundings():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 14:] = 200  # towards the top of the head that lies
    refiner = Agrees()
    with_network(OneFace(), refiner=refiner).detect_at(image, 1)
    (crop,) = refiner.seen[0]
    inside = slice(12, 52)  # the square ends beyond the picture
    assert (crop[2:28, inside] == 200).all() and not crop[36:, inside].any()


def test_what_the_second_network_takes_for_no_face_is_none():
    class Denies(Agrees):
        def run(self, names, feed):
            score, *rest = super().run(names, feed)
            return [score * np.float32(0.4), *rest]

    assert not len(with_network(OneFace(), refiner=Denies()).detect_at(np.zeros((64, 64, 3), np.uint8), 1).scores)


class Leans(Agrees):
    """Takes every crop for a face, whose head stands the more upright the more its upper half is lit."""

    def run(self, names, feed):
        self.seen.append(feed["crops"])
        lit = feed["crops"].astype(np.float32).mean((2, 3)) / 250
        upright = lit[:, :32].mean(1) - lit[:, 32:].mean(1)
        count, none = len(lit), np.zeros(len(lit), np.float32)
        move = np.zeros((count, 3), np.float32)
        score, sigma = np.full(count, 0.9, np.float32), np.full(count, 0.1, np.float32)
        return [score, move, np.column_stack([none, -upright]), sigma]


@pytest.mark.parametrize(("lit", "angle"), [("top", 0), ("right", 90), ("bottom", 180), ("left", 270)])
def test_a_head_of_unknown_roll_is_seen_where_it_stands_most_upright(lit, angle):
    class Unsure(OneFace):
        def run(self, names, feed):
            score, box, upright, up, sigma = super().run(names, feed)
            return [score, box + 20, upright + [20, 20, 0], up * 0, sigma]

    image = np.zeros((64, 64, 3), np.uint8)
    part = {"top": np.s_[:31], "right": np.s_[:, 34:], "bottom": np.s_[32:], "left": np.s_[:, :33]}[lit]
    image[part] = 125  # half as light as would make a head's roll known at once
    refiner = Leans()
    found = with_network(Unsure(), refiner=refiner).detect_at(image, 1)
    assert [len(crops) for crops in refiner.seen] == [1, 4]
    np.testing.assert_allclose(np.rad2deg(found.squares[:, 3]) % 360, [angle], atol=1e-6)
    np.testing.assert_allclose(found.squares[:, :3], [[33, 31, 15]], atol=1e-6)


def test_an_answer_of_the_network_becomes_pixels_of_the_image():
    found = with_network(OneFace()).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(found.boxes, [[4, 4, 20, 20]])
    np.testing.assert_allclose(found.squares, [[13, 11, 15, np.pi / 2]])
    np.testing.assert_allclose([found.scores, found.sigma], [[0.9], [0.1]])
    # seen at half the size: the middle of pixel 4 is 4.5 px from the corner, 9 px in the image, where pixel 8.5 is
    found = with_network(OneFace()).detect_at(np.zeros((128, 128, 3), np.uint8), 0.5)
    np.testing.assert_allclose(found.boxes, [[8.5, 8.5, 40.5, 40.5]])
    np.testing.assert_allclose(found.squares, [[26.5, 22.5, 30, np.pi / 2]])


def test_a_short_upward_axis_is_not_believed():
    class Unsure(OneFace):
        def run(self, names, feed):
            score, box, upright, up, sigma = super().run(names, feed)
            return [score, box, upright, up * np.float32(0.5), sigma]

    (square,) = with_network(Unsure()).detect_at(np.zeros((64, 64, 3), np.uint8), 1).squares
    np.testing.assert_allclose(square, [13, 11, 15, 0])


def test_a_head_that_lies_stands_upright_in_its_crop():
    """The upward axis of a square, cut as a crop, points up."""
    (square,) = with_network(OneFace()).detect_at(np.zeros((64, 64, 3), np.uint8), 1).squares
    crop = Crop(square[None, :2], square[None, 2], square[None, 3], 32)
    top = crop.crop_from_image(np.array([[[13.0 + 5, 11.0]]]))[0, 0]  # a point towards the top of the head
    np.testing.assert_allclose(top, [15.5, 15.5 - 5 * 32 / 15], atol=1e-6)


def test_the_network_sees_whole_cells_of_the_picture():
    network = OneFace()
    image = np.zeros((33, 40, 3), np.uint8)
    image[:] = (200, 100, 50)
    with_network(network).detect_at(image, 1)
    (seen,) = network.seen
    assert seen.shape == (1, 64, 64, 3) and seen.dtype == np.uint8
    np.testing.assert_array_equal(seen[0, 32, 39], [200, 100, 50])
    assert not seen[0, 33:].any() and not seen[0, :, 40:].any()


def sides_seen(network, longer, **options):
    """The longer sides of what the network saw of a picture."""
    with_network(network, **options)(np.zeros((longer, 40, 3), np.uint8))
    return [pixels.shape[1] for pixels in network.seen]


@pytest.mark.parametrize(
    ("longer", "sides"),
    [(200, [224]), (256, [256]), (500, [256, 512]), (1000, [256, 1024]), (3000, [256, 1600])],  # whole cells of 32 px
)
def test_where_nothing_is_found_the_whole_picture_is_searched_again(longer, sides):
    network = NoFace()
    found = with_network(network)(np.zeros((longer, 40, 3), np.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.squares.shape == (0, 4)
    assert [pixels.shape[1] for pixels in network.seen] == sides


def test_a_picture_up_to_twice_as_large_is_searched_again_only_where_there_is_a_doubt():
    assert sides_seen(OneFace(), 512) == [256]
    assert sides_seen(OneFace(), 514) == [256, 544]
    # A doubt of 16 px at (12, 60) of the coarse search is 32 px at (24.5, 120.5) of the picture. With two sides of
    # context it reaches from row 120.5 - 16 - 64 to 120.5 + 16 + 64: from 40 to 201, six cells of 32 px.
    assert sides_seen(OneFace([4, 52, 20, 68]), 512) == [256, 192]
    assert sides_seen(OneFace([8, 8, 16, 16]), 512) == [256]  # in the middle of the face


def test_a_coarse_search_passes_over_doubts_that_are_not_near():
    class Doubts(OneFace):
        def run(self, names, feed):
            score, box, upright, *rest = super().run(names, feed)
            upright = upright.copy()
            upright[0, :, 2] = self.sides
            return [np.full_like(score, 0.2), box, upright, *rest]

    image = np.zeros((64, 64, 3), np.uint8)
    network = Doubts([40, 40, 60, 60])
    for sides, coarse, looks in (((39, 41), True, 1), ((39, 41), False, 2), ((41, 41), True, 2)):
        network.sides, refiner = sides, Agrees()
        with_network(network, refiner=refiner).detect_at(image, 1, coarse=coarse)
        assert len(refiner.seen[0]) == looks


def test_the_smallest_face_sets_the_fine_search():
    assert sides_seen(OneFace(), 3000, min_face=24) == [256, 3008]  # as large as it is
    assert sides_seen(OneFace(), 3000, min_face=48) == [256, 1504]  # seen at 24 px
    assert sides_seen(OneFace(), 3000, min_face=300) == [256]  # 240 px would do
    assert sides_seen(OneFace(), 600, min_face=24) == [256, 608]


def test_faces_smaller_than_the_smallest_are_not_returned():
    class FirstLook(OneFace):
        def run(self, names, feed):
            score, *rest = super().run(names, feed)
            return [score * (feed["pictures"].shape[1] == 256), *rest]

    for min_face, count in ((31.9, 1), (32.1, 0)):  # 16 px are 32 px in a picture of 512 px
        assert len(with_network(FirstLook(), min_face=min_face)(np.zeros((512, 40, 3), np.uint8)).boxes) == count


@pytest.mark.parametrize("min_face", [0, -3, np.nan, np.inf, "20", True, [20]])
def test_a_smallest_face_that_is_no_size_is_refused(min_face):
    with pytest.raises(BoxError, match="want a positive number"):
        PyramidDetector(ROOT / DETECTOR, min_face=min_face)


@pytest.mark.parametrize("threads", [0, -5, 1.5, "2", True])
def test_threads_that_are_no_number_of_threads_are_refused(threads):
    with pytest.raises(CanthusError, match="want a positive integer"):
        PyramidDetector(ROOT / DETECTOR, threads)


def some(boxes, scores) -> Detections:
    return Detections.of_boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores))


def test_coarse_and_fine_faces_are_merged():
    coarse = [[0, 0, 100, 100], [200, 0, 220, 20], [300, 0, 320, 20]]
    fine = [[10, 10, 70, 70], [201, 0, 221, 20], [302, 0, 322, 20], [400, 0, 410, 10]]
    found = _merged(some(coarse, [0.7, 0.8, 0.9]), some(fine, [0.95, 0.99, 0.85, 0.6]), near=50)
    # the first stays as it is large, though a part of it has a better score; of pairs of small ones the better stays
    np.testing.assert_array_equal(found.boxes, [fine[1], coarse[2], coarse[0], fine[3]])
    np.testing.assert_array_equal(found.scores, [0.99, 0.9, 0.7, 0.6])
    np.testing.assert_array_equal(found.squares[2], [50, 50, 100, 0])
    assert _merged(some([], []), some([], []), near=50).boxes.shape == (0, 4)


def test_detections_move_with_their_part_of_the_picture():
    moved = some([[0, 0, 10, 20]], [1.0]).moved(100, 50)
    np.testing.assert_array_equal(moved.boxes, [[100, 50, 110, 70]])
    np.testing.assert_array_equal(moved.squares, [[105, 60, 20, 0]])


# A user's own


def test_a_function_is_a_detector():
    other = BOX + np.array([200, 0, 200, 0])
    loaded = canthus.load(threads=1, detector=lambda image: ([other.tolist(), BOX.tolist()], [0.3, 0.8]))
    found = loaded.detector(photo())
    np.testing.assert_array_equal(found.boxes, [BOX, other])  # the best first
    faces = loaded.predict(photo())
    np.testing.assert_allclose(faces.detection_scores[0], 0.8)
    np.testing.assert_allclose(faces.xy[0], aligner().predict(photo(), BOX).xy[0], atol=1e-3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "boxes and scores"),
        ((np.zeros((2, 4)), [1.0]), "x0 < x1"),
        (([[0, 0, 9, 9]], [1.0, 2.0]), "want one a box"),
        (([[0, 0, 9, 9]], ["x"]), "scores that are no numbers"),
        (([[0, 0, 9, 9]], [np.nan]), "from 0 to 1"),
        (([[0, 0, 9, 9]], [2.0]), "from 0 to 1"),
    ],
)
def test_answers_of_a_users_detector_are_checked(answer, said):
    with pytest.raises(BoxError, match=said):
        FunctionDetector(lambda image: answer)(photo())


def test_a_users_detector_stands_alone():
    with pytest.raises(BoxError, match="one of the two"):
        canthus.load(min_face=20, detector=lambda image: ([], []))
    with pytest.raises(BoxError, match="want a function"):
        canthus.load(detector=3)
    with pytest.raises(WeightsError, match="card"):
        canthus.load(detector="nowhere")


def test_a_detector_can_be_pickled(detector):
    twin = pickle.loads(pickle.dumps(detector))
    assert np.array_equal(twin(photo()).boxes, detector(photo()).boxes)


# Pictures. Until landmarks confirm them, places without a face are among the answers: tests look at the surest one, or
# at what lies where a face is.


def there(boxes: np.ndarray, wanted: np.ndarray) -> int:
    """How many of the boxes lie where a wanted one does."""
    return int((box_overlaps(boxes, wanted[None]) > 0.3).sum())


def test_the_astronaut_is_found(detector):
    boxes, scores, *_ = detector(photo())
    assert boxes.shape[1:] == (4,) and boxes.dtype == np.float32 and scores.dtype == np.float32
    assert scores[0] > 0.9 and there(boxes, BOX) == 1
    x0, y0, x1, y1 = boxes[0]
    assert ((PUPILS > (x0, y0)) & (PUPILS < (x1, y1))).all()
    np.testing.assert_allclose(boxes[0], BOX, atol=12)  # an eighth of the face's width


@pytest.mark.parametrize("grey", [0, 110, 255])
def test_a_blank_picture_has_no_face(detector, grey):
    boxes, scores, *_ = detector(np.full((480, 640, 3), grey, np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3000), (3000, 2), (31, 33)])
def test_odd_shapes_are_searched(detector, shape):
    boxes, scores, *_ = detector(np.full((*shape, 3), 90, np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_a_small_face_in_a_big_picture_is_found_by_the_fine_search(detector):
    big = on_canvas(resized(photo(), 90, 90), 300, 700, 1600, 1600)
    wanted = (BOX + 0.5) * 90 / 512 - 0.5 + [300, 700, 300, 700]
    assert there(detector.detect_at(big, detector.coarse_side / 1600)[0], wanted) == 0
    boxes, *_ = detector(big)
    assert there(boxes, wanted) == 1
    np.testing.assert_allclose(boxes[box_overlaps(boxes, wanted[None])[:, 0].argmax()], wanted, atol=3)  # 17 px wide


def test_a_near_face_does_not_hide_far_ones(detector):
    """Copies of the astronaut's face, 17 px wide and so 4 px in the coarse search, around one of 270 px."""
    near, far = resized(photo()[30:240, 110:340], 690, 630), resized(photo()[60:200, 150:310], 29, 26)
    picture = on_canvas(near, 250, 250, 1200, 900)
    corners = [(40, 40), (600, 60), (1100, 120), (60, 500), (1100, 600)]
    for x, y in corners:
        picture[y : y + 26, x : x + 29] = far
    pupils = (PUPILS.mean(0) - [150, 60]) * 29 / 160
    boxes = detector.detect_at(picture, detector.coarse_side / 1200)[0]
    for at in (corner + pupils for corner in corners):
        assert not ((boxes[:, :2] < at) & (at < boxes[:, 2:])).all(1).any()
    faces = aligner().predict(picture)
    wanted = np.array([*(corner + pupils for corner in corners), (PUPILS.mean(0) - [110, 30]) * 3 + 250])
    found = faces.xy[:, 36:48].mean(1)
    nearest = np.linalg.norm(found[:, None] - wanted, axis=2).min(0)
    assert len(found) == len(wanted)
    assert (nearest < [2.5, 2.5, 2.5, 2.5, 2.5, 40]).all()  # a seventh of the faces' widths, 17 and 280 px


@pytest.mark.skipif(not REPORTS.is_dir(), reason=f"no '{REPORTS}'")
@pytest.mark.parametrize(("name", "count"), [("crowd_far.jpg", 24), ("crowd_far_and_near.jpg", 25)])
def test_every_face_of_a_crowd_is_found(detector, name, count):
    assert len(detector(canthus.read_image(REPORTS / name))[0]) == count


def test_a_larger_picture_gives_larger_boxes(detector):
    small = detector(photo())
    sure = small.sigma[0] * small.squares[0, 2]  # px by which the detector says that it errs
    assert sure < 0.1 * 104
    for factor in (2, 3):
        large = detector(resized(photo(), 512 * factor, 512 * factor)).boxes[:1]
        np.testing.assert_allclose((large + 0.5) / factor - 0.5, small.boxes[:1], atol=sure)


def test_a_shifted_face_gives_a_shifted_box(detector):
    face = resized(photo(), 128, 128)
    start = detector(on_canvas(face, 32, 32, 256, 256))[0][:1]
    moved = detector(on_canvas(face, 64, 96, 256, 256))[0][:1]  # whole cells: the network sees the same, elsewhere
    np.testing.assert_allclose(moved - start, [[32, 64, 32, 64]], atol=1)


def test_several_faces_come_by_falling_score(detector):
    face = photo()[40:230, 130:320]
    row = np.concatenate([resized(resized(face, n, n), 190, 190) for n in (24, 190, 34)], 1)  # blurred, sharp, blurred
    boxes, scores, *_ = detector(row)
    assert len(boxes) >= 2
    assert (np.diff(scores) < 0).all()
    assert 190 < boxes[0, [0, 2]].mean() < 380  # the sharp one is the surest


def test_a_quick_search_finds_near_faces_as_a_thorough_one_does(detector):
    quick, scores, *_ = detector.quick(photo())
    thorough, *_ = detector(photo())
    assert len(quick) == len(scores) and box_overlaps(quick[:1], thorough[:1])[0, 0] > 0.7
    far = on_canvas(resized(photo(), 64, 64), 0, 0, 512, 512)  # a face of 12 px, 5 as it sees it
    assert there(detector.quick(far)[0], (BOX + 0.5) / 8 - 0.5) == 0


def test_a_quick_search_returns_no_face_below_min_face():
    for min_face, count in ((80, 1), (120, 0)):  # the face has 93 px
        assert there(PyramidDetector(ROOT / DETECTOR, min_face=min_face).quick(photo())[0], BOX) == count
