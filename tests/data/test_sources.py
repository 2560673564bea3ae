"""Sources of faces: how they are mixed, in which order, and what each gives."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from faces_maker import make_faces, write_shards  # noqa: E402
from painter import Painter  # noqa: E402
from PIL import Image  # noqa: E402
from small import STILL  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.datasets import PhotoFaces, StoredFaces  # noqa: E402
from canthus.data.formats import FaceSample  # noqa: E402
from canthus.data.sources import FaceMix, batch_of  # noqa: E402
from canthus.data.truth import _landmark_normals  # noqa: E402
from canthus.errors import CanthusError, RecipeError  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.synth.live import LiveFaces  # noqa: E402

SIZE = 48


def mix(faces, seed=0) -> FaceMix:
    return FaceMix(faces, SIZE, 1.4, seed)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[str]:
    """Folders of 24, 10 and 5 faces, the last of a smaller picture; told apart by the red of the first pixel."""
    root = tmp_path_factory.mktemp("three")
    folders = []
    for k, (count, size) in enumerate(((24, 64), (10, 64), (5, 40))):
        folder = write_shards(root / f"{k}", count, 1 + k % 2, size, seed=k)
        for path in folder.glob("*.npz"):
            with np.load(path) as d:
                values = dict(d)
            del values["vertices"]
            values["image"][:, 0, 0] = [k, 0, 0]
            np.savez(path, **values)
        folders.append(str(folder))
    return folders


def counts(parts) -> Counter:
    return Counter(int(p) for part in parts for p in part.images[:, 0, 0, 0])


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(getattr(p, name), getattr(q, name))
        for p, q in zip(a, b)
        for name in ("images", "xyz", "visible", "rotation")
    )


def shapes(parts) -> list[bytes]:
    return [row.numpy().tobytes() for part in parts for row in part.xyz]


def test_a_list_is_one_pool_that_every_epoch_goes_through_once(three):
    faces = mix(three)
    assert len(faces) == 39 and faces.xyz.shape == (39, 68, 3)
    epochs = []
    for epoch in range(2):
        steps = [shapes(faces.fetch(13 * k, 13, k)) for k in range(3 * epoch, 3 * epoch + 3)]
        assert len(set(sum(steps, []))) == 39
        epochs.append(steps)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_all_faces_has_some_twice(three):
    parts = mix(three[2:]).fetch(0, 12, 0)
    assert sorted(Counter(shapes(parts)).values()) == [2, 2, 2, 3, 3]


def test_a_face_has_its_number_in_its_source_in_every_epoch(three):
    faces = mix(three)
    for step in range(6):
        for part in faces.fetch(13 * step, 13, step):
            source = next(s for s in faces.stored if shapes([part])[0] in {row.tobytes() for row in s.xyz})
            np.testing.assert_array_equal(source.xyz[part.number.numpy()], part.xyz.numpy())


def test_weights_are_shares_of_every_batch(three):
    faces = mix(dict(zip(three, (2, 1, 1))))
    seen = Counter()
    for step in range(30):
        of_step = counts(faces.fetch(step * 16, 16, step))
        assert abs(of_step[0] - 8) <= 1 and abs(of_step[1] - 4) <= 1 and abs(of_step[2] - 4) <= 1
        seen += of_step
    # 480 draws
    assert [seen[k] for k in range(3)] == pytest.approx([240, 120, 120], abs=6)


def test_within_a_weighted_source_all_faces_come_alike(three):
    faces = mix({three[2]: 1, three[1]: 1})
    found = Counter(s for step in range(200) for s in shapes(faces.fetch(step * 10, 10, step)))
    assert len(found) == 15
    # 1000 draws from each: 200 a face of the five, 100 of the ten; the spread of one is below sqrt(200)
    assert sorted(found.values())[:10] == pytest.approx([100] * 10, abs=45)
    assert sorted(found.values())[10:] == pytest.approx([200] * 5, abs=60)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_a_step_sees_depends_on_seed_and_step_alone(three, weighted):
    faces = dict.fromkeys(three, 1.0) if weighted else three
    one = mix(faces)
    expected = [one.fetch(8 * k, 8, k) for k in range(9)]
    again = mix(faces)
    for k in (8, 2, 5):
        assert same(again.fetch(8 * k, 8, k), expected[k])
    assert not same(mix(faces, seed=1).fetch(8, 8, 1), expected[1])
    assert not same(expected[0], expected[1])


def test_processes_share_a_step(three):
    faces = mix(three)
    whole = Counter(shapes(faces.fetch(26, 13, 2)))
    parts = [Counter(shapes(faces.fetch(26, 13, 2, rank, 3))) for rank in range(3)]
    assert sum(parts, Counter()) == whole and [p.total() for p in parts] == [5, 4, 4]


def test_a_methods_weights_hold_within_each_source(three):
    faces = mix(dict(zip(three, (2, 1, 1))))
    wanted = torch.zeros(39)
    wanted[[0, 1, 24, 34]] = torch.tensor([3.0, 1, 1, 7])
    faces.weigh(wanted)
    stored = faces.xyz
    found = Counter(s for step in range(100) for s in shapes(faces.fetch(step * 16, 16, step)))
    expected = {0: 600, 1: 200, 24: 400, 34: 400}  # half of 1600 as three to one, a quarter each
    assert found.keys() == {stored[k].numpy().tobytes() for k in expected}
    for k, count in expected.items():
        assert found[stored[k].numpy().tobytes()] == pytest.approx(count, abs=40)


@pytest.mark.parametrize("weights", [torch.ones(7), -torch.ones(39), torch.full((39,), torch.nan), torch.zeros(39)])
def test_weights_that_make_no_sense_are_refused(three, weights):
    with pytest.raises(RecipeError, match="sampling weights"):
        mix(three).weigh(weights)


def test_pictures_of_several_sizes_make_one_batch(three):
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.4)
    batch = batch_of(mix(three).fetch(0, 39, 0), augmenter, torch.Generator().manual_seed(0))
    assert batch.crops.shape == (39, 3, SIZE, SIZE) and batch.xyz.shape == (39, 68, 3) and batch.vertices is None
    extent = batch.xyz[..., :2].amax(1) - batch.xyz[..., :2].amin(1)
    torch.testing.assert_close(extent.amax(1), torch.full((39,), SIZE / 1.4))  # every face fills its crop alike


def test_points_are_a_sample_of_all_faces_and_read_no_picture(three, monkeypatch):
    faces = mix(three)
    monkeypatch.setattr(StoredFaces, "take", None)
    points, _ = faces.shapes(30)
    stored = {row.numpy().tobytes() for row in faces.xyz}
    assert points.shape == (30, 68, 3) and len({row.numpy().tobytes() for row in points} & stored) == 30
    assert torch.equal(points, mix(three).shapes(30)[0])


# ---- photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Made faces as photos of 160 px: samples, and the fields they were made of."""
    folder, faces = tmp_path_factory.mktemp("photos"), make_faces(8, size=160, seed=4)
    samples = []
    for k in range(8):
        Image.fromarray(faces["image"][k]).save(folder / f"{k}.png")
        samples.append(FaceSample(folder / f"{k}.png", faces["xyz"][k].astype(float), faces["rotation"][k]))
    return samples, faces


