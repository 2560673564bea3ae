"""Files, folders and patterns: what they hold, what the results of each file are called, and what cannot be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canthus.errors import ImageError, OutputError
from canthus.io.inputs import LONGEST, Found, Kind, Source, check_folder, counted, find, make_folder_of

KIND = Kind("photo", ImageError, lambda name: name.lower().endswith((".jpg", ".png")))
VIDEO = Kind("video", ImageError, lambda name: name.endswith(".mp4"), lambda names: "0.jpg" in names)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder that is the current one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def targets(found: Found) -> dict[str, str]:
    return {str(path): str(target) for path, target in found.files}


# Targets


def test_targets_of_files_folders_and_patterns(here):
    make("a.jpg", "h/b.jpg", "h/x/c.PNG", "h/y/c.jpg")
    assert targets(find(["a.jpg"], KIND)) == {"a.jpg": "a"}
    assert targets(find(["h/b.jpg"], KIND)) == {"h/b.jpg": "b"}
    below = {"h/b.jpg": "h/b", "h/x/c.PNG": "h/x/c", "h/y/c.jpg": "h/y/c"}
    for folder in ("h", "h/", "./h", Path("h")):
        assert targets(find([folder], KIND)) == below
    absolute = {str(here / path): target for path, target in below.items()}
    assert targets(find([here / "h"], KIND)) == absolute
    assert targets(find(["h/**"], KIND)) == targets(find(["h/**/*"], KIND)) == below
    assert targets(find(["h/*"], KIND)) == below  # a folder that matches is searched, as in a shell
    assert targets(find(["h/*/c.*"], KIND)) == {p: t for p, t in below.items() if "c" in p}
    assert targets(find(["h/[x]/*.PNG"], KIND)) == {"h/x/c.PNG": "h/x/c"}
    assert targets(find(["**/c.jpg"], KIND)) == {"h/y/c.jpg": "h/y/c"}
    assert targets(find(["*.jpg"], KIND)) == {"a.jpg": "a"}
    everything = {"a.jpg": "a"} | below
    assert targets(find(["."], KIND)) == everything
    os.chdir("h/x")
    assert targets(find([".."], KIND)) == {"../b.jpg": "h/b", "../x/c.PNG": "h/x/c", "../y/c.jpg": "h/y/c"}


def test_a_target_does_not_depend_on_the_other_inputs(here):
    make("A/p.jpg", "B/p.jpg", "C/p.jpg", "C/p.png")
    alone = {}
    for folder in "ABC":
        alone |= targets(find([folder], KIND))
    assert alone == {"A/p.jpg": "A/p", "B/p.jpg": "B/p", "C/p.jpg": "C/p.jpg", "C/p.png": "C/p.png"}
    assert targets(find(["A", "B", "C"], KIND)) == targets(find(["C", "A", "B"], KIND)) == alone
    assert targets(find(["C/p.png"], KIND)) == {"C/p.png": "p.png"}
    make("D/p.foo", "D/p.bar", "D/q.jpg", "D/q.foo")  # of no kind that folders are searched for, yet they may be photos
    assert targets(find(["D/p.foo"], KIND)) | targets(find(["D/p.bar"], KIND)) == {
        "D/p.foo": "p.foo",
        "D/p.bar": "p.bar",
    }
    assert targets(find(["D/q.foo", "D/q.jpg"], KIND)) == {"D/q.foo": "q.foo", "D/q.jpg": "q"}


def test_two_files_of_one_target_are_refused_and_one_file_given_twice_is_taken_once(here):
    make("A/p.jpg", "B/p.jpg", "x/A/p.jpg")
    with pytest.raises(ImageError, match="got 'A/p.jpg' and 'B/p.jpg', whose results would both be named 'p'"):
        find(["A/p.jpg", "B/p.jpg"], KIND)
    with pytest.raises(ImageError, match="both be named 'A/p'"):
        find(["A", "x/A"], KIND)
    same = ["A", "./A", here / "A", "A/*.jpg"]
    assert targets(find(same, KIND)) == {"A/p.jpg": "A/p"}


NAMES = ["a.jpg", "a.png", "A.jpg", "a.jpg.png", "a.0.jpg", "a.1.png", "a.0.1.jpg", "b.jpg", "a_jpg.png", "a-1.jpg"]


@given(st.sets(st.sampled_from(NAMES)), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_two_files_of_a_folder_write_to_one_name(tmp_path_factory, names, numbered):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).write_bytes(b"")
    if not names:
        return
    found = [str(target) for _, target in find([folder], KIND).files]
    endings = (".0.pts", ".1.pts", ".2.pts") if numbered else (".json", ".pts", ".overlay.png")
    written = [t + e for t in found for e in endings]
    if numbered:  # one photo has a single face, the others three
        written += [t + ".pts" for t in found]
    assert len(set(written)) == len(written)


def test_names_up_to_the_longest_that_the_file_system_takes_have_a_target_that_leaves_room(here):
    names = ["x" * 251 + ".jpg", "x" * 250 + "y.jpg", "ä" * 125 + ".jpg", "x" * LONGEST + ".jpg"]
    make(*names)
    found = targets(find(names, KIND))
    assert len(set(found.values())) == 4
    assert all(len(os.fsencode(target)) <= LONGEST for target in found.values())
    assert found[names[3]] == "x" * LONGEST
    assert targets(find(["."], KIND)) == found


def test_a_folder_that_is_one_video_has_a_target_of_its_own(here):
    make("v/one/0.jpg", "v/one/1.jpg", "v/two/c.mp4", "v/one.mp4")
    found = find(["v"], VIDEO)
    assert targets(found) == {"v/one.mp4": "v/one.mp4", "v/one": "v/one", "v/two/c.mp4": "v/two/c"}
    assert not found.passed_over  # the frames
    assert targets(find(["v/one"], VIDEO)) == {"v/one": "one"}
    os.chdir("v/one")
    assert targets(find(["."], VIDEO)) == {".": "one"}


# Links


def test_links_to_files_are_files_of_their_own(here):
    make("store/3f2a", "data/a.jpg")
    os.symlink("../store/3f2a", "data/alice.jpg")
    os.symlink("../store/3f2a", "data/bob.jpg")
    wanted = {"data/a.jpg": "data/a", "data/alice.jpg": "data/alice", "data/bob.jpg": "data/bob"}
    assert targets(find(["data"], KIND)) == targets(find(["data/*"], KIND)) == wanted


@pytest.mark.parametrize("given", ["data", "data/**", "data/*"])
def test_linked_folders_are_followed_once_and_loops_end(here, given):
    make("data/sub/a.jpg", "more/b.jpg")
    for name in ("self", "again"):
        os.symlink("../data", f"data/{name}")
    os.symlink("sub", "data/early")  # in the order of names before sub, which is no link
    os.symlink("../more", "data/more")
    wanted = {"data/sub/a.jpg": "data/sub/a", "data/more/b.jpg": "data/more/b"}
    if given == "data/*":  # matches the links, which are then searched each for itself
        assert wanted.items() <= targets(find([given], KIND)).items()
    else:
        assert targets(find([given], KIND)) == wanted


def test_broken_links_and_loops_of_links_are_left_to_the_reader_to_report(here):
    make("data/a.jpg")
    os.symlink("nowhere", "data/broken.jpg")
    os.symlink("loop.jpg", "data/loop.jpg")
    assert set(targets(find(["data"], KIND))) == {"data/a.jpg", "data/broken.jpg", "data/loop.jpg"}
    assert targets(find(["data/loop.jpg"], KIND)) == {"data/loop.jpg": "loop"}


# What is not taken


def test_what_is_passed_over_is_counted_by_suffix(here):
    make("h/a.jpg", "h/b.txt", "h/x/c.TXT", "h/x/d.heic", "h/README")
    found = find(["h"], KIND)
    assert found.passed_over == {".txt": 2, ".heic": 1, "": 1}
    assert counted(found.passed_over, {".heic": "a hint"}) == "2 .txt, 1 without a suffix, 1 .heic (a hint)"
    assert counted(found.passed_over, {}, most=1) == "2 .txt, 2 of other kinds"
    assert find(["h/*"], KIND).passed_over == find(["h/**"], KIND).passed_over == found.passed_over


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads every folder")
def test_an_unreadable_folder_is_named(here):
    make("h/a.jpg", "h/closed/b.jpg")
    os.chmod("h/closed", 0)
    try:
        found = find(["h"], KIND)
        assert targets(found) == {"h/a.jpg": "h/a"}
        assert found.failures == [(Path("h/closed"), "could not look into the folder: Permission denied")]
        assert find(["h/closed"], KIND).failures == found.failures
    finally:
        os.chmod("h/closed", 0o700)


def test_an_unreadable_folder_is_named_whoever_runs_this(here, monkeypatch):
    make("h/a.jpg", "h/closed/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if "closed" in path:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find(["h"], KIND)
    assert targets(found) == {"h/a.jpg": "h/a"}
    assert found.failures == [(Path("h/closed"), "could not look into the folder: Permission denied")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "empty path"),
        ("s3://bucket/photos", "address 's3://bucket/photos'"),
        ("rtsp://camera/1", "address 'rtsp://camera/1'"),
        ("empty", "no photo in 'empty'$"),
        ("texts", "no photo in 'texts', only 1 .txt"),
        ("*.jpg", "no photo in"),
        ("empty/**", "no photo in"),
        ("missing/..", "no photo in"),
    ],
)
def test_an_input_that_gives_nothing_is_one_sentence(here, given, message):
    make("texts/a.txt")
    Path("empty").mkdir()
    with pytest.raises(ImageError, match=message):
        find([given], KIND)


@pytest.mark.parametrize(("given", "message"), [("", "empty name"), ("s3://bucket/x", "address 's3://bucket/x'")])
def test_output_folders_that_cannot_be(given, message):
    with pytest.raises(OutputError, match=message):
        check_folder(given)
    assert check_folder("out/x") == Path("out/x")


def test_a_place_where_no_output_folder_can_be_made_is_told_before_any_work(here, monkeypatch):
    make("file")
    Path("there").mkdir()
    for place in ("file", "file/sub/out"):
        with pytest.raises(OutputError, match=f"got '{place}' for the output folder, but 'file' is no folder"):
            check_folder(place)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match="which you may not make in 'there'"):
        check_folder("there/new/out")
    assert check_folder("there") == Path("there")  # folders below it may be writable
    with pytest.raises(OutputError, match="could not write into the folder 'there': Permission denied"):
        make_folder_of(Path("there/a"))
    assert list(Path("there").iterdir()) == []


def test_a_folder_that_cannot_be_made_says_why(here, monkeypatch):
    make("file")
    with pytest.raises(OutputError, match="could not make the folder 'file/sub': Not a directory"):
        make_folder_of(Path("file/sub/a"))

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="could not make the folder 'out': Permission denied"):
        make_folder_of(Path("out/a"))


def test_a_source_tells_contents(here):
    Path("a").write_bytes(b"abc")
    # SHA-256 of "abc": FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Source.of(Path("a")) == ("a", 3, digest)


def test_time_grows_with_the_number_of_files_not_with_its_square(here):
    def seconds(names: list[str]) -> float:
        start = time.process_time()
        assert len(find(["many"], KIND).files) == len(names)
        return time.process_time() - start

    few = [f"many/{k}.jpg" for k in range(300)]
    make(*few)
    first = min(seconds(few) for _ in range(3))
    more = [f"many/{k}.jpg" for k in range(2400)]
    make(*more)
    assert min(seconds(more) for _ in range(3)) < 24 * first  # 8 times as many files; the square would be 64 times
