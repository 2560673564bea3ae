"""The public surface: its names, what they are called with, and that each is explained."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import canthus

PACKAGE = Path(canthus.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_public_names():
    # A change here is a change of the public surface: CHANGELOG.md must tell of it.
    assert canthus.__all__ == [
        "Alignment",
        "CanthusError",
        "FaceMeshes",
        "Faces",
        "LandmarkScheme",
        "MorphableModel",
        "Pose",
        "convert",
        "load",
        "overlay",
        "read_image",
        "scheme",
    ]
    assert all(hasattr(canthus, name) for name in canthus.__all__)


def test_the_version_is_that_of_the_distribution():
    assert canthus.__version__ == version("canthus")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", canthus.__version__)


def test_how_the_first_calls_are_made():
    assert str(inspect.signature(canthus.load)).startswith(
        "(weights: 'str | Path | None' = None, *, threads: 'int | None' = None)"
    )
    from canthus.inference.predictor import Predictor

    assert list(inspect.signature(Predictor.predict).parameters) == ["self", "image", "boxes"]
    assert list(inspect.signature(Predictor.predict_many).parameters) == ["self", "images", "boxes"]


def test_the_fields_of_faces():
    fields = list(inspect.signature(canthus.Faces).parameters)
    assert fields == ["xyz", "detection_scores", "sigma", "visible", "pose", "image_size", "scheme", "weights"]
    computed = {n for n, v in vars(canthus.Faces).items() if isinstance(v, property)}
    assert computed == {"xy", "boxes", "sizes", "scores"}


def test_every_error_is_a_canthus_error():
    from canthus import errors

    children = [c for c in vars(errors).values() if isinstance(c, type) and c is not canthus.CanthusError]
    assert len(children) >= 7
    assert all(issubclass(child, canthus.CanthusError) and child.__doc__ for child in children)


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring, and the module itself."""
    missing = [] if ast.get_docstring(tree) else ["module"]

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")

    walk(tree.body, "")
    return missing


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_everything_public_has_a_docstring(path):
    text = path.read_text(encoding="utf-8")
    if text.strip():  # the __init__ of a package may be empty
        assert undocumented(ast.parse(text)) == []


def test_a_missing_docstring_is_noticed():
    text = '"""M."""\ndef f(): 0\nclass C:\n    """C."""\n    def g(self): 0\n    def _h(self): 0\ndef _i(): 0'
    assert undocumented(ast.parse(text)) == ["f", "C.g"]
    assert undocumented(ast.parse("")) == ["module"]
