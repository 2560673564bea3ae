"""The files: what is in them, that they come back, and that a failure leaves no part behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from mutations import nested
from shapes import made_up_faces

from canthus.errors import CanthusError, LandmarkError, OutputError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import matrix_from_quaternion
from canthus.io.inputs import Source
from canthus.io.outputs import (
    PART,
    atomic_open,
    atomic_write,
    read_json,
    remove_leftovers,
    to_json,
    write_json,
    write_pts,
)

ANGLES = [(0.0, 0.0, 0.0), (10.0, 40.0, -5.0)]


def validate(document: dict) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("canthus.face").joinpath("faces.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


def test_atomic_write_gives_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    atomic_write(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"a\.txt.*No space left"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["missing/a.txt", "", "folder"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"could not write '{name}'"):
        atomic_write(name, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("x" * 255), b"whole")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"whole"


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_leftovers_of_killed_processes_are_removed_and_files_in_use_are_not(tmp_path: Path) -> None:
    code = f"""
import sys
from canthus.io.outputs import atomic_open
with atomic_open({str(tmp_path / "theirs")!r}) as file:
    file.write(b"begun")
    print("open", flush=True)
    sys.stdin.read()
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"open\n"
    (tmp_path / ".a.part").write_bytes(b"another program's")
    with atomic_open(tmp_path / "ours") as file:
        remove_leftovers(tmp_path)
        file.write(b"whole")
    assert (tmp_path / "ours").read_bytes() == b"whole"
    (unfinished,) = tmp_path.glob(PART.format(writer.pid, "*"))
    writer.kill()
    writer.wait()
    assert unfinished.exists()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ours", ".a.part"}
    remove_leftovers(tmp_path / "no such folder")


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    lock, taken = fcntl.flock, []

    def too_late(file, how):
        if not taken:
            taken.append(Path(file.name))
            taken[0].unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    atomic_write(tmp_path / "a", b"whole")
    assert taken and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_locks_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    atomic_write(tmp_path / "a", b"whole")
    (tmp_path / PART.format(1, "x")).write_bytes(b"")
    remove_leftovers(tmp_path)  # it may be in use
    assert {path.name for path in tmp_path.iterdir()} == {"a", PART.format(1, "x")}


def test_json_obeys_its_schema() -> None:
    faces = made_up_faces(ANGLES)
    document = to_json(faces, mesh=faces.mesh(), image="a.jpg")
    validate(document)
    validate(to_json(Faces.empty((5, 4))))
    source = Source("photos/a.jpg", 4, 64 * "0")
    whole = to_json(faces, image=source, reduction=2, files=["a.csv"])
    validate(whole)
    assert whole["image"]["name"] == "a.jpg" and whole["image"]["reduction"] == 2
    assert document["schema"] == "canthus.faces/1" and document["scheme"] == "ibug68"
    assert document["image"] == {"name": "a.jpg", "width": 640, "height": 480}
    assert len(document["faces"][0]["expression"]) == len(faces.mesh().expression_names)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_heads_of_the_weights_own_come_back_from_json_with_their_meshes(tmp_path: Path) -> None:
    faces, model = made_up_faces(ANGLES), MorphableModel.default()
    rng = np.random.default_rng(0)
    coefficients = rng.uniform(0, 1, (2, len(model.identity) + len(model.expression)))
    placement = np.array([[2.0, 320.0, 240.0], [0.00123456, 300.5, 200.25]])  # the second in micrometres, say
    own = replace(faces, own_head=np.concatenate([placement, coefficients], 1))
    validate(to_json(own))
    assert to_json(own)["faces"][0]["own_head"]["model"] == model.name
    write_json(tmp_path / "a.json", own)
    back = read_json(tmp_path / "a.json")
    np.testing.assert_allclose(back.own_head, own.own_head, rtol=1e-6, atol=2e-3)
    np.testing.assert_allclose(back.mesh().vertices, own.mesh().vertices, atol=0.05)
    other = replace(faces, own_head=np.ones((2, 3 + 7)))  # of a model that is not the shipped one
    validate(to_json(other))
    assert to_json(other)["faces"][1]["own_head"] == {
        "model": None,
        "scale": 1.0,
        "origin": [1.0, 1.0],
        "coefficients": [1.0] * 7,
    }
    assert "own_head" not in to_json(faces)["faces"][0]


def test_json_says_null_for_what_is_not_known() -> None:
    faces = made_up_faces(ANGLES)
    unknown = np.full((2, 68), np.nan)
    document = to_json(replace(faces, sigma=unknown, visible=unknown, detection_scores=unknown[:, 0]))
    validate(document)
    face = document["faces"][0]
    assert face["sigma"] == face["score"] == face["visible"] == [None] * 68
    assert face["detection_score"] is None
    assert "identity" not in face


def test_json_gives_degrees_by_name() -> None:
    angles = to_json(made_up_faces([(10.0, 40.0, -5.0)]))["faces"][0]["pose"]["euler_degrees"]
    assert angles["aflw"] == {"pitch": 10.0, "yaw": 40.0, "roll": -5.0}
    assert set(angles) == {"aflw", "openface", "opencv", "arkit"}
    # For yaw alone: aflw is positive with the nose to image left, which is a negative turn about the y axis
    # that points up (arkit) and a positive one about the y axis that points down (openface, opencv).
    turned = to_json(made_up_faces([(0.0, 40.0, 0.0)]))["faces"][0]["pose"]["euler_degrees"]
    assert {name: angle["yaw"] for name, angle in turned.items()} == {
        "aflw": 40.0, "openface": 40.0, "opencv": 40.0, "arkit": -40.0,
    }  # fmt: skip


