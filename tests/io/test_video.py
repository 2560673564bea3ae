"""Videos: read, written, and the verb that tracks faces in them."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from photos import PHOTO, aligner, photo, resized
from PIL import Image
from typer.testing import CliRunner

from canthus.cli import app
from canthus.commands.clip import Outputs
from canthus.commands.videos import find_videos, track
from canthus.errors import CanthusError, OutputError, VideoError, pip_install
from canthus.inference.tracker import Tracker
from canthus.io.lines import read_json_lines
from canthus.io.outputs import PART, atomic_open
from canthus.io.tables import read_faces
from canthus.io.video import Video, frames_of
from canthus.io.video_writer import writable_suffix, write_video

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


def noise(seed: int) -> np.ndarray:
    """A picture of 64 x 48 px without any symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def encode(
    path: Path,
    images: list[np.ndarray],
    times: np.ndarray | None = None,
    *,
    codec: str = "libx264",
    container: dict[str, str] | None = None,
    sample_aspect_ratio: Fraction | None = None,
    skip: Collection[int] = (),
    shift: int = 0,
    **options: object,
) -> Path:
    """A video of 64 x 48 px, 25 frames a second unless `times` (seconds) are given. skip: frames whose packets are not
    written. shift: frames that all times are moved by. options: of the encoder."""
    import av

    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options={k: str(v) for k, v in ({"bf": 0} | options).items()})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        ticks = 25 if times is None else 1000  # a second
        stream.codec_context.time_base = Fraction(1, ticks)
        if sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio

        def put(packets):
            for packet in packets:
                if round(packet.pts * packet.time_base * 25) not in skip:
                    moved = round(shift / 25 / packet.time_base)
                    packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                    file.mux(packet)

        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k if times is None else round(ticks * times[k]), Fraction(1, ticks)
            put(stream.encode(frame))
        put(stream.encode())
    return path


def spoil(path: Path, *numbers: int) -> None:
    """Overwrite packets of a video so that they cannot be decoded."""
    import av

    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    for start, size in (places[n] for n in numbers):
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)


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


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # of a phone held upright: turn clockwise
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),  # x' = -x: mirrored, as by a front camera
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),  # x' = y, y' = x
        ((0, -1, -1, 0), lambda p: p.transpose(1, 0, 2)[::-1, ::-1]),
    ],
)
def test_frames_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix, shown):
    # A tkhd box says where the point (x, y) of the stored picture is shown: x' = a x + c y, y' = b x + d y.
    pytest.importorskip("av")
    data = encode(tmp_path / "v.mp4", [noise(k) for k in range(3)]).read_bytes()
    start = data.index(b"tkhd") + 4 + 40  # version and flags 4, times, ids and duration 20, reserved and more 16
    a, b, c, d = (value * 65536 & 0xFFFFFFFF for value in matrix)
    nine = b"".join(v.to_bytes(4, "big") for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:start] + nine + data[start + 36 :])
    for plain, frame in zip(Video(tmp_path / "v.mp4"), Video(turned)):
        np.testing.assert_array_equal(frame.image, shown(plain.image))


