"""The main verb: which photos are taken, what is written, and what bad files, kills and full disks do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import PHOTO, aligner, photo, resized
from PIL import Image

import canthus.commands.photos
from canthus.commands.photos import CHUNK, Outputs, Summary, align, find_images
from canthus.errors import ImageError
from canthus.io.inputs import apart
from canthus.io.outputs import read_json

JSON_ONLY = Outputs(overlay=False)


def face() -> Image.Image:
    """The astronaut's face alone, 95 px: quick to align."""
    return Image.fromarray(resized(photo()[40:230, 130:320], 95, 95))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder for photos, beside which there is room for results."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        face().save(path)


def files(out: Path) -> set[str]:
    """All files below `out`, hidden ones too."""
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}


def names(found: list[tuple[Path, Path]]) -> list[str]:
    return [str(name) for _, name in found]


def run(inputs, out: Path, *args, **options) -> Summary:
    return align(find_images(inputs), out, aligner(), *args, **options)


# Which photos


def test_a_file_is_taken_by_its_stem(folder):
    save(folder / "a.jpg")
    assert find_images([folder / "a.jpg"]) == find_images([str(folder / "a.jpg")]) == [(folder / "a.jpg", Path("a"))]


def test_a_missing_file_is_left_to_align_to_report(folder):
    assert find_images([folder / "nothing.jpg"]) == [(folder / "nothing.jpg", Path("nothing"))]


def test_a_folder_is_searched_in_depth(folder):
    save(folder / "b.PNG", folder / "a.jpg", folder / "sub" / "deep" / "a.jpeg")
    (folder / "notes.txt").write_text("no photo")
    (folder / "folder.jpg").mkdir()
    found = find_images([folder])
    assert names(found) == ["a", "b", "sub/deep/a"]
    assert [p.name for p, _ in found] == ["a.jpg", "b.PNG", "a.jpeg"]


def test_a_pattern(folder):
    save(folder / "a.jpg", folder / "b.jpg", folder / "c.png", folder / "sub" / "d.jpg")
    (folder / "e.txt").write_text("no photo")
    assert names(find_images([f"{folder}/*.jpg"])) == ["a", "b"]
    assert names(find_images([f"{folder}/?.*"])) == ["a", "b", "c"]
    assert names(find_images([f"{folder}/**/*.jpg"])) == ["a", "b", "d"]


def test_a_name_that_looks_like_a_pattern_is_a_name_if_the_file_is_there(folder):
    save(folder / "a[1].jpg", folder / "a1.jpg")
    assert find_images([folder / "a[1].jpg"]) == [(folder / "a[1].jpg", Path("a[1]"))]


def test_a_photo_named_twice_is_taken_once(folder, monkeypatch):
    save(folder / "a.jpg", folder / "b.jpg")
    (folder / "link.jpg").symlink_to(folder / "a.jpg")
    monkeypatch.chdir(folder)
    found = find_images(["a.jpg", folder / "a.jpg", folder, f"{folder}/*.jpg", "../photos/b.jpg"])
    assert names(found) == ["a", "b"]


@pytest.mark.parametrize("given", ["empty", "*.jpg", "empty/**"])
def test_an_input_without_photos_is_refused(folder, monkeypatch, given):
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ImageError, match="no photo in"):
        find_images([given])


def test_photos_of_one_stem_get_names_of_their_own(folder):
    one, two, other = folder / "a.jpg", folder / "a.png", folder / "x" / "a.jpg"
    save(one, two, other)
    assert names(find_images([folder])) == ["a_jpg", "a_png", "x/a"]
    found = find_images([one, two, other])  # all would be "a"
    assert len(set(names(found))) == 3
    assert names(find_images([one, two, other])) == names(found)  # and the same another time


@given(st.lists(st.sampled_from(["a.jpg", "a.png", "a_jpg.png", "a-1.jpg", "a_jpg-1.png", "s/a.jpg", "a.b.jpg"])))
@settings(max_examples=100, deadline=None)
def test_no_two_photos_share_a_name(given):
    found = {Path(f"/{k}") / name: Path(name) for k, name in enumerate(given)}
    targets = [target for _, target in apart(found)]
    assert len(set(targets)) == len(given)
    assert [t.parent for t in targets] == [Path(name).parent for name in given]