def test_json_refuses_meshes_of_other_faces() -> None:
    faces = made_up_faces(ANGLES)
    with pytest.raises(LandmarkError, match="1 mesh for 2 faces"):
        to_json(faces, mesh=faces[0].mesh())


@pytest.mark.parametrize("count", [0, 2])
def test_json_comes_back(tmp_path: Path, count: int) -> None:
    faces = made_up_faces(ANGLES[:count])
    write_json(tmp_path / "a.json", faces, image="a.jpg")
    back = read_json(tmp_path / "a.json")
    np.testing.assert_allclose(back.xyz, faces.xyz, atol=6e-4)  # half of 0.001 and the float32 of 500
    np.testing.assert_allclose(back.sigma, faces.sigma, atol=6e-4)
    np.testing.assert_allclose(back.visible, faces.visible, atol=6e-5)
    np.testing.assert_allclose(back.detection_scores, faces.detection_scores, atol=6e-5)
    np.testing.assert_allclose(back.pose.matrix, faces.pose.matrix, atol=6e-7)
    assert (back.image_size, back.scheme, back.weights) == (faces.image_size, faces.scheme, faces.weights)


def test_expressions_of_a_network_come_back_and_those_of_a_mesh_do_not(tmp_path: Path) -> None:
    faces, rng = made_up_faces(ANGLES), np.random.default_rng(0)
    values = rng.random((2, 52))
    values[:, -1] = np.nan
    seen = replace(faces, expression=values, expression_sigma=rng.random((2, 52)))
    write_json(tmp_path / "a.json", seen, mesh=seen.mesh())
    validate(json.loads((tmp_path / "a.json").read_text()))
    back = read_json(tmp_path / "a.json")
    np.testing.assert_allclose(back.expression, seen.expression, atol=6e-5)
    np.testing.assert_allclose(back.expression_sigma, seen.expression_sigma, atol=6e-5)
    write_json(tmp_path / "b.json", faces, mesh=faces.mesh())
    assert set(json.loads((tmp_path / "b.json").read_text())["faces"][0]["expression"]) == set(EXPRESSIONS)
    assert np.isnan(read_json(tmp_path / "b.json").expression).all()


def test_unknown_numbers_come_back_as_nan(tmp_path: Path) -> None:
    faces = made_up_faces(ANGLES)
    write_json(tmp_path / "a.json", replace(faces, sigma=np.full((2, 68), np.nan)))
    assert np.isnan(read_json(tmp_path / "a.json").sigma).all()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "canthus.faces/9"}', '{"schema": "canthus.faces/1", "faces": [{}]}']
)
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LandmarkError, match="want"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("faces", 0, "landmarks", 3), ["1", 2, 3]),
        (("faces", 0, "landmarks"), [[1, 2, 3]] * 67),
        (("faces", 0, "landmarks", 0, 0), True),
        (("faces", 0, "sigma", 0), 1e999),
        (("faces", 0, "sigma", 0), -1),
        (("faces", 0, "visible", 0), 2),
        (("faces", 0, "detection_score"), "0.9"),
        (("faces", 0, "pose", "matrix"), None),
        (("faces",), {}),
        (("image", "width"), 640.5),
        (("image", "width"), 0),
        (("scheme",), 3),
        (("weights",), None),
        (("schema",), []),
    ],
)
def test_a_wrong_type_in_json_is_refused(tmp_path: Path, keys: tuple, value: object) -> None:
    document = to_json(made_up_faces(ANGLES))
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(CanthusError):
        read_json(tmp_path / "a.json")


def test_json_that_is_missing_or_nested_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match="No such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(nested(100_000))
    with pytest.raises(LandmarkError, match="nested deeper"):
        read_json(tmp_path / "a.json")


def test_pts_is_one_based(tmp_path: Path) -> None:
    faces = made_up_faces(ANGLES)
    write_pts(tmp_path / "a.pts", faces, face=1)
    lines = (tmp_path / "a.pts").read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points:  68", "{"] and lines[71:] == ["}"]
    x, y = faces.xy[1, 0]
    assert lines[3] == f"{x + 1:.3f} {y + 1:.3f}"
    points = np.array([line.split() for line in lines[3:71]], float)
    np.testing.assert_allclose(points - 1, faces.xy[1], atol=6e-4)


def test_a_face_that_is_not_there_has_no_pts(tmp_path):
    with pytest.raises(OutputError, match="got face 3 of 1"):
        write_pts(tmp_path / "a.pts", made_up_faces([(0, 0, 0)]), 3)
    assert not list(tmp_path.iterdir())


def test_the_name_of_an_image_may_be_a_path(tmp_path):
    write_json(tmp_path / "a.json", made_up_faces([(0, 0, 0)]), image=Path("b.jpg"))
    assert json.loads((tmp_path / "a.json").read_text())["image"]["name"] == "b.jpg"


def test_the_document_says_what_the_faces_say():
    faces = made_up_faces([(10.0, 40.0, -5.0)])
    (face,), xy = to_json(faces)["faces"], faces.xy[0]
    assert face["box"] == pytest.approx([*xy.min(0), *xy.max(0)], abs=6e-4)
    assert face["score"] == pytest.approx(faces.scores[0].tolist(), abs=6e-5)
    quaternion = np.array(face["pose"]["quaternion"])  # w, x, y, z
    np.testing.assert_allclose(matrix_from_quaternion(quaternion), faces.pose.matrix[0], atol=1e-5)
