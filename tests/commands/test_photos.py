"""The main verb: which photos are taken, what is written, and what bad files, kills and full disks do."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import PHOTO, aligner, photo, resized
from PIL import Image, features

import canthus
import canthus.commands.photos
from canthus.commands.photos import Outputs, Summary, align, find_images
from canthus.errors import ImageError, pip_install
from canthus.face.faces import Faces
from canthus.inference.lanes import CHUNK, Lanes
from canthus.io.images import HEIF
from canthus.io.inputs import Found, counted
from canthus.io.outputs import PART, read_json, write_json

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


def names(found: Found) -> list[str]:
    return [str(target) for _, target in found.files]


def run(inputs, out: Path, *args, **options) -> Summary:
    return align(find_images(inputs), out, Lanes(aligner()), *args, **options)


# Which photos


def test_photos_are_what_pillow_reads(folder):
    taken = ["a.jpg", "b.JPEG", "c.jfif", "d.jpe", "e.webp", "f.tiff", "g.bmp", "h.gif", "i.jp2", "j.ppm"]
    if features.check("avif"):
        taken.append("k.avif")
    left = ["l.txt", "m.eps", "n.mpg", "o.h5", "p.svg", "q"]  # Pillow knows of .eps, .mpg and .h5, and decodes none
    for name in taken + left:
        (folder / name).write_bytes(b"")
    found = find_images([folder])
    assert names(found) == [f"photos/{Path(name).stem}" for name in taken]
    assert found.passed_over == {".txt": 1, ".eps": 1, ".mpg": 1, ".h5": 1, ".svg": 1, "": 1}


@pytest.mark.parametrize("installed", [False, True])
def test_heic_needs_its_reader_and_is_counted_without(folder, monkeypatch, installed):
    def reads(suffix):
        return suffix == ".jpg" or (installed and suffix in HEIF)

    monkeypatch.setattr(canthus.commands.photos, "can_read", reads)
    for name in ("a.jpg", "b.heic", "c.HEIC"):
        (folder / name).write_bytes(b"")
    found = find_images([folder])
    assert len(found.files) == (3 if installed else 1)
    assert counted(found.passed_over, found.hints) == ("" if installed else f"2 .heic ({pip_install('heic')})")


def test_overlays_are_not_taken_for_photos(folder):
    save(folder / "a.jpg")
    first = run([folder], folder)
    assert "photos/a.overlay.png" in files(folder)
    again = run([folder], folder, resume=True)
    assert (first.files, again.files, again.skipped) == (1, 0, 1)
    assert again.passed_over == {".json": 1, ".png": 1}
    assert names(find_images([folder])) == names(find_images([f"{folder}/**"])) == ["photos/a"]


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
    assert files(tmp_path / "out") == {f"photos/sub/a.{ending}" for ending in endings}
    assert all(path.stat().st_size > 0 for path in (tmp_path / "out" / "photos" / "sub").iterdir())
    assert (summary.files, summary.faces, summary.failures) == (1, 1, [])


def test_the_json_holds_what_predict_gives(tmp_path):
    run([PHOTO], tmp_path, JSON_ONLY)
    faces, wanted = read_json(tmp_path / "astronaut.json"), aligner().predict(PHOTO)
    np.testing.assert_allclose(faces.xyz, wanted.xyz, atol=2e-3)
    document = json.loads((tmp_path / "astronaut.json").read_text())
    data = PHOTO.read_bytes()
    assert document["image"] == {
        "name": "astronaut.jpg",
        "path": str(PHOTO),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 512,
        "height": 512,
    }
    assert document["files"] == []
    assert document["weights"] == aligner().card.title


@pytest.mark.parametrize(
    ("outputs", "fitted"),
    [(Outputs(False), False), (Outputs(False, expressions=True), True), (Outputs(False, mesh="ply"), True)],
)
def test_a_head_is_fitted_only_where_an_output_needs_it(folder, tmp_path, monkeypatch, outputs, fitted):
    fits, mesh = [], Faces.mesh
    monkeypatch.setattr(Faces, "mesh", lambda faces: fits.append(1) or mesh(faces))
    save(folder / "a.png")
    run([folder / "a.png"], tmp_path, outputs)
    (record,) = json.loads((tmp_path / "a.json").read_text())["faces"]
    assert bool(fits) == fitted == ("identity" in record)
    assert "expression" in record or not fitted


def test_two_links_to_one_photo_each_have_results_under_their_own_names(folder, tmp_path):
    save(tmp_path / "store.png")
    for name in ("alice.png", "bob.png"):
        (folder / name).symlink_to("../store.png")
    run([folder], tmp_path / "out", JSON_ONLY)
    assert files(tmp_path / "out") == {"photos/alice.json", "photos/bob.json"}
    image = json.loads((tmp_path / "out" / "photos" / "bob.json").read_text())["image"]
    assert (image["name"], image["path"]) == ("bob.png", str(folder / "bob.png"))


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_photo_is_read_reduced_and_answered_in_pixels_of_the_whole(
    folder, tmp_path, monkeypatch, kind, orientation
):
    size = (1001, 1003)  # odd, so that the last pixel of a reduced row stands for one instead of two
    large = Image.fromarray(resized(photo(), *size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: large, 3: large.rotate(180), 6: large.transpose(Image.Transpose.ROTATE_90)}[orientation]
    turned.save(folder / f"a.{kind}", quality=95, exif=exif)
    wanted = aligner().predict(folder / f"a.{kind}")[:1]
    monkeypatch.setattr(canthus.commands.photos, "PHOTO_PIXELS", 600 * 600)
    run([folder / f"a.{kind}"], tmp_path, Outputs(pts=True))
    faces, document = read_json(tmp_path / "a.json")[:1], json.loads((tmp_path / "a.json").read_text())
    assert faces.image_size == size and document["image"]["reduction"] == 2
    face_size = float(wanted.sizes[0])  # 185 px
    assert np.abs(faces.xyz - wanted.xyz).mean() < 0.01 * face_size
    assert np.abs((faces.xyz - wanted.xyz).mean((0, 1))).max() < 0.6  # no shift: half a reduced pixel would be 1 px
    np.testing.assert_allclose(faces.sigma.mean(), wanted.sigma.mean(), rtol=0.2)
    with Image.open(tmp_path / "a.overlay.png") as drawn:
        assert drawn.size == (501, 502)
    points = np.loadtxt((tmp_path / "a.pts").read_text().splitlines()[3:-1])
    np.testing.assert_allclose(points, faces.xy[0] + 1, atol=2e-3)


def test_photos_in_memory_are_bounded_and_lanes_write_the_same_files(folder, tmp_path, monkeypatch):
    save(*(folder / f"{k:02}.png" for k in range(2 * CHUNK)))
    most, many = [], type(aligner()).predict_many

    def counted(self, pictures, boxes=None):
        most.append(len(pictures))
        return many(self, pictures, boxes)

    monkeypatch.setattr(type(aligner()), "predict_many", counted)
    run([folder], tmp_path / "one", JSON_ONLY)
    assert set(most) == {CHUNK}
    most.clear()
    with Lanes(aligner(), 2) as lanes:
        lanes.share = 2 * 95 * 95 * 7  # of a PNG: 4 bytes a pixel for Pillow, 3 for us
        summary = align(find_images([folder]), tmp_path / "two", lanes, JSON_ONLY)
        assert set(most) == {2} and summary.files == 2 * CHUNK
        lanes.share = 1
        most.clear()
        align(find_images([folder]), tmp_path / "three", lanes, JSON_ONLY)
        assert set(most) == {1}
    for name in files(tmp_path / "one"):
        one, two = (read_json(tmp_path / out / name) for out in ("one", "two"))
        np.testing.assert_allclose(one.xyz, two.xyz, atol=2e-3)


def test_the_overlay_is_drawn_on_the_photo(folder, tmp_path):
    save(folder / "a.png")
    run([folder], tmp_path / "out")
    with Image.open(tmp_path / "out" / "photos" / "a.overlay.png") as image:
        overlay = np.asarray(image.convert("RGB"))
    plain = np.asarray(face())
    assert overlay.shape == plain.shape
    assert 0.02 < (overlay != plain).any(2).mean() < 0.9


def test_files_of_several_faces_are_numbered(folder, tmp_path):
    Image.fromarray(np.concatenate([photo()[40:230, 130:320]] * 2, 1)).save(folder / "two.png")
    summary = run([folder], tmp_path / "out", ALL)
    assert (summary.files, summary.faces) == (1, 2)
    assert files(tmp_path / "out") == {
        f"photos/two.{end}" for end in ("json", "overlay.png", "csv", "0.pts", "1.pts", "0.obj", "1.obj")
    }


def test_a_photo_without_a_face_gives_an_empty_answer(folder, tmp_path):
    Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / "wall.png")
    summary = run([folder], tmp_path / "out", ALL)
    assert (summary.files, summary.faces, summary.failures) == (1, 0, [])
    assert files(tmp_path / "out") == {"photos/wall.json", "photos/wall.overlay.png", "photos/wall.csv"}
    assert len(read_json(tmp_path / "out" / "photos" / "wall.json")) == 0


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
    assert files(tmp_path / "out") == {"photos/a.json", "photos/m.json", "photos/z.json"}
    assert {photo.name for photo, _ in summary.failures} == bad | {"gone.jpg"}
    assert all(photo.name in reason for photo, reason in summary.failures if photo.name != "dot.png")
    assert (summary.files, summary.faces, summary.skipped) == (3, 3, 0)
    again = run([folder], tmp_path / "out", JSON_ONLY, resume=True)
    assert {photo.name for photo, _ in again.failures} == bad  # known ones are reported again
    assert (again.files, again.skipped) == (0, 3)


def test_nothing_but_bad_files(folder, tmp_path):
    bad = bad_files(folder)
    summary = run([folder], tmp_path / "out")
    assert (summary.files, summary.faces, len(summary.failures)) == (0, 0, len(bad))
    assert not (tmp_path / "out").exists()


def test_names_as_long_as_the_file_system_takes(folder, tmp_path):
    name = "x" * 251 + ".png"
    save(folder / name)
    summary = run([folder / name], tmp_path / "out", ALL)
    assert (summary.files, summary.failures) == (1, [])
    (target,) = {path.split(".")[0] for path in files(tmp_path / "out")}
    assert json.loads((tmp_path / "out" / f"{target}.json").read_text())["image"]["name"] == name


def test_a_name_that_no_file_system_takes(tmp_path):
    for resume in (False, True):
        summary = run(["x" * 300 + ".jpg"], tmp_path, resume=resume)
        assert len(summary.failures) == 1 and "File name too long" in summary.failures[0][1]


def test_an_output_folder_that_cannot_be(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg")
    (tmp_path / "out").write_text("a file in place of the folder")
    summary = run([folder], tmp_path / "out")
    assert [photo.name for photo, _ in summary.failures] == ["a.jpg", "b.jpg"]
    assert all("could not make the folder" in reason for _, reason in summary.failures)
    assert (tmp_path / "out").read_text() == "a file in place of the folder"


def test_one_output_that_cannot_be_written_never_stops_the_rest(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg", folder / "sub" / "c.jpg")
    (tmp_path / "out" / "photos" / "a.json").mkdir(parents=True)
    (tmp_path / "out" / "photos" / "sub").write_text("a file in place of a folder")
    summary = run([folder], tmp_path / "out", JSON_ONLY)
    assert {photo.name for photo, _ in summary.failures} == {"a.jpg", "c.jpg"}
    assert summary.files == 1
    assert files(tmp_path / "out") == {"photos/b.json", "photos/sub"}  # and no part of a file


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_whole_files_only_and_names_what_is_missing(folder, tmp_path):
    save(folder / "a.png", folder / "b.png")
    code = f"""
