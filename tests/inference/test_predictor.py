"""From image to `Faces` with the shipped weights: boxes, batches, every kind of image, faces that move."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photos import BOX, PHOTO, PUPILS, aligner, distance, on_canvas, photo, resized
from PIL import Image

import canthus
from canthus.errors import BoxError, ImageError, LandmarkError
from canthus.face.faces import Alignment
from canthus.geometry.rotation import geodesic
from canthus.inference.detect import Detections
from canthus.inference.predictor import BATCH, points_within, upright_crops
from canthus.io.images import crop_image

REPORTS = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "reports"
SHIFTS = np.array([[0, 0, 0, 0], [4, -3, 4, -3], [-5, 2, -5, 2], [0, 0, 6, 6]])


def same(a, b, tolerance=1e-3):
    """Two `Faces` agree: the points to `tolerance` px, the rest to float32's rounding in another batch."""
    assert len(a) == len(b)
    np.testing.assert_allclose(a.xyz, b.xyz, atol=tolerance)
    np.testing.assert_allclose(a.sigma, b.sigma, atol=tolerance)
    np.testing.assert_allclose(a.visible, b.visible, atol=1e-4)
    np.testing.assert_allclose(a.pose.matrix, b.pose.matrix, atol=1e-4)
    np.testing.assert_allclose(a.detection_scores, b.detection_scores, atol=1e-4)
    assert (a.image_size, a.scheme, a.weights) == (b.image_size, b.scheme, b.weights)


def three_faces():
    """Three astronauts in a row, (190,570,3): the outer two are blurred."""
    face = photo()[40:230, 130:320]
    return np.concatenate([resized(resized(face, n, n), 190, 190) for n in (34, 190, 60)], 1)


# Boxes


def test_the_astronaut_is_aligned():
    faces = aligner().predict(photo())
    assert len(faces) == 1 and faces.xyz.shape == (1, 68, 3)
    eyes = faces.xy[0, 36:48].reshape(2, 6, 2).mean(1)
    np.testing.assert_allclose(eyes, PUPILS, atol=8)
    np.testing.assert_allclose(faces.boxes[0], BOX, atol=12)
    assert faces.detection_scores[0] > 0.9
    assert faces.image_size == (512, 512) and faces.scheme == "ibug68" and faces.weights == aligner().card.title
    assert abs(faces.xyz[0, :, 2].mean()) < 1e-3
    assert (faces.sigma > 0).all() and faces.sigma.mean() < 10
    assert np.abs(faces.pose.euler()).max() < 25  # she looks into the camera


def test_with_boxes_the_detector_is_not_even_made():
    fresh = canthus.load(threads=1)
    assert len(fresh.predict(photo(), BOX)) == 1
    assert "detector" not in vars(fresh)


def test_one_face_a_box_in_the_order_of_the_boxes():
    boxes = BOX + SHIFTS
    faces = aligner().predict(photo(), boxes)
    assert len(faces) == len(boxes)
    assert np.isnan(faces.detection_scores).all()
    backwards = aligner().predict(photo(), boxes[::-1])
    same(faces[::-1], backwards)
    for box, face in zip(boxes, faces, strict=True):
        same(face, aligner().predict(photo(), box))


def test_boxes_come_in_any_form():
    wanted = aligner().predict(photo(), BOX)
    for boxes in (BOX.tolist(), tuple(BOX), BOX[None], BOX.astype(np.float64), [BOX.tolist()]):
        same(aligner().predict(photo(), boxes), wanted)


def test_no_boxes_are_no_faces():
    for faces in (
        *(aligner().predict(photo(), none) for none in (np.zeros((0, 4)), [])),
        aligner().predict(photo()[:60]),
    ):
        assert len(faces) == 0 and faces.xyz.shape == (0, 68, 3)
        assert faces.weights == aligner().card.title
    assert aligner().predict(photo()[:60]).image_size == (512, 60)


class Turned:
    """A detector that finds the astronaut in the picture, turned: the box around the turned points."""

    def __init__(self, *boxes):
        self.boxes = np.array(boxes, np.float32)

    def __call__(self, picture):
        return Detections.of_boxes(self.boxes, np.full(len(self.boxes), 0.9, np.float32))