def test_overlays_are_not_taken_for_photos(folder):
    save(folder / "a.jpg")
    first = run([folder], folder / "out")
    assert "a.overlay.png" in files(folder / "out")
    again = run([folder], folder / "out", resume=True)
    assert (first.files, again.files, again.skipped) == (1, 0, 1)
    assert names(find_images([folder])) == names(find_images([f"{folder}/**"])) == ["a"]


# What is written


ALL = Outputs(overlay=True, pts=True, csv=True, mesh="obj")


@pytest.mark.parametrize(
    ("outputs", "endings"),
    [
        (Outputs(), {"json", "overlay.png"}),
        (JSON_ONLY, {"json"}),
        (Outputs(overlay=False, pts=True), {"json", "pts"}),
        (Outputs(overlay=False, csv=True), {"json", "csv"}),
        (Outputs(overlay=False, mesh="ply"), {"json", "ply"}),
        (Outputs(overlay=False, mesh="glb"), {"json", "glb"}),
        (ALL, {"json", "overlay.png", "pts", "csv", "obj"}),
    ],
)
def test_outputs(folder, tmp_path, outputs, endings):
    save(folder / "sub" / "a.png")
    summary = run([folder], tmp_path / "out", outputs)
    assert files(tmp_path / "out") == {f"sub/a.{ending}" for ending in endings}
    assert all(path.stat().st_size > 0 for path in (tmp_path / "out" / "sub").iterdir())
    assert (summary.files, summary.faces, summary.failures) == (1, 1, [])


def test_the_json_holds_what_predict_gives(tmp_path):
    run([PHOTO], tmp_path, JSON_ONLY)
    faces, wanted = read_json(tmp_path / "astronaut.json"), aligner().predict(PHOTO)
    np.testing.assert_allclose(faces.xyz, wanted.xyz, atol=2e-3)
    document = json.loads((tmp_path / "astronaut.json").read_text())
    assert document["image"] == {"name": "astronaut.jpg", "width": 512, "height": 512}
    assert document["weights"] == aligner().card.title
    assert len(document["faces"][0]["identity"]) > 0  # the coefficients of the mesh are there without --mesh too


def test_the_overlay_is_drawn_on_the_photo(folder, tmp_path):
    save(folder / "a.png")
    run([folder], tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.overlay.png") as image:
        overlay = np.asarray(image.convert("RGB"))
    plain = np.asarray(face())
    assert overlay.shape == plain.shape
    assert 0.02 < (overlay != plain).any(2).mean() < 0.9


def test_files_of_several_faces_are_numbered(folder, tmp_path):
    Image.fromarray(np.concatenate([photo()[40:230, 130:320]] * 2, 1)).save(folder / "two.png")
    summary = run([folder], tmp_path / "out", ALL)
    assert (summary.files, summary.faces) == (1, 2)
    assert files(tmp_path / "out") == {
        f"two.{end}" for end in ("json", "overlay.png", "csv", "0.pts", "1.pts", "0.obj", "1.obj")
    }


def test_a_photo_without_a_face_gives_an_empty_answer(folder, tmp_path):
    Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / "wall.png")
    summary = run([folder], tmp_path / "out", ALL)
    assert (summary.files, summary.faces, summary.failures, summary.failed) == (1, 0, [], False)
    assert files(tmp_path / "out") == {"wall.json", "wall.overlay.png", "wall.csv"}
    assert len(read_json(tmp_path / "out" / "wall.json")) == 0


# What goes wrong


