"""The face detector: its arithmetic against plain loops and by hand, and what it finds in real pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from photos import BOX, PUPILS, aligner, on_canvas, photo, resized

import canthus
from canthus.errors import BoxError, CanthusError
from canthus.geometry.crop import box_overlaps
from canthus.inference import detect
from canthus.inference.detect import FaceDetector, _anchors, _merged, _suppress, tight

REPORTS = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "reports"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return aligner().detector


# Arithmetic


def plain_anchors(height, width):
    out = []
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(height // stride):
            for column in range(width // stride):
                for side in sides:
                    out.append((column * stride + stride / 2, row * stride + stride / 2, side, side))
    return np.array(out)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 64)])
def test_anchors_are_those_of_a_plain_loop_in_its_order(height, width):
    got = _anchors(height, width)
    # two anchors a cell: 2 * (1/64 + 1/256 + 1/1024) = 21/512 a pixel
    assert len(got) == height * width * 21 // 512
    assert got.dtype == np.float32
    assert np.array_equal(got, plain_anchors(height, width))


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
    keep = _suppress(boxes, scores)
    assert 1 < len(keep) < 80
    assert keep.tolist() == plain_suppress(boxes, scores)


def test_suppression_by_hand():
    # the second shares 6 of 10 columns with the first: 60 / (100 + 100 - 60) = 0.43 > 0.4, so the weaker goes;
    # the third shares 5: 50 / 150 = 0.33, so both stay
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [-5, 0, 5, 10]], float)
    assert _suppress(boxes, np.array([0.7, 0.9, 0.8])).tolist() == [1, 2]
    assert _suppress(boxes, np.array([0.9, 0.8, 0.7])).tolist() == [0, 2]
    assert _suppress(np.zeros((0, 4)), np.zeros(0)).tolist() == []


def test_a_tight_box_moves_by_shares_of_width_and_height(monkeypatch):
    monkeypatch.setattr(detect, "TIGHT", np.array([-0.1, 0.2, 0.3, 0.05]))
    # width 100: x0 = 10 - 10, x1 = 110 + 30; height 200: y0 = 20 + 40, y1 = 220 + 10
    got = tight(np.array([[10, 20, 110, 220]], np.float32))
    np.testing.assert_allclose(got, [[0, 60, 140, 230]], atol=1e-4)
    assert tight(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_a_mirrored_picture_gives_a_mirrored_tight_box():
    assert detect.TIGHT[0] == -detect.TIGHT[2]


class OneAnchor:
    """Stands in for the network: one anchor of the first cell (centre (4,4), side 16) is a face."""

    def __init__(self, offsets=(0, 0, 0, 0)):
        self.offsets = offsets
        self.seen = []

    def run(self, names, feed):
        pixels = feed["input"]
        self.seen.append(pixels)
        count = len(plain_anchors(*pixels.shape[2:]))
        offsets, scores = np.zeros((1, count, 4), np.float32), np.zeros((1, count, 2), np.float32)
        offsets[0, 0], scores[0, 0, 1] = self.offsets, 0.9
        return offsets, scores


class NoFace(OneAnchor):
    def run(self, names, feed):
        offsets, scores = super().run(names, feed)
        return offsets, scores * 0


def with_network(network):
    detector = FaceDetector()
    detector.session = network
    return detector


def test_an_answer_of_the_network_becomes_pixels_of_the_image():
    # From the picture's corner the anchor reaches from 4 - 8 to 4 + 8; from the first pixel's centre, half less.
    boxes, scores = with_network(OneAnchor()).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(boxes, [[-4.5, -4.5, 11.5, 11.5]])
    np.testing.assert_allclose(scores, [0.9])
    # seen at half the size, the same anchor reaches from -8 to 24
    boxes, _ = with_network(OneAnchor()).detect_at(np.zeros((128, 128, 3), np.uint8), 0.5)
    np.testing.assert_allclose(boxes, [[-8.5, -8.5, 23.5, 23.5]])


def test_offsets_are_decoded_with_their_variances():
    # centre 4 + 2 * 0.1 * 16 = 7.2, 4 - 1 * 0.1 * 16 = 2.4; width 16 * exp(5 ln 2 * 0.2) = 32, height 16
    network = OneAnchor((2, -1, 5 * np.log(2), 0))
    boxes, _ = with_network(network).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(boxes, [[7.2 - 16.5, 2.4 - 8.5, 7.2 + 15.5, 2.4 + 7.5]], atol=1e-5)


def test_the_network_sees_whole_cells_of_bgr_without_the_mean():
    network = OneAnchor()
    image = np.zeros((33, 40, 3), np.uint8)
    image[:] = (200, 100, 50)
    with_network(network).detect_at(image, 1)
    (seen,) = network.seen
    assert seen.shape == (1, 3, 64, 64) and seen.dtype == np.float32
    np.testing.assert_array_equal(seen[0, :, 32, 39], [50 - 104, 100 - 117, 200 - 123])
    assert not seen[0, :, 33:].any() and not seen[0, :, :, 40:].any()


class FirstLook(OneAnchor):
    """The face is seen at 320 px only."""

    def run(self, names, feed):
        offsets, scores = super().run(names, feed)
        return offsets, scores if feed["input"].shape[2] == 320 else scores * 0


class Doubtful(OneAnchor):
    """Another anchor is no sure face."""

    def __init__(self, anchor):
        super().__init__()
        self.anchor = anchor

    def run(self, names, feed):
        offsets, scores = super().run(names, feed)
        scores[0, self.anchor, 1] = 0.02
        return offsets, scores


def sides_seen(network, longer, **options):
    """The longer sides of what the network saw of a picture."""
    detector = FaceDetector(**options)
    detector.session = network
    detector(np.zeros((longer, 40, 3), np.uint8))
    return [pixels.shape[2] for pixels in network.seen]


@pytest.mark.parametrize(
    ("longer", "sides"),
    [(200, [224]), (320, [320]), (500, [320, 512]), (1000, [320, 1024]), (3000, [320, 1600])],  # whole cells of 32 px
)
def test_where_nothing_is_found_the_whole_picture_is_looked_at_again(longer, sides):
    network = NoFace()
    boxes, scores = with_network(network)(np.zeros((longer, 40, 3), np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert [pixels.shape[2] for pixels in network.seen] == sides


def test_a_picture_up_to_twice_as_large_is_looked_at_again_only_where_there_is_a_doubt():
    assert sides_seen(OneAnchor(), 640) == [320]
    assert sides_seen(OneAnchor(), 642) == [320, 672]  # a far face of 24 px would be under 12 at the first look
    # Beside the face there is a doubt of 16 px at (12, 4) of the first look, at (24, 8) of the picture with a side of
    # 32. With two sides of context it reaches down to row 8 + 16 + 64 - 0.5.
    assert sides_seen(Doubtful(2), 640) == [320, 96]
    assert sides_seen(Doubtful(1), 640) == [320]  # an anchor of the same cell, in the middle of the face


def test_the_smallest_face_sets_the_second_look():
    assert sides_seen(OneAnchor(), 3000, min_face=32) == [320, 3008]  # as large as it is
    assert sides_seen(OneAnchor(), 3000, min_face=64) == [320, 1504]  # seen at 32 px
    assert sides_seen(OneAnchor(), 3000, min_face=320) == [320]  # 300 px would do
    assert sides_seen(OneAnchor(), 600, min_face=32) == [320, 608]


def test_faces_smaller_than_the_smallest_are_not_returned():
    # The anchor of 16 px is 32 px in a picture of 640 px; the tight box is 1.028 times as wide, 32.896 px.
    for min_face, count in ((32.8, 1), (33, 0)):
        detector = FaceDetector(min_face=min_face)
        detector.session = FirstLook()
        assert len(detector(np.zeros((640, 40, 3), np.uint8))[0]) == count


@pytest.mark.parametrize("min_face", [0, -3, np.nan, np.inf, "20", True, [20]])
def test_a_smallest_face_that_is_no_size_is_refused(min_face):
    with pytest.raises(BoxError, match="want a positive number"):
        FaceDetector(min_face=min_face)


@pytest.mark.parametrize("threads", [0, -5, 1.5, "2", True])
def test_threads_that_are_no_number_of_threads_are_refused(threads):
    with pytest.raises(CanthusError, match="want a positive integer"):
        FaceDetector(threads)


def test_two_looks_are_merged():
    coarse = np.array([[0, 0, 100, 100], [200, 0, 220, 20], [300, 0, 320, 20]], np.float32)
    fine = np.array([[10, 10, 70, 70], [201, 0, 221, 20], [302, 0, 322, 20], [400, 0, 410, 10]], np.float32)
    boxes, scores = _merged(coarse, np.array([0.7, 0.8, 0.9]), fine, np.array([0.95, 0.99, 0.85, 0.6]), near=50)
    # the first stays as it is large, though a part of it has a better score; of pairs of small ones the better stays
    np.testing.assert_array_equal(boxes, [fine[1], coarse[2], coarse[0], fine[3]])
    np.testing.assert_array_equal(scores, [0.99, 0.9, 0.7, 0.6])
    none = np.zeros((0, 4), np.float32), np.zeros(0)
    assert _merged(*none, *none, near=50)[0].shape == (0, 4)


# Pictures


def test_the_astronaut_is_found(detector):
    boxes, scores = detector(photo())
    assert boxes.shape == (1, 4) and boxes.dtype == np.float32 and scores.dtype == np.float32
    assert scores[0] > 0.9
    x0, y0, x1, y1 = boxes[0]
    assert ((PUPILS > (x0, y0)) & (PUPILS < (x1, y1))).all()
    np.testing.assert_allclose(boxes[0], BOX, atol=12)  # an eighth of the face's width


@pytest.mark.parametrize("grey", [0, 110, 255])
def test_a_blank_picture_has_no_face(detector, grey):
    boxes, scores = detector(np.full((480, 640, 3), grey, np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3000), (3000, 2), (31, 33)])
def test_odd_shapes_are_looked_at(detector, shape):
    boxes, scores = detector(np.full((*shape, 3), 90, np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_a_small_face_in_a_big_picture_is_found_at_the_second_look(detector):
    big = on_canvas(resized(photo(), 160, 160), 300, 700, 1600, 1600)
    assert len(detector.detect_at(big, detect.COARSE_SIDE / 1600)[0]) == 0
    boxes, _ = detector(big)
    wanted = (BOX + 0.5) * 160 / 512 - 0.5 + [300, 700, 300, 700]
    assert len(boxes) == 1
    np.testing.assert_allclose(boxes[0], wanted, atol=5)  # the face is 29 px wide


def test_a_near_face_does_not_hide_far_ones(detector):
    """Copies of the astronaut's face, 34 px wide and so 9 px at the first look, around one of 270 px."""
    near, far = resized(photo()[30:240, 110:340], 690, 630), resized(photo()[60:200, 150:310], 58, 51)
    picture = on_canvas(near, 250, 250, 1200, 900)
    corners = [(40, 40), (600, 60), (1100, 120), (60, 500), (1100, 600)]
    for x, y in corners:
        picture[y : y + 51, x : x + 58] = far
    assert len(detector.detect_at(picture, detect.COARSE_SIDE / 1200)[0]) == 1
    faces = aligner().predict(picture)
    pupils = (PUPILS.mean(0) - [150, 60]) * 58 / 160
    wanted = np.array([*(corner + pupils for corner in corners), (PUPILS.mean(0) - [110, 30]) * 3 + 250])
    found = faces.xy[:, 36:48].mean(1)
    nearest = np.linalg.norm(found[:, None] - wanted, axis=2).min(0)
    assert len(found) == len(wanted)
    assert (nearest < [5, 5, 5, 5, 5, 40]).all()  # a seventh of the faces' widths, 34 and 280 px


