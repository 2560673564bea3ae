"""The door for decoders: what comes through it, and what it says."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from canthus.decode import decoding, listed, one_line, read_bytes, sha256
from canthus.errors import CanthusError, LandmarkError, RecipeError, WeightsError


class PanicException(BaseException):
    """Named as what Rust extensions raise; it is no `Exception` there either."""


@pytest.mark.parametrize(
    "raised", [zlib.error("bad"), MemoryError(), RecursionError("deep"), SyntaxError("odd"), PanicException("rust")]
)
def test_whatever_a_decoder_raises_becomes_the_family(raised):
    with pytest.raises(RecipeError, match=r"^'a\.npz' cannot be read: \w+") as caught:
        with decoding(RecipeError, "'a.npz' cannot be read"):
            raise raised
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), ModuleNotFoundError("no h5py")])
def test_a_wish_to_stop_and_a_missing_package_pass(raised):
    with pytest.raises(type(raised)):
        with decoding(RecipeError, "'a' cannot be read"):
            raise raised


def test_an_error_of_the_family_passes_as_it_is():
    with pytest.raises(LandmarkError, match=r"^67 points$"):
        with decoding(RecipeError, "'a' cannot be read"):
            raise LandmarkError("67 points")


def test_the_sentence_is_one_line_and_names_a_missing_key():
    with pytest.raises(CanthusError, match=r"^a b: one two \\x1b\[31m$"):
        with decoding(RecipeError, "a\nb"):
            raise ValueError("one\n  two \x1b[31m")
    with pytest.raises(CanthusError, match="a: 'xyz' is missing"):
        with decoding(RecipeError, "a"):
            {}["xyz"]
    assert one_line("\ud800 \u202e") == "\\ud800 \\u202e"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read_bytes(tmp_path / "pipe")


def test_a_listed_file_is_compared_with_its_card(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "card.json").write_text(f'{{"files": {{"a.bin": "{sha256(tmp_path / "a.bin")}"}}}}')
    assert listed(tmp_path, "a.bin", WeightsError) == tmp_path / "a.bin"
    with pytest.raises(WeightsError, match="'b.bin' is missing"):
        listed(tmp_path, "b.bin", WeightsError)
    (tmp_path / "a.bin").write_bytes(b"abd")
    with pytest.raises(WeightsError, match=r"a\.bin' is damaged"):
        listed(tmp_path, "a.bin", WeightsError)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(WeightsError, match=r"a\.bin' is missing"):
        listed(tmp_path, "a.bin", WeightsError)
    for text in ("[]", "{}", "3", ""):
        (tmp_path / "card.json").write_text(text)
        with pytest.raises(WeightsError, match=r"card\.json' cannot be read"):
            listed(tmp_path, "a.bin", WeightsError)
