"""Weights folders: their cards, finding them by name, and what is shipped."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from mutations import nested
from photos import BOX, photo

import canthus
from canthus.decode import listed
from canthus.errors import ModelError, WeightsError
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import box_overlaps
from canthus.inference.detect import REFINER_FILE, PyramidDetector
from canthus.inference.runtime import OnnxAligner
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.session import MODEL_FILE, open_session
from canthus.weights import DEFAULT, DETECTOR, ROOT, find, shipped

CARD = Card(
    name="tiny", version="3", method="swift", crop_size=112, crop_scale=1.4, licence="MIT", commercial_use=True,
    training_data="nothing", recipe="none", commit="abc", files={"a.bin": "0" * 64},
    measured=[{"what": "NME", "value": 3.5}], limits=["café"],
)  # fmt: skip


def write(folder: Path, text: str) -> Path:
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of the default weights, to be damaged."""
    return Path(shutil.copytree(ROOT / DEFAULT, tmp_path / "copied"))


# Cards


def test_a_card_is_read_as_it_was_written(tmp_path):
    assert Card.read(write(tmp_path, CARD.to_json())) == CARD
    assert CARD.title == "tiny 3"
    assert "café" in CARD.to_json() and CARD.to_json().endswith("}\n")


def test_a_missing_card(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(WeightsError, match=rf"no 'card.json' in '{re.escape(str(folder))}'"):
            Card.read(folder)


@pytest.mark.parametrize("text", ["", "{", CARD.to_json()[:-5], "name: tiny"])
def test_a_damaged_card(tmp_path, text):
    with pytest.raises(WeightsError, match="JSON is wanted"):
        Card.read(write(tmp_path, text))


def test_a_card_that_is_not_text(tmp_path):
    (tmp_path / CARD_FILE).write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(WeightsError, match="JSON is wanted"):
        Card.read(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_card_with_other_fields(tmp_path, text):
    with pytest.raises(WeightsError, match="other fields"):
        Card.read(write(tmp_path, text))


def test_a_card_of_something_else(tmp_path):
    values = json.loads(CARD.to_json()) | {"colour": "red", "title": "a detector"}
    with pytest.raises(WeightsError, match="'colour', 'title', which no card of landmark weights has"):
        Card.read(write(tmp_path, json.dumps(values)))


@pytest.mark.parametrize("missing", ["name", "crop_size", "licence", "training_data"])
def test_a_card_that_lacks_a_field(tmp_path, missing):
    values = json.loads(CARD.to_json())
    del values[missing]
    with pytest.raises(WeightsError, match=f"not complete.*{missing}"):
        Card.read(write(tmp_path, json.dumps(values)))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("crop_size", "112", "whole number"),
        ("crop_size", True, "whole number"),
        ("crop_size", 10**6, "16 to 1024"),
        ("crop_scale", 100, "0.5 to 5.0"),
        ("crop_scale", True, "a number"),
        ("crop_scale", "1.4", "a number"),
        ("commercial_use", "no", "true or false"),
        ("commercial_use", 1, "true or false"),
        ("name", 3, "text"),
        ("licence", "MIT\x1b[2J", "control characters"),
        ("training_data", "photos \ud800", "control characters"),
        ("limits", "none", "list"),
        ("measured", [{"protocol": 3}], "protocol"),
        ("measured", [{"protocol": "a", "0-30": [1]}], "list"),
        ("files", ["model.onnx"], "dict"),
        ("files", {"../model.onnx": "0" * 64}, "names without a folder"),
        ("files", {"C:model.onnx": "0" * 64}, "names without a folder"),
        ("files", {"..": "0" * 64}, "names without a folder"),
        ("files", {"model.onnx": "0"}, "SHA-256"),
        ("completion", {}, "noise, iterations, jaw"),
        ("completion", {"noise": 0.01, "iterations": 10**9, "jaw": "soft"}, "1 to 100 iterations"),
        ("completion", {"noise": 0.01, "iterations": 5, "jaw": "hard"}, "noise, iterations, jaw"),
        ("mean_shape", [[0.0, 0.0]] * 67, "68 points"),
        ("mean_shape", [[0.0, 0.0]] * 68, "68 points"),
        ("start", 3, "str"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(tmp_path, field, value, said):
    values = json.loads(CARD.to_json()) | {field: value}
    with pytest.raises(WeightsError, match=rf"card\.json' has the {field} .*{said}") as caught:
        Card.read(write(tmp_path, json.dumps(values)))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", [nested(100_000), CARD.to_json().replace("1.4", "NaN"), CARD.to_json().replace("1.4", "1e999")]
)
def test_a_card_beyond_the_bounds_of_json(tmp_path, text):
    with pytest.raises(WeightsError, match="JSON is wanted"):
        Card.read(write(tmp_path, text))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_card_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / CARD_FILE)
    with pytest.raises(WeightsError, match="no regular file"):
        canthus.load(tmp_path)


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_are_checked_against_the_card(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    good = Card(**{**vars(CARD), "files": {"a.bin": sha256(tmp_path / "a.bin")}})
    assert good.checked(tmp_path, "a.bin") == tmp_path / "a.bin"
    with pytest.raises(WeightsError, match="damaged"):
        CARD.checked(tmp_path, "a.bin")
    with pytest.raises(WeightsError, match="not 'b.bin'"):
        good.checked(tmp_path, "b.bin")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(WeightsError, match="missing"):
        good.checked(tmp_path, "a.bin")


# Finding


def test_weights_are_found_by_name_or_folder(tmp_path):
    assert find(DEFAULT) == ROOT / DEFAULT
    write(tmp_path, CARD.to_json())
    assert find(tmp_path) == find(str(tmp_path)) == tmp_path


def test_a_wrong_name_suggests_the_nearest():
    with pytest.raises(WeightsError, match="no weights 'swfit': did you mean 'swift'[?] shipped are .*swift"):
        find("swfit")
    with pytest.raises(WeightsError) as caught:
        find("something else")
    assert "did you mean" not in str(caught.value) and "shipped are" in str(caught.value)


@pytest.mark.parametrize("name", ["detector", "x" * 300, "nowhere/at/all", "a\0b"])
def test_what_is_no_aligner_is_not_found(name):
    with pytest.raises(WeightsError):
        find(name)


# Loading


def test_a_copied_folder_answers_as_the_shipped_one(copied):
    mine, default = canthus.load(copied, threads=1), canthus.load(threads=1)
    assert isinstance(mine, OnnxAligner)
    assert np.array_equal(mine.predict(photo(), BOX).xyz, default.predict(photo(), BOX).xyz)


def test_a_changed_byte_is_noticed(copied):
    data = bytearray((copied / MODEL_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / MODEL_FILE).write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        canthus.load(copied)


def test_a_folder_without_the_network_or_the_card(copied):
    (copied / MODEL_FILE).unlink()
    with pytest.raises(WeightsError, match="missing"):
        canthus.load(copied)
    (copied / CARD_FILE).unlink()
    with pytest.raises(WeightsError, match="no 'card.json'"):
        canthus.load(copied)


def test_a_file_that_is_no_network(tmp_path, capsys):
    (tmp_path / MODEL_FILE).write_bytes(b"not ONNX")
    with pytest.raises(WeightsError, match="cannot load"):
        open_session(tmp_path / MODEL_FILE)
    assert capsys.readouterr().out == ""
    card = Card(**{**vars(CARD), "files": {MODEL_FILE: sha256(tmp_path / MODEL_FILE)}})
    with pytest.raises(WeightsError, match="cannot load"):
        canthus.load(write(tmp_path, card.to_json()))


def tiny_network(folder: Path, values: dict[str, np.ndarray], **card) -> Path:
    """A weights folder whose network takes crops of 16 px and answers with the same `values` (1,...) for each."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Shape", ["crops"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["faces"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), **{f"{name} of one": v for name, v in values.items()}}
    for name, array in values.items():
        sides = np.ones(array.ndim - 1, np.int64)
        constants[f"{name} sides"] = sides
        nodes.append(helper.make_node("Concat", ["faces", f"{name} sides"], [f"{name} times"], axis=0))
        nodes.append(helper.make_node("Tile", [f"{name} of one", f"{name} times"], [name]))
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("crops", kinds.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info(name, kinds.FLOAT, ["n", *v.shape[1:]]) for name, v in values.items()],
        [onnx.numpy_helper.from_array(v, name) for name, v in constants.items()],
    )  # fmt: skip
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / MODEL_FILE)
    files = {MODEL_FILE: sha256(folder / MODEL_FILE)}
    return write(folder, Card(**{**vars(CARD), "crop_size": 16, "files": files, **card}).to_json())


POINTS = np.random.default_rng(0).uniform(2, 14, (1, 68, 3)).astype(np.float32)


def test_a_network_answers_what_it_holds(tmp_path):
    assert np.array_equal(
        canthus.load(tiny_network(tmp_path / "a", {"xyz": POINTS})).run(np.zeros((2, 16, 16, 3), np.uint8)).xyz[1],
        POINTS[0],
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"xyz": POINTS * np.float32(np.nan)}, "xyz with NaN or infinity"),
        ({"xyz": POINTS * np.float32(np.inf)}, "xyz with NaN or infinity"),
        ({"xyz": POINTS, "sigma": np.full((1, 68), np.nan, np.float32)}, "sigma with NaN or infinity"),
        ({"xyz": POINTS, "rotation": np.zeros((1, 9), np.float32)}, r"rotation of shape \(1, 9\)"),
        ({"xyz": POINTS, "other": POINTS}, "cannot be run as its card says"),
        ({"sigma": POINTS[..., 0]}, "cannot be run as its card says"),
    ],
)
def test_a_network_that_answers_with_nan_or_other_shapes_is_refused(tmp_path, values, said):
    aligner = canthus.load(tiny_network(tmp_path / "a", values))
    with pytest.raises(WeightsError, match=f"tiny 3.*{said}"):
        aligner.predict(photo(), BOX)


def test_weights_that_start_from_themselves_are_refused_at_once(tmp_path):
    tiny_network(tmp_path / "a", {"xyz": POINTS}, start=str(tmp_path / "a"))
    with pytest.raises(WeightsError, match="start from others themselves"):
        canthus.load(tmp_path / "a")
    tiny_network(tmp_path / "b", {"xyz": POINTS}, start=str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="no weights .*nowhere"):
        canthus.load(tmp_path / "b")


# What is shipped


@pytest.mark.parametrize(("folder", "name"), [("head", "head.npz"), (DETECTOR, MODEL_FILE)])
def test_the_head_and_the_detector_are_listed_on_their_cards(tmp_path, folder, name):
    copy = Path(shutil.copytree(ROOT / folder, tmp_path / folder))
    assert listed(copy, name, WeightsError) == copy / name
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        listed(copy, name, WeightsError)
    card = json.loads((copy / CARD_FILE).read_text())
    assert card["licence"] and (card.get("sources") or card["training_data"])


@pytest.mark.parametrize("name", [MODEL_FILE, REFINER_FILE])
def test_a_detector_that_is_not_the_one_of_its_card_is_refused(tmp_path, name):
    shutil.copytree(ROOT / DETECTOR, tmp_path / DETECTOR)
    (tmp_path / DETECTOR / name).write_bytes(b"another")
    with pytest.raises(WeightsError, match="damaged"):
        PyramidDetector(tmp_path / DETECTOR)


def test_a_head_that_is_not_the_one_of_its_card_is_refused(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "head", tmp_path / "weights" / "head")
    (tmp_path / "weights" / "head" / "head.npz").write_bytes(b"another")
    monkeypatch.setattr("canthus.face.morphable.resources.files", lambda package: tmp_path)
    with pytest.raises(ModelError, match="damaged"):
        MorphableModel.default.__wrapped__(MorphableModel)


def test_the_default_is_shipped():
    assert DEFAULT in shipped()
    assert DETECTOR not in shipped() and "head" not in shipped()  # no aligners


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_card_is_complete(name):
    card = shipped()[name]
    assert card.name == name and card.title.startswith(name)
    assert card.version and card.version != "untrained"
    for field in ("method", "licence", "training_data", "recipe", "commit"):
        assert getattr(card, field).strip(), field
    assert isinstance(card.commercial_use, bool)
    assert card.measured and all(isinstance(row, dict) and row for row in card.measured)
    assert card.limits and all(isinstance(limit, str) and limit.strip() for limit in card.limits)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_card_is_true_of_its_network(name):
    folder, card = ROOT / name, shipped()[name]
    assert MODEL_FILE in card.files
    for file in card.files:
        card.checked(folder, file)
    others = {p.name for p in folder.iterdir() if p.is_file()} - set(card.files)
    assert others <= {CARD_FILE, "LICENSE"}
    session = open_session(folder / MODEL_FILE, 1)
    (crops,) = session.get_inputs()
    assert crops.name == "crops" and crops.type == "tensor(uint8)"
    assert crops.shape[1:] == [card.crop_size, card.crop_size, 3]
    names = {output.name for output in session.get_outputs()}
    assert "xyz" in names <= {field.name for field in fields(canthus.Alignment)}


def test_the_default_may_be_used_for_everything():
    assert shipped()[DEFAULT].commercial_use is True


def test_the_detector_finds_a_face_and_its_roll():
    found = PyramidDetector(ROOT / DETECTOR, threads=1)(photo())
    assert box_overlaps(found.boxes[:1], BOX[None])[0, 0] > 0.6
    assert abs(np.rad2deg(found.squares[0, 3])) < 25


@pytest.mark.parametrize("name", [[], {}, 1.5, ("swift",), object(), b"swift"])
def test_weights_of_another_type_are_refused(name):
    with pytest.raises(WeightsError, match=f"got weights of type {type(name).__name__}"):
        find(name)
