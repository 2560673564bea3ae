"""Lines of JSON of a video: that they obey their schema, come back, and that other lines are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from shapes import made_up_faces

from canthus.errors import LandmarkError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.io.columns import ImageFaces
from canthus.io.lines import frame_line, header_line, read_json_lines

HEADER = header_line("v.mp4", ["swift 1", "swift 1"])


def image(followed: bool | None = True) -> ImageFaces:
    known = None if followed is None else np.array([followed])
    return ImageFaces(
        "v.mp4", 3, 0.5, made_up_faces([(10.0, 40.0, -5.0)]), np.array([7]), known, np.array([[0, 1]], bool)
    )


def test_every_line_obeys_the_schema() -> None:
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    texts = [files("canthus.face").joinpath(f"{name}.schema.json").read_text() for name in ("faces", "video")]
    photo, video = (json.loads(text) for text in texts)
    registry = referencing.Registry().with_resource("canthus.faces/1", referencing.Resource.from_contents(photo))
    validator = jsonschema.Draft202012Validator(video, registry=registry)
    nobody = image()._replace(faces=Faces.empty((8, 9)), ids=np.zeros(0, int), followed=None, blinking=None)
    lines = [json.loads(line) for line in (HEADER, frame_line(image()), frame_line(image(None)), frame_line(nobody))]
    for line in lines:
        validator.validate(line)
    for spoilt in (lines[1] | {"frame": -1}, lines[1] | {"faces": [lines[1]["faces"][0] | {"id": 0.5}]}):
        assert not validator.is_valid(spoilt)
    assert lines[0]["weights"] == "swift 1"


def test_a_frame_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    given = image()
    path.write_bytes(HEADER + frame_line(given) + frame_line(image(None)))
    back, unknown = read_json_lines(path)
    assert back[:3] == ("v.mp4", 3, 0.5) and back.ids.tolist() == [7]
    assert back.followed is not None and back.followed.tolist() == [True] and unknown.followed is None
    assert back.blinking is not None and back.blinking.tolist() == [[False, True]]
    np.testing.assert_allclose(back.faces.xyz, given.faces.xyz, atol=6e-4)
    np.testing.assert_allclose(back.faces.expression, given.faces.expression, atol=6e-5)
    assert back.faces.image_size == given.faces.image_size and back.faces.weights == "swift 1"


def test_coefficients_stand_in_the_order_of_the_header() -> None:
    document = json.loads(frame_line(image()))
    (face,) = document["faces"]
    if "expression" in face:
        np.testing.assert_allclose(face["expression"], image().faces.expression[0], atol=6e-5)
    assert json.loads(HEADER)["expressions"] == list(EXPRESSIONS)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"id": 7', '"id": "7"'), ('"id": 7', '"id": 7.5'), ('"followed": true', '"followed": 1'), ('"id"', '"di"'),
     ('"frame": 3', '"frame": null'), ('"time": 0.5', '"time": 1e999'), ('"time": 0.5', '"time": [0.5]'),
     ('"right": false', '"right": 0'), ('"right": false', '"wrong": false')],
)  # fmt: skip
def test_a_line_with_a_wrong_type_is_named(tmp_path: Path, old: str, new: str) -> None:
    line = frame_line(image()).decode()
    assert old in line
    (tmp_path / "a.jsonl").write_text(HEADER.decode() + line + line.replace(old, new))
    frames = read_json_lines(tmp_path / "a.jsonl")
    assert next(frames).ids.tolist() == [7]
    with pytest.raises(LandmarkError, match="line 3 of"):
        next(frames)


@pytest.mark.parametrize("text", ["", "{}", "[]", "nothing", frame_line(image()).decode()])
def test_a_file_without_the_header_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(LandmarkError, match="canthus.video/1"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_expressions_stand_in_the_line_in_their_order():
    values, sigma = np.linspace(0, 1, 52)[None], np.linspace(0.1, 0.2, 52)[None]
    faces = replace(made_up_faces([(10.0, 40.0, -5.0)]), expression=values, expression_sigma=sigma)
    (face,) = json.loads(frame_line(ImageFaces("v.mp4", 3, 0.5, faces, np.array([7]))))["faces"]
    np.testing.assert_allclose(face["expression"], values[0], atol=6e-5)
    np.testing.assert_allclose(face["expression_sigma"], sigma[0], atol=6e-5)
