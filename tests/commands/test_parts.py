"""Tables of faces in parts: the same rows whatever runs them, here or far away, and no row lost or repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo, resized
from PIL import Image

import canthus
from canthus.commands import parts
from canthus.commands.parts import SHOWN, Plan, align, parts_of, read_shard
from canthus.commands.photos import photo_kind
from canthus.errors import CanthusError, OutputError
from canthus.inference.lanes import Lanes
from canthus.io import places
from canthus.io.images import decode_picture
from canthus.io.photo_lists import Photo, photos_in
from canthus.io.places import folder

pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pq = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")


@cache
def face(turn: int = 0) -> Image.Image:
    """The astronaut's face alone, 95 px, turned by some degrees: quick to align."""
    return Image.fromarray(resized(photo()[40:230, 130:320], 95, 95)).rotate(turn)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of five photos: three faces, a wall, and a file that is no picture."""
    shots = tmp_path / "photos"
    shots.mkdir()
    for name, turn in (("a.png", 0), ("c.png", 5), ("d.png", -5)):
        face(turn).save(shots / name)
    (shots / "b.jpg").write_text("I am no picture.")
    Image.new("RGB", (64, 48), (90, 90, 90)).save(shots / "e.png")
    return shots


TWO = Plan(size=2)


def run(inputs, out, plan=TWO, lanes=None, **options) -> parts.Summary:
    stream = photos_in([str(one) for one in inputs], photo_kind(), Counter())
    return align(stream, folder(str(out)), lanes or Lanes(aligner()), plan, **options)


def names(out) -> set[str]:
    return folder(str(out)).names()


WHOLE = {f"part-0000{k}.parquet" for k in range(3)} | {f"_part-0000{k}.json" for k in range(3)}
WHOLE |= {"_failures-00000.parquet"}


def test_rows_are_what_predict_gives(photos, tmp_path):
    summary = run([photos], tmp_path / "out")
    assert (summary.files, summary.faces, summary.failed, summary.skipped) == (4, 3, 1, 0)
    assert names(tmp_path / "out") == WHOLE
    images = list(canthus.read_faces(tmp_path / "out"))
    assert [Path(image.image).name for image in images] == ["a.png", "c.png", "d.png", "e.png"]
    for image in images:
        wanted = aligner().predict(image.image)
        assert len(image.faces) == len(wanted)
        np.testing.assert_allclose(image.faces.xyz, wanted.xyz, atol=2e-3)
        np.testing.assert_allclose(image.faces.pose.matrix, wanted.pose.matrix, atol=1e-5)


def test_pandas_reads_faces_and_failures(photos, tmp_path):
    run([photos], tmp_path / "out")
    faces = pd.read_parquet(tmp_path / "out")  # names with _ before them are no data
    assert faces["image"].nunique() == 4 and faces["id"].notna().sum() == 3
    assert faces["yaw"].dtype == np.float32 and faces["width"].dtype == np.int32
    (failure,) = pd.read_parquet(tmp_path / "out" / "_failures-00000.parquet").to_dict("records")
    assert failure["image"] == str(photos / "b.jpg") and "no known kind of image" in failure["error"]
    about = json.loads(pq.read_schema(tmp_path / "out" / "part-00000.parquet").metadata[b"canthus"])
    assert about["frame"]["unit"] == "pixel" and about["weights"] == aligner().card.title


def test_csv_has_the_same_rows(photos, tmp_path):
    run([photos], tmp_path / "p")
    run([photos], tmp_path / "c", Plan("csv", 2))
    assert names(tmp_path / "c") == {name.replace("parquet", "csv") for name in WHOLE}
    exact, rounded = pd.read_parquet(tmp_path / "p"), pd.concat(
        pd.read_csv(part) for part in sorted((tmp_path / "c").glob("part-*"))
    )  # fmt: skip
    assert list(exact["image"]) == list(rounded["image"])
    np.testing.assert_allclose(exact["x_30"], rounded["x_30"], atol=6e-4)  # 3 decimals
    assert [len(i.faces) for i in canthus.read_faces(tmp_path / "c")] == [1, 1, 1, 0]


def test_lanes_and_shards_write_the_same_tables(photos, tmp_path):
    run([photos], tmp_path / "one")
    with Lanes(aligner(), 3) as lanes:
        run([photos], tmp_path / "lanes", lanes=lanes)
    for shard in (1, 0):
        run([photos], tmp_path / "shards", Plan("parquet", 2, shard, 2))
    assert names(tmp_path / "shards") == names(tmp_path / "lanes") == WHOLE
    for name in WHOLE - {"_failures-00000.parquet"}:
        wanted = (tmp_path / "one" / name).read_bytes()
        assert all((tmp_path / out / name).read_bytes() == wanted for out in ("lanes", "shards"))


def test_resume_goes_on_after_a_stop_in_a_part(photos, tmp_path):
    out, seen = tmp_path / "out", []

    def stop(summary):
        seen.append(summary.files)
        if summary.files == 3:  # of four, within the second part
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([photos], out, progress=stop)
    assert names(out) == {"part-00000.parquet", "_failures-00000.parquet", "_part-00000.json"}
    before = (out / "part-00000.parquet").stat().st_mtime_ns
    with pytest.raises(OutputError, match="--resume"):
        run([photos], out)
    summary = run([photos], out, resume=True)
    assert (summary.files, summary.skipped, summary.failed) == (3, 1, 1)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == before
    assert [Path(i.image).name for i in canthus.read_faces(out)] == ["a.png", "c.png", "d.png", "e.png"]


def test_parts_of_other_photos_or_settings_are_never_taken_for_done(photos, tmp_path):
    run([photos], tmp_path / "out")
    face().save(photos / "f.png")  # joins the last part
    with pytest.raises(OutputError, match="differs in photos, photos_sha256"):
        run([photos], tmp_path / "out", resume=True)
    with pytest.raises(OutputError, match="part 0 .* differs in table"):
        run([photos], tmp_path / "out", Plan("csv", 2), resume=True)
    with pytest.raises(OutputError, match="differs in min_face"):
        run([photos], tmp_path / "out", lanes=Lanes(canthus.load(threads=1, min_face=30)), resume=True)
    (tmp_path / "out" / "_part-00000.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        run([photos], tmp_path / "out", resume=True)


def test_given_boxes_are_answered_and_wrong_ones_fail_alone(photos, tmp_path):
    box = (10.0, 20.0, 80.0, 90.0)
    given = [Photo("one", str(photos / "a.png"), boxes=(box, box)), Photo("two", str(photos / "c.png"))]
    given.append(Photo("three", str(photos / "d.png"), boxes=((5.0, 5.0, 1.0, 1.0),)))
    summary = align(given, folder(str(tmp_path / "out")), Lanes(aligner()), Plan())
    assert [(i.image, len(i.faces)) for i in canthus.read_faces(tmp_path / "out")] == [("one", 2), ("two", 1)]
    assert [photo for photo, _ in summary.failures] == ["three"]
    wanted = aligner().predict(photos / "a.png", boxes=[box])
    np.testing.assert_allclose(next(canthus.read_faces(tmp_path / "out")).faces.xyz[1], wanted.xyz[0], atol=2e-3)


def test_boxes_and_points_of_a_photo_that_is_read_reduced_are_of_the_whole(photos, tmp_path, monkeypatch):
    face().resize((191, 193)).save(photos / "large.png")
    box = np.array([[21.0, 40.0, 160.0, 180.0]])
    wanted = aligner().predict(photos / "large.png", boxes=box)
    monkeypatch.setattr(parts, "PHOTO_PIXELS", 100 * 100)
    given = [Photo("large", str(photos / "large.png"), boxes=(tuple(box[0].tolist()),))]
    align(given, folder(str(tmp_path / "out")), Lanes(aligner()), Plan())
    (image,) = canthus.read_faces(tmp_path / "out")
    assert image.faces.image_size == (191, 193)
    assert np.abs((image.faces.xyz - wanted.xyz).mean((0, 1))).max() < 0.6  # half a reduced pixel would be 1 px


def test_of_many_failures_some_are_told_and_all_are_written(tmp_path):
    missing = [Photo(f"{k}", str(tmp_path / f"{k}.png")) for k in range(SHOWN + 5)]
    summary = align(missing, folder(str(tmp_path / "out")), Lanes(aligner()), Plan())
    assert len(summary.failures) == SHOWN and summary.failed == SHOWN + 5
    assert len(pd.read_parquet(tmp_path / "out" / "_failures-00000.parquet")) == SHOWN + 5


@pytest.mark.parametrize("text", ["2", "2/2", "-1/3", "a/b", "1/0"])
def test_shards_that_are_none(text):
    with pytest.raises(CanthusError, match="want I/N"):
        read_shard(text)


def test_each_part_is_in_one_shard():
    given = [Photo(str(k), str(k)) for k in range(11)]
    split = [parts_of(given, Plan(size=2, shard=shard, shards=4)) for shard in range(4)]
    assert [[part.number for part in some] for some in split] == [[0, 4], [1, 5], [2], [3]]
    whole = [
        p for shard in range(4) for part in parts_of(given, Plan(size=2, shard=shard, shards=4)) for p in part.photos
    ]
    assert sorted(whole, key=lambda p: int(p.name)) == given


# Far away


def faulty():
    """An address whose file system fails at every other access, and half way through every other upload."""
    from fsspec.implementations.memory import MemoryFileSystem

    class FaultySystem(MemoryFileSystem):
        protocol = "faulty"
        store, pseudo_dirs, count = {}, [""], [0]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("faulty://"))

        def _fault(self):
            self.count[0] += 1
            if self.count[0] % 2:
                raise ConnectionResetError("the connection was reset")

        def cat_file(self, path, start=None, end=None, **options):
            self._fault()
            return super().cat_file(path, start, end, **options)

        def put_file(self, here, there, **options):
            super().pipe_file(there, Path(here).read_bytes()[:100])  # what a server that keeps parts would have
            self._fault()
            super().put_file(here, there, **options)

        def mv(self, one, two, **options):
            super().mv(one, two, **options)  # it is done, and the answer is lost
            self._fault()

    fsspec.register_implementation("faulty", FaultySystem, clobber=True)
    return FaultySystem


def test_network_faults_lose_and_repeat_nothing(photos, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(places.time, "sleep", waited.append)
    system = faulty()
    fs = system()
    for path in sorted(photos.iterdir()):
        fs.pipe_file(f"/in/{path.name}", path.read_bytes())
    run(["faulty:///in"], "faulty:///out")
    assert names("faulty:///out") == WHOLE and waited and set(waited) == {1}
    run([photos], tmp_path / "here")
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"):
        (tmp_path / "far.parquet").write_bytes(fs.store[f"/out/{name}"].getvalue())
        far, here = pd.read_parquet(tmp_path / "far.parquet"), pd.read_parquet(tmp_path / "here" / name)
        assert [Path(p).name for p in far["image"]] == [Path(p).name for p in here["image"]]
        pd.testing.assert_frame_equal(far.drop(columns="image"), here.drop(columns="image"))


def test_what_is_missing_for_good_is_not_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(places.time, "sleep", lambda seconds: pytest.fail("waited"))
    faulty().count[0] = 1  # the next access works
    summary = align([Photo("x", "faulty:///none.png")], folder(str(tmp_path)), Lanes(aligner()), Plan())
    assert [photo for photo, _ in summary.failures] == ["x"]


def test_an_outage_ends_the_run_with_a_sentence_and_keeps_what_is_whole(photos, monkeypatch):
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    system = faulty()
    monkeypatch.setattr(system, "mv", lambda self, one, two: (_ for _ in ()).throw(TimeoutError("no answer")))
    with pytest.raises(OutputError, match="could not write faulty:///down/part-00000.parquet: no answer"):
        run([photos], "faulty:///down")
    assert not any(name.startswith("part-") for name in names("faulty:///down"))


@pytest.mark.slow
def test_kill_9_leaves_whole_parts_only_and_resume_does_the_rest(photos, tmp_path):
    out = tmp_path / "out"
    code = f"""
