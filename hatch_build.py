"""Build hook: puts the page for browsers into the package, where it was built."""

from __future__ import annotations

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def page_files(page: Path, target: str) -> dict[str, str]:
    """The files of the page for browsers -> their paths below `target`; none where it was not built.

    The networks in the folders of models/ are those of the package: it gives out its own, see serve/browser.py.
    """
    inside = {file: file.relative_to(page) for file in sorted(page.rglob("*")) if file.is_file()}
    return {str(file): f"{target}/{path.as_posix()}" for file, path in inside.items() if path.parts[:-2] != ("models",)}


class PackageHook(BuildHookInterface):
    """Adds the page of web/dist (`make web`) if it is there."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        """See the class."""
        if version == "standard":  # an editable installation finds the page where it is
            target = "canthus/serve/browser" if self.target_name == "wheel" else "web/dist"
            build_data["force_include"] |= page_files(Path(self.root, "web/dist"), target)