@pytest.mark.parametrize("degrees", [35, -50, 80])
def test_a_detected_face_that_lies_turned_is_looked_at_upright(degrees):
    # PIL turns counter-clockwise about the middle of the picture, 255.5 px: forth and back by the same matrix.
    picture = np.asarray(Image.fromarray(photo()).rotate(degrees, Image.Resampling.BILINEAR))
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    wanted = aligner().predict(photo(), BOX).xy[0]
    wanted = (wanted - 255.5) @ np.array([[c, -s], [s, c]]) + 255.5
    box = [*wanted.min(0), *wanted.max(0)]
    fresh = canthus.load(threads=1)
    fresh.detector = Turned(box)
    once, twice = fresh.predict(picture, box), fresh.predict(picture)
    assert distance(twice.xy[0], wanted) < 0.03
    assert distance(twice.xy[0], wanted) < distance(once.xy[0], wanted)
    first = upright_crops(once, fresh.card)
    again = fresh.run_batches(crop_image(picture, first))
    np.testing.assert_allclose(twice.xy, first.image_from_crop(again.xyz)[..., :2], atol=1e-3)
    roll = lambda faces: faces.pose.euler()[0, 2]  # noqa: E731
    assert abs(abs(roll(twice)) - abs(degrees)) < 10


def test_a_detected_face_whose_box_fits_is_looked_at_once():
    fresh = canthus.load(threads=1)
    wide, batches = BOX + [40, 0, 40, 0], []
    wanted, once = aligner().predict(photo(), [BOX, wide]).xy
    fresh.detector = Turned(BOX, wide)
    run = fresh.run
    fresh.run = lambda crops: batches.append(len(crops)) or run(crops)
    faces = fresh.predict(photo())
    assert batches[0] == 2 and batches[1:] in ([1], [1, 1])  # only the second box was wide of the face
    np.testing.assert_allclose(faces.xy, [wanted], atol=1e-3)  # and once it fits, it is of the same one
    batches.clear()
    fresh.detector = Turned(wide)
    (face,) = fresh.predict(photo()).xy
    assert batches in ([1, 1], [1, 1, 1]) and distance(face, wanted) < distance(once, wanted) / 2


def test_points_on_one_spot_are_looked_at_again_all_the_same():
    fresh = canthus.load(threads=1)
    fresh.detector = Turned(BOX)
    fresh.run = lambda crops: Alignment(
        np.full((len(crops), 68, 3), 20.0), rotation=np.eye(3)[None].repeat(len(crops), 0)
    )
    assert np.ptp(fresh.predict(photo()).xy, axis=1).max() < 1e-3


