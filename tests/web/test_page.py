"""The page for browsers, built and given out by `canthus serve`, in Chromium: it shows what Python finds, offline."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from photos import PHOTO, aligner, photo

pytest.importorskip("fastapi")

from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.serve import run  # noqa: E402
from canthus.serve.app import create_app  # noqa: E402

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "web" / "node_modules"


def build_web():
    spec = importlib.util.spec_from_file_location("build_web", ROOT / "tools" / "build_web.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_head_of_the_page_is_the_head_model():
    model = MorphableModel.default()
    about, data = build_web().head_files(model)
    vertices, triangles = about["vertices"], about["triangles"]
    assert tuple(about["expressions"]) == EXPRESSIONS
    sizes = np.cumsum([12 * vertices, 6 * vertices * len(EXPRESSIONS), 6 * triangles])
    assert len(data) == sizes[-1]
    mean, moves, corners = data[: sizes[0]], data[sizes[0] : sizes[1]], data[sizes[1] :]
    np.testing.assert_array_equal(np.frombuffer(mean, "<f4").reshape(-1, 3), model.mean)
    np.testing.assert_array_equal(np.frombuffer(corners, "<u2").reshape(-1, 3), model.triangles)
    read = np.frombuffer(moves, "<i2").reshape(len(EXPRESSIONS), -1, 3) * np.array(about["scales"])[:, None, None]
    np.testing.assert_allclose(read, model.expression, atol=1e-3)  # mm


def test_no_module_of_the_page_imports_what_only_node_finds():
    build = build_web()
    for source in sorted((ROOT / "web").glob("*.js")):
        for line in build.browser_imports(source.read_text(encoding="utf-8")).splitlines():
            assert not (line.startswith("import ") and 'from "' in line) or 'from "./' in line, (source.name, line)


@contextlib.contextmanager
def served(folder: Path, monkeypatch) -> Iterator[str]:
    """The address of a server with the page, on any free port."""
    import uvicorn

    monkeypatch.setattr("canthus.serve.app.browser_page", lambda: folder)
    servers, addresses, started = [], [], threading.Event()

    class Kept(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

        def install_signal_handlers(self):  # this is not the main thread
            pass

    def tell(address: str) -> None:
        addresses.append(address)
        started.set()

    monkeypatch.setattr(uvicorn, "Server", Kept)
    options = {"limit_concurrency": 64, "verbose": False, "started": tell}
    serving = threading.Thread(target=run.serve, args=(create_app(aligner()), "127.0.0.1", 0), kwargs=options)
    serving.start()
    try:
        assert started.wait(60)
        yield addresses[0]
    finally:
        servers[0].should_exit = True
        serving.join()


def write_film(path: Path, picture: np.ndarray, frames: int = 30) -> None:
    """A grey film (y4m) in which the picture moves to the right."""
    height, width = picture.shape[:2]
    grey = picture.mean(2).astype(np.uint8)
    half = np.full((height // 2) * (width // 2) * 2, 128, np.uint8).tobytes()
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420jpeg\n".encode())
        for k in range(frames):
            file.write(b"FRAME\n" + np.roll(grey, 2 * k, 1).tobytes() + half)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the browser is looked for where Linux and macOS have it")
def test_the_page_shows_a_photo_and_a_camera_as_python_does_without_a_connection(tmp_path, monkeypatch):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium or not shutil.which("node") or not (MODULES / "playwright-core").is_dir():
        pytest.skip("no Chromium, or no Node, or nothing in web/node_modules: `npm ci` in web puts it there")
    build_web().build(tmp_path / "dist")
    for name in ("aligner", "detector"):  # as in the wheel: the server gives out the weights of the package
        shutil.rmtree(tmp_path / "dist" / "models" / name)
    write_film(tmp_path / "film.y4m", photo()[:480, :480])
    with served(tmp_path / "dist", monkeypatch) as address:
        arguments = [chromium, tmp_path / "profile", f"{address}/", PHOTO, tmp_path / "film.y4m"]
        command = ["node", str(ROOT / "web" / "test" / "page.js"), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    answer = json.loads(ended.stdout)
    assert answer["problems"] == [] and answer["isolated"]
    local = (address, "blob:", "data:", "about:", "chrome")
    assert all(asked.startswith(local) for asked in answer["requests"])

    face = aligner().predict(photo())
    shown = answer["photo"]
    assert shown["status"].startswith("1 face · ") and shown["head"]
    angles = [float(shown[name].rstrip("°")) for name in ("pitch", "yaw", "roll")]
    np.testing.assert_allclose(angles, face.pose.euler()[0], atol=2)  # whole degrees, another decoder of JPEG
    assert float(shown["confidence"].split()[0]) == pytest.approx(100 * face.scores.mean(), abs=3)
    values = dict(bar.split(": ") for bar in shown["bars"])
    assert set(values) == set(EXPRESSIONS) and values["tongueOut"] == "unknown"
    smile = face.expression[0, EXPRESSIONS.index("mouthSmileLeft")]
    assert float(values["mouthSmileLeft"]) == pytest.approx(smile, abs=0.1)

    assert answer["camera"]["status"].startswith("1 face · ") and "frames/s" in answer["camera"]["status"]
    print(answer["photo"]["status"], answer["camera"]["status"])
