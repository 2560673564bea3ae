"""Photos in lists and archives, here and far away."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from canthus.commands.photos import photo_kind
from canthus.errors import CanthusError, ImageError, LandmarkError, OutputError
from canthus.io import places
from canthus.io.photo_lists import Opened, Photo, photos_in
from canthus.io.places import LocalFolder, folder

fsspec = pytest.importorskip("fsspec")

COLOURS = {"a.png": 10, "b.png": 20, "c.png": 30}


def png(grey: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (grey, grey, grey)).save(data, "PNG")
    return data.getvalue()


def tar(*more: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in [*((name, png(grey)) for name, grey in COLOURS.items()), *more]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def room(tmp_path, monkeypatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def taken(*inputs: str, passed: Counter[str] | None = None) -> list[Photo]:
    return list(photos_in(inputs, photo_kind(), Counter() if passed is None else passed))


def greys(photos: list[Photo]) -> list[int]:
    return [int(Opened.of(photo).picture(2**20).pixels[0, 0, 0]) for photo in photos]


@pytest.mark.parametrize("far", [False, True])
def test_members_of_archives_are_photos(room, memory, far):
    shard = tar(("a.json", b"{}"), ("a.cls", b"1"))
    if far:
        memory.pipe_file("/s/0.tar", shard)
    else:
        (room / "s").mkdir()
        (room / "s" / "0.tar").write_bytes(shard)
    for given in ("s", "s/0.tar", "s/*.tar"):
        passed = Counter[str]()
        photos = taken(f"memory://{given}" if far else given, passed=passed)
        assert [photo.name.rsplit("/", 1)[-1] for photo in photos] == list(COLOURS)
        assert greys(photos) == [10, 20, 30] and passed == {".json": 1, ".cls": 1}


def test_folders_and_files_far_away(memory):
    for name in ("x/2.png", "x/1.jpg", "x/y/3.png", "x/n.txt"):
        memory.pipe_file(f"/{name}", png(5))
    passed = Counter[str]()
    assert [p.name for p in taken("memory://x", passed=passed)] == [
        "memory:///x/1.jpg", "memory:///x/2.png", "memory:///x/y/3.png",
    ]  # fmt: skip
    assert passed == {".txt": 1}
    assert len(taken("memory://x/*.png")) == 1 and greys(taken("memory://x/1.jpg")) == [5]
    with pytest.raises(ImageError, match="memory://none"):
        taken("memory://none")


def test_lists_of_paths_and_addresses(room, memory):
    (room / "a.png").write_bytes(png(1))
    memory.pipe_file("/b.png", png(2))
    (room / "list.txt").write_text("a.png\n\nmemory://b.png\n", encoding="utf-8-sig")  # as editors on Windows do
    (room / "list.csv").write_text("size,image\n3,a.png\n4,memory://b.png\n")
    for name in ("list.txt", "list.csv"):
        assert greys(taken(name)) == [1, 2]
    memory.pipe_file("/far.txt", (room / "list.txt").read_bytes())
    assert greys(taken("memory://far.txt")) == [1, 2]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_lists_with_boxes_hold_a_face_a_row(room, kind):
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    rows = [("a.png", 1, 2, 3, 4), ("a.png", 5, 6, 7, 8), ("b.png", *[np.nan] * 4)]
    frame = pd.DataFrame(rows, columns=["image", "box_x0", "box_y0", "box_x1", "box_y1"])
    frame.to_csv("list.csv", index=False) if kind == "csv" else frame.to_parquet("list.parquet", row_group_size=1)
    assert taken(f"list.{kind}") == [
        Photo("a.png", "a.png", boxes=((1, 2, 3, 4), (5, 6, 7, 8))), Photo("b.png", "b.png"),
    ]  # fmt: skip


def test_lists_and_archives_that_are_none_are_told_by_a_sentence(room):
    (room / "list.csv").write_text("path\na.png\n")
    (room / "empty.csv").write_bytes(b"")
    (room / "mixed.csv").write_text("image,box_x0,box_y0,box_x1,box_y1\na,1,2,3,4\na,,,,\n")
    (room / "short.csv").write_text("size,image\n3,a.png\n4\n")
    (room / "none.csv").write_text("size,image\n")
    (room / "none.txt").write_text("\n\n")
    (room / "bad.tar").write_bytes(b"no archive" * 100)
    (room / "gz.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    for name, why in {
        "list.csv": "want the columns image", "empty.csv": "it has no columns",
        "mixed.csv": "with and without a box", "gone.txt": "could not read",
        "short.csv": "line 3 has 1 value, the first has 2",
        "none.csv": "without a photo", "none.txt": "without a photo",
        "bad.tar": "uncompressed tar", "gz.tar": "uncompressed tar", "other://x": "other://x",
    }.items():  # fmt: skip
        with pytest.raises(CanthusError, match=why):
            taken(name)


def test_an_archive_that_is_cut_off_is_one_failure_among_its_photos(room):
    whole = tar()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        last = archive.getmembers()[-1]
    (room / "cut.tar").write_bytes(whole[: last.offset_data + 10])
    *photos, archive = photos_in(["cut.tar"], photo_kind(), Counter())
    assert photos and all(not photo.problem for photo in photos) and archive.name == "cut.tar"
    with pytest.raises(ImageError, match="got the archive cut.tar that cannot be read"):
        Opened.of(archive)


def test_a_short_answer_is_asked_for_again(room, memory, monkeypatch):
    memory.pipe_file("/s.tar", tar())
    photo, waited, whole = taken("memory://s.tar")[0], [], type(memory).cat_file

    def short(self, path, start=None, end=None, **options):
        return whole(self, path, start, end)[: None if waited else 20]

    monkeypatch.setattr(type(memory), "cat_file", short)
    monkeypatch.setattr(places.time, "sleep", waited.append)
    assert greys([photo]) == [10] and waited == [1]


def test_folders_for_results(room, memory):
    for place in ("out", "memory://out"):
        out = folder(place)
        assert out.names() == set()
        out.write("a", b"1")
        out.write("b", b"2")
        out.remove("b")
        out.remove("b")
        assert out.names() == {"a"} and out.read("a") == b"1"
        with pytest.raises(OutputError, match="could not read"):
            out.read("c")
    assert isinstance(folder("out"), LocalFolder)
    with pytest.raises(OutputError, match="empty name"):
        folder("")
    with pytest.raises(OutputError, match="nowhere://x"):
        folder("nowhere://x")


def test_photos_of_a_web_server(room, monkeypatch):
    pytest.importorskip("aiohttp")
    (room / "site").mkdir()
    (room / "site" / "a.png").write_bytes(png(7))
    asked = []

    class Server(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/a.png" and asked.count("/a.png") == 1:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=room / "site")) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        (room / "list.txt").write_text(f"{address}/a.png\n{address}/none.png\n")
        there, missing = taken("list.txt")
        assert greys([there]) == [7] and asked == ["/a.png", "/a.png"]  # the first answer was 503
        with pytest.raises(ImageError, match="none.png"):
            Opened.of(missing)
        assert asked.count("/none.png") == 1
        server.shutdown()


def test_boxes_with_gaps_are_told(room):
    (room / "some.csv").write_text("image,box_x0,box_y0\na.png,1,2\n")
    with pytest.raises(LandmarkError, match="it has box_x0, box_y0 without box_x1, box_y1"):
        taken("some.csv")
    (room / "gap.csv").write_text("image,box_x0,box_y0,box_x1,box_y1\na.png,1,2,,4\n")
    (photo,) = photos_in(["gap.csv"], photo_kind(), Counter())
    assert np.isnan(photo.boxes[0][2]) and photo.boxes[0][:2] == (1, 2)  # refused with its photo