def turned_by(degrees):
    """The photo turned clockwise by 90, 180 or 270 degrees, and where it takes points (...,2)."""
    quarters = degrees // 90
    c, s = np.rint([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    turn = np.array([[c, -s], [s, c]])  # x right, y down: clockwise
    return np.ascontiguousarray(np.rot90(photo(), -quarters)), lambda points: (points - 255.5) @ turn.T + 255.5


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_detected_face_that_lies_on_its_side_or_upside_down_is_found_and_aligned(degrees):
    picture, moved = turned_by(degrees)
    upright, faces = aligner().predict(photo()), aligner().predict(picture)
    assert len(faces) == 1
    assert distance(faces.xy[0], moved(upright.xy[0])) < 0.03  # without the turn: 0.3 to 0.7
    assert faces.scores.mean() > 0.8
    # with y up, clockwise is a turn by -degrees about z
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    pose = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ upright.pose.matrix[0]
    assert np.rad2deg(geodesic(faces.pose.matrix[0], pose)) < 10


@pytest.mark.skipif(not REPORTS.is_dir(), reason=f"no '{REPORTS}'")
def test_a_rendered_face_that_is_upside_down_is_found_and_aligned():
    # turned by 180 degrees, a point (x, y) of 400 x 400 px comes to (399 - x, 399 - y)
    upright, faces = (aligner().predict(REPORTS / name) for name in ("upright.png", "upside_down.png"))
    assert len(faces) == 1
    assert distance(faces.xy[0], 399 - upright.xy[0]) < 0.05
    assert abs(abs(faces.pose.euler()[0, 2]) - 180) < 15


class Unsure:
    """Points of the middle of the crop, sure of themselves by so much at each turn of the crops."""

    def __init__(self, *sigmas):
        self.sigmas = list(sigmas)

    def __call__(self, crops):
        shape = np.random.default_rng(0).uniform(30, 80, (68, 3))
        sigma = np.full((len(crops), 68), self.sigmas.pop(0), float)
        return Alignment(shape[None].repeat(len(crops), 0), sigma, rotation=np.eye(3)[None].repeat(len(crops), 0))


def test_a_detected_face_whose_points_nobody_believes_at_any_turn_is_left_out():
    # The face is 50 px wide, 5 % of it are 2.5 px: sigma 20 makes a = sqrt(3) 2.5 / 20 = 0.22 and a mean score of
    # 1 - 1.22 exp(-0.22) = 0.02. Four turns, then perhaps two better crops.
    fresh = canthus.load(threads=1)
    fresh.detector = Turned(BOX)
    fresh.run = Unsure(20, 20, 20, 20, 20, 20)
    assert len(fresh.predict(photo())) == 0
    fresh.run = Unsure(20, 20, 1, 20, 1, 1)  # the second of the other turns is believed
    assert len(fresh.predict(photo())) == 1
    fresh.run = Unsure(20)
    assert len(fresh.predict(photo(), BOX)) == 1  # a box of a user is answered


def test_a_turned_answer_counts_only_where_it_is_clearly_surer():
    # As above, sigma 5 makes a = 0.87 and a mean score of 0.21; 4.6 makes 0.24, which is no more than chance, and 3.5
    # makes 0.34. Then perhaps two better crops.
    fresh = canthus.load(threads=1)
    fresh.detector = Turned(BOX)
    fresh.run = Unsure(5, 4.6, 5, 5, 5, 5)
    assert abs(fresh.predict(photo()).pose.euler()[0, 2]) < 1
    fresh.run = Unsure(5, 3.5, 5, 5, 3.5, 3.5)
    assert abs(abs(fresh.predict(photo()).pose.euler()[0, 2]) - 90) < 1


def test_the_default_weights_confirm_faces_for_weights_without_sigma():
    """The default weights without their sigma: a rolled photo is seen upright, once."""
    seen = []

    class Bare(type(aligner())):
        def run(self, crops):
            seen.append(crops)
            return Alignment(super().run(crops).xyz)

    bare = Bare.__new__(Bare)
    bare.__dict__.update(aligner().__dict__, tells_sigma=False)
    rolled = np.asarray(Image.fromarray(photo()).rotate(-40, Image.Resampling.BICUBIC))
    found, wanted = bare.predict(rolled), aligner().predict(rolled)
    assert len(found) == len(wanted) >= 1 and sum(map(len, seen)) == len(found)
    assert distance(found.xy[0], wanted.xy[0]) < 0.02 and found.detection_scores[0] == wanted.detection_scores[0]
    upright = aligner().run(seen[0][:1]).rotation[0]
    assert abs(np.rad2deg(np.arctan2(-upright[0, 1], upright[1, 1]))) < 4
    assert bare.predict_many([np.full((64, 64, 3), 90, np.uint8), rolled])[0].xyz.shape == (0, 68, 3)


class Known(Turned):
    """A detector that says how the face lies, and knows it."""

    def __call__(self, picture):
        found = super().__call__(picture)
        return found._replace(angle_known=np.ones(len(found.scores), bool))


def test_a_box_twice_as_large_is_looked_at_twice_more():
    middle, half = (BOX[:2] + BOX[2:]) / 2, (BOX[2:] - BOX[:2]) / 2
    fresh = canthus.load(threads=1)
    fresh.detector = Known(np.concatenate([middle - 2 * half, middle + 2 * half]))
    batches, run = [], fresh.run
    fresh.run = lambda crops: batches.append(len(crops)) or run(crops)
    (face,) = fresh.predict(photo()).xy
    assert batches == [1, 1, 1]
    assert distance(face, aligner().predict(photo(), [BOX]).xy[0]) < 0.02


def test_a_face_whose_detector_knows_how_it_lies_is_not_turned():
    fresh = canthus.load(threads=1)
    fresh.detector = Known(BOX)
    fresh.run = Unsure(5, 1, 1)  # perhaps two better crops; three more answers would be missing
    assert abs(fresh.predict(photo()).pose.euler()[0, 2]) < 1


@pytest.mark.parametrize(
    "boxes",
    [
        [600, 10, 700, 90],  # right of the picture
        [-90, -90, -10, -10],
        [273, 84, 180, 177],  # x1 < x0
        [180, 84, 180, 177],
        [180, 84, np.nan, 177],
        [180, 84, 273],
        [[BOX.tolist()]],
        "180,84,273,177",
        [0, 0, 5121, 5121],  # over ten times the picture's 512 px
        [-1e20, -1e20, 1e20, 1e20],
        np.ma.masked_array([180, 84, 273, 177], [False, True, False, False]),
        [BOX.tolist(), [600, 10, 700, 90]],  # one bad box among good ones
    ],
)
def test_bad_boxes_are_refused(boxes):
    with pytest.raises(BoxError):
        aligner().predict(photo(), boxes)


def test_a_box_that_reaches_over_the_border_is_taken():
    faces = aligner().predict(photo()[:, 190:], BOX - [190, 0, 190, 0])
    wanted = aligner().predict(photo(), BOX)
    assert distance(faces.xy[0] + [190, 0], wanted.xy[0]) < 0.1  # a tenth of the face is cut off


def test_faces_come_by_falling_detection_score():
    faces = aligner().predict(three_faces())
    assert len(faces) >= 2
    assert (np.diff(faces.detection_scores) < 0).all()
    assert 190 < faces.boxes[0, [0, 2]].mean() < 380  # the sharp one first
    middles = faces.boxes[:, [0, 2]].mean(1) // 190
    assert len(set(middles)) == len(faces)  # each is another astronaut


# Batches


def test_many_images_give_what_one_by_one_gives():
    images = [photo(), photo()[:60], three_faces(), PHOTO, np.zeros((2, 2, 3), np.uint8), photo()[:, ::-1]]
    many = aligner().predict_many(images)
    assert [len(faces) > 0 for faces in many] == [True, False, True, True, False, True]
    for image, faces in zip(images, many, strict=True):
        same(faces, aligner().predict(image))


def test_many_images_with_boxes():
    boxes = [BOX + SHIFTS, np.zeros((0, 4)), BOX]
    many = aligner().predict_many([photo(), photo(), photo()[:, :400]], boxes)
    assert [len(faces) for faces in many] == [4, 0, 1]
    same(many[0], aligner().predict(photo(), boxes[0]))
    same(many[2], aligner().predict(photo()[:, :400], BOX))


class Counting:
    """The aligner, with the crops of each network call counted."""

    def __init__(self, monkeypatch):
        self.calls, run = [], aligner().run
        monkeypatch.setattr(aligner(), "run", lambda crops: self.calls.append(len(crops)) or run(crops))


def test_crops_of_several_images_share_a_network_call(monkeypatch):
    counting = Counting(monkeypatch)
    aligner().predict_many([photo()] * 3, [BOX + SHIFTS, BOX, BOX + SHIFTS])
    assert counting.calls == [9]


def test_more_crops_than_a_batch_are_cut_into_batches(monkeypatch):
    shifts = np.random.default_rng(0).uniform(-6, 6, (BATCH + 7, 2))
    boxes = BOX + np.tile(shifts, 2)
    counting = Counting(monkeypatch)
    faces = aligner().predict(photo(), boxes)
    assert counting.calls == [BATCH, 7]
    for k in (0, BATCH - 1, BATCH, BATCH + 6):
        same(faces[k], aligner().predict(photo(), boxes[k]))


def test_no_images_give_no_answers():
    assert aligner().predict_many([]) == []
    assert aligner().predict_many([], []) == []


@pytest.mark.parametrize(
    "image",
    [photo(), photo()[..., 0], str(PHOTO), PHOTO, PHOTO.read_bytes(), Image.fromarray(photo()), io.BytesIO(), None, 3],
)
def test_one_image_where_several_are_wanted_is_refused(image):
    with pytest.raises(ImageError, match="want several"):
        aligner().predict_many(image)


def test_as_many_boxes_as_images_are_wanted():
    for given in (5, (box for box in [BOX])):
        with pytest.raises(BoxError, match="want those of each image"):
            aligner().predict_many([photo()], given)
    with pytest.raises(BoxError, match="2 images"):
        aligner().predict_many([photo(), photo()], [BOX])


def test_one_bad_image_names_itself(tmp_path):
    with pytest.raises(ImageError, match="nothing.jpg"):
        aligner().predict_many([photo(), tmp_path / "nothing.jpg"])


def test_the_answer_is_the_same_every_time_and_leaves_the_image_alone():
    image = photo().copy()
    first, second = aligner().predict(image), aligner().predict(image)
    assert np.array_equal(first.xyz, second.xyz) and np.array_equal(image, photo())


# Images of every kind


def test_a_path_gives_what_its_array_gives():
    wanted = aligner().predict(canthus.read_image(PHOTO))
    same(aligner().predict(PHOTO), wanted, 0)
    same(aligner().predict(str(PHOTO)), wanted, 0)


def test_bytes_files_and_pillow_images_give_what_their_path_gives():
    wanted = aligner().predict(PHOTO)
    with Image.open(PHOTO) as opened, open(PHOTO, "rb") as file:
        for image in (PHOTO.read_bytes(), file, opened):
            same(aligner().predict(image), wanted, 0)


@pytest.mark.parametrize("image", [None, 3, [[1, 2], [3, 4]], object(), b"", b"no image"])
def test_anything_else_is_refused(image):
    with pytest.raises(ImageError):
        aligner().predict(image)


@pytest.mark.parametrize(
    "form",
    [
        lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
        lambda rgb: rgb.astype(np.uint16) * 257,
        lambda rgb: (rgb / 255).astype(np.float32),
        lambda rgb: rgb / 255,
        lambda rgb: np.asfortranarray(rgb),
        lambda rgb: np.repeat(rgb, 2, 0)[::2],
    ],
    ids=["rgba", "uint16", "float32", "float64", "fortran", "strided"],
)
def test_other_forms_of_an_image_give_the_same(form):
    same(aligner().predict(form(photo()), BOX), aligner().predict(photo(), BOX), 0)


def test_grey_images_are_rgb_images_of_three_equal_channels():
    grey = np.asarray(Image.fromarray(photo()).convert("L"))
    wanted = aligner().predict(np.repeat(grey[..., None], 3, 2))
    assert len(wanted) == 1
    for form in (grey, grey[..., None], grey.astype(np.uint16) * 257, grey / 255):
        same(aligner().predict(form), wanted, 0)


def test_a_file_that_exif_turns_equals_its_upright_array(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to stand upright
    Image.fromarray(np.rot90(photo())).save(tmp_path / "turned.png", exif=exif)
    same(aligner().predict(tmp_path / "turned.png"), aligner().predict(photo()), 0)


@pytest.mark.parametrize("image", [np.zeros((1, 9, 3), np.uint8), np.full((9, 9), np.nan), np.zeros((9, 9), int)])
def test_bad_images_are_refused(image):
    with pytest.raises(ImageError):
        aligner().predict(image)


def test_an_image_of_two_pixels():
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    assert len(aligner().predict(image)) == 0
    faces = aligner().predict(image, [0, 0, 1, 1])
    assert len(faces) == 1 and np.isfinite(faces.xyz).all() and faces.image_size == (2, 2)


def test_an_image_of_8000_pixels_has_the_same_face():
    big = np.asarray(Image.fromarray(photo()).resize((8000, 8000), Image.Resampling.NEAREST))
    found = aligner().predict(big)
    wanted = aligner().predict(photo())
    assert len(found) == 1
    assert distance((found.xy[0] + 0.5) * 512 / 8000 - 0.5, wanted.xy[0]) < 0.03


# Faces that move: the box moves along, so the answer must


def test_a_shifted_face_moves_the_landmarks_along():
    wanted = aligner().predict(photo(), BOX)
    moved = aligner().predict(on_canvas(photo(), 37, 111, 700, 650), BOX + [37, 111, 37, 111])
    np.testing.assert_allclose(moved.xyz, wanted.xyz + [37, 111, 0], atol=0.02)  # the crop has the same pixels
    assert moved.image_size == (700, 650)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_larger_face_gives_larger_landmarks(factor):
    side = round(512 * factor)
    wanted = aligner().predict(photo(), BOX)
    faces = aligner().predict(resized(photo(), side, side), (BOX + 0.5) * factor - 0.5)
    assert distance((faces.xy[0] + 0.5) / factor - 0.5, wanted.xy[0]) < 0.04
    np.testing.assert_allclose(faces.xyz[0, :, 2] / factor, wanted.xyz[0, :, 2], atol=8)  # of 93 px


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_rolled_face_rolls_landmarks_and_pose(degrees):
    straight = aligner().predict(photo(), BOX)
    rolled = np.asarray(Image.fromarray(photo()).rotate(-degrees, Image.Resampling.BICUBIC))  # clockwise, about 255.5
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s], [s, c]])  # x right, y down: clockwise
    wanted = (straight.xy[0] - 255.5) @ turn.T + 255.5
    faces = aligner().predict(rolled, [*wanted.min(0), *wanted.max(0)])
    assert distance(faces.xy[0], wanted) < 0.08
    np.testing.assert_allclose(faces.xyz[0, :, 2], straight.xyz[0, :, 2], atol=15)
    # with y up, clockwise is a turn by -degrees about z
    pose = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ straight.pose.matrix[0]
    assert np.rad2deg(geodesic(faces.pose.matrix[0], pose)) < 14  # no roll at all would be 15 or 30
    found = aligner().predict(rolled)
    assert len(found) == 1 and distance(found.xy[0], wanted) < 0.08


