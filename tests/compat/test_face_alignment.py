"""The bridge for programs written for the package face_alignment."""

from __future__ import annotations

import sys
import warnings
from functools import cache

import numpy as np
import pytest
from photos import PHOTO, aligner, distance, photo
from PIL import Image

import canthus
from canthus.compat import face_alignment
from canthus.compat.face_alignment import FaceAlignment, LandmarksType
from canthus.errors import BoxError, CanthusError, ImageError
from canthus.face.landmarks import mirror
from canthus.inference.retinaface import face_boxes, tight

GREY = np.full((64, 80, 3), 110, np.uint8)


@cache
def bridge(kind: LandmarksType = LandmarksType.THREE_D, flip_input: bool = False) -> FaceAlignment:
    return FaceAlignment(kind, flip_input=flip_input)


@pytest.fixture(autouse=True)
def one_aligner(monkeypatch):
    one = aligner()
    monkeypatch.setattr(canthus, "load", lambda: one)


# As programs of face_alignment are written; only the import line differs, and is filled in.
SCRIPT = """
{imports}
import numpy as np
from PIL import Image

fa = face_alignment.FaceAlignment(face_alignment.LandmarksType.THREE_D, device='cpu', flip_input=True)
image = np.array(Image.open(path))
preds = fa.get_landmarks(image)[-1]
jaw = preds[slice(0, 17), 0], preds[slice(0, 17), 1], preds[slice(0, 17), 2]

fa = face_alignment.FaceAlignment(face_alignment.LandmarksType._2D, flip_input=False)
points, scores, boxes = fa.get_landmarks_from_image(image, return_bboxes=True, return_landmark_score=True)
x1, y1, x2, y2, score = boxes[0]
again = fa.get_landmarks_from_image(image, detected_faces=boxes)
"""


def test_a_usual_script_runs_with_its_import_changed_and_nothing_else():
    names = {"path": str(PHOTO)}
    exec(SCRIPT.format(imports="from canthus.compat import face_alignment"), names)
    truth = aligner().predict(PHOTO)
    assert distance(names["preds"], truth.xyz[0]) < 0.02
    assert np.array_equal(names["jaw"][1], names["preds"][:17, 1])
    np.testing.assert_array_equal(names["points"][0], truth.xy[0])
    # The box reaches from the forehead to the chin: brows lie below its top by a fifth of its height.
    top, bottom = names["points"][0][:, 1].min(), names["points"][0][:, 1].max()
    assert 0.15 < (top - names["y1"]) / (names["y2"] - names["y1"]) < 0.27 and abs(bottom - names["y2"]) < 5
    assert names["scores"][0].shape == (68,) and 0.6 <= names["score"] <= 1
    assert distance(names["again"][0], truth.xyz[0]) < 0.02


def test_the_module_can_stand_in_for_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", face_alignment)
    names = {"path": str(PHOTO)}
    exec(SCRIPT.format(imports="import face_alignment"), names)
    assert names["preds"].shape == (68, 3)


@pytest.mark.parametrize(("kind", "axes"), [("TWO_D", 2), ("TWO_HALF_D", 2), ("THREE_D", 3)])
def test_landmarks_are_a_list_of_float32_arrays_of_the_kinds_axes(kind, axes):
    (points,) = bridge(LandmarksType[kind]).get_landmarks(str(PHOTO))
    assert points.shape == (68, axes) and points.dtype == np.float32 and points.flags.c_contiguous


def test_z_is_in_pixels_and_larger_for_the_nose_than_for_the_ears():
    (points,) = bridge().get_landmarks(photo())
    assert points[30, 2] > 20 and points[[0, 16], 2].max() < -20  # a head 100 px wide is some 100 px deep
    assert abs(points[:, 2].mean()) < 1e-3


def test_no_face_is_none_and_a_warning():
    with pytest.warns(UserWarning, match="No faces were detected"):
        assert bridge().get_landmarks(GREY) is None
    with pytest.warns(UserWarning):
        assert bridge().get_landmarks_from_image(GREY, return_bboxes=True) == (None, None, None)
    with pytest.warns(UserWarning):
        assert bridge().get_landmarks(photo(), detected_faces=[]) is None


@pytest.mark.parametrize(("boxes", "scores"), [(True, False), (False, True), (True, True)])
def test_what_was_not_asked_for_is_none(boxes, scores):
    answer = bridge().get_landmarks_from_image(photo(), None, boxes, scores)
    assert [part is not None for part in answer] == [True, scores, boxes]


def test_grey_opaque_and_floating_point_images_up_to_255_are_the_same_image():
    (wanted,) = bridge().get_landmarks(photo())
    with_opacity = np.dstack([photo(), np.zeros(photo().shape[:2], np.uint8)])  # left out, not blended
    for image in (photo().astype(np.float32), with_opacity):
        np.testing.assert_array_equal(bridge().get_landmarks(image)[0], wanted)
    grey = np.asarray(Image.fromarray(photo()).convert("L"))
    assert distance(bridge().get_landmarks(grey)[0], wanted) < 0.05


