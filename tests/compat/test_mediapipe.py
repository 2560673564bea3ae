"""canthus.compat.mediapipe: programs for MediaPipe run with another import and nothing else changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from photos import PHOTO, aligner, photo

from canthus.compat import mediapipe as mp
from canthus.compat.mediapipe.faces import BLENDSHAPES, Followed
from canthus.compat.mediapipe.tasks import python
from canthus.compat.mediapipe.tasks.python import vision
from canthus.errors import CanthusError, ImageError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import TrackedFaces

# As on MediaPipe's pages: landmarks, the three best blendshapes and the pose of each face.
TASK = """
import numpy as np
import mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision

base_options = python.BaseOptions(model_asset_path="face_landmarker_v2_with_blendshapes.task")
options = vision.FaceLandmarkerOptions(base_options=base_options,
                                       output_face_blendshapes=True,
                                       output_facial_transformation_matrixes=True,
                                       num_faces=1)
detector = vision.FaceLandmarker.create_from_options(options)
image = mp.Image.create_from_file(PHOTO)
detection_result = detector.detect(image)

nose = [(p.x * image.width, p.y * image.height) for p in [face[4] for face in detection_result.face_landmarks]]
face_blendshapes = detection_result.face_blendshapes[0]
names = [category.category_name for category in face_blendshapes]
scores = [category.score for category in face_blendshapes]
matrix = detection_result.facial_transformation_matrixes[0]
count = len(detection_result.face_landmarks[0])
"""

# A film, with the names below mp.tasks, and the same frames by the older interface.
FILM = """
import mediapipe as mp

BaseOptions = mp.tasks.BaseOptions
FaceLandmarker = mp.tasks.vision.FaceLandmarker
FaceLandmarkerOptions = mp.tasks.vision.FaceLandmarkerOptions
VisionRunningMode = mp.tasks.vision.RunningMode
options = FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path="face_landmarker.task"),
                                running_mode=VisionRunningMode.VIDEO)
found, older = [], []
with FaceLandmarker.create_from_options(options) as landmarker:
    for k, frame in enumerate(frames):
        mp_image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
        result = landmarker.detect_for_video(mp_image, 33 * k)
        found.append(result.face_landmarks[0][33] if result.face_landmarks else None)

mp_face_mesh = mp.solutions.face_mesh
with mp_face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.5,
                           min_tracking_confidence=0.5) as face_mesh:
    for frame in frames:
        results = face_mesh.process(frame)
        if not results.multi_face_landmarks:
            older.append(None)
            continue
        for face_landmarks in results.multi_face_landmarks:
            older.append(face_landmarks.landmark[33])
"""


def run(program: str, **names):
    """A program's names, after its imports alone are changed."""
    changed = program.replace("import mediapipe as mp", "from canthus.compat import mediapipe as mp")
    changed = changed.replace("from mediapipe.", "from canthus.compat.mediapipe.")
    assert changed.count("\n") == program.count("\n") and "import mediapipe as mp\n" in program
    exec(compile(changed, "program", "exec"), names)
    return names


def options(**more):
    return vision.FaceLandmarkerOptions(base_options=python.BaseOptions(), **more)


def test_a_program_for_photos_runs_unchanged():
    got, faces = run(TASK, PHOTO=str(PHOTO)), aligner().predict(PHOTO)
    assert got["count"] == 478 and len(got["nose"]) == 1
    np.testing.assert_allclose(got["nose"][0], faces.xy[0, 30] + 0.5, atol=1e-2)  # corners count from the border
    assert tuple(got["names"]) == BLENDSHAPES and len(BLENDSHAPES) == 52
    assert BLENDSHAPES[:2] == ("_neutral", "browDownLeft") and BLENDSHAPES[-1] == "noseSneerRight"
    smile = got["scores"][got["names"].index("mouthSmileLeft")]
    assert smile == pytest.approx(faces.expression[0, EXPRESSIONS.index("mouthSmileLeft")]) and smile > 0.3
    matrix = got["matrix"]
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
    angle = np.arccos((np.trace(matrix[:3, :3].T @ faces.pose.matrix[0]) - 1) / 2)
    away = np.linalg.norm(faces.xy[0].mean(0) - 255.5)  # px of 512, seen from 256 / tan(63 / 2 degrees) = 417.76 px
    assert angle == pytest.approx(np.arctan2(away, 417.76), abs=1e-3)  # between the ray to the face and the axis
    assert matrix[3].tolist() == [0, 0, 0, 1] and -400 < matrix[2, 3] < -20  # cm


