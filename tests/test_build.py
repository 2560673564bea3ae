"""The build hook: the page for browsers goes into the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[1] / "hatch_build.py"


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