def test_a_mirrored_face_mirrors_landmarks_and_pose():
    straight = aligner().predict(photo(), BOX)
    mirrored = aligner().predict(photo()[:, ::-1], [511 - BOX[2], BOX[1], 511 - BOX[0], BOX[3]])
    mirror = np.array(canthus.scheme("ibug68").mirror)
    wanted = straight.xyz[0, mirror] * [-1, 1, 1] + [511, 0, 0]
    assert distance(mirrored.xy[0], wanted) < 0.06
    M = np.diag([-1, 1, 1])
    assert np.rad2deg(geodesic(mirrored.pose.matrix[0], M @ straight.pose.matrix[0] @ M)) < 12


def test_a_shifted_box_finds_the_same_face():
    straight = aligner().predict(photo(), BOX)
    for shift in SHIFTS:
        assert distance(aligner().predict(photo(), BOX + shift).xy[0], straight.xy[0]) < 0.06


# Points within crops of other weights


class Middle:
    """Says where the corners and the middle of its crops are, and keeps the crops."""

    card = SimpleNamespace(name="middle", crop_size=112, crop_scale=1.4)

    def run(self, crops):
        self.crops = crops
        points = np.zeros((len(crops), 68, 3), np.float32)
        points[:, 1, :2], points[:, 2] = 111, (55.5, 55.5, 11)
        return Alignment(points)