def test_a_program_for_films_follows_a_face_and_says_where_there_is_none():
    picture = photo()
    got = run(FILM, frames=[picture, np.roll(picture, 4, 1), np.zeros_like(picture)])
    for answers in (got["found"], got["older"]):
        assert answers[2] is None
        assert answers[1].x - answers[0].x == pytest.approx(4 / 512, abs=0.003)  # the photo has 512 px


def test_points_are_fractions_with_z_towards_the_back():
    face = aligner().predict(PHOTO)
    (points,) = (
        vision.FaceLandmarker.create_from_model_path("any").detect(mp.Image.create_from_file(PHOTO)).face_landmarks
    )
    z = np.array([point.z for point in points])
    assert z[4] < z[152] < z[234]  # nose, chin, ear
    assert z[4] == pytest.approx(-face.xyz[0, 30, 2] / face.image_size[0], abs=1e-5)
    assert points[0].visibility is None and points[0].presence is None


def test_faces_are_as_many_and_as_sure_as_asked_for():
    two = np.concatenate([photo()[:, 100:356], photo()[:, 100:356]], axis=1)
    image = mp.Image(mp.ImageFormat.SRGB, two)
    for most, want in ((1, 1), (5, 2)):
        result = vision.FaceLandmarker.create_from_options(options(num_faces=most)).detect(image)
        assert len(result.face_landmarks) == want and result.face_blendshapes == []
        assert result.facial_transformation_matrixes == []
    strict = options(num_faces=5, min_face_detection_confidence=1.0)
    assert vision.FaceLandmarker.create_from_options(strict).detect(image).face_landmarks == []
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=2) as mesh:
        found = mesh.process(two).multi_face_landmarks
        assert len(found) == 2 and len(found[0].landmark) == 468
        assert mesh.process(np.zeros((90, 120, 3), np.uint8)).multi_face_landmarks is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: vision.FaceLandmarker(options(running_mode=vision.RunningMode.LIVE_STREAM)),
            CanthusError,
            "LIVE_STREAM",
        ),
        (lambda: vision.FaceLandmarker(options()).detect(photo()), ImageError, "ndarray, want an mp.Image"),
        (lambda: mp.Image(mp.ImageFormat.SRGB, photo().astype(float)), ImageError, "float64"),
        (lambda: mp.Image(mp.ImageFormat.SRGBA, photo()), ImageError, "4 channels"),
        (lambda: mp.Image.create_from_file("nowhere.jpg"), ImageError, "nowhere"),
        (lambda: vision.FaceLandmarker(options()).detect_for_video(None, 1), CanthusError, "want VIDEO"),
    ],
)
def test_what_is_not_offered_is_one_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_times_of_a_film_increase():
    landmarker = vision.FaceLandmarker(options(running_mode=vision.RunningMode.VIDEO))
    frame = mp.Image(mp.ImageFormat.GRAY8, np.zeros((60, 80), np.uint8))
    assert landmarker.detect_for_video(frame, 5).face_landmarks == []
    with pytest.raises(CanthusError, match="got the time 5 ms after 5 ms"):
        landmarker.detect_for_video(frame, 5)


def test_a_face_of_a_film_that_was_sure_once_stays():
    class Doubtful:
        """A tracker that is sure of a face when it first finds it, follows it, and later finds it again with doubts."""

        def __init__(self):
            self.scores = iter((0.95, np.nan, 0.6, np.nan))

        def step(self, picture):
            found = replace(aligner().predict(picture), detection_scores=np.array([next(self.scores)]))
            return TrackedFaces(found, np.array([3]), np.array([False]))

    for confidence, counts in ((0.9, [1, 1, 1, 1]), (0.97, [0, 0, 0, 0])):
        followed = Followed(aligner(), 1, confidence)
        followed._tracker = Doubtful()
        assert [len(followed.step(photo())) for _ in counts] == counts
