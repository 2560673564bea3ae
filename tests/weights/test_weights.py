"""Weights folders: their cards, finding them by name, and what is shipped."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from photos import BOX, photo

import canthus
from canthus.errors import WeightsError
from canthus.inference.runtime import OnnxAligner
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.session import MODEL_FILE, open_session
from canthus.weights import DEFAULT, ROOT, find, shipped

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


@pytest.mark.parametrize("text", ["[]", "3", "null", json.dumps({**json.loads(CARD.to_json()), "colour": "red"})])
def test_a_card_with_other_fields(tmp_path, text):
    with pytest.raises(WeightsError, match="other fields"):
        Card.read(write(tmp_path, text))


@pytest.mark.parametrize("missing", ["name", "crop_size", "licence", "training_data"])
def test_a_card_that_lacks_a_field(tmp_path, missing):
    values = json.loads(CARD.to_json())
    del values[missing]
    with pytest.raises(WeightsError, match=f"not complete.*{missing}"):
        Card.read(write(tmp_path, json.dumps(values)))


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


@pytest.mark.parametrize("name", ["retinaface", "x" * 300, "nowhere/at/all", "a\0b"])
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


def test_a_file_that_is_no_network(tmp_path):
    (tmp_path / MODEL_FILE).write_bytes(b"not ONNX")
    with pytest.raises(WeightsError, match="cannot load"):
        open_session(tmp_path / MODEL_FILE)
    card = Card(**{**vars(CARD), "files": {MODEL_FILE: sha256(tmp_path / MODEL_FILE)}})
    with pytest.raises(WeightsError, match="cannot load"):
        canthus.load(write(tmp_path, card.to_json()))


# What is shipped


def test_the_default_is_shipped():
    assert DEFAULT in shipped()
    assert "retinaface" not in shipped() and "head" not in shipped()  # no aligners


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
