"""Shards on disk: what goes in comes out, and other people's readers find what they look for."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from faces_maker import make_faces
from PIL import Image
from rendering import ASSETS, make_generator

pytest.importorskip("moderngl")
loadmat = pytest.importorskip("scipy.io").loadmat

from canthus.errors import ModelError, RecipeError  # noqa: E402
from canthus.geometry.projection import project  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.io.shards import read_shard, shard_path, write_shard  # noqa: E402
from canthus.synth import render_jobs as shards  # noqa: E402
from canthus.synth.recipe import SynthRecipe  # noqa: E402

SIZE, COUNT = 80, 5


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    """Made faces with the fields of rendered ones."""
    faces = make_faces(COUNT, SIZE)
    rng = np.random.default_rng(0)
    return {
        **faces,
        "contour": faces["xyz"][:, :17] + rng.normal(0, 2, (COUNT, 17, 3)).astype(np.float32),
        "occlusion": rng.integers(0, 3, (COUNT, 68)).astype(np.uint8),
        "weak_rotation": faces["rotation"],
        "weak_scale": rng.uniform(3, 6, COUNT).astype(np.float32),
        "weak_shift": rng.uniform(30, 50, (COUNT, 2)).astype(np.float32),
    }


@pytest.mark.parametrize("layout", ["npz", "tar", "300wlp"])
def test_a_shard_gives_back_what_was_written(tmp_path, samples, layout):
    path = shard_path(tmp_path, 3, layout)
    write_shard(path, samples, 768, layout)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing half-written is left
    back = read_shard(path)
    assert set(back) == set(samples)
    for name, values in samples.items():
        assert back[name].dtype == values.dtype
        if name == "image" and layout != "npz":
            assert np.abs(back[name].astype(float) - values).mean() < 3  # JPEG
        else:
            np.testing.assert_array_equal(back[name], values, err_msg=name)


def test_a_tar_shard_reads_as_webdataset_does(tmp_path, samples):
    path = shard_path(tmp_path, 0, "tar")
    write_shard(path, samples, 256, "tar")
    with tarfile.open(path) as tar:
        names = tar.getnames()
        # A sample is a run of files with one key, the part before the first dot.
        assert names == [f"{256 + k:08d}.{suffix}" for k in range(COUNT) for suffix in ("jpg", "npz")]
        image = Image.open(io.BytesIO(tar.extractfile(names[2]).read()))  # type: ignore[union-attr]
        assert image.format == "JPEG" and image.size == (SIZE, SIZE)
        truth = np.load(io.BytesIO(tar.extractfile(names[3]).read()), allow_pickle=False)  # type: ignore[union-attr]
        np.testing.assert_array_equal(truth["xyz"], samples["xyz"][1])


def test_files_of_300wlp_do_not_tell_when_they_were_written(tmp_path, samples):
    write_shard(shard_path(tmp_path, 0, "300wlp"), samples, 0, "300wlp")
    for path in tmp_path.rglob("*.mat"):
        # the first 116 bytes are free text, where SciPy writes the time; MATLAB wants "MATLAB 5.0 MAT-file"
        assert path.read_bytes()[:116].rstrip() == b"MATLAB 5.0 MAT-file, written by canthus"


def test_the_same_samples_are_the_same_bytes(tmp_path, samples):
    first, second = (shard_path(tmp_path / name, 0, "tar") for name in "ab")
    for path in (first, second):
        path.parent.mkdir()
        write_shard(path, samples, 0, "tar")
    assert first.read_bytes() == second.read_bytes()


def test_the_layout_of_300wlp_reads_as_others_read_it(tmp_path, samples):
    folder = shard_path(tmp_path, 0, "300wlp")
    write_shard(folder, samples, 0, "300wlp")
    assert sorted(p.suffix for p in folder.iterdir()) == sorted([".jpg", ".mat", ".npz"] * COUNT)
    for k in range(COUNT):
        mat = loadmat(folder / f"face_{k:08d}.mat")
        assert mat["pt2d"].shape == (2, 68) and mat["pt3d_68"].shape == (3, 68)
        assert mat["Pose_Para"].shape == (1, 7) and mat["roi"].shape == (1, 4)
        # 1-based; the jaw of pt2d is the visible one, its other points are those of pt3d_68
        np.testing.assert_allclose(mat["pt2d"][:, :17].T - 1, samples["contour"][k][:, :2], atol=1e-4)
        np.testing.assert_allclose(mat["pt2d"][:, 17:], mat["pt3d_68"][:2, 17:], atol=1e-4)
        pitch, yaw, roll, x, y, _, scale = mat["Pose_Para"][0].astype(float)
        rotation = matrix_from_euler(np.array([pitch, yaw, roll]), "aflw")
        np.testing.assert_allclose(rotation, samples["rotation"][k], atol=1e-5)
        # Their model coordinates: X = scale R head + shift with y up from the lower border, 1-based.
        head = np.random.default_rng(k).normal(size=(5, 3))
        theirs = scale * head @ rotation.T + [x, y, 0]
        ours = project(head, rotation, np.array(scale), samples["weak_shift"][k].astype(float))
        np.testing.assert_allclose(theirs[:, 0] - 1, ours[:, 0], atol=1e-4)
        np.testing.assert_allclose(SIZE - theirs[:, 1], ours[:, 1], atol=1e-4)


def test_our_own_reader_reads_it_too(tmp_path, samples):
    pytest.importorskip("torch")
    from canthus.data.formats import read_aflw2000

    folder = shard_path(tmp_path, 0, "300wlp")
    write_shard(folder, samples, 0, "300wlp")
    faces = list(read_aflw2000(folder))
    assert len(faces) == COUNT
    for k, face in enumerate(faces):
        np.testing.assert_allclose(face.points, samples["xyz"][k], atol=1e-4)
        np.testing.assert_allclose(face.rotation, samples["rotation"][k], atol=1e-5)
        assert face.image.name == f"face_{k:08d}.jpg"


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    for recipe, layout in ((SynthRecipe(size=64, hair=0.5), "npz"), (SynthRecipe(size=64), "tar")):
        job = {"recipe": {"size": 64, "hair": 0.5}, "layout": layout, "quality": "raster", "heads": "simple"}
        shards._claim(tmp_path / layout, job)
        with pytest.raises(RecipeError, match="another recipe"):
            list(shards.render_shards(tmp_path / layout, None, recipe, 1, 1, "300wlp"))


def test_a_folder_of_other_heads_is_refused_and_assets_that_are_none_claim_none(tmp_path):
    recipe = SynthRecipe(size=64)
    (tmp_path / "assets" / "ict").mkdir(parents=True)
    (tmp_path / "assets" / "ict" / "ict_facekit_light.npz").write_bytes(b"other heads")
    shards.shards(tmp_path / "out", None, recipe, 1)
    with pytest.raises(RecipeError, match=r"another recipe \(heads differ\)"):
        shards.shards(tmp_path / "out", tmp_path / "assets", recipe, 1)
    with pytest.raises(ModelError, match="no head assets"):
        shards.shards(tmp_path / "new", tmp_path / "nowhere", recipe, 1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("layout", ["npz", "tar", "300wlp"])
def test_a_contact_sheet_of_every_layout(tmp_path, samples, layout):
    path = shard_path(tmp_path, 0, layout)
    write_shard(path, samples, 0, layout)
    shards.contact_sheet(path, tmp_path / "sheet.png", rows=1, columns=3)
    assert Image.open(tmp_path / "sheet.png").size == (3 * SIZE, SIZE)


def test_a_contact_sheet_of_a_damaged_shard_is_refused(tmp_path, samples):
    path = shard_path(tmp_path, 0, "npz")
    write_shard(path, samples, 0, "npz")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RecipeError, match=r"shard-00000\.npz' cannot be read"):
        shards.contact_sheet(path, tmp_path / "sheet.png")


def test_the_worker_writes_the_pictures_of_its_numbers(tmp_path, monkeypatch):
    generator = make_generator()
    monkeypatch.setattr(shards, "_generator", lambda *job: generator)
    monkeypatch.setattr(shards, "SHARD_SIZE", 6)
    path = shard_path(tmp_path, 1, "npz")
    shards._render_shard((None, generator.recipe, "raster"), "npz", 1, path)
    back = read_shard(path)
    assert len(back["image"]) == 6 and ASSETS.is_dir()
    for k in (5, 0, 3):  # each reproducible from recipe and number alone
        again = generator.sample(6 + k)
        for name in again:
            np.testing.assert_array_equal(back[name][k], again[name], err_msg=name)
