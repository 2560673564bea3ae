"""benchmarks/serve.py notices answers that are wrong, late or missing."""

from __future__ import annotations

import importlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
POINTS = np.arange(136.0).reshape(68, 2)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve")


def answered(script, status: int, shift: float, faces: int = 1, drop: bool = False) -> dict[str, int]:
    """What an orderly client counts of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if drop:
                self.close_connection = True
                return
            landmarks = np.column_stack([POINTS + shift, np.zeros(68)]).tolist()
            body = json.dumps({"faces": [{"landmarks": landmarks}] * faces}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        load = script.Load(f"127.0.0.1:{server.server_address[1]}", time.perf_counter() + 0.3)
        load.orderly(b"photo", POINTS)
        server.shutdown()
        thread.join()
    assert load.seen.pop("sent") == sum(load.seen.values()) > 0
    return {what: 1 for what in load.seen}


def test_what_an_orderly_client_sees(script):
    assert answered(script, 200, 0.0) == answered(script, 200, 0.05) == {"right": 1}
    assert answered(script, 200, 0.2) == answered(script, 200, 0.0, faces=2) == {"mixed up": 1}
    assert answered(script, 429, 0.0) == {"429": 1}
    assert answered(script, 200, 0.0, drop=True) == {"lost": 1}


def test_each_client_has_a_photo_of_its_own(script):
    files, points = script.photos(3)
    assert len(set(files)) == 3
    for k in range(3):  # client k's photo begins k px further right and 2 k px further down
        np.testing.assert_allclose(np.median(points[k] - points[0], axis=0), [-k, -2 * k], atol=0.5)
        assert k == 0 or np.abs(points[k] - points[0]).max() > 0.5
