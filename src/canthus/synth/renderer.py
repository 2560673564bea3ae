"""The choice of a renderer."""

from __future__ import annotations

from importlib.util import find_spec

from canthus.errors import CanthusError, pip_install
from canthus.synth.scene import Renderer

QUALITIES = ("raster", "path")


def check_quality(quality: str) -> None:
    """Raise `CanthusError` for a quality that is none of QUALITIES, or one whose packages are not installed."""
    if quality not in QUALITIES:
        raise CanthusError(f"the quality '{quality}' is none of {', '.join(QUALITIES)}")
    for module in ("mitsuba", "pyoidn") if quality == "path" else ():
        if find_spec(module) is None:
            raise CanthusError(f"the quality 'path' needs '{module}'; to get it, run: {pip_install('path')}")


def make_renderer(quality: str, size: int) -> Renderer:
    """The renderer of a quality for pictures of `size` px; raises as `check_quality` does."""
    check_quality(quality)
    if quality == "path":
        from canthus.synth.renderers.path import PathRenderer

        return PathRenderer(best_renderer(size))
    return best_renderer(size)


def best_renderer(size: int) -> Renderer:
    """OpenGL where it works without a window, else the torch rasteriser, on a GPU if there is one."""
    try:
        from canthus.synth.renderers.opengl import OpenGLRenderer

        return OpenGLRenderer(size)
    except Exception:  # no moderngl, no library, no driver: each fails in its own way
        from canthus.synth.renderers.torch import TorchRenderer

        return TorchRenderer(size)