def bad_files(folder: Path) -> set[str]:
    whole = PHOTO.read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("I am no picture.")
    (folder / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    return {"cut.jpg", "text.png", "empty.jpg", "dot.png"}


def test_bad_files_never_stop_the_rest(folder, tmp_path):
    bad = bad_files(folder)
    save(folder / "a.jpg", folder / "m.jpg", folder / "z.jpg")
    summary = run([folder, folder / "gone.jpg"], tmp_path / "out", JSON_ONLY)
    assert files(tmp_path / "out") == {"a.json", "m.json", "z.json"}
    assert {photo.name for photo, _ in summary.failures} == bad | {"gone.jpg"}
    assert all(photo.name in reason for photo, reason in summary.failures if photo.name != "dot.png")
    assert (summary.files, summary.faces, summary.skipped, summary.failed) == (3, 3, 0, False)


def test_nothing_but_bad_files(folder, tmp_path):
    bad = bad_files(folder)
    summary = run([folder], tmp_path / "out")
    assert (summary.files, summary.faces, len(summary.failures), summary.failed) == (0, 0, len(bad), True)
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_file_system_takes(tmp_path):
    for resume in (False, True):
        summary = run(["x" * 300 + ".jpg"], tmp_path, resume=resume)
        assert len(summary.failures) == 1 and summary.failed


def test_an_output_folder_that_cannot_be(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg")
    (tmp_path / "out").write_text("a file in place of the folder")
    summary = run([folder], tmp_path / "out")
    assert summary.failed and [photo.name for photo, _ in summary.failures] == ["a.jpg", "b.jpg"]
    assert all("could not write" in reason for _, reason in summary.failures)
    assert (tmp_path / "out").read_text() == "a file in place of the folder"


def test_one_output_that_cannot_be_written_never_stops_the_rest(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg", folder / "sub" / "c.jpg")
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    (tmp_path / "out" / "sub").write_text("a file in place of a folder")
    summary = run([folder], tmp_path / "out", JSON_ONLY)
    assert [photo.name for photo, _ in summary.failures] == ["a.jpg", "c.jpg"]
    assert (summary.files, summary.failed) == (1, False)
    assert files(tmp_path / "out") == {"b.json", "sub"}  # and no part of a file


# Resuming


def test_resume_skips_what_is_done(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg")
    out = tmp_path / "out"
    run([folder / "a.jpg"], out)
    (out / "a.json").write_text("left alone")
    summary = run([folder], out, resume=True)
    assert (summary.files, summary.faces, summary.skipped, summary.failed) == (1, 1, 1, False)
    assert (out / "a.json").read_text() == "left alone"
    done = run([folder], out, resume=True)
    assert (done.files, done.skipped, done.failed) == (0, 2, False)
    anew = run([folder], out)
    assert (anew.files, anew.skipped) == (2, 0)
    assert len(read_json(out / "a.json")) == 1


def test_progress_counts_up(folder, tmp_path):
    save(*(folder / f"{k:02}.png" for k in range(CHUNK + 3)))
    (folder / "00.png").write_bytes(b"")
    seen = []
    summary = run([folder], tmp_path, JSON_ONLY, progress=lambda s: seen.append((s.files, s.faces, len(s.failures))))
    assert seen == [(CHUNK - 1, CHUNK - 1, 1), (CHUNK + 2, CHUNK + 2, 1)]
    assert summary.seconds > 0


def test_a_kill_between_chunks_leaves_whole_files_and_resume_does_the_rest(folder, tmp_path):
    count, out = 2 * CHUNK + 3, tmp_path / "out"
    save(*(folder / f"{k:02}.png" for k in range(count)))

    def kill(summary):
        if summary.files == 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([folder], out, Outputs(overlay=False, pts=True), progress=kill)
    assert files(out) == {f"{k:02}.{end}" for k in range(2 * CHUNK) for end in ("json", "pts")}
    assert all(len(read_json(path)) == 1 for path in out.glob("*.json"))
    summary = run([folder], out, Outputs(overlay=False, pts=True), resume=True)
    assert (summary.files, summary.skipped) == (3, 2 * CHUNK)
    assert files(out) == {f"{k:02}.{end}" for k in range(count) for end in ("json", "pts")}


def test_a_kill_within_a_photo_leaves_no_json_of_it(folder, tmp_path, monkeypatch):
    save(folder / "a.png", folder / "b.png", folder / "c.png")
    out, write = tmp_path / "out", canthus.commands.photos.write_pts

    def killed_at_b(path, faces, number):
        if path.name == "b.pts":
            raise KeyboardInterrupt
        write(path, faces, number)

    monkeypatch.setattr(canthus.commands.photos, "write_pts", killed_at_b)
    with pytest.raises(KeyboardInterrupt):
        run([folder], out, Outputs(pts=True))
    assert files(out) == {"a.json", "a.pts", "a.overlay.png", "b.overlay.png"}  # JSON comes last
    monkeypatch.undo()
    summary = run([folder], out, Outputs(pts=True), resume=True)
    assert (summary.files, summary.skipped) == (2, 1)
    assert files(out) == {f"{stem}.{end}" for stem in "abc" for end in ("json", "pts", "overlay.png")}