import os, signal
import canthus
from canthus.commands import parts
from canthus.commands.photos import photo_kind
from canthus.inference.lanes import Lanes
from canthus.io.photo_lists import photos_in
from canthus.io.places import folder
from collections import Counter
def die(summary):
    if summary.files >= 3:
        os.kill(os.getpid(), signal.SIGKILL)
photos = photos_in([{str(photos)!r}], photo_kind(), Counter())
parts.align(photos, folder({str(out)!r}), Lanes(canthus.load(threads=1)), parts.Plan(size=2), progress=die)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -9
    left = names(out)
    assert any(name.startswith(".canthus-") for name in left) and "_part-00000.json" in left
    summary = run([photos], out, resume=True)
    assert summary.skipped == 1 and names(out) == WHOLE
    assert [Path(i.image).name for i in canthus.read_faces(out)] == ["a.png", "c.png", "d.png", "e.png"]


def test_a_picture_of_bytes_is_the_picture_of_the_file(photos):
    data = (photos / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_picture(data, "a.png", 2**26).pixels, canthus.read_image(photos / "a.png"))
    assert decode_picture(data, "a.png", 95 * 94).reduction == 2


def test_failures_of_a_run_that_was_killed_go_once_all_can_be_read(photos, tmp_path):
    out = tmp_path / "out"
    run([photos], out, Plan(size=8))
    (out / "_part-00000.json").unlink()  # as a kill before it is written leaves the rest
    assert "_failures-00000.parquet" in names(out)
    face().save(photos / "b.jpg")
    summary = run([photos], out, Plan(size=8), resume=True)
    assert (summary.files, summary.failed) == (5, 0)
    assert names(out) == {"part-00000.parquet", "_part-00000.json"}