def test_points_come_from_the_crop_that_the_other_weights_want():
    """Of 64 px of scale 1.375, 112 px of scale 1.4 are 64 * 1.4 / 1.375 = 65.16."""
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0) * np.array([1, 2, 0], np.uint8)
    crops, predictor = np.stack([ramp, ramp.swapaxes(0, 1)]), Middle()
    points = points_within(predictor, crops, 1.375)
    assert points.shape == (2, 68, 3) and points.dtype == np.float32
    factor = 64 * 1.4 / 1.375 / 112
    np.testing.assert_allclose(points[0, 2], [31.5, 31.5, 11 * factor], atol=1e-4)
    np.testing.assert_allclose(points[1, 0, :2], 31.5 - 55.5 * factor, atol=1e-4)
    np.testing.assert_allclose(points[0, 1, :2], 31.5 + 55.5 * factor, atol=1e-4)
    seen = predictor.crops
    assert seen.shape == (2, 112, 112, 3) and seen.dtype == np.uint8
    # inside, the grey value of a pixel is its place in the first crop
    places = 31.5 + factor * (np.arange(5, 107) - 55.5)
    np.testing.assert_allclose(seen[0, 40, 5:107, 0], places, atol=0.51)
    np.testing.assert_allclose(seen[1, 5:107, 40, 1], 2 * places, atol=0.51)
    assert (seen[..., 2] == 0).all()