@pytest.mark.parametrize(("aspect", "size"), [("2/1", (128, 48)), ("3/4", (64, 64)), ("1000/1", (64, 48))])
def test_pixels_are_made_square(tmp_path, aspect, size):
    # 64 x 48 px stored. 2/1: pixels twice as wide as high. No format has 1000/1: it is taken for damage.
    pytest.importorskip("av")
    video = Video(encode(tmp_path / "v.mp4", [picture(0)], sample_aspect_ratio=Fraction(aspect)))
    assert [f.image.shape for f in video] == [(size[1], size[0], 3)]


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
    if Path("/dev/null").exists():
        wrong("/dev/null", "a special file")
    wrong(of("empty.mp4", b""), "empty file")
    wrong(of("empty.gif", b""), "empty file")
    wrong(of("junk.gif", b"no picture"), "cannot be read as a video")
    (tmp_path / "folder").mkdir()
    wrong(tmp_path / "folder", "without a picture")
    pytest.importorskip("av")
    wrong(of("junk.mp4", b"no video" * 500), r"as a video \(Invalid data found when processing input\), want")
    data = write(tmp_path / "v.mp4").read_bytes()
    wrong(of("cut.mp4", data[: len(data) // 2]), "cut.mp4")
    i = data.index(b"mdat") + 4
    wrong(of("damaged.mp4", data[:i] + bytes(len(data) - i)), "damaged.mp4")


def test_without_pyav_the_extra_is_named_and_gif_still_works(tmp_path, monkeypatch):
    (tmp_path / "v.mp4").write_bytes(b"x" * 100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=re.escape(pip_install("video"))):
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


# Damaged videos


def test_damaged_packets_are_passed_over_and_times_stay_true(tmp_path):
    pytest.importorskip("av")
    path = encode(tmp_path / "v.mp4", [noise(k) for k in range(40)], g=10)
    spoil(path, 8, 9)  # the last ones before a key frame
    video = Video(path)
    times = [f.time for f in video]
    np.testing.assert_allclose(times, np.delete(np.arange(40), [8, 9]) / 25, atol=1e-4)
    assert video.count == 40 and video.missing == 2 and video.problems == ["2 damaged packets were left out"]
    assert len(list(video)) == 38 and video.missing == 2  # counted anew in each iteration


def test_times_stay_true_where_the_first_frames_are_lost(tmp_path):
    pytest.importorskip("av")
    path = encode(tmp_path / "v.mp4", [noise(k) for k in range(20)], g=1)
    spoil(path, *range(5))
    video = Video(path)
    np.testing.assert_allclose([f.time for f in video], np.arange(5, 20) / 25, atol=1e-4)
    assert video.missing == 5


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.flv"])
def test_a_file_that_ends_early_says_how_many_frames_are_missing(tmp_path, name):
    pytest.importorskip("av")
    movflags = {"movflags": "+faststart"} if name == "v.mp4" else {}
    whole = encode(tmp_path / name, [noise(k) for k in range(50)], g=10, container=movflags)
    assert len(list(Video(whole))) == 50
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    video = Video(cut)
    read = len(list(video))
    assert 20 < read < 40 and video.missing == 50 - read
    assert "announces" in " ".join(video.problems)


def test_gaps_between_even_frames_are_missing_frames(tmp_path):
    pytest.importorskip("av")
    path = encode(tmp_path / "v.ts", [noise(k) for k in range(40)], g=5, skip={15, 16, 17, 18, 19})
    video = Video(path)
    assert len(list(video)) == 35 and video.missing == 5 and video.problems == ["there are gaps between its frames"]


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4", "v.webm"])
def test_a_video_of_varying_frame_rate_is_whole(tmp_path, name):
    pytest.importorskip("av")
    steps = np.random.default_rng(0).choice([33, 33, 66, 200], 40)
    times = np.cumsum(steps) / 1000
    codec = "libvpx" if name == "v.webm" else "libx264"
    video = Video(encode(tmp_path / name, [noise(k) for k in range(40)], times - times[0], codec=codec))
    np.testing.assert_allclose([f.time for f in video], times - times[0], atol=2e-3)
    assert video.missing == 0 and video.problems == []


def test_frames_that_an_edit_list_cuts_off_are_not_missing(tmp_path):
    # What `ffmpeg -ss -c copy` writes: packets from the key frame before the start, at times below 0.
    pytest.importorskip("av")
    video = Video(encode(tmp_path / "v.mp4", [noise(k) for k in range(30)], shift=-10))
    times = [f.time for f in video]
    np.testing.assert_allclose(times, np.arange(20) / 25, atol=1e-4)
    assert video.count == 30 and video.missing == 0 and video.problems == []


def test_where_a_file_cannot_be_read_on_what_was_read_is_kept(tmp_path, monkeypatch):
    av = pytest.importorskip("av")

    def packets(container, *streams):
        for k, packet in enumerate(demux(container, *streams)):
            if k == 25:
                raise av.error.OSError(5, "Input/output error")
            yield packet

    class Container:
        def __init__(self, opened):
            self.opened = opened

        def __getattr__(self, name):
            return getattr(self.opened, name)

        def demux(self, stream):
            return packets(self.opened, stream)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.opened.close()

    demux = av.container.InputContainer.demux
    path = encode(tmp_path / "v.mp4", [noise(k) for k in range(40)])
    opened = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Container(opened(*args, **options)))
    video = Video(path)
    assert len(list(video)) == 25  # also those that the decoder held back
    assert video.missing == 15 and "cannot be read to its end (Input/output error)" in video.problems[0]


def test_of_a_gif_the_frames_before_the_damage_are_kept(clip, tmp_path):
    (tmp_path / "cut.gif").write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    video = Video(tmp_path / "cut.gif")
    kept = [f.image for f in video]
    assert 1 <= len(kept) < 5 and video.missing >= 1 and "cannot be read" in video.problems[0]
    for image, whole in zip(kept, Video(clip)):
        np.testing.assert_array_equal(image, whole.image)


def test_a_bad_picture_in_a_folder_of_frames_is_named_and_passed_over(tmp_path):
    for k in range(5):
        Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").symlink_to(tmp_path / "gone.png")
    Image.new("RGB", (22, 20)).save(tmp_path / "5.png")
    video = Video(tmp_path, rate=10)
    frames = list(video)
    assert [f.image[0, 0, 0] for f in frames] == [0, 2, 4]
    np.testing.assert_allclose([f.time for f in frames], [0, 0.2, 0.4])
    assert video.missing == 3 and all(f"{k}.png" in said for k, said in zip((1, 3, 5), video.problems, strict=True))
    assert "of 22 x 20 px" in video.problems[2]


TASKS = Path("/proc/self/task")  # the threads of this process


@pytest.mark.skipif(not TASKS.is_dir(), reason="this system does not list the threads of a process")
def test_decoder_and_encoder_take_the_threads_they_are_given(tmp_path):
    def tasks():
        return len(list(TASKS.iterdir()))

    for threads, least in ((1, 0), (4, 3)):
        before = tasks()
        with write_video(tmp_path / f"{threads}.mp4", threads) as put:
            for k in range(6):
                put(noise(k), k / 25)
            assert tasks() - before >= least
            assert threads > 1 or tasks() == before
    for threads, least in ((1, 0), (4, 3)):
        before = tasks()
        for _ in Video(tmp_path / "1.mp4", threads=threads):
            assert tasks() - before >= least
            assert threads > 1 or tasks() == before


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_threads_that_are_no_number_of_threads_are_refused(tmp_path, threads):
    with pytest.raises(CanthusError, match="want a positive integer"):
        Video(write(tmp_path / "v.gif"), threads=threads)


REPORTS = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "reports"


@pytest.mark.skipif(not REPORTS.exists(), reason="the damaged files of reports are not here")
@pytest.mark.parametrize(("name", "read"), [("damaged_packets.mp4", 92), ("damaged_short.mkv", 2)])
def test_reported_files_of_100_frames(name, read):
    pytest.importorskip("av")
    video = Video(REPORTS / name)
    assert len(list(video)) == read and video.missing == 100 - read


# What is no video


@pytest.mark.parametrize("given", [0, "0", "1", None])
def test_a_camera_is_refused(given):
    with pytest.raises(VideoError, match="for cameras see"):
        Video(given)


@pytest.mark.parametrize("given", ["rtsp://10.0.0.1:554/live?a=1", "https://example.org/v.mp4"])
def test_an_address_is_refused_as_it_was_given(given):
    for call in (Video, lambda g: find_videos([g])):
        with pytest.raises(VideoError, match=re.escape(f"got the address '{given}'")):
            call(given)


def test_an_empty_path_is_refused():
    for call in (Video, lambda g: find_videos([g])):
        with pytest.raises(VideoError, match="empty path"):
            call("")


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "25"])
def test_what_is_no_frame_rate_is_refused(tmp_path, rate):
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    for call in (lambda: Video(tmp_path, rate), lambda: Outputs(rate=rate)):
        with pytest.raises(VideoError, match="frame rate of"):
            call()


