"""`POST /track`: answers whole and as lines, limits, clients that are slow or go, and the end of the server."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from answers import detail, until
from photos import aligner, photo
from PIL import Image
from referencing import Registry, Resource

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx2")

import uvicorn  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from canthus.errors import VideoError, VideoSizeError  # noqa: E402
from canthus.face.faces import Faces  # noqa: E402
from canthus.inference.detect import Detections  # noqa: E402
from canthus.inference.predictor import Predictor  # noqa: E402
from canthus.inference.tracker import Tracker  # noqa: E402
from canthus.io.columns import ImageFaces  # noqa: E402
from canthus.io.lines import frame_line, header_line, read_json_lines  # noqa: E402
from canthus.io.video import Video  # noqa: E402
from canthus.io.video_writer import write_video  # noqa: E402
from canthus.serve import run  # noqa: E402
from canthus.serve.app import LINES, Limits, create_app  # noqa: E402
from canthus.serve.clips import ClipLimits  # noqa: E402

GIF = {"Content-Type": "image/gif"}
MP4 = {"Content-Type": "video/mp4"}
AS_LINES = {"Accept": LINES}


def schema(name: str) -> dict:
    return json.loads(files("canthus.face").joinpath(f"{name}.schema.json").read_text(encoding="utf-8"))


def valid(document: dict) -> None:
    registry = Registry().with_resource("canthus.faces/1", Resource.from_contents(schema("faces")))
    jsonschema.Draft202012Validator(schema("video"), registry=registry).validate(document)


def gif(pictures: list[np.ndarray], duration: int = 40) -> bytes:
    data, (first, *others) = io.BytesIO(), [Image.fromarray(picture) for picture in pictures]
    first.save(data, "GIF", save_all=True, append_images=others, duration=duration)
    return data.getvalue()


def plain(frames: int = 3, width: int = 40, height: int = 30, duration: int = 40) -> bytes:
    """A GIF without faces; frames differ, or they would be one."""
    return gif([np.full((height, width, 3), 7 * k % 256, np.uint8) for k in range(frames)], duration)


def moving(frames: int = 4) -> list[np.ndarray]:
    return [np.ascontiguousarray(np.roll(photo(), 3 * k, axis=1)[60:260, 100:350]) for k in range(frames)]


class Nobody(Predictor):
    """Finds no face, and each frame only after `go` is set; counts frames."""

    card = aligner().card

    def __init__(self, wait: bool = False):
        self.go, self.busy, self.seen = threading.Event(), threading.Event(), 0
        if not wait:
            self.go.set()

    def run(self, crops):
        raise NotImplementedError

    def predict_many(self, images, boxes=None):
        return [Faces.empty((image.shape[1], image.shape[0])) for image in images]

    @property
    def detector(self):
        return self

    def quick(self, image):
        self.busy.set()
        assert self.go.wait(30)
        self.seen += 1
        return Detections.of_boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    __call__ = quick


@contextlib.contextmanager
def client(predictor: Predictor | None = None, limits: Limits | None = None, key: str | None = None):
    with TestClient(create_app(predictor or Nobody(), limits, key)) as one:
        yield one


@contextlib.contextmanager
def serving(predictor: Predictor, limits: Limits) -> Iterator[tuple[uvicorn.Server, str]]:
    """A server on a port; it is told to end when the block ends."""
    servers, address = [], []

    class Server(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    options = {"limit_concurrency": 100, "verbose": False, "started": address.append}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.uvicorn, "Server", Server)
        app = create_app(predictor, limits)
        thread = threading.Thread(target=run.serve, args=(app, "127.0.0.1", 0), kwargs=options)
        thread.start()
        until(lambda: servers and servers[0].started)
    try:
        yield servers[0], address[0]
    finally:
        servers[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def under_way(address: str) -> float:
    text = httpx.get(f"{address}/metrics", trust_env=False).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("canthus_clips ")))


# Answers


def expected(data: bytes, name: str) -> list[bytes]:
    """The lines of a clip, by the tracker itself."""
    tracker, card = Tracker(aligner()), aligner().card
    lines = [header_line(name, [card.title], card.scheme)]
    for frame in Video.of_bytes(data, name, 10**7):
        tracked = tracker.step(frame.image)
        faces = ImageFaces(name, frame.number, frame.time, tracked.faces, tracked.ids, tracked.followed)
        lines.append(frame_line(faces))
    return lines


def test_a_clip_gives_the_trackers_faces_whole_and_as_lines(tmp_path):
    data = gif(moving())
    lines = expected(data, "clip.gif")
    with client(aligner()) as c:
        whole = c.post("/track", files={"video": ("clip.gif", data, "image/gif")})
        streamed = c.post("/track", files={"video": ("clip.gif", data, "image/gif")}, headers=AS_LINES)
    assert whole.status_code == streamed.status_code == 200
    assert whole.headers["content-type"] == "application/json" and streamed.headers["content-type"].startswith(LINES)
    assert streamed.content == b"".join(lines)
    nothing = {"missing": 0, "problems": []}
    assert whole.json() == {**json.loads(lines[0]), "frames": [json.loads(line) for line in lines[1:]], **nothing}
    assert [[face["id"] for face in frame["faces"]] for frame in whole.json()["frames"]] == [[0]] * 4
    valid(whole.json())
    (tmp_path / "clip.jsonl").write_bytes(streamed.content)
    assert [frame.frame for frame in read_json_lines(tmp_path / "clip.jsonl")] == [0, 1, 2, 3]


def test_a_video_file_is_read_from_memory_as_from_disk(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with write_video(path) as put:
        for k in range(6):
            put(np.full((48, 64, 3), 40 * k, np.uint8), k / 25)
    read, memory = list(Video(path)), list(Video.of_bytes(path.read_bytes(), "clip.mp4", 64 * 48))
    assert [f.time for f in memory] == [f.time for f in read]
    np.testing.assert_array_equal([f.image for f in memory], [f.image for f in read])
    with client() as c:
        answer = c.post("/track", content=path.read_bytes(), headers=MP4).json()
    assert [frame["width"] for frame in answer["frames"]] == [64] * 6 and answer["video"] == "video"
    valid(answer)


def test_photos_are_aligned_while_a_clip_is_tracked():
    slow = Nobody(wait=True)
    with client(slow) as c, ThreadPoolExecutor(1) as pool:
        clip = pool.submit(c.post, "/track", content=plain(), headers=GIF)
        assert slow.busy.wait(20)
        data = io.BytesIO()
        Image.new("RGB", (40, 30)).save(data, "PNG")
        assert c.post("/align", content=data.getvalue(), headers={"Content-Type": "image/png"}).status_code == 200
        slow.go.set()
        assert len(clip.result().json()["frames"]) == 3


def test_the_openapi_document_has_an_example_of_a_clip_that_is_valid():
    with client() as c:
        post = c.get("/openapi.json").json()["paths"]["/track"]["post"]
    assert set(post["requestBody"]["content"]) == {
        "video/*", "image/gif", "image/webp", "application/octet-stream", "multipart/form-data",
    }  # fmt: skip
    example = post["responses"]["200"]["content"]["application/json"]["example"]
    valid(example)
    assert [len(frame["faces"]) for frame in example["frames"]] == [1, 1]


def test_metrics_count_clips_their_frames_and_faces():
    with client(aligner()) as c:
        c.post("/track", content=gif(moving(2)), headers=GIF)
        c.post("/track", content=b"no clip", headers=MP4)
        lines = set(c.get("/metrics").text.splitlines())
    assert {
        'canthus_clip_requests_total{status="200"} 1.0', 'canthus_clip_requests_total{status="422"} 1.0',
        "canthus_clip_frames_total 2.0", "canthus_clip_faces_total 2.0", "canthus_clip_seconds_count 2.0",
        "canthus_clips 0.0",
    } <= lines  # fmt: skip


# Limits


@pytest.mark.parametrize(
    "limits, data, said",
    [
        (ClipLimits(bytes=100), plain(), "more bytes than 100"),
        (ClipLimits(pixels=1199), plain(), "40 x 30 px, want at most 1199"),
        (ClipLimits(frames=2), plain(), "3 frames, want at most 2"),
        (ClipLimits(length=0.5), plain(3, duration=400), "more than 0.5 s"),
        (ClipLimits(answer=100), plain(), "more than 100 bytes"),
    ],
    ids=["bytes", "pixels", "frames", "length", "answer"],
)
def test_what_is_over_a_limit_is_413(limits, data, said):
    with client(limits=Limits(clips=limits)) as c:
        assert said in detail(c.post("/track", content=data, headers=GIF), 413)
        assert c.get("/healthz").status_code == 200 and "canthus_clips 0.0" in c.get("/metrics").text


def test_frames_that_the_header_does_not_announce_count_as_well(tmp_path):
    av = pytest.importorskip("av")
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * k, np.uint8), "rgb24")))
        container.mux(stream.encode())
    assert Video.of_bytes(data.getvalue(), "x.mkv", 10**6).count is None
    with client(limits=Limits(clips=ClipLimits(frames=9))) as c:
        assert "more than 9 frames" in detail(c.post("/track", content=data.getvalue(), headers=MP4), 413)


def test_too_many_faces_in_a_frame_are_422():
    one = photo()[60:260, 100:350]
    with client(aligner(), Limits(clips=ClipLimits(faces=1))) as c:
        data = gif([np.concatenate([one, one], axis=1)] * 1)
        assert "2 faces, want at most 1" in detail(c.post("/track", content=data, headers=GIF), 422)


def test_what_is_no_video_is_415_or_422_and_opens_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("av")
    inner = tmp_path / "inner.mp4"
    with write_video(inner) as put:
        put(np.zeros((48, 64, 3), np.uint8), 0.0)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{inner.as_uri()}\n#EXT-X-ENDLIST\n".encode()
    listing = f"ffconcat version 1.0\nfile '{inner}'\n".encode()
    with client() as c:
        assert "text/plain" in detail(c.post("/track", content=b"x", headers={"Content-Type": "text/plain"}), 415)
        assert "image/jpeg" in detail(c.post("/track", content=b"x", headers={"Content-Type": "image/jpeg"}), 415)
        for data in (b"", b"no video" * 99, plain()[:20], inner.read_bytes()[:300], playlist, listing):
            assert "want" in detail(c.post("/track", content=data, headers=MP4), 422)
        form = {"image": ("a.gif", plain(), "image/gif")}
        assert "'video'" in detail(c.post("/track", files=form), 422)
        assert len(c.post("/track", content=plain(), headers=GIF).json()["frames"]) == 3


def test_a_cut_clip_gives_the_frames_that_can_be_read():
    data = plain(30)
    with client() as c:
        answer = c.post("/track", content=data[: len(data) // 2], headers=GIF)
    assert answer.status_code == 200 and 5 < len(answer.json()["frames"]) < 25


def test_frames_that_are_missing_are_told_in_the_document_and_in_a_last_line(tmp_path):
    data = plain(30)
    data = data[: len(data) // 2]
    with client() as c:
        whole = c.post("/track", content=data, headers=GIF).json()
        lines = [json.loads(line) for line in c.post("/track", content=data, headers={**GIF, **AS_LINES}).iter_lines()]
        sound = c.post("/track", content=plain(), headers=GIF).json()
        assert "problems" not in c.post("/track", content=plain(), headers={**GIF, **AS_LINES}).text
    for document in (whole, *lines):
        valid(document)
    assert whole["missing"] > 0 and "cannot be read" in whole["problems"][0]
    assert lines[-1] == {"missing": whole["missing"], "problems": whole["problems"]}
    (tmp_path / "answer.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(list(read_json_lines(tmp_path / "answer.jsonl"))) == len(whole["frames"])
    assert lines[1:-1] == whole["frames"] and (sound["missing"], sound["problems"]) == (0, [])


def test_more_clips_than_may_be_under_way_are_429_and_too_late_ones_504():
    slow = Nobody(wait=True)
    limits = Limits(clips=ClipLimits(queue=2, seconds=1.5))
    with client(slow, limits) as c, ThreadPoolExecutor(2) as pool:
        two = [pool.submit(c.post, "/track", content=plain(), headers=GIF) for _ in range(2)]
        until(lambda: "canthus_clips 2.0" in c.get("/metrics").text)
        refused = c.post("/track", content=plain(), headers=GIF)
        assert "2 are under way" in detail(refused, 429) and refused.headers["retry-after"] == "5"
        assert all("1.5 s" in detail(one.result(), 504) for one in two)
        slow.go.set()
        assert c.post("/track", content=plain(), headers=GIF).status_code == 200  # their places are free again
        assert slow.seen <= 4  # one frame of the first, none of the second, three of the last


def test_an_error_after_the_first_line_is_the_last_line():
    with client(limits=Limits(clips=ClipLimits(length=0.05))) as c:
        answer = c.post("/track", content=plain(4), headers={**GIF, **AS_LINES})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 200 and [line.get("frame") for line in lines[1:-1]] == [0, 1]
    assert list(lines[-1]) == ["detail"] and "more than 0.05 s" in lines[-1]["detail"]


def test_the_key_is_wanted():
    with client(key="secret") as c:
        assert "X-API-Key" in detail(c.post("/track", content=plain(), headers=GIF), 401)
        assert c.post("/track", content=plain(), headers={**GIF, "X-API-Key": "secret"}).status_code == 200


# Clients that are slow or go


def test_a_client_that_goes_ends_its_clip():
    slow = Nobody(wait=True)
    with serving(slow, Limits()) as (_, address):
        for accept in ({}, AS_LINES):
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{address}/track", content=plain(40), headers={**GIF, **accept}, trust_env=False, timeout=1)
        until(lambda: under_way(address) == 0)
        slow.go.set()
        assert httpx.post(f"{address}/track", content=plain(), headers=GIF, trust_env=False).status_code == 200
        assert slow.seen <= 5  # not the 40 frames of either


def test_a_client_that_does_not_read_holds_its_place_until_it_is_too_late(monkeypatch):
    monkeypatch.setattr("canthus.serve.clips.frame_line", lambda image: b" " * 1_000_000 + frame_line(image))
    nobody, data = Nobody(), plain(40)
    with serving(nobody, Limits(clips=ClipLimits(queue=1, seconds=4.0))) as (_, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            head = f"POST /track HTTP/1.1\r\nHost: x\r\nContent-Type: image/gif\r\nAccept: {LINES}\r\n"
            raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            until(lambda: nobody.seen == 40)  # the worker does not wait for it
            assert under_way(address) == 1
            until(lambda: under_way(address) == 0)
        assert httpx.post(f"{address}/track", content=plain(), headers=GIF, trust_env=False).status_code == 200


def test_a_clip_that_arrives_too_slowly_is_408_and_its_place_is_free_again():
    limits = Limits(seconds=0.5, clips=ClipLimits(queue=1))
    with serving(Nobody(), limits) as (_, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(
                b"POST /track HTTP/1.1\r\nHost: x\r\nContent-Type: image/gif\r\nContent-Length: 999\r\n\r\nGIF8"
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 408")
        assert httpx.post(f"{address}/track", content=plain(), headers=GIF, trust_env=False).status_code == 200


def test_a_server_that_stops_answers_clips_under_way():
    slow = Nobody(wait=True)
    with serving(slow, Limits()) as (server, address), ThreadPoolExecutor(2) as pool:

        def post(accept):
            headers = {**GIF, **accept}
            return httpx.post(f"{address}/track", content=plain(), headers=headers, trust_env=False, timeout=30)

        answers = [pool.submit(post, accept) for accept in ({}, AS_LINES)]
        until(lambda: under_way(address) == 2)
        assert slow.busy.wait(20)
        server.should_exit = True
        time.sleep(0.3)
        slow.go.set()
        assert len(answers[0].result().json()["frames"]) == 3
        assert len(answers[1].result().text.splitlines()) == 4


def test_a_closed_worker_is_503():
    app = create_app(Nobody())
    with TestClient(app) as c:
        app.state.clip_worker.close()
        detail(c.post("/track", content=plain(), headers=GIF), 503)


# Reading


def test_larger_frames_are_refused_before_they_are_decoded(tmp_path):
    pytest.importorskip("av")
    with write_video(tmp_path / "v.mp4") as put:
        put(np.zeros((48, 64, 3), np.uint8), 0.0)
    for data in ((tmp_path / "v.mp4").read_bytes(), plain(1, 64, 48)):
        with pytest.raises(VideoSizeError, match="64 x 48 px, want at most 3071"):
            Video.of_bytes(data, "v", 64 * 48 - 1)
        assert len(list(Video.of_bytes(data, "v", 64 * 48))) == 1
    with pytest.raises(VideoError, match="empty"):
        Video.of_bytes(b"", "v", 1)


def test_limits_of_clips_are_those_documented():
    documented = (Path(__file__).parents[2] / "docs/guide/serve.md").read_text(encoding="utf-8")
    limits = ClipLimits()
    assert (limits.bytes, limits.pixels, limits.frames, limits.length) == (50_000_000, 4_000_000, 1800, 60.0)
    assert (limits.faces, limits.answer, limits.seconds, limits.queue) == (20, 64_000_000, 120.0, 4)
    for option in ("--max-clip-megabytes", "--max-clip-megapixels", "--max-clip-frames", "--max-clip-seconds",
                   "--clip-timeout", "--clips"):  # fmt: skip
        assert f"`{option}`" in documented