def test_flip_input_of_a_mirrored_photo_gives_the_mirrored_points():
    # Averaged over both, straight and mirrored photo have the same answer, but for rounding where the crop is cut.
    averaging = bridge(flip_input=True)
    (points,) = averaging.get_landmarks(photo())
    (flipped,) = averaging.get_landmarks(np.ascontiguousarray(photo()[:, ::-1]))
    assert distance(mirror(flipped, "ibug68", photo().shape[1]), points) < 0.02
    assert not np.array_equal(points, bridge().get_landmarks(photo())[0])
    assert points.dtype == np.float32 and abs(points[:, 2].mean()) < 1e-3


def test_a_batch_has_one_array_an_image_its_faces_below_each_other():
    two = np.concatenate([photo()[:, 100:356], photo()[:, 100:356]], axis=1)  # (512,512,3), a face in each half
    batch = np.stack([photo(), two, np.full_like(photo(), 110)]).transpose(0, 3, 1, 2).astype(np.float32)
    with pytest.warns(UserWarning, match="No faces"):
        landmarks, scores, boxes = bridge(LandmarksType.TWO_D).get_landmarks_from_batch(batch, None, True, True)
    assert [np.shape(points) for points in landmarks] == [(68, 2), (136, 2), (0,)]
    assert [len(s) for s in scores[:2]] == [len(b) for b in boxes[:2]] == [1, 2]
    assert scores[2] is None and boxes[2] == []
    again = bridge(LandmarksType.TWO_D).get_landmarks_from_batch(batch[:2], boxes[:2])
    assert [np.shape(points) for points in again] == [(68, 2), (136, 2)]


def test_tensors_are_taken_as_arrays():
    torch = pytest.importorskip("torch")
    image = torch.from_numpy(photo().copy())
    (wanted,) = bridge().get_landmarks(photo())
    np.testing.assert_array_equal(bridge().get_landmarks(image)[0], wanted)
    (points,) = bridge().get_landmarks_from_batch(image.permute(2, 0, 1)[None].float())
    np.testing.assert_array_equal(points, wanted)


def test_a_directory_is_searched_in_depth_for_its_kinds_of_files(tmp_path):
    (tmp_path / "below").mkdir()
    files = [tmp_path / "a.jpg", tmp_path / "below" / "b.JPG", tmp_path / "c.bmp"]
    for file in files:
        Image.fromarray(photo()).save(file, "JPEG")
    fa = bridge(LandmarksType.TWO_D)
    found = fa.get_landmarks_from_directory(str(tmp_path), show_progress_bar=False)
    assert list(found) == [str(files[0]), str(files[1])] and found[str(files[0])][0].shape == (68, 2)
    found = fa.get_landmarks_from_directory(tmp_path, [".bmp"], recursive=False, return_bboxes=True)
    assert list(found) == [str(files[2])] and found[str(files[2])][2][0].shape == (5,)


def test_what_has_no_effect_is_said():
    for more in ({"device": "cuda"}, {"face_detector_kwargs": {"filter_threshold": 0.8}}):
        with pytest.warns(UserWarning):
            FaceAlignment(LandmarksType.TWO_D, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FaceAlignment(LandmarksType.TWO_D, network_size=face_alignment.NetworkSize.LARGE, face_detector="blazeface")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda fa: fa.get_landmarks("nowhere.jpg"), ImageError),
        (lambda fa: fa.get_landmarks(np.full((9, 9, 3), 256.0)), ImageError),
        (lambda fa: fa.get_landmarks(np.full((9, 9, 3), np.nan)), ImageError),
        (lambda fa: fa.get_landmarks(photo(), [[0, 1, 2]]), BoxError),
        (lambda fa: fa.get_landmarks(photo(), ["box"]), BoxError),
        (lambda fa: fa.get_landmarks_from_batch(photo()), ImageError),
        (lambda fa: fa.get_landmarks_from_batch(photo().transpose(2, 0, 1)[None], []), BoxError),
        (lambda fa: fa.get_landmarks_from_directory("nowhere"), ImageError),
    ],
)
def test_what_cannot_be_used_raises_one_sentence(call, error):
    with pytest.raises(error, match="^got .*want"):
        call(bridge())
    assert issubclass(error, CanthusError)


def test_boxes_of_a_detector_and_tight_boxes_are_each_others_inverse():
    boxes = np.array([[10.0, 20.0, 110.0, 220.0], [-5.5, 0.0, 31.0, 64.25]], np.float32)
    np.testing.assert_allclose(face_boxes(tight(boxes)), boxes, atol=1e-3)


def test_whole_numbers_of_any_type_are_pixels():
    wanted = FaceAlignment(LandmarksType.TWO_D).get_landmarks(photo())
    for kind in ("int64", "uint16", "float32"):
        (points,) = FaceAlignment(LandmarksType.TWO_D).get_landmarks(photo().astype(kind))
        np.testing.assert_array_equal(points, wanted[0])
    with pytest.raises(ImageError, match="want 0 to 255"):
        FaceAlignment(LandmarksType.TWO_D).get_landmarks(photo().astype("int32") * 200)