def test_photos_are_cut_around_the_face_with_their_points(photos):
    samples, made = photos
    stored = PhotoFaces(samples, 90)
    taken = stored.take(np.array([6, 1]))
    image, xyz, visible, rotation = taken.images, taken.xyz, taken.visible, taken.rotation
    assert image.shape == (2, 3, 90, 90) and image.dtype == torch.uint8 and visible.dtype == torch.bool
    np.testing.assert_array_equal(rotation, made["rotation"][[6, 1]])
    for row, k in enumerate((6, 1)):
        old, new = made["xyz"][k], xyz[row].numpy()
        low, high = old[:, :2].min(0), old[:, :2].max(0)
        zoom = 90 / ((high - low).max() / 0.52)
        expected = (old - [*(low + high) / 2, 0]) * zoom + [44.5, 44.5, 0]
        np.testing.assert_allclose(new, expected, atol=1e-3)
        assert new[:, 2].mean() == pytest.approx(0, abs=1e-4)
        # What lies under the tip of the nose lay there in the photo; colours next to each other differ a little.
        u, v = np.rint(new[30, :2]).astype(int)
        x, y = np.rint(old[30, :2]).astype(int)
        around = made["image"][k][y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
        colour = image[row, :, v, u].numpy().astype(int)
        assert (colour >= around.min(0) - 8).all() and (colour <= around.max(0) + 8).all()


def test_points_that_look_away_are_taken_for_hidden(photos):
    samples, made = photos
    agree = (PhotoFaces(samples, 90).visible == made["visible"]).mean()
    assert agree > 0.8  # what the nose hides, the normals do not know
    normals = _landmark_normals(MorphableModel.default())
    assert (normals[[30, 8, 27, 51], 2] > 0).all() and normals[0, 0] < -0.5 < 0.5 < normals[16, 0]


def test_a_folder_in_the_layout_of_aflw2000_is_a_source(tmp_path, photos):
    scipy_io = pytest.importorskip("scipy.io")
    _, made = photos
    for k in range(3):
        Image.fromarray(made["image"][k]).save(tmp_path / f"{k}.jpg")
        pose = np.array([[0.1, 0.2, 0.3, 0, 0, 0, 1.0]])
        scipy_io.savemat(tmp_path / f"{k}.mat", {"pt3d_68": made["xyz"][k].T + 1.0, "Pose_Para": pose})
    faces = mix([str(tmp_path)])
    assert len(faces) == 3 and isinstance(faces.stored[0], PhotoFaces)
    assert counts(faces.fetch(0, 3, 0)).total() == 3


# ---- rendered while training


def test_rendered_faces_are_a_row_without_end_or_gap(tmp_path):
    faces = LiveFaces(functools.partial(Painter, tmp_path / "died"), views=2, workers=1)
    try:
        expected = np.concatenate([make_faces(2, size=40, seed=k)["xyz"] for k in range(4)])
        for first, last in ((0, 3), (3, 4), (4, 8), (1, 3)):
            taken = faces.take(first, last)
            np.testing.assert_array_equal(taken["xyz"], expected[first:last])
            assert taken["image"].shape == (last - first, 40, 40, 3)
            assert taken["image"][:, 0, 0, 1].tolist() == [k // 2 for k in range(first, last)]
        assert (tmp_path / "died").exists()  # and was started again
        with pytest.raises(CanthusError, match="no head assets"):
            faces.take(80, 82)
    finally:
        faces.close()


def test_rendered_faces_have_their_share(tmp_path, three):
    faces = mix({three[0]: 3})
    live = LiveFaces(Painter, views=2, workers=1)
    faces.live = [(live, 0.25)]
    try:
        taken = [faces.fetch(8 * k, 8, k) for k in range(2)]
        assert [counts(parts) for parts in taken] == [{0: 6, 100: 2}] * 2
        assert [int(parts[0].images[0, 1, 0, 0]) for parts in taken] == [0, 1]  # its first group, then its second
        assert len(set(sum(map(shapes, taken), []))) == 16
        dense = mix([str(write_shards(tmp_path / "dense", 2, size=64))])
        dense.live = faces.live  # without vertices
        assert (dense.share("depth"), dense.share("vertices")) == (1, 0.75)
    finally:
        faces.close()


def test_a_source_without_end_needs_a_weight(three):
    with pytest.raises(RecipeError, match="folder: weight"):
        mix([three[0], "synth:assets"])


def test_synth_is_rendered_by_the_generator():
    pytest.importorskip("moderngl")
    pytest.importorskip("scipy")
    faces = mix(["synth:nowhere"], seed=3)
    ((live, share),) = faces.live
    assert share == 1 and len(faces) == 0
    recipe = live.make.args[1]
    assert live.make.args[0] == "nowhere" and recipe.seed == 3
    assert recipe.size == round(1.1 * SIZE / (1.4 * 0.52))


# ---- vertices


def test_vertices_go_along_with_the_points(tmp_path):
    model = MorphableModel.default()
    made = make_faces(6, size=64)
    # landmarks are weighted vertices: of the mean head, laid on the pictures, so must they be after augmentation
    vertices = np.stack([_laid(model, xyz, rotation) for xyz, rotation in zip(made["xyz"], made["rotation"])])
    mean = (vertices[:, model.landmark_ids] * model.landmark_weights[..., None]).sum(2)
    np.savez(tmp_path / "shard-00000.npz", **{**made, "xyz": mean.astype(np.float32), "vertices": vertices})
    stored = StoredFaces([tmp_path])
    rows = np.array([4, 0, 2])
    np.testing.assert_array_equal(stored.take(rows).vertices, vertices[rows])
    for flip in (0.0, 1.0):
        moves = {**STILL, "rotation": 20.0, "shift": 0.1, "scale": 0.1, "flip": flip}
        augmenter = Augmenter(Augmentation(**moves), 64, 1.4)
        batch = batch_of([stored.take(rows)], augmenter, torch.Generator().manual_seed(1))
        ids, weights = torch.from_numpy(model.landmark_ids).long(), torch.from_numpy(model.landmark_weights)
        again = (batch.vertices[:, ids] * weights[..., None]).sum(2)
        # mirrored vertices are off by what the head is not symmetric (0.004 mm), landmarks by a triangle's corner
        torch.testing.assert_close(again, batch.xyz, atol=0.3 if flip else 1e-3, rtol=0)
        assert not torch.allclose(batch.vertices, torch.from_numpy(vertices[rows]), atol=1)


def _laid(model: MorphableModel, xyz: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    scale = 64 * 0.5 / 180
    return ((model.mean @ rotation.T) * [1, -1, 1] * scale + [32, 32, 0]).astype(np.float32)


def test_only_if_every_part_has_vertices_the_batch_has(tmp_path, three):
    made = make_faces(4, size=64)
    vertices = np.zeros((4, len(MorphableModel.default().mean), 3), np.float16)
    np.savez(tmp_path / "shard-00000.npz", **{**made, "vertices": vertices})
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.4)
    for faces, has in (([str(tmp_path)], True), ([str(tmp_path), three[0]], False)):
        batch = batch_of(mix(faces).fetch(0, 28, 0), augmenter, torch.Generator())
        assert (batch.vertices is not None) == has
        assert not has or (batch.vertices.shape == (28, *vertices.shape[1:]) and batch.vertices.dtype == torch.float32)
