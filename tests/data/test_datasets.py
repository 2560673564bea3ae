"""Stored faces: shards in, the right faces out."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from faces_maker import make_faces  # noqa: E402

from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.io.shards import shard_path, write_shard  # noqa: E402


def write(folder, name, faces, index):
    folder.mkdir(exist_ok=True)
    np.savez(folder / name, **{key: values[index] for key, values in faces.items()})


def test_faces_come_in_the_order_of_folders_and_shards(tmp_path):
    faces = make_faces(7, size=48, seed=2)
    write(tmp_path / "b", "shard-00001.npz", faces, slice(2, 4))
    write(tmp_path / "b", "shard-00000.npz", faces, slice(0, 2))
    write(tmp_path / "a", "shard-00000.npz", faces, slice(4, 7))
    (tmp_path / "a" / "shard-00001.npz.part").write_bytes(b"one that is being rendered")
    stored = StoredFaces([tmp_path / "b", tmp_path / "a"])
    assert len(stored) == 7
    for name in ("xyz", "visible", "rotation"):
        np.testing.assert_array_equal(getattr(stored, name), faces[name])
    np.testing.assert_array_equal(stored.take(np.arange(7)).images.permute(0, 2, 3, 1), faces["image"])


@pytest.mark.parametrize("layout", ["tar", "300wlp"])
def test_every_layout_of_a_shard_can_be_trained_on(tmp_path, layout):
    faces = make_faces(5, size=48, seed=2)
    faces["image"][:] = faces["image"].mean(axis=(1, 2), keepdims=True)  # one colour: JPEG costs it a grey level or two
    faces["vertices"] = np.random.default_rng(0).normal(size=(5, 9, 3)).astype(np.float16)
    camera = {"contour": faces["xyz"][:, :17], "weak_shift": np.zeros((5, 2)), "weak_scale": np.ones(5)}
    for k, part in enumerate((slice(0, 3), slice(3, 5))):
        rows = {name: values[part] for name, values in (faces | camera).items()}
        write_shard(shard_path(tmp_path, k, layout), rows, 3 * k, layout)
    stored = StoredFaces([tmp_path])
    assert len(stored) == 5
    index = np.array([4, 0, 2])
    taken = stored.take(index)
    image, xyz, visible, rotation = taken.images, taken.xyz, taken.visible, taken.rotation
    assert np.abs(image.permute(0, 2, 3, 1).numpy().astype(int) - faces["image"][index]).max() <= 2
    for got, name in ((xyz, "xyz"), (visible, "visible"), (rotation, "rotation")):
        np.testing.assert_array_equal(got, faces[name][index])
    np.testing.assert_array_equal(taken.vertices, faces["vertices"][index].astype(np.float32))


def test_a_damaged_tar_is_named(tmp_path):
    faces = make_faces(3, size=48)
    path = tmp_path / "shard-00000.tar"
    write_shard(path, faces, 0, "tar")
    whole = path.read_bytes()
    for broken in (b"", whole[:1000], b"no tar at all" * 100):
        path.write_bytes(broken)
        with pytest.raises(RecipeError, match=r"shard-00000\.tar"):
            StoredFaces([tmp_path])


def test_numbers_of_double_precision_are_made_single(tmp_path):
    faces = {k: v.astype(float) if k in ("xyz", "rotation") else v for k, v in make_faces(2, size=48).items()}
    write(tmp_path, "shard-00000.npz", faces, slice(None))
    taken = StoredFaces([tmp_path]).take(np.arange(2))
    assert taken.xyz.dtype == taken.rotation.dtype == torch.float32


def test_a_summary_says_what_the_faces_have(tmp_path):
    faces = make_faces(3, size=48)
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    assert StoredFaces([tmp_path / "a"]).summary() == "3 faces, 68 of 68 points, depth, rotation, expression, vertices"
    del faces["expression"], faces["vertices"]
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    assert (
        StoredFaces([tmp_path / "a"]).summary()
        == "3 faces, 68 of 68 points, depth, rotation, no expression, no vertices"
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pictures_stay_on_the_disk_unless_they_are_compressed(tmp_path, save):
    faces = make_faces(3, size=48)
    faces["image"] = np.asfortranarray(faces["image"])
    save(tmp_path / "shard-00000.npz", **faces)
    stored = StoredFaces([tmp_path])
    assert isinstance(stored.pictures[0], np.memmap) == (save is np.savez)
    np.testing.assert_array_equal(stored.take(np.array([2, 0])).images.permute(0, 2, 3, 1), faces["image"][[2, 0]])


def test_a_shard_that_is_cut_off_or_lacks_a_field_is_named(tmp_path):
    faces = make_faces(3, size=48)
    path = tmp_path / "shard-00000.npz"
    np.savez(path, **{k: v for k, v in faces.items() if k != "visible"})
    with pytest.raises(RecipeError, match=r"shard-00000\.npz.*visible"):
        StoredFaces([tmp_path])
    np.savez(path, **faces)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(RecipeError, match=r"shard-00000\.npz"):
        StoredFaces([tmp_path])


def test_pictures_of_two_sizes_do_not_fit_into_one_set(tmp_path):
    for k, size in enumerate((48, 40)):
        write(tmp_path, f"shard-{k:05d}.npz", make_faces(2, size=size), slice(None))
    with pytest.raises(RecipeError, match=r"shard-00001\.npz.*another size"):
        StoredFaces([tmp_path])


def test_take_gives_tensors_of_the_faces_asked_for(tmp_path):
    faces = make_faces(5, size=48)
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    stored = StoredFaces([tmp_path / "a"])
    taken = stored.take(np.array([3, 0, 3]))
    image, xyz, visible, rotation = taken.images, taken.xyz, taken.visible, taken.rotation
    assert image.shape == (3, 3, 48, 48) and image.dtype == torch.uint8
    assert visible.dtype == torch.bool
    for row, k in enumerate((3, 0, 3)):
        np.testing.assert_array_equal(image[row, 1], faces["image"][k, :, :, 1])  # green at (row y, column x)
        np.testing.assert_array_equal(xyz[row], faces["xyz"][k])
        np.testing.assert_array_equal(visible[row], faces["visible"][k])
        np.testing.assert_array_equal(rotation[row], faces["rotation"][k])
    xyz += 1  # a copy: what is stored does not change
    np.testing.assert_array_equal(stored.xyz, faces["xyz"])


def shorter(faces, name):
    return {**faces, name: faces[name][:-1]}


@pytest.mark.parametrize("layout", ["npz", "tar"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: shorter(f, "xyz"), "samples|of .* faces"),
        (lambda f: shorter(f, "image"), "of .* faces"),
        (lambda f: shorter(f, "vertices"), "of .* faces"),
        (lambda f: {**f, "xyz": np.where(np.arange(68)[:, None] == 5, np.nan, f["xyz"])}, "`xyz` .*not finite"),
        (lambda f: {**f, "rotation": f["rotation"] * np.inf}, "`rotation` .*not finite"),
        (lambda f: {**f, "xyz": f["xyz"] * 0}, "face 0 has all its points at one place"),
        (lambda f: {**f, "xyz": f["xyz"][:, :67]}, r"`xyz` .*\(3, 67, 3\).*\(n, 68, 3\)"),
        (lambda f: {**f, "xyz": f["xyz"].astype(int)}, "`xyz` is int64"),
        (lambda f: {**f, "visible": f["visible"].astype(float)}, "`visible` is float64"),
        (lambda f: {name: values[:0] for name, values in f.items()}, "one number above zero|empty"),
        (lambda f: {**f, "image": f["image"].astype(np.float32)}, "`image` is float32"),
        (lambda f: {**f, "image": f["image"][..., 0]}, r"`image` is uint8 of shape \(3, 48, 48\)"),
    ],
)  # fmt: skip
def test_a_shard_of_other_faces_is_refused_with_the_reason(tmp_path, layout, change, said):
    faces = change(make_faces(3, size=48))
    path = shard_path(tmp_path, 0, layout)
    if layout == "tar" and (len({len(values) for values in faces.values()}) > 1 or faces["image"].shape[3:] != (3,)):
        pytest.skip("a tar shard cannot hold this")
    if layout == "tar" and faces["image"].dtype != np.uint8:
        pytest.skip("a tar shard cannot hold this")
    write_shard(path, faces, 0, layout)
    with pytest.raises(RecipeError, match=rf"shard-00000\.{layout}' cannot be read.*({said})"):
        StoredFaces([tmp_path])


def test_a_picture_that_is_damaged_later_is_named_when_it_is_taken(tmp_path):
    write_shard(shard_path(tmp_path, 0, "300wlp"), camera(make_faces(2, size=48)), 0, "300wlp")
    stored = StoredFaces([tmp_path])
    next(tmp_path.rglob("*1.jpg")).write_bytes(b"no picture")
    with pytest.raises(RecipeError, match="shard-00000' cannot be read"):
        stored.take(np.array([1]))


def camera(faces):
    count = len(faces["xyz"])
    return faces | {"contour": faces["xyz"][:, :17], "weak_shift": np.zeros((count, 2)), "weak_scale": np.ones(count)}


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere.*canthus synth"):
        StoredFaces([tmp_path / "nowhere"])


def test_pickled_arrays_are_refused(tmp_path):
    faces = make_faces(2, size=48)
    faces["xyz"] = np.array([None, None])
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    with pytest.raises(ValueError, match="pickled"):
        StoredFaces([tmp_path / "a"])
