"""Photos and tables in an object store: a server on this machine that speaks S3, faults, and a run that is killed."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Lock, Thread

import pytest
from photos import aligner, photo, resized
from PIL import Image

from canthus.commands.parts import Plan, align
from canthus.commands.photos import photo_kind
from canthus.inference.lanes import Lanes
from canthus.io.photo_lists import photos_in
from canthus.io.places import folder

pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
moto = pytest.importorskip("moto.server", reason="moto is not installed (extra test)")
pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
serving = pytest.importorskip("werkzeug.serving")

PARTS = 4  # of three photos each
BUCKET = "canthus-photos"


class Store:
    """An S3 server on a loopback port. Every `every`-th request is answered by 503 Slow Down, in turn before and after
    the server has done what was asked for; 0: none. `on_upload` is called with the key of each finished upload."""

    def __init__(self):
        self.app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.every, self.requests, self.refused = 0, 0, 0
        self.on_upload = lambda key: None
        self._lock, self._server = Lock(), None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        self._server = serving.make_server("127.0.0.1", self.port, self._answer, threaded=True)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """From now on the port is closed; what is stored stays."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ, start_response):
        with self._lock:
            self.requests += 1
            fault = bool(self.every) and self.requests % self.every == 0
            self.refused += fault
            late = fault and self.refused % 2 == 0
        if fault and not late:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            answer = list(self.app(environ, start_response if not fault else lambda *_: lambda data: None))
            if environ["REQUEST_METHOD"] == "PUT":
                self.on_upload(environ["PATH_INFO"])
            if not fault:
                return answer
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]


@pytest.fixture(scope="module")
def store():
    """The server, with an empty bucket, where s3fs of this process and those that it starts look for it."""
    import fsspec

    server = Store()
    known = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield server
    server.stop()


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """Twelve files: ten faces, a wall and one that is no picture."""
    room = tmp_path_factory.mktemp("shots")
    face = Image.fromarray(resized(photo()[40:230, 130:320], 95, 95))
    for number in range(3 * PARTS - 2):
        face.rotate(2 * number - 9).save(room / f"{number:02}.png")
    Image.new("RGB", (64, 48), (90, 90, 90)).save(room / "10.png")
    (room / "11.jpg").write_text("I am no picture.")
    return room


def upload(shots: Path, place: str) -> None:
    import fsspec

    fs = fsspec.filesystem("s3")
    for path in shots.iterdir():
        fs.pipe_file(f"{place}/{path.name}", path.read_bytes())


def tables(out, pattern: str) -> pd.DataFrame:
    """The rows of all tables of a folder, here or there, with the names of photos alone."""
    out = folder(str(out))
    names = sorted(name for name in out.names() if name.startswith(pattern) and name.endswith(".parquet"))
    rows = pd.concat([pd.read_parquet(io.BytesIO(out.read(name))) for name in names], ignore_index=True)
    return rows.assign(image=[image.rsplit("/", 1)[-1] for image in rows["image"]])


def command(out: str, *more: str) -> list[str]:
    given = ["align", f"s3://{BUCKET}/in", "--format", "parquet", "--part", "3", "--threads", "1", "--out", out]
    return [sys.executable, "-m", "canthus", *given, *more]


@pytest.mark.slow
def test_a_kill_slow_answers_and_an_outage_lose_and_repeat_nothing(store, shots, tmp_path):
    upload(shots, f"{BUCKET}/in")
    stream = photos_in([str(shots)], photo_kind(), Counter())
    align(stream, folder(str(tmp_path)), Lanes(aligner()), Plan(size=3))
    out, store.every = f"s3://{BUCKET}/out", 5

    # killed while the table of the second part is on its way: uploaded, and not yet moved to its name
    run = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store.on_upload = lambda key: run.kill() if key.endswith("/.part-00001.parquet.part") else None
    assert run.wait(120) == -signal.SIGKILL
    left = folder(out).names()
    assert {n for n in left if not n.startswith(".")} == {"part-00000.parquet", "_part-00000.json"}

    # on the way through the third part the server goes away, for longer than one attempt takes
    down = []

    def outage(key: str) -> None:
        if key.endswith("/_part-00001.json") and not down:
            down.append(key)
            Thread(target=interrupt).start()

    def interrupt() -> None:
        store.stop()
        time.sleep(3)
        store.start()

    store.on_upload = outage
    ended = subprocess.run(command(out, "--resume", "--allow-failures"), capture_output=True, text=True, timeout=300)
    store.on_upload, store.every = lambda key: None, 0
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert down and store.refused > 10
    print(f"\n{store.requests} requests, {store.refused} answered by 503, 1 kill, 1 outage of 3 s")

    wanted = {f"part-{k:05}.parquet" for k in range(PARTS)} | {f"_part-{k:05}.json" for k in range(PARTS)}
    assert folder(out).names() == wanted | {"_failures-00003.parquet"}
    faces = tables(out, "part")
    pd.testing.assert_frame_equal(faces, tables(tmp_path, "part"))
    assert faces["image"].is_unique and len(faces) == 11 and list(tables(out, "_failures")["image"]) == ["11.jpg"]