import resource, signal
from canthus.commands.photos import *
import canthus
aligner = canthus.load(threads=1)
aligner.predict({str(folder / "a.png")!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
outputs = Outputs(overlay=False, csv=True, mesh="obj")
summary = align(find_images([{str(folder)!r}]), Path({str(tmp_path / "out")!r}), Lanes(aligner), outputs)
print(summary.files, [reason for _, reason in summary.failures])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("0 [") and result.stdout.count("a.obj': File too large") == 1
    assert files(tmp_path / "out") == set()  # the mesh comes first; no table, no JSON, no part of a mesh


# Resuming


def test_resume_skips_what_is_done(folder, tmp_path):
    save(folder / "a.jpg", folder / "b.jpg")
    out = tmp_path / "out"
    run([folder / "a.jpg"], out)
    before = (out / "a.json").stat().st_mtime_ns
    summary = run([folder / "a.jpg", folder / "b.jpg"], out, resume=True)
    assert (summary.files, summary.faces, summary.skipped) == (1, 1, 1)
    assert (out / "a.json").stat().st_mtime_ns == before
    done = run([f"{folder}/a.jpg", f"{folder}/b.jpg"], out, resume=True)
    assert (done.files, done.skipped) == (0, 2)
    anew = run([folder / "a.jpg", folder / "b.jpg"], out)
    assert (anew.files, anew.skipped) == (2, 0)


def test_results_of_another_folder_never_count_as_done(tmp_path):
    for name in "ABC":
        save(tmp_path / name / "p.jpg")
    run([tmp_path / "A", tmp_path / "B", tmp_path / "C"], tmp_path / "out", JSON_ONLY)
    (tmp_path / "out" / "B" / "p.json").unlink()
    summary = run([tmp_path / "B", tmp_path / "C"], tmp_path / "out", JSON_ONLY, resume=True)
    assert (summary.files, summary.skipped) == (1, 1)
    for name in "ABC":
        image = json.loads((tmp_path / "out" / name / "p.json").read_text())["image"]
        assert image["path"] == str(tmp_path / name / "p.jpg")


def other_photo(path: Path) -> None:
    """Another photo under the same name, of the same length and with the same first 64 kB."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def other_weights(json_file: Path) -> None:
    document = json.loads(json_file.read_text())
    json_file.write_text(json.dumps({**document, "weights": "swift 0.0.1"}))


CHANGES = {
    "another photo": lambda photo, out: other_photo(photo),
    "other weights": lambda photo, out: other_weights(out / "a.json"),
    "empty JSON": lambda photo, out: (out / "a.json").write_bytes(b""),
    "cut JSON": lambda photo, out: (out / "a.json").write_bytes((out / "a.json").read_bytes()[:999]),
    "other JSON": lambda photo, out: (out / "a.json").write_text("[1]"),
    "JSON of version 0.1.0": lambda photo, out: write_json(out / "a.json", read_json(out / "a.json"), image="a.bmp"),
    "no overlay": lambda photo, out: (out / "a.overlay.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_redoes_what_is_stale_or_broken(folder, tmp_path, change):
    face().save(folder / "a.bmp")
    run([folder / "a.bmp"], tmp_path)
    CHANGES[change](folder / "a.bmp", tmp_path)
    summary = run([folder / "a.bmp"], tmp_path, resume=True)
    assert (summary.files, summary.skipped) == (1, 0)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["image"]["sha256"] == hashlib.sha256((folder / "a.bmp").read_bytes()).hexdigest()
    assert document["weights"] == aligner().card.title and (tmp_path / "a.overlay.png").exists()
    assert run([folder / "a.bmp"], tmp_path, resume=True).skipped == 1


def test_files_of_another_scheme_do_not_count_as_done(folder, tmp_path):
    save(folder / "a.png")
    run([folder / "a.png"], tmp_path, Outputs(False, pts=True, scheme="wflw98"))
    run([folder / "a.png"], tmp_path, JSON_ONLY)
    assert not (tmp_path / "a.pts").exists()
    assert run([folder / "a.png"], tmp_path, Outputs(False, pts=True), resume=True).files == 1
    assert "n_points:  68" in (tmp_path / "a.pts").read_text()


def test_results_of_another_min_face_do_not_count_as_done(folder, tmp_path):
    save(folder / "a.png")
    strict = canthus.load(threads=1, min_face=90)
    align(find_images([folder / "a.png"]), tmp_path, Lanes(strict), JSON_ONLY)
    assert json.loads((tmp_path / "a.json").read_text())["min_face"] == 90
    assert run([folder / "a.png"], tmp_path, JSON_ONLY, resume=True).files == 1
    assert "min_face" not in json.loads((tmp_path / "a.json").read_text())
    assert run([folder / "a.png"], tmp_path, JSON_ONLY, resume=True).skipped == 1


def test_resume_does_what_was_not_asked_for_before_and_keeps_the_rest(folder, tmp_path):
    save(folder / "a.png")
    for wanted in (JSON_ONLY, Outputs(False, csv=True), Outputs(False, pts=True), Outputs(False, expressions=True)):
        assert run([folder / "a.png"], tmp_path, wanted, resume=True).files == 1
        assert run([folder / "a.png"], tmp_path, wanted, resume=True).skipped == 1
    assert files(tmp_path) == {"photos/a.png", "a.json", "a.csv", "a.pts"}
    assert run([folder / "a.png"], tmp_path, Outputs(False, True, True, None, True), resume=True).skipped == 1


def test_other_results_of_another_photo_or_weights_are_removed_when_the_json_is_replaced(folder, tmp_path):
    save(folder / "a.png")
    for change in (lambda: other_weights(tmp_path / "a.json"), lambda: face().rotate(5).save(folder / "a.png")):
        run([folder / "a.png"], tmp_path, Outputs(True, pts=True, csv=True))
        change()
        run([folder / "a.png"], tmp_path, Outputs(False, csv=True))
        assert files(tmp_path) == {"photos/a.png", "a.json", "a.csv"}


def test_results_of_a_photo_that_fails_by_now_are_removed(folder, tmp_path):
    save(folder / "a.png", folder / "b.png")
    inputs = [folder / "a.png", folder / "b.png"]
    run(inputs, tmp_path, Outputs(pts=True))
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "b.png").unlink()  # it may come back: its results are true of what was there
    for resume in (True, False):
        summary = run(inputs, tmp_path, resume=resume)
        assert [path.name for path, _ in summary.failures] == ["a.png", "b.png"]
        assert files(tmp_path) == {"photos/a.png", "b.json", "b.pts", "b.overlay.png"}


def test_a_json_that_names_files_elsewhere_removes_none_of_them(folder, tmp_path):
    save(folder / "a.png")
    (tmp_path / "precious.txt").write_text("")
    run([folder / "a.png"], tmp_path / "out")
    path = tmp_path / "out" / "a.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "weights": "x", "files": ["../precious.txt", "a./../../precious.txt", 3]}))
    assert run([folder / "a.png"], tmp_path / "out", resume=True).files == 1
    assert (tmp_path / "precious.txt").exists()


def test_unfinished_files_of_killed_runs_are_removed(folder, tmp_path):
    save(folder / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / PART.format(12345, "abc")).write_bytes(b"half a file")
    (tmp_path / "out" / "mine.part").write_bytes(b"")
    run([folder / "a.png"], tmp_path / "out", JSON_ONLY)
    assert files(tmp_path / "out") == {"a.json", "mine.part"}


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
    assert files(out / "photos") == {f"{k:02}.{end}" for k in range(2 * CHUNK) for end in ("json", "pts")}
    assert all(len(read_json(path)) == 1 for path in (out / "photos").glob("*.json"))
    summary = run([folder], out, Outputs(overlay=False, pts=True), resume=True)
    assert (summary.files, summary.skipped) == (3, 2 * CHUNK)
    assert files(out / "photos") == {f"{k:02}.{end}" for k in range(count) for end in ("json", "pts")}


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
    assert files(out / "photos") == {"a.json", "a.pts", "a.overlay.png", "b.overlay.png"}  # JSON comes last
    monkeypatch.undo()
    summary = run([folder], out, Outputs(pts=True), resume=True)
    assert (summary.files, summary.skipped) == (2, 1)
    assert files(out / "photos") == {f"{stem}.{end}" for stem in "abc" for end in ("json", "pts", "overlay.png")}


@pytest.mark.parametrize("given", ["s3://bucket/photos", "https://host/a.jpg", "list.txt", "list.parquet", "a/0.tar"])
def test_what_only_tables_are_made_of_is_told_by_a_sentence(given):
    with pytest.raises(ImageError, match="want --format parquet or csv for addresses, lists and archives"):
        find_images([PHOTO, given])


def test_a_file_of_another_scheme_is_written_anew(tmp_path):
    save(tmp_path / "photos" / "a.png")
    run([tmp_path / "photos" / "a.png"], tmp_path, Outputs(False, pts=True, scheme="wflw98"))
    assert run([tmp_path / "photos" / "a.png"], tmp_path, Outputs(False, pts=True), resume=True).files == 1
    assert "n_points:  68" in (tmp_path / "a.pts").read_text()