# Which videos


def test_videos_are_found_in_depth_and_folders_of_frames_are_videos(tmp_path):
    for name in ("a.mp4", "deep/b.MOV", "deep/b.overlay.mp4", "clips/one/0.jpg", "clips/two/0.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_videos([tmp_path]).files
    assert [str(name) for _, name in found] == [
        f"{tmp_path.name}/{n}" for n in ("a", "clips/one", "clips/two", "deep/b")
    ]
    twice = [tmp_path / "clips" / "one"] * 2
    assert [str(name) for _, name in find_videos(twice).files] == ["one"]
    assert [str(name) for _, name in find_videos([f"{tmp_path}/*.mp4"]).files] == [f"{tmp_path.name}/a"]
    (tmp_path / "none").mkdir()
    with pytest.raises(VideoError, match="no video in"):
        find_videos([tmp_path / "none"])


def names_below(folder: Path) -> list[str]:
    return [str(name.relative_to(folder.name)) for _, name in find_videos([folder]).files]


def test_pictures_beside_videos_are_counted_and_left_out(tmp_path):
    for name in ("a.mp4", "b.mp4", "cover.jpg", "frames/0.jpg", "frames/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names_below(tmp_path) == ["a", "b", "frames"]
    assert find_videos([tmp_path]).passed_over == {".jpg": 1}


def test_what_cameras_and_phones_write_is_found(tmp_path):
    for name in ("a.3gp", "b.MTS", "c.mts", "frames/0.jfif", "frames/1.jpe"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names_below(tmp_path) == ["a", "b", "c", "frames"] and not find_videos([tmp_path]).passed_over


def test_frames_below_a_folder_of_frames_are_a_video_too(tmp_path):
    for name in ("clip/0.jpg", "clip/other/0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names_below(tmp_path) == ["clip", "clip/other"]


def test_folders_that_are_links_are_searched_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.mp4").write_bytes(b"")
    for name in ("self", "again"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "data")  # without memory: 2^40 folders
    for name in ("one", "two"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "store")
    assert [path.name for path, _ in find_videos([tmp_path / "data"]).files] == ["a.mp4"]


@pytest.mark.parametrize("name", ["²1.jpg", "1²3.jpg", "٣.jpg", "½.jpg"])
def test_numbers_of_other_kinds_in_a_name_are_letters(tmp_path, name):
    for one in (name, "2.jpg", "10.jpg"):
        Image.new("RGB", (20, 20)).save(tmp_path / one)
    names = [p.name for p in frames_of(tmp_path)]
    assert sorted(names) == sorted([name, "2.jpg", "10.jpg"]) and names.index("2.jpg") < names.index("10.jpg")


# The verb


def test_what_is_written_for_a_video(clip, tmp_path):
    out = tmp_path / "out"
    summary = track(find_videos([clip]), out, tracker(), Outputs(overlay=True, table="csv"))
    movie = f"clip.overlay{writable_suffix()}"
    assert sorted(p.name for p in out.iterdir()) == sorted(["clip.csv", "clip.jsonl", movie, "clip.summary.json"])
    frames = list(read_json_lines(out / "clip.jsonl"))
    assert [(frame.image, frame.frame) for frame in frames] == [("clip.gif", number) for number in range(5)]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16])
    assert [frame.ids.tolist() for frame in frames] == [[0], [0], [], [0], [0]]
    told = [None if frame.followed is None else frame.followed.tolist() for frame in frames]
    assert told == [[False], [True], None, [False], [True]]
    with open(out / "clip.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["frame"], r["id"]) for r in rows] == [
        ("clip.gif", "0", "0"), ("clip.gif", "1", "0"), ("clip.gif", "2", ""), ("clip.gif", "3", "0"),
        ("clip.gif", "4", "0"),
    ]  # fmt: skip
    assert {r["blink_left"] for r in rows} == {"0", ""}
    assert len(list(Video(out / movie))) == 5
    ((path, told),) = summary.clips
    assert path == clip.resolve()
    assert (told.frames, told.faces, told.people, told.without_face) == (5, 4, 1, 1)
    assert (told.reinitialisations, told.losses) == (1, 1)
    written = json.loads((out / "clip.summary.json").read_text())
    assert written["missing"] == 0 and written["problems"] == [] and written["source"]["path"] == str(clip)
    assert written["frames"] == 5 and written["faces_per_frame"] == 0.8 and written["fps"] > 0
    assert written["blinks"] == [] and "assumed" in written["camera"]["focal_length"]


def test_lines_read_back_are_what_the_tracker_said(clip, tmp_path):
    track(find_videos([clip]), tmp_path / "out", tracker())
    ours = tracker()
    read = list(read_json_lines(tmp_path / "out" / "clip.jsonl"))
    for frame, back in zip(Video(clip), read, strict=True):
        tracked = ours.step(frame.image)
        assert back.frame == frame.number and back.time == pytest.approx(frame.time)
        assert back.ids.tolist() == tracked.ids.tolist()
        np.testing.assert_allclose(back.faces.xyz, tracked.faces.xyz, atol=6e-4)


def test_smoothed_results_stand_beside_the_raw_ones(clip, tmp_path):
    track(find_videos([clip]), tmp_path, tracker(), Outputs(smooth=True, table="csv"))
    for ending in (".jsonl", ".csv"):
        raw, calm = (list(read_faces(tmp_path / f"clip{name}{ending}")) for name in ("", ".smooth"))
        changed = [not np.array_equal(a.faces.xyz, b.faces.xyz) for a, b in zip(raw, calm, strict=True)]
        assert changed == [True, True, False, True, True]  # the third frame has no face


def test_a_bad_video_does_not_stop_the_rest_and_leaves_nothing(clip, tmp_path):
    bad = tmp_path / "bad.gif"
    bad.write_bytes(clip.read_bytes()[:900])  # breaks while it is read: not one frame is whole
    out = tmp_path / "out"
    summary = track(find_videos([bad, clip]), out, tracker(), Outputs(overlay=True))
    assert [p.name for p, _ in summary.failures] == ["bad.gif"] and [p.name for p, _ in summary.clips] == ["clip.gif"]
    assert all(p.name.startswith("clip.") for p in out.iterdir())
    assert summary.failed


def test_resume_skips_what_is_done(clip, tmp_path):
    videos, out, seen = find_videos([clip]), tmp_path / "out", []
    track(videos, out, tracker(), progress=lambda *call: seen.append(call))
    assert seen[-1] == (clip, 5, 5)
    before = (out / "clip.jsonl").stat().st_mtime_ns
    again = track(videos, out, tracker(), resume=True)
    assert again.skipped == 1 and not again.clips and (out / "clip.jsonl").stat().st_mtime_ns == before


def broken(out: Path, clip: Path) -> None:
    (out / "clip.summary.json").write_text("{")


def of_other_weights(out: Path, clip: Path) -> None:
    text = (out / "clip.summary.json").read_text()
    (out / "clip.summary.json").write_text(text.replace(aligner().card.title, "other 1"))


def without_lines(out: Path, clip: Path) -> None:
    (out / "clip.jsonl").unlink()


def of_another_video(out: Path, clip: Path) -> None:
    clip.write_bytes(clip.read_bytes() + b"\0")


@pytest.mark.parametrize("change", [broken, of_other_weights, without_lines, of_another_video])
def test_resume_does_again_what_is_not_what_was_asked_for(clip, tmp_path, change):
    out = tmp_path / "out"
    track(find_videos([clip]), out, tracker())
    change(out, clip)
    again = track(find_videos([clip]), out, tracker(), resume=True)
    assert again.skipped == 0 and len(again.clips) == 1 and (out / "clip.jsonl").exists()
    assert track(find_videos([clip]), out, tracker(), resume=True).skipped == 1


def test_resume_writes_other_outputs_that_are_asked_for(clip, tmp_path):
    out = tmp_path / "out"
    track(find_videos([clip]), out, tracker())
    assert track(find_videos([clip]), out, tracker(), Outputs(table="csv"), resume=True).skipped == 0
    assert track(find_videos([clip]), out, tracker(), Outputs(table="csv"), resume=True).skipped == 1
    assert track(find_videos([clip]), out, tracker(), resume=True).skipped == 1  # more than enough
    track(find_videos([clip]), out, tracker())
    assert (out / "clip.csv").exists() and "clip.csv" in (out / "clip.summary.json").read_text()  # still true
    track(find_videos([clip]), out, tracker(), Outputs(columns="openface"))
    assert not (out / "clip.csv").exists()  # it holds other numbers than such a table would


def test_results_of_a_video_that_is_another_now_and_fails_are_removed(clip, tmp_path):
    out = tmp_path / "out"
    track(find_videos([clip]), out, tracker(), Outputs(table="csv"))
    clip.write_bytes(b"no video")
    assert track(find_videos([clip]), out, tracker()).failures
    assert list(out.iterdir()) == []


def test_resume_knows_a_folder_of_frames_by_its_pictures(tmp_path):
    (tmp_path / "f").mkdir()
    for k in range(2):
        Image.fromarray(picture(40 * k)).save(tmp_path / "f" / f"{k}.png")
    track(find_videos([tmp_path / "f"]), tmp_path / "out", tracker())
    assert track(find_videos([tmp_path / "f"]), tmp_path / "out", tracker(), resume=True).skipped == 1
    Image.fromarray(picture(80)).save(tmp_path / "f" / "1.png")
    assert track(find_videos([tmp_path / "f"]), tmp_path / "out", tracker(), resume=True).skipped == 0


def test_unfinished_files_of_a_killed_run_are_removed(clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / PART.format(1, "0123456789ab")).write_bytes(b"")
    track(find_videos([clip]), tmp_path / "out", tracker())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"clip.jsonl", "clip.summary.json"}


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
    result = CliRunner().invoke(app, ["track", str(clip), "--out", str(out), "--table", "csv", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {"clip.jsonl", "clip.csv", "clip.summary.json"}
    result = CliRunner().invoke(
        app, ["track", str(clip), str(bad), "--out", str(out), "--table", "csv", "--threads", "1"]
    )
    assert result.exit_code == 1  # something failed
    assert "clip.gif: 5 frames, 0.80 faces per frame, 1 person, 1 re-initialisation, 1 loss" in result.output
    assert "1 video, 1 failure" in result.output and "bad.mp4" in result.output
    assert {p.name for p in out.iterdir()} == {"clip.jsonl", "clip.csv", "clip.summary.json"}
    result = CliRunner().invoke(app, ["track", str(clip), str(bad), "--out", str(out), "--resume", "--allow-failures"])
    assert result.exit_code == 0 and "0 videos, 1 failure, 1 skipped" in result.output
    (tmp_path / "half").mkdir()
    for k in range(2):
        Image.fromarray(picture(40 * k)).save(tmp_path / "half" / f"{k}.png")
    (tmp_path / "half" / "1.png").write_bytes(b"no picture")
    result = CliRunner().invoke(app, ["track", str(tmp_path / "half"), "--out", str(out)])
    assert result.exit_code == 1 and "1 of 2 frames are missing: got the file" in result.output
    assert "half: 1 frame (1 missing), 0.00 faces per frame" in result.output
    result = CliRunner().invoke(app, ["track", str(tmp_path / "none*"), "--out", str(out)])
    assert result.exit_code == 2 and "no video in" in " ".join(result.output.split())


def test_a_photo_is_a_video_of_one_frame_only_inside_a_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    Image.open(PHOTO).save(tmp_path / "frames" / "0.png")
    summary = track(find_videos([tmp_path / "frames"]), tmp_path / "out", tracker())
    assert summary.clips[0][1].faces == 1
