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
        "TrackedFaces",
        "Tracker",
        "Video",
        "convert",
        "load",
        "overlay",
        "read_faces",
        "read_image",
        "scheme",
    ]
    assert set(canthus.__all__) <= set(dir(canthus))
    assert all(getattr(canthus, name).__doc__ for name in canthus.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Face'"):
        _ = canthus.Face


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    ours = [n for n in block.body if isinstance(n, ast.ImportFrom) and str(n.module).startswith("canthus.")]
    imported = {(n.module, alias.name) for n in ours for alias in n.names}
    lazy = {(f"canthus.{module}", name) for module, names in canthus._MODULES.items() for name in names}
    load = {("canthus.inference.predictor", "Predictor"), ("canthus.inference.detect", "Detector")}  # gives and takes
    assert imported == lazy | load
    assert {name for _, name in lazy} | {"load"} == set(canthus.__all__)


# What README, docs and examples import beside the names above; a change here is a change of the public surface too.
DOCUMENTED = {
    "canthus.codecs": {"map_from_crop"},
    "canthus.compat": {"face_alignment", "mediapipe"},
    "canthus.compat.mediapipe.tasks": {"python"},
    "canthus.compat.mediapipe.tasks.python": {"vision"},
    "canthus.face.landmarks": {"mirror", "scheme"},
    "canthus.geometry.crop": {"Crop", "tight_boxes"},
    "canthus.inference.retinaface": {"RetinaFaceDetector"},
    "canthus.io.columns": {"ImageFaces"},
    "canthus.io.tables": {"write_table"},
    "canthus.evaluation.evaluate": {"evaluate"},
    "canthus.evaluation.predictions": {"Predictions"},
    "canthus.evaluation.protocols": {"protocol"},
    "canthus.face.faces": {"Alignment"},
    "canthus.geometry.projection": {"project"},
    "canthus.geometry.rotation": {"euler_from_matrix", "matrix_from_euler", "quaternion_from_matrix"},
    "canthus.io.meshes": {"write_mesh"},
    "canthus.io.session": {"open_session"},
    "canthus.serve.app": {"Limits", "create_app"},
    "canthus.synth.generator": {"SynthGenerator"},
    "canthus.synth.recipe": {"SynthRecipe"},
    "canthus.synth.sequences": {"frames"},
    "canthus.training.aligner": {"Aligner", "AlignerConfig", "Stage"},
    "canthus.training.train": {"Recipe", "train"},
    "canthus.weights": {"find"},
}


def test_what_the_pages_and_examples_import_is_public():
    root = PACKAGE.parents[1]
    used: dict[str, set[str]] = {}
    for source in python_of_the_pages(root):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "canthus":
                used.setdefault(node.module, set()).update(alias.name for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "canthus":
                assert node.attr in canthus.__all__, node.attr
    assert used.pop("canthus", set()) <= {*canthus.__all__, "methods"}  # where a sixth method is added
    assert used == DOCUMENTED
    for module, names in DOCUMENTED.items():
        assert names <= set(defined_in(module)), module


def defined_in(module: str) -> list[str]:
    """The functions, classes and modules that a module gives, read without importing it: it may need an extra."""
    path = PACKAGE.parent / module.replace(".", "/")
    inside = [p.stem for p in path.iterdir()] if path.is_dir() else []
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = inside + [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    again = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    exported = path.name == "__init__.py" or "__all__" in path.read_text(encoding="utf-8")
    return names + (again if exported else [])  # a package may hand on what its modules define


def python_of_the_pages(root: Path) -> list[str]:
    """The Python of README, docs and examples; prompts and answers of a session taken away."""
    found = [path.read_text(encoding="utf-8") for path in sorted((root / "examples").glob("*.py"))]
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            if ">>>" in block:
                block = "\n".join(line[4:] for line in block.splitlines() if line.startswith(">>> "))
            found.append(block)
    return found


def test_the_version_is_that_of_the_distribution():
    assert canthus.__version__ == version("canthus")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", canthus.__version__)


def test_how_the_first_calls_are_made():
    assert str(inspect.signature(canthus.load)).startswith(
        "(weights: 'str | Path | None' = None, *, accuracy: \"Literal['normal', 'high']\" = 'normal', "
        "threads: 'int | None' = None, min_face: 'float | None' = None, detector: "
    )
    from canthus.inference.predictor import Predictor

    assert list(inspect.signature(Predictor.predict).parameters) == ["self", "image", "boxes"]
    assert list(inspect.signature(Predictor.predict_many).parameters) == ["self", "images", "boxes"]


def test_the_fields_of_faces():
    fields = list(inspect.signature(canthus.Faces).parameters)
    assert fields == [
        "xyz", "detection_scores", "sigma", "visible", "pose", "image_size", "scheme", "weights", "expression",
        "expression_sigma", "own_head",
    ]  # fmt: skip
    computed = {n for n, v in vars(canthus.Faces).items() if isinstance(v, property)}
    assert computed == {"xy", "boxes", "sizes", "scores"}


def test_every_error_is_a_canthus_error():
    from canthus import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__]
    children = [c for c in classes if c is not canthus.CanthusError]
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
