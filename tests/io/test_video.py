"""Videos: read, written, and the verb that tracks faces in them."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import PHOTO, aligner, photo, resized
from PIL import Image
from typer.testing import CliRunner

import canthus
from canthus.cli import app
from canthus.commands.videos import Outputs, find_videos, track
from canthus.errors import LandmarkError, OutputError, VideoError
from canthus.inference.tracker import Tracker
from canthus.io.outputs import atomic_open, read_json_lines
from canthus.io.video import Video, frames_of, writable_suffix, write_video

TIMES = [0.0, 0.04, 0.1, 0.3]  # not evenly


def picture(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    """The left half is `level`, the right half 255 - level."""
    image = np.full((height, width, 3), level, np.uint8)
    image[:, width // 2 :] = 255 - level
    return image


def write(path: Path, count: int = 4, **size: int) -> Path:
    with write_video(path) as put:
        for k in range(count):
            put(picture(40 * k, **size), TIMES[k])
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    """A GIF of a face that moves a little, 5 frames; between them one without a face."""
    frames = [Image.fromarray(resized(photo()[30 + 3 * k : 230 + 3 * k, 125:325], 100, 100)) for k in range(5)]
    frames[2] = Image.new("RGB", (100, 100), "black")
    path = tmp_path / "clip.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    return path


def tracker() -> Tracker:
    return Tracker(aligner())


# Reading and writing


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_written_video_reads_the_same(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    video = Video(write(tmp_path / f"v{suffix}"))
    frames = list(video)
    assert [f.number for f in frames] == [0, 1, 2, 3] and video.count == 4
    np.testing.assert_allclose([f.time for f in frames], TIMES, atol=1e-4)
    for k, frame in enumerate(frames):
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image[:, :30].astype(int) - 40 * k).max() < 8  # lossy
        assert np.abs(frame.image[:, 34:].astype(int) - (255 - 40 * k)).max() < 8
    assert [f.number for f in video] == [0, 1, 2, 3]  # from the start again


def test_odd_sides_are_made_even_for_mp4(tmp_path):
    pytest.importorskip("av")
    (frame, *_) = Video(write(tmp_path / "v.mp4", width=63, height=41))
    assert frame.image.shape == (42, 64, 3)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_frames_are_turned_as_the_file_says(tmp_path, matrix, turns):
    # A phone held upright writes frames on their side and the matrix (0, 1, -1, 0): turn clockwise to see them.
    pytest.importorskip("av")
    data = write(tmp_path / "v.mp4").read_bytes()
    start = data.index(b"tkhd") + 4 + 40  # version and flags 4, times, ids and duration 20, reserved and more 16
    a, b, c, d = (value * 65536 & 0xFFFFFFFF for value in matrix)
    nine = b"".join(v.to_bytes(4, "big") for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:start] + nine + data[start + 36 :])
    for plain, frame in zip(Video(tmp_path / "v.mp4"), Video(turned)):
        np.testing.assert_array_equal(frame.image, np.rot90(plain.image, turns))


def test_a_folder_of_frames_is_in_the_order_of_its_numbers(tmp_path):
    for k in (10, 2, 1):
        Image.fromarray(picture(k)).save(tmp_path / f"frame{k}.png")
    (tmp_path / "truth.npz").write_bytes(b"")
    assert [p.name for p in frames_of(tmp_path)] == ["frame1.png", "frame2.png", "frame10.png"]
    video = Video(tmp_path, rate=10)
    assert video.count == 3 and [f.image[0, 0, 0] for f in video] == [1, 2, 10]
    np.testing.assert_allclose([f.time for f in video], [0, 0.1, 0.2])


def test_webp_is_read(tmp_path):
    first, *rest = (Image.fromarray(picture(40 * k)) for k in range(3))
    first.save(tmp_path / "v.webp", save_all=True, append_images=rest, duration=50, lossless=True)
    frames = list(Video(tmp_path / "v.webp"))
    assert [f.image[0, 0, 0] for f in frames] == [0, 40, 80]
    np.testing.assert_allclose([f.time for f in frames], [0, 0.05, 0.1])


def test_what_is_no_video_is_told(tmp_path):
    def of(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    def wrong(path, text):
        with pytest.raises(VideoError, match=text):
            list(Video(path))

    wrong(tmp_path / "none.mp4", "no file")
    wrong(of("empty.mp4", b""), "empty file")
    wrong(of("empty.gif", b""), "empty file")
    wrong(of("junk.gif", b"no picture"), "cannot be read as a video")
    (tmp_path / "folder").mkdir()
    wrong(tmp_path / "folder", "without a picture")
    for k, width in enumerate((20, 20, 22)):
        Image.new("RGB", (width, 20)).save(tmp_path / "folder" / f"{k}.png")
    wrong(tmp_path / "folder", "22 x 20 px in a folder of 20 x 20 px")
    pytest.importorskip("av")
    wrong(of("junk.mp4", b"no video" * 500), "cannot be read as a video")
    data = write(tmp_path / "v.mp4").read_bytes()
    wrong(of("cut.mp4", data[: len(data) // 2]), "cut.mp4")
    i = data.index(b"mdat") + 4
    wrong(of("damaged.mp4", data[:i] + bytes(len(data) - i)), "damaged.mp4")


def test_without_pyav_the_extra_is_named_and_gif_still_works(tmp_path, monkeypatch):
    (tmp_path / "v.mp4").write_bytes(b"x" * 100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=re.escape("pip install 'canthus[video]'")):
        Video(tmp_path / "v.mp4")
    assert writable_suffix() == ".gif"
    assert len(list(Video(write(tmp_path / "v.gif")))) == 4


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_video_that_is_not_finished_is_not_there(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    with pytest.raises(RuntimeError, match="stop"):
        with write_video(tmp_path / f"v{suffix}") as put:
            put(picture(0), 0.0)
            raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_is_not_taken_for_one_of_the_disk(tmp_path):
    with pytest.raises(ValueError, match="mine"), atomic_open(tmp_path / "a") as file:
        file.write(b"1")
        raise ValueError("mine")
    with pytest.raises(OutputError, match="could not write"), atomic_open(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


# Which videos


def test_videos_are_found_in_depth_and_folders_of_frames_are_videos(tmp_path):
    for name in ("a.mp4", "deep/b.MOV", "deep/b.overlay.mp4", "clips/one/0.jpg", "clips/two/0.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_videos([tmp_path])
    assert [str(name) for _, name in found] == ["a", "clips/one", "clips/two", "deep/b"]
    assert [str(name) for _, name in find_videos([tmp_path / "clips" / "one", tmp_path / "clips" / "one"])] == ["one"]
    assert [str(name) for _, name in find_videos([f"{tmp_path}/*.mp4"])] == ["a"]
    (tmp_path / "none").mkdir()
    with pytest.raises(VideoError, match="without a video"):
        find_videos([tmp_path / "none"])


# The verb


def test_what_is_written_for_a_video(clip, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    out = tmp_path / "out"
    summary = track(find_videos([clip]), out, tracker(), Outputs(overlay=True, csv=True))
    movie = f"clip.overlay{writable_suffix()}"
    assert sorted(p.name for p in out.iterdir()) == sorted(["clip.csv", "clip.jsonl", movie, "clip.summary.json"])
    schema = json.loads((Path(canthus.__file__).parent / "face" / "faces.schema.json").read_text())
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        jsonschema.validate(line, schema)
        assert line["video"] == {"frame": number, "time": pytest.approx(0.04 * number)}
        assert line["image"]["name"] == "clip.gif"
    assert [[f["id"] for f in line["faces"]] for line in lines] == [[0], [0], [], [0], [0]]
    assert [[f["followed"] for f in line["faces"]] for line in lines] == [[False], [True], [], [False], [True]]
    with open(out / "clip.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["frame"], r["face_id"], r["success"]) for r in rows] == [
        ("1", "0", "1"), ("2", "0", "1"), ("3", "", "0"), ("4", "0", "1"), ("5", "0", "1"),
    ]  # fmt: skip
    assert len(list(Video(out / movie))) == 5
    ((path, told),) = summary.clips
    assert path == clip.resolve()
    assert (told.frames, told.faces, told.people, told.without_face) == (5, 4, 1, 1)
    assert (told.reinitialisations, told.losses) == (1, 1)
    written = json.loads((out / "clip.summary.json").read_text())
    assert written["frames"] == 5 and written["faces_per_frame"] == 0.8 and written["fps"] > 0


def test_lines_read_back_are_what_the_tracker_said(clip, tmp_path):
    track(find_videos([clip]), tmp_path / "out", tracker())
    ours = tracker()
    read = list(read_json_lines(tmp_path / "out" / "clip.jsonl"))
    for frame, back in zip(Video(clip), read, strict=True):
        faces = ours.step(frame.image)
        assert back.number == frame.number and back.time == pytest.approx(frame.time)
        assert back.ids.tolist() == ours.ids.tolist() and back.followed.tolist() == ours.followed.tolist()
        np.testing.assert_allclose(back.faces.xyz, faces.xyz, atol=6e-4)
    (tmp_path / "other.jsonl").write_text((tmp_path / "out" / "clip.jsonl").read_text().replace('"id"', '"di"'))
    with pytest.raises(LandmarkError, match="other JSON"):
        list(read_json_lines(tmp_path / "other.jsonl"))


def test_smoothing_is_only_on_request_and_starts_from_what_was_found(clip, tmp_path):
    for name, smooth in (("raw", False), ("calm", True)):
        track(find_videos([clip]), tmp_path / name, tracker(), Outputs(smooth=smooth))
    raw, calm = (list(read_json_lines(tmp_path / name / "clip.jsonl")) for name in ("raw", "calm"))
    for a, b in zip(raw, calm):
        same = np.array_equal(a.faces.xyz, b.faces.xyz)
        assert same != bool(a.followed.any())


def test_a_bad_video_does_not_stop_the_rest_and_leaves_nothing(clip, tmp_path):
    bad = tmp_path / "bad.gif"
    bad.write_bytes(clip.read_bytes()[:3000])  # breaks while it is read
    out = tmp_path / "out"
    summary = track(find_videos([bad, clip]), out, tracker(), Outputs(overlay=True))
    assert [p.name for p, _ in summary.failures] == ["bad.gif"] and [p.name for p, _ in summary.clips] == ["clip.gif"]
    assert all(p.name.startswith("clip.") for p in out.iterdir()) and not summary.failed


def test_resume_takes_only_what_is_not_done(clip, tmp_path):
    videos, out, seen = find_videos([clip]), tmp_path / "out", []
    track(videos, out, tracker())
    (out / "clip.jsonl").unlink()
    again = track(videos, out, tracker(), resume=True)
    assert again.skipped == 1 and not again.clips and not (out / "clip.jsonl").exists()
    (out / "clip.summary.json").unlink()
    track(videos, out, tracker(), Outputs(), True, lambda *call: seen.append(call))
    assert (out / "clip.jsonl").exists() and seen[-1] == (clip.resolve(), 5, 5)


def test_each_video_starts_anew(clip, tmp_path):
    twin = tmp_path / "twin.gif"
    twin.write_bytes(clip.read_bytes())
    track(find_videos([clip, twin]), tmp_path / "out", tracker())
    first, second = (list(read_json_lines(tmp_path / "out" / f"{n}.jsonl")) for n in ("clip", "twin"))
    for a, b in zip(first, second, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        np.testing.assert_array_equal(a.faces.xyz, b.faces.xyz)


def test_the_command(clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["track", str(clip), str(bad), "--out", str(out), "--csv", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "clip.gif: 5 frames, 0.80 faces a frame, 1 people, 1 re-initialisations, 1 losses" in result.output
    assert "1 videos, 1 failures" in result.output and "bad.mp4" in result.output
    assert {p.name for p in out.iterdir()} == {"clip.jsonl", "clip.csv", "clip.summary.json"}
    result = CliRunner().invoke(app, ["track", str(bad), "--out", str(out)])
    assert result.exit_code == 1
    result = CliRunner().invoke(app, ["track", str(tmp_path / "none*"), "--out", str(out)])
    assert result.exit_code == 2 and "without a video" in " ".join(result.output.split())


def test_a_photo_is_a_video_of_one_frame_only_inside_a_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    Image.open(PHOTO).save(tmp_path / "frames" / "0.png")
    summary = track(find_videos([tmp_path / "frames"]), tmp_path / "out", tracker())
    assert summary.clips[0][1].faces == 1
