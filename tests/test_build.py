"""The build hook: the face detector's network goes into the package only as its card lists it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from canthus.weights import DETECTOR, ROOT

HOOK = Path(__file__).parents[1] / "hatch_build.py"


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_network_of_the_card_is_taken(hook):
    hook.refuse_other_network((ROOT / DETECTOR / "model.onnx").read_bytes(), ROOT / DETECTOR)


def test_another_network_is_refused_before_it_is_written(hook, tmp_path, monkeypatch):
    folder = tmp_path / DETECTOR
    folder.mkdir()
    shutil.copy(ROOT / DETECTOR / "card.json", folder)
    package = tmp_path / "installed" / "retinaface"
    package.mkdir(parents=True)
    (package / "weights.py").write_text("WEIGHTS = b'another'")
    found = importlib.util.spec_from_file_location("retinaface", package / "__init__.py")
    monkeypatch.setattr(hook.importlib.util, "find_spec", lambda name: found)
    with pytest.raises(RuntimeError, match="SHA-256"):
        hook.write_detector(folder)
    assert not (folder / "model.onnx").exists()


def test_the_page_comes_into_the_package_without_copies_of_its_networks(hook, tmp_path):
    names = (
        "index.html",
        "vendor/three.module.js",
        "models/head.bin",
        "models/aligner/model.onnx",
        "models/aligner/card.json",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = {str(tmp_path / name): f"canthus/serve/browser/{name}" for name in names[:3]}
    assert hook.page_files(tmp_path, "canthus/serve/browser") == wanted
    assert hook.page_files(tmp_path / "nowhere", "canthus/serve/browser") == {}
