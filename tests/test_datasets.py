"""Stored faces: shards in, the right faces out."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from faces_maker import make_faces  # noqa: E402

from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402


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
    for name in ("image", "xyz", "visible", "rotation"):
        np.testing.assert_array_equal(getattr(stored, name), faces[name])


def test_take_gives_tensors_of_the_faces_asked_for(tmp_path):
    faces = make_faces(5, size=48)
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    stored = StoredFaces([tmp_path / "a"])
    image, xyz, visible, rotation = stored.take(np.array([3, 0, 3]))
    assert image.shape == (3, 3, 48, 48) and image.dtype == torch.uint8
    assert visible.dtype == torch.bool
    for row, k in enumerate((3, 0, 3)):
        np.testing.assert_array_equal(image[row, 1], faces["image"][k, :, :, 1])  # green at (row y, column x)
        np.testing.assert_array_equal(xyz[row], faces["xyz"][k])
        np.testing.assert_array_equal(visible[row], faces["visible"][k])
        np.testing.assert_array_equal(rotation[row], faces["rotation"][k])
    xyz += 1  # a copy: what is stored does not change
    np.testing.assert_array_equal(stored.xyz, faces["xyz"])


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere.*canthus synth"):
        StoredFaces([tmp_path / "nowhere"])


def test_pickled_arrays_are_refused(tmp_path):
    faces = make_faces(2, size=48)
    faces["xyz"] = np.array([None, None])
    write(tmp_path / "a", "shard-00000.npz", faces, slice(None))
    with pytest.raises(ValueError, match="allow_pickle"):
        StoredFaces([tmp_path / "a"])
