"""The page that finds faces in the browser: where it lies, and how it is given out with the networks of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

from canthus.serve import PAGE_WEIGHTS
from canthus.weights import ROOT as WEIGHTS

# The page carries its content policy itself, as any server may give it out. Isolated from other origins, its networks
# get several threads.
BROWSER_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def browser_page() -> Path | None:
    """The folder of the page that finds faces in the browser (`make web`), of the package or of the checkout that it is
    in; None where it was not built."""
    here = Path(__file__).parent
    built = [
        folder for folder in (here / "browser", here.parents[2] / "web" / "dist") if (folder / "index.html").is_file()
    ]
    return built[0] if built else None


def add_browser_page(app: FastAPI, folder: Path) -> None:
    """Give out the page at /, and as its networks the weights of the package, which the wheel holds only once."""
    for part, name in PAGE_WEIGHTS.items():
        app.mount(f"/models/{part}", _BrowserFiles(directory=WEIGHTS / name))
    app.mount("/", _BrowserFiles(directory=folder, html=True))


class _BrowserFiles(StaticFiles):
    """Files with BROWSER_HEADERS."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See `StaticFiles`."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(BROWSER_HEADERS)
        return response