@pytest.mark.skipif(not REPORTS.is_dir(), reason=f"no '{REPORTS}'")
@pytest.mark.parametrize(("name", "count"), [("crowd_far.jpg", 24), ("crowd_far_and_near.jpg", 25)])
def test_every_face_of_a_crowd_is_found(detector, name, count):
    assert len(detector(canthus.read_image(REPORTS / name))[0]) == count


def test_a_larger_picture_gives_larger_boxes(detector):
    small = detector(photo())[0]
    for factor in (2, 3):
        large = detector(resized(photo(), 512 * factor, 512 * factor))[0][:1]  # at three times, a patch is one more
        # without the half pixel of the centre this would be off by 0.25 and 0.33 px
        np.testing.assert_allclose((large + 0.5) / factor - 0.5, small, atol=0.2)


def test_a_shifted_face_gives_a_shifted_box(detector):
    face = resized(photo(), 256, 256)
    start = detector(on_canvas(face, 0, 0, 320, 320))[0]
    moved = detector(on_canvas(face, 32, 64, 320, 320))[0]  # whole cells: the network sees the same, elsewhere
    np.testing.assert_allclose(moved - start, [[32, 64, 32, 64]], atol=0.5)


def test_several_faces_come_by_falling_score(detector):
    face = photo()[40:230, 130:320]
    row = np.concatenate([resized(resized(face, n, n), 190, 190) for n in (24, 190, 34)], 1)  # blurred, sharp, blurred
    boxes, scores = detector(row)
    assert len(boxes) >= 2
    assert (np.diff(scores) < 0).all()
    assert 190 < boxes[0, [0, 2]].mean() < 380  # the sharp one is the surest


def test_a_quick_search_finds_near_faces_as_a_thorough_one_does(detector):
    quick, scores = detector.quick(photo())
    thorough, _ = detector(photo())
    assert len(quick) == len(scores) == len(thorough) == 1
    assert box_overlaps(quick, thorough)[0, 0] > 0.7
    assert len(detector.quick(resized(photo(), 64, 64))[0]) == 0  # a face of 12 px: too far away for it


def test_a_quick_search_returns_no_face_below_min_face():
    assert len(FaceDetector(min_face=80).quick(photo())[0]) == 1  # the face has 93 px
    assert len(FaceDetector(min_face=120).quick(photo())[0]) == 0
