"""`canthus serve`: answers, limits, many clients at once, and the end of the server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from answers import detail, until
from photos import PHOTO, aligner, photo
from PIL import Image

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx2")

import uvicorn  # noqa: E402
from fastapi import FastAPI, HTTPException  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from canthus.cli import app as command_line  # noqa: E402
from canthus.errors import CanthusError, ImageError  # noqa: E402
from canthus.face.faces import Faces  # noqa: E402
from canthus.inference.predictor import Predictor  # noqa: E402
from canthus.io.images import decode_image  # noqa: E402
from canthus.io.outputs import to_json  # noqa: E402
from canthus.serve import run  # noqa: E402
from canthus.serve.app import Limits, _Clip, _while_wanted, create_app  # noqa: E402
from canthus.serve.jobs import Closed  # noqa: E402
from canthus.serve.worker import BATCH_IMAGES, QueueFull, Worker  # noqa: E402
from canthus.weights import DEFAULT, DETECTOR  # noqa: E402
from canthus.weights import ROOT as WEIGHTS  # noqa: E402

JPEG = {"Content-Type": "image/jpeg"}
SCHEMA = json.loads(files("canthus.face").joinpath("faces.schema.json").read_text(encoding="utf-8"))


def encoded(width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 150)).save(data, kind)
    return data.getvalue()


class Slow(Predictor):
    """Finds no face, in as long as it is told to take: until `go` is set."""

    card = aligner().card

    def __init__(self):
        self.go, self.busy, self.batches, self.widths = threading.Event(), threading.Event(), [], []

    def run(self, crops):
        raise NotImplementedError

    def predict_many(self, images, boxes=None):
        self.busy.set()
        assert self.go.wait(20)
        self.batches.append(len(images))
        self.widths += [image.shape[1] for image in images]
        if any(image.shape[1] == 13 for image in images):
            raise ImageError("got an image 13 px wide, want another")
        return [Faces.empty((image.shape[1], image.shape[0])) for image in images]


class Quick(Slow):
    def __init__(self):
        super().__init__()
        self.go.set()


@contextlib.contextmanager
def client(predictor: Predictor | None = None, limits: Limits | None = None, key: str | None = None):
    with TestClient(create_app(predictor or Quick(), limits, key)) as one:
        yield one


def open_port(address: str) -> bool:
    try:
        httpx.get(f"{address}/healthz", trust_env=False, timeout=2)
    except httpx.TransportError:
        return False
    return True


# Answers


def test_a_raw_photo_and_a_form_give_the_json_of_the_photos_faces():
    wanted = to_json(aligner().predict(PHOTO), image="a.jpg")
    with client(aligner()) as c:
        form = c.post("/align", files={"image": ("a.jpg", PHOTO.read_bytes(), "image/jpeg")})
        raw = c.post("/align", content=PHOTO.read_bytes(), headers=JPEG)
    assert form.status_code == raw.status_code == 200 and form.headers["content-type"] == "application/json"
    assert form.json() == wanted
    assert raw.json() == {**wanted, "image": {**wanted["image"], "name": None}}
    jsonschema.validate(form.json(), SCHEMA)


def test_an_image_without_a_face_has_an_empty_list():
    with client(aligner()) as c:
        answer = c.post("/align", content=encoded(), headers={"Content-Type": "application/octet-stream"}).json()
    assert answer["faces"] == [] and answer["image"] == {"name": None, "width": 40, "height": 30}


def test_photos_are_turned_upright_as_their_exif_says():
    image, data = Image.fromarray(photo()[:200]), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(data, "JPEG", exif=exif)
    with client() as c:
        answer = c.post("/align", content=data.getvalue(), headers=JPEG).json()
    assert (answer["image"]["width"], answer["image"]["height"]) == (200, 512)


def test_models_are_the_cards_of_what_is_served_and_shipped():
    with client(aligner()) as c:
        answer = c.get("/models").json()
    assert answer["serving"]["name"] == "swift" and {"swift", "swift-int8"} <= set(answer["shipped"])
    assert answer["shipped"]["swift"] == answer["serving"]


def test_pages_ask_for_nothing_from_elsewhere(monkeypatch):
    monkeypatch.setattr("canthus.serve.app.browser_page", lambda: None)
    with client() as c:
        for path in ("/", "/docs"):
            page = c.get(path)
            assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
            assert not re.search(r"https?://|src=|@import", page.text)


def test_the_page_for_browsers_is_at_the_root_where_it_was_built(monkeypatch, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("the page")
    (tmp_path / "page" / "worker.js").write_text("1")
    (tmp_path / "secret").write_text("no")
    monkeypatch.setattr("canthus.serve.app.browser_page", lambda: tmp_path / "page")
    with client() as c:
        page = c.get("/")
        assert page.text == "the page" and page.headers["cross-origin-embedder-policy"] == "require-corp"
        assert c.get("/worker.js").headers["cross-origin-opener-policy"] == "same-origin"  # or workers would not load
        assert c.get("/nothing.js").status_code == c.get("/%2e%2e/secret").status_code == 404
        assert c.get("/healthz").json() == {"status": "ok"} and "API" in c.get("/docs").text
        for part, name in (("aligner", DEFAULT), ("detector", DETECTOR)):  # of the package: the page has no copies
            network = c.get(f"/models/{part}/model.onnx")
            assert network.content == (WEIGHTS / name / "model.onnx").read_bytes()
            assert network.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "serving" in c.get("/models").json()


def test_the_openapi_document_has_bodies_an_example_that_is_valid_and_no_open_references():
    with client() as c:
        api = c.get("/openapi.json").json()
    post = api["paths"]["/align"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/*", "application/octet-stream", "multipart/form-data"}
    assert {"200", "401", "408", "413", "415", "422", "429", "503", "504"} == set(post["responses"])
    jsonschema.validate(post["responses"]["200"]["content"]["application/json"]["example"], SCHEMA)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(api)))
    assert "Faces" in named and named <= set(api["components"]["schemas"])


def test_metrics_count_answers_by_status_faces_and_batches():
    with client(aligner()) as c:
        c.post("/align", content=PHOTO.read_bytes(), headers=JPEG)
        c.post("/align", content=b"no image", headers=JPEG)
        c.get("/healthz")
        lines = c.get("/metrics").text.splitlines()
    assert {'canthus_requests_total{status="200"} 1.0', 'canthus_requests_total{status="415"} 1.0'} <= set(lines)
    assert {"canthus_faces_total 1.0", "canthus_batch_images_count 1.0", "canthus_request_seconds_count 2.0"} <= set(
        lines
    )


# Limits


def test_more_bytes_than_allowed_are_413_whether_their_number_is_said_or_not():
    def pieces():
        for _ in range(20):
            yield bytes(1000)

    with client(limits=Limits(bytes=10_000)) as c:
        assert "10000" in detail(c.post("/align", content=bytes(10_001), headers=JPEG), 413)
        assert "10000" in detail(c.post("/align", content=pieces(), headers=JPEG), 413)
        assert "10000" in detail(c.post("/align", files={"image": bytes(10_001)}), 413)
        assert "10000" in detail(c.post("/align", files={"image": bytes(200_000)}), 413)
        assert c.post("/align", content=encoded(), headers=JPEG).status_code == 200


def test_more_pixels_than_allowed_are_413():
    with client(limits=Limits(pixels=1200)) as c:
        assert "40 x 31" in detail(c.post("/align", content=encoded(40, 31), headers=JPEG), 413)
        assert c.post("/align", content=encoded(40, 30), headers=JPEG).status_code == 200


def test_what_is_neither_an_image_nor_a_form_is_415():
    with client() as c:
        assert "text/plain" in detail(c.post("/align", content=b"x", headers={"Content-Type": "text/plain"}), 415)
        detail(c.post("/align", content=encoded()), 415)
        for data in (b"GIF", b"%PDF-1.4", b"\0" * 100, b"<svg/>"):
            assert "no known kind of image" in detail(c.post("/align", content=data, headers=JPEG), 415)


@pytest.mark.parametrize(
    "data", [b"", PHOTO.read_bytes()[:5000], encoded()[:60], encoded(1, 1)], ids=["empty", "half", "cut", "one pixel"]
)
def test_malformed_images_are_422(data):
    with client() as c:
        assert "want" in detail(c.post("/align", content=data, headers=JPEG), 422)
        assert c.get("/healthz").status_code == 200


def test_forms_without_the_file_are_422():
    with client() as c:
        assert "photo" in detail(c.post("/align", files={"photo": encoded()}), 422)
        two = [("image", encoded()), ("image", encoded())]
        assert "one file" in detail(c.post("/align", files=two), 422)
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        for body in (b"", b"nothing", b"--x\r\n\r\n--x--"):
            detail(c.post("/align", content=body, headers=broken), 422)
        detail(c.post("/align", content=b"", headers={"Content-Type": "multipart/form-data"}), 422)


def test_more_faces_than_allowed_are_422():
    with client(aligner(), Limits(faces=1)) as c:
        one = photo()[:, 100:356]
        data = io.BytesIO()
        Image.fromarray(np.concatenate([one, one], axis=1)).save(data, "PNG")
        assert "2 faces, want at most 1" in detail(c.post("/align", content=data.getvalue(), headers=JPEG), 422)
        assert c.post("/align", content=PHOTO.read_bytes(), headers=JPEG).status_code == 200


def test_an_answer_that_takes_too_long_is_504_and_its_place_is_free_again():
    slow = Slow()
    with client(slow, Limits(seconds=0.5, queue=1)) as c:
        detail(c.post("/align", content=encoded(40), headers=JPEG), 504)  # under way
        detail(c.post("/align", content=encoded(41), headers=JPEG), 504)  # waited
        slow.go.set()
        until(lambda: c.post("/align", content=encoded(42), headers=JPEG).status_code == 200)
    assert {40, 42} == set(slow.widths)  # nobody waited for the other any more


def test_more_requests_than_may_wait_are_429_with_a_time_to_retry():
    slow = Slow()
    with client(slow, Limits(queue=2)) as c, ThreadPoolExecutor(3) as pool:
        first = pool.submit(c.post, "/align", content=encoded(), headers=JPEG)
        assert slow.busy.wait(10)
        waiting = [pool.submit(c.post, "/align", content=encoded(), headers=JPEG) for _ in range(2)]
        until(lambda: "canthus_queue_images 2.0" in c.get("/metrics").text)
        refused = c.post("/align", content=encoded(), headers=JPEG)
        slow.go.set()
        assert "2 wait" in detail(refused, 429) and refused.headers["retry-after"] == "1"
        assert [answer.result().status_code for answer in (first, *waiting)] == [200] * 3


def test_an_image_that_arrives_too_slowly_is_408():
    async def pieces():
        yield encoded()[:20]
        await asyncio.sleep(5)

    async def asked():
        app = create_app(Quick(), Limits(seconds=0.2))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as c,
        ):
            return await c.post("/align", content=pieces(), headers=JPEG)

    detail(asyncio.run(asked()), 408)


def test_with_an_api_key_only_health_metrics_and_pages_are_open():
    with client(key="schlüssel") as c:
        for headers in ({}, {"X-API-Key": "other"}):
            assert "X-API-Key" in detail(c.post("/align", content=encoded(), headers={**JPEG, **headers}), 401)
            detail(c.get("/models", headers=headers), 401)
        assert all(c.get(path).status_code == 200 for path in ("/", "/docs", "/openapi.json", "/healthz", "/metrics"))
    with client(key="secret") as c:
        assert c.post("/align", content=encoded(), headers={**JPEG, "X-API-Key": "secret"}).status_code == 200


# Many at once


def test_32_clients_at_once_get_their_own_answers():
    async def asked(app: FastAPI):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as c,
        ):
            names = [f"{k}.png" for k in range(32)]
            posts = [c.post("/align", files={"image": (n, encoded(40 + k, 72 - k))}) for k, n in enumerate(names)]
            return await asyncio.gather(*posts)

    quick = Quick()
    images = [answer.json()["image"] for answer in asyncio.run(asked(create_app(quick)))]
    assert images == [{"name": f"{k}.png", "width": 40 + k, "height": 72 - k} for k in range(32)]
    assert sum(quick.batches) == 32


def test_what_waits_is_aligned_together_up_to_a_batch():
    slow, seen = Slow(), []
    worker = Worker(slow, 10_000, 100, seen.append)
    answers = [worker.submit(encoded(), "first")]
    assert slow.busy.wait(10)
    answers += [worker.submit(encoded(41 + k, 30), str(k)) for k in range(BATCH_IMAGES + 3)]
    assert worker.waiting == BATCH_IMAGES + 3
    slow.go.set()
    assert [answer.result(10).image_size[0] for answer in answers] == list(range(40, 44 + BATCH_IMAGES))
    worker.close()
    assert seen == slow.batches == [1, BATCH_IMAGES, 3]


def test_large_images_are_not_decoded_together(monkeypatch):
    monkeypatch.setattr("canthus.serve.worker.BATCH_PIXELS", 2500)  # two images of 1200 pixels fit, three do not
    slow = Slow()
    worker = Worker(slow, 10_000, 100, lambda size: None)
    answers = [worker.submit(encoded(), "")]
    assert slow.busy.wait(10)
    answers += [worker.submit(encoded(*size), "") for size in [(40, 30)] * 3 + [(80, 60)] + [(40, 30)]]
    slow.go.set()
    assert [answer.result(10).image_size[0] for answer in answers] == [40, 40, 40, 40, 80, 40]
    worker.close()
    assert slow.batches == [1, 2, 1, 1, 1]


def test_an_image_that_fails_does_not_spoil_those_beside_it():
    slow = Slow()
    worker = Worker(slow, 10_000, 100, lambda size: None)
    first = worker.submit(encoded(), "")
    assert slow.busy.wait(10)
    good, bad, damaged = (worker.submit(data, "x") for data in (encoded(50, 30), encoded(13, 30), encoded()[:60]))
    slow.go.set()
    assert first.result(10).image_size == (40, 30) and good.result(10).image_size == (50, 30)
    for answer in (bad, damaged):
        with pytest.raises(ImageError):
            answer.result(10)
    worker.close()


# The end


def test_a_worker_that_closes_finishes_what_waits_and_takes_no_more():
    slow = Slow()
    worker = Worker(slow, 10_000, 2, lambda size: None)
    answers = [worker.submit(encoded(), "")]
    assert slow.busy.wait(10)
    answers += [worker.submit(encoded(), "") for _ in range(2)]
    with pytest.raises(QueueFull):
        worker.submit(encoded(), "")
    closing = threading.Thread(target=worker.close)
    closing.start()
    until(lambda: not worker.ready)
    with pytest.raises(Closed):
        worker.submit(encoded(), "")
    slow.go.set()
    closing.join(10)
    assert not closing.is_alive() and all(answer.result(0).image_size == (40, 30) for answer in answers)


def test_a_closed_worker_is_503_for_requests_and_health():
    app = create_app(Quick())
    with TestClient(app) as c:
        app.state.worker.close()
        detail(c.post("/align", content=encoded(), headers=JPEG), 503)
        assert c.get("/healthz").status_code == 503


def test_a_server_that_stops_answers_what_is_under_way(monkeypatch):
    slow, servers, address = Slow(), [], []

    class Server(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(run.uvicorn, "Server", Server)
    options = {"limit_concurrency": 100, "verbose": False, "started": address.append}
    serving = threading.Thread(target=run.serve, args=(create_app(slow), "127.0.0.1", 0), kwargs=options)
    serving.start()
    with ThreadPoolExecutor(4) as pool:
        until(lambda: servers and servers[0].started)

        def post():
            return httpx.post(f"{address[0]}/align", content=encoded(), headers=JPEG, trust_env=False, timeout=20)

        answers = [pool.submit(post)]
        assert slow.busy.wait(20)
        answers += [pool.submit(post) for _ in range(3)]
        until(lambda: "canthus_queue_images 3.0" in httpx.get(f"{address[0]}/metrics", trust_env=False).text)
        servers[0].should_exit = True
        until(lambda: not open_port(address[0]))  # it closes before what is under way has ended
        slow.go.set()
        assert [answer.result().status_code for answer in answers] == [200] * 4
    serving.join(10)
    assert not serving.is_alive()


def test_an_address_that_is_taken_is_one_sentence():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CanthusError, match=f"^got the address 127.0.0.1:{port}, .* want"):
            run.serve(FastAPI(), "127.0.0.1", port, limit_concurrency=1, verbose=False, started=print)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("key", ["", "k\u00e9", "a\nb"])
def test_a_key_that_no_header_holds_is_one_sentence(monkeypatch, key):
    monkeypatch.setenv("CANTHUS_API_KEY", key)
    result = CliRunner().invoke(command_line, ["serve", "--port", "0"])
    assert result.exit_code == 2 and "CANTHUS_API_KEY that no header holds" in result.output


def test_the_command_serves_with_a_key_until_sigterm_and_exits_with_0():
    command = [sys.executable, "-m", "canthus", "serve", "--port", "0", "--threads", "1"]
    environment = {**os.environ, "CANTHUS_API_KEY": "k", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert "with API key" in line
            url = f"{line.split()[0]}/align"
            options = {"content": PHOTO.read_bytes(), "trust_env": False, "timeout": 60}
            assert httpx.post(url, headers=JPEG, **options).status_code == 401
            answer = httpx.post(url, headers={**JPEG, "X-API-Key": "k"}, **options)
            assert len(answer.json()["faces"]) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0 and process.stderr.read() == ""
        finally:
            process.kill()


# Reading


def test_decoding_bytes_is_reading_the_file():
    np.testing.assert_array_equal(decode_image(PHOTO.read_bytes(), "", 10**6), photo())


def test_limits_are_those_documented():
    assert Limits() == replace(Limits(), bytes=20_000_000, pixels=40_000_000, faces=100, seconds=30.0, queue=64)


class Gone:
    """A request whose client has gone."""

    async def is_disconnected(self) -> bool:
        return True


def test_a_photo_whose_client_has_gone_is_given_up(monkeypatch):
    monkeypatch.setattr("canthus.serve.app.ASK_EVERY", 0.01)
    found: Future[Faces] = Future()
    with pytest.raises(HTTPException, match="no client any more"):
        asyncio.run(_while_wanted(Gone(), found))
    assert found.cancelled()
    found = Future()
    found.set_result(Faces.empty((4, 3)))  # one that is there is not lost
    assert asyncio.run(_while_wanted(Gone(), found)).image_size == (4, 3)


def test_a_clip_whose_client_has_gone_ends_while_its_frames_come():
    async def waiting() -> None:
        clip = _Clip(SimpleNamespace(clips=0), Limits())
        clip.answers.put_nowait(b"a frame")
        assert await clip._next() == b"a frame"  # lines that are sent end when sending fails
        clip.answers.put_nowait(b"a frame")
        await clip._next(Gone())

    with pytest.raises(HTTPException, match="no client any more"):
        asyncio.run(waiting())
