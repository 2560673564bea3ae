"""Parts of a tracked video on disk: they hold everything exactly, and parts of something else are not taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from shapes import made_up_faces

from canthus.face.faces import FACES_COLUMNS, Faces, TrackedFaces
from canthus.face.series import TrackedFrame
from canthus.io.recording import BETWEEN_PICTURES, PART_FRAMES, Recording

ABOUT = {"source": {"sha256": "1"}, "settings": {"rate": 25.0}}
PICTURE = np.zeros((240, 320, 3), np.uint8)


def frame(number: int) -> TrackedFrame:
    """A frame with two faces, one, or none."""
    faces = made_up_faces([(0.1 * number, 10.0, 0.3), (5.0, -7.7, 1.0)])[: number % 3]
    tracked = TrackedFaces(faces, np.arange(len(faces)) + number, np.ones(len(faces), bool))
    return TrackedFrame(number, number / 3, tracked)


def filled(folder: Path, count: int) -> Recording:
    recording = Recording(folder, ABOUT)
    for number in range(count):
        if recording.add(frame(number), PICTURE):
            recording.flush({"next": np.array(number + 1)})
    return recording


def same(a: TrackedFrame, b: TrackedFrame) -> bool:
    columns = all(np.array_equal(getattr(a.tracked.faces, n), getattr(b.tracked.faces, n), True) for n in FACES_COLUMNS)
    pose = np.array_equal(a.tracked.faces.pose.matrix, b.tracked.faces.pose.matrix)
    size = a.tracked.faces.image_size == b.tracked.faces.image_size
    return a[:2] == b[:2] and a.tracked.ids.tolist() == b.tracked.ids.tolist() and columns and pose and size


def test_a_recording_goes_on_after_its_last_part(tmp_path: Path) -> None:
    count = 2 * PART_FRAMES + 7
    whole = filled(tmp_path / "parts", count)
    assert all(same(a, frame(k)) for k, a in enumerate(whole)) and len(list(whole)) == count
    again = Recording(tmp_path / "parts", ABOUT, resume=True)
    assert again.frames == 2 * PART_FRAMES and again.state is not None and again.state["next"] == 2 * PART_FRAMES
    assert all(same(a, b) for a, b in zip(again, whole)) and len(list(again)) == 2 * PART_FRAMES
    assert again.picture_numbers() == list(range(0, 2 * PART_FRAMES, BETWEEN_PICTURES))
    assert whole.picture_numbers() == list(range(0, count, BETWEEN_PICTURES))
    last = 2 * PART_FRAMES
    pictures = whole.pictures([BETWEEN_PICTURES, last])  # of a part, and of what waits
    assert sorted(pictures) == [BETWEEN_PICTURES, last] and pictures[last].shape == (120, 160, 3)
    assert np.array_equal(again.pictures([BETWEEN_PICTURES, last])[BETWEEN_PICTURES], pictures[BETWEEN_PICTURES])
    again.remove()
    assert not (tmp_path / "parts").exists()


def test_other_and_damaged_parts_are_not_taken(tmp_path: Path) -> None:
    filled(tmp_path / "parts", 3 * PART_FRAMES)
    (tmp_path / "parts" / "000001.npz").write_bytes(b"half")
    again = Recording(tmp_path / "parts", ABOUT, resume=True)
    assert again.frames == PART_FRAMES  # the third follows on the second, and is not taken either
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["000000.npz"]
    assert Recording(tmp_path / "parts", ABOUT | {"source": {"sha256": "2"}}, resume=True).frames == 0
    assert list((tmp_path / "parts").iterdir()) == []


def test_without_resume_it_starts_anew(tmp_path: Path) -> None:
    filled(tmp_path / "parts", PART_FRAMES)
    fresh = Recording(tmp_path / "parts", ABOUT)
    assert fresh.frames == 0 and fresh.state is None and list(fresh) == []


def test_frames_without_any_face_are_kept(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "parts", ABOUT)
    nobody = TrackedFaces(Faces.empty((8, 6)), np.zeros(0, int), np.zeros(0, bool))
    recording.add(TrackedFrame(0, 0.0, nobody), PICTURE)
    recording.flush({})
    (back,) = Recording(tmp_path / "parts", ABOUT, resume=True)
    assert back.tracked.faces.image_size == (8, 6) and len(back.tracked) == 0


def test_points_of_another_scheme_come_back(tmp_path: Path) -> None:
    faces = made_up_faces([(0.1, 10.0, 0.3)]).converted("menpo84")
    recording = Recording(tmp_path / "parts", ABOUT)
    for number, found in enumerate((faces, faces[:0], faces)):
        tracked = TrackedFaces(found, np.arange(len(found)), np.ones(len(found), bool))
        recording.add(TrackedFrame(number, number / 3, tracked), PICTURE)
    recording.flush({})
    again = [frame.tracked.faces for frame in Recording(tmp_path / "parts", ABOUT, resume=True)]
    assert [found.scheme for found in again] == ["menpo84"] * 3
    assert np.array_equal(again[2].xyz, faces.xyz) and again[1].xyz.shape == (0, 84, 3)