def test_a_picture_that_shrinks_is_averaged_and_mirrored_at_its_border():
    # A pixel of the small crop is 4 of ours, and weighs them by a triangle of 4 to each side: stripes of 2 px vanish.
    # The first one lies at 1.5 of 0 0 200 200 0 0 and, mirrored, 0 0 before: (7/8 + 5/8) / 4 of 200.
    stripes = np.tile(np.array([0, 200], np.uint8).repeat(2), 16)[None, None, :, None].repeat(64, 1).repeat(3, 3)
    predictor = Middle()
    predictor.card = SimpleNamespace(name="middle", crop_size=16, crop_scale=1.4)
    points_within(predictor, stripes, 1.4)
    np.testing.assert_array_equal(predictor.crops[0, 8, :, 0], [75, *[100] * 14, 125])


def test_points_of_another_scheme_are_refused():
    predictor = Middle()
    predictor.run = lambda crops: Alignment(np.zeros((len(crops), 98, 3)))
    with pytest.raises(LandmarkError, match=r"'middle' give points \(1, 98, 3\), want \(B, 68, 3\)"):
        points_within(predictor, np.zeros((1, 64, 64, 3), np.uint8), 1.4)


def test_the_surest_quarter_turn_counts():
    fresh = canthus.load(threads=1)
    fresh.detector = Turned(BOX)
    # the second of the other turns is surer than the upright one, but not than the first
    fresh.run = Unsure(5, 3.0, 3.5, 5, 3.0, 3.0)
    assert abs(abs(fresh.predict(photo()).pose.euler()[0, 2]) - 90) < 1
