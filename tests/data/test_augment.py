"""Augmentation: picture, points, visibility and rotation move together, and by chance that can be repeated."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from made_up_face import face  # noqa: E402
from small import STILL  # noqa: E402
from torch import Tensor  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter, _blurred, _random_texture, warp_batch  # noqa: E402
from canthus.data.sample import FaceBatch, StoredBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.face.landmarks import scheme  # noqa: E402
from canthus.geometry.crop import Crop, tight_boxes  # noqa: E402
from canthus.geometry.rotation import matrix_from_vector  # noqa: E402
from canthus.geometry.sampling import warp  # noqa: E402

MIRROR = scheme("ibug68").mirror
HEAD = face() * [1, -1, 1]  # symmetric, y up
SIZE = 112  # of the crops
MOVES = {"rotation": 17.0, "scale": 0.1, "shift": 0.055}


def augment(images, xyz, visible, pose, seed=0, **options) -> FaceBatch:
    augmenter = Augmenter(Augmentation(**{**STILL, **options}), SIZE, 1.4)
    return augmenter(StoredBatch(xyz, visible, pose, images=images), torch.Generator().manual_seed(seed))


def turned_heads(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Rotations (B,3,3), and `HEAD` under them in the middle of pictures of `side` px: xyz (B,68,3)."""
    vectors = np.random.default_rng(5).uniform(-0.5, 0.5, (count, 3))
    rotation = matrix_from_vector(vectors)
    xyz = side / 250 * (HEAD @ np.swapaxes(rotation, 1, 2)) * [1, -1, 1] + [side / 2, side / 2, 0]
    xyz[..., 2] -= xyz[..., 2].mean(1, keepdims=True)
    return torch.as_tensor(rotation).float(), torch.as_tensor(xyz).float()


def plain(count: int, side: int = 200) -> Tensor:
    return torch.full((count, 3, side, side), 128, dtype=torch.uint8)


@pytest.fixture(scope="module")
def heads():
    rotation, xyz = turned_heads(16, 200)
    visible = torch.as_tensor(np.random.default_rng(3).random((16, 68)) < 0.5)
    return xyz, visible, rotation


def test_the_fast_warp_equals_the_plain_one_inside_the_picture():
    rng = np.random.default_rng(0)
    images = torch.as_tensor(rng.random((6, 3, 40, 60)))
    crop = Crop(
        torch.as_tensor(rng.uniform([15, 10], [45, 30], (6, 2))), torch.as_tensor(rng.uniform(15, 60, 6)),
        torch.as_tensor(rng.uniform(-3, 3, 6)), 24,
    )  # fmt: skip
    affine = crop.affine_image_from_crop()
    fast, slow = warp_batch(images, crop), warp(images, affine, 24)
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    grid = torch.stack([u, v, torch.ones_like(u)]).reshape(3, -1).double()
    x, y = (affine @ grid).reshape(6, 2, 24, 24).unbind(1)
    inside = (x >= 0) & (x <= 59) & (y >= 0) & (y <= 39)
    assert 0.3 < inside.float().mean() < 1  # the squares stick out, as random ones do
    torch.testing.assert_close(fast.movedim(1, -1)[inside], slow.movedim(1, -1)[inside], atol=1e-12, rtol=0)


def test_beyond_the_border_the_picture_is_mirrored():
    # One row 0 1 2 3 4; the crop is the same pixels two further left: 1 0 | 0 1 2, mirrored at the edge, -0.5.
    image = torch.arange(5.0).expand(1, 1, 5, 5)
    crop = Crop(torch.tensor([[0.0, 2.0]]), torch.tensor([5.0]), torch.tensor([0.0]), 5)
    torch.testing.assert_close(warp_batch(image, crop)[0, 0, 2], torch.tensor([1.0, 0, 0, 1, 2]))


def test_without_chance_the_crop_is_the_one_of_prediction(heads):
    xyz, visible, rotation = heads
    out = augment(plain(16), xyz, visible, rotation)
    torch.testing.assert_close(out.xyz, Crop.around_boxes(tight_boxes(xyz), 1.4, SIZE).crop_from_image(xyz))
    torch.testing.assert_close(out.rotation, rotation)
    assert torch.equal(out.visible, visible.float())
    assert out.crops.shape == (16, 3, SIZE, SIZE) and out.crops.dtype == torch.float32


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_what_lies_under_a_point_stays_under_it(flip):
    # Dots on the subject's right are red, on the left green, on the midline blue. In a mirrored picture the point of
    # the right eye lies where the left eye, green, was.
    apart = [0, 16, 8, 27, 30, 36, 45, 48, 54, 19, 24]
    colour = {k: 2 if MIRROR[k] == k else int(k in (16, 45, 54, 24)) for k in apart}
    rotation, xyz = turned_heads(16, 320)
    y, x = torch.meshgrid(torch.arange(320.0), torch.arange(320.0), indexing="ij")
    images = torch.zeros(16, 3, 320, 320)
    for k in apart:
        d2 = (x - xyz[:, k, 0, None, None]) ** 2 + (y - xyz[:, k, 1, None, None]) ** 2
        images[:, colour[k]] += 150 * (d2 / -40).exp()
    out = augment(images, xyz, torch.ones(16, 68), rotation, flip=flip, **MOVES)
    errors: list[float] = []
    for crop, points in zip(out.crops, out.xyz, strict=True):
        for k in apart:
            px, py = points[k, :2].round().int().tolist()
            nearest = (points[apart, :2] - points[k, :2]).norm(dim=1).topk(2, largest=False).values[1]
            if nearest < 14 or not (8 <= px < SIZE - 8 and 8 <= py < SIZE - 8):
                continue
            patch = crop[:, py - 5 : py + 6, px - 5 : px + 6].double()
            patch = patch - patch.amin((1, 2), keepdim=True)
            weight = patch[colour[int(MIRROR[k]) if flip else k]]
            assert weight.max() == patch.max()
            offset = torch.stack([weight.sum(0), weight.sum(1)]) @ torch.arange(-5.0, 6).double() / weight.sum()
            errors.append(float((torch.tensor([px, py]) + offset - points[k, :2]).norm()))
    assert len(errors) > 80
    assert max(errors) < 0.1  # px


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_rotation_still_turns_the_head_into_the_points(heads, flip):
    xyz, visible, rotation = heads
    out = augment(plain(16), xyz, visible, rotation, flip=flip, **MOVES)
    assert not torch.allclose(out.rotation, rotation, atol=0.1)
    torch.testing.assert_close(torch.linalg.det(out.rotation), torch.ones(16))
    # HEAD is symmetric, so a mirrored picture shows HEAD again, under another rotation. Its projection must be the
    # points up to scale and shift.
    expected = torch.as_tensor(HEAD).float() @ out.rotation.transpose(1, 2) * torch.tensor([1.0, -1, 1])

    def normed(points):
        points = points - points.mean(1, keepdim=True)
        return points / torch.linalg.vector_norm(points, dim=(1, 2), keepdim=True)

    torch.testing.assert_close(normed(out.xyz), normed(expected), atol=1e-5, rtol=0)


def test_a_mirror_swaps_the_visibility_of_the_sides(heads):
    xyz, visible, rotation = heads
    out = augment(plain(16), xyz, visible, rotation, flip=1.0)
    expected = visible.numpy()[:, MIRROR].astype(np.float32)
    np.testing.assert_array_equal(out.visible, expected)
    assert (expected != visible.numpy()).any()


def test_points_outside_the_crop_are_hidden(heads):
    xyz, _, rotation = heads
    out = augment(plain(16), xyz, torch.ones(16, 68), rotation, shift=0.5)
    outside = ((out.xyz[..., :2] < 0) | (out.xyz[..., :2] > SIZE - 1)).any(-1)
    assert 0.05 < outside.float().mean() < 0.9
    assert torch.equal(out.visible, (~outside).float())


def test_covered_points_are_hidden():
    # Pictures are black and white in turns, so that a patch of another face is as easy to see as a coloured one:
    # all that differs from the commonest colour of a crop was put there.
    count = 64
    rotation, xyz = turned_heads(count, 200)
    images = plain(count) // 128 * (torch.arange(count) % 2 * 255).to(torch.uint8)[:, None, None, None]
    out = augment(images, xyz, torch.ones(count, 68), rotation, occlusion=1.0)
    checked = {True: 0, False: 0}
    for crop, points, visible in zip(out.crops, out.xyz, out.visible, strict=True):
        ground = crop.flatten(1).median(1).values
        covered = ((crop - ground[:, None, None]).abs().amax(0) > 1e-3).numpy()
        if covered.mean() > 0.45:
            continue  # which colour is the ground is not certain
        for (x, y), seen in zip(points[:, :2].round().int().tolist(), visible.tolist(), strict=True):
            around = covered[y - 1 : y + 2, x - 1 : x + 2]
            if around.all() or not around.any():  # not at an edge
                assert seen == (not around.any())
                checked[bool(seen)] += 1
    assert min(checked.values()) > 300


def test_covers_are_as_large_as_asked_for():
    # A shape with half sides a, b whose centre is anywhere in the crop hides a point far from the border with
    # probability 4ab if a rectangle, pi ab if an ellipse; near the border less. With a, b uniform from 0.06 to
    # cover / 2 the mean of ab is the square of their mean.
    rotation, xyz = turned_heads(400, 60)

    def hidden(cover: float) -> float:
        out = augment(torch.zeros(400, 3, 8, 8), xyz, torch.ones(400, 68), rotation, occlusion=1.0, cover=cover)
        return 1 - out.visible.mean().item()

    for cover in (0.2, 0.6, 1.0):
        most = (4 + math.pi) / 2 * ((0.06 + cover / 2) / 2) ** 2
        assert most * 0.5 < hidden(cover) < most * 1.1, cover


@pytest.mark.parametrize("cover", [0.0, 0.45])
def test_as_many_faces_are_covered_as_asked_for(heads, cover):
    rotation, xyz = turned_heads(400, 60)
    out = augment(torch.zeros(400, 3, 8, 8), xyz, torch.ones(400, 68), rotation, occlusion=cover)
    touched = float((out.visible < 1).any(1).float().mean())
    # Few patches miss all points; three standard deviations of the share are 0.075.
    assert cover - 0.2 <= touched <= cover + (0.075 if cover else 0)


def test_a_picture_can_end_within_the_crop():
    count = 64
    rotation, xyz = turned_heads(count, 200)
    whole = augment(plain(count), xyz, torch.ones(count, 68), rotation)
    cut = augment(plain(count), xyz, torch.ones(count, 68), rotation, border=1.0)
    black = cut.crops.eq(0).all(1)
    assert torch.equal(cut.crops, whole.crops * ~black[:, None])
    # Each of the four sides is cut with probability 0.35, so none with 0.65^4 = 0.18.
    assert 0.65 < black.flatten(1).any(1).float().mean() < 0.97
    for image, points, visible in zip(black, cut.xyz, cut.visible, strict=True):
        assert not image[SIZE // 2, SIZE // 2]
        for (x, y), seen in zip(points[:, :2].round().int().tolist(), visible.tolist(), strict=True):
            around = image[y - 1 : y + 2, x - 1 : x + 2]
            if around.all() or not around.any():  # not at an edge
                assert seen == (not around.any())


def test_the_same_seed_gives_the_same_batch(heads):
    xyz, visible, rotation = heads
    images = torch.randint(0, 256, (16, 3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    kept = images.clone(), xyz.clone(), visible.clone(), rotation.clone()
    defaults = vars(Augmentation())
    one, same, other = (augment(images, xyz, visible, rotation, seed, **defaults) for seed in (7, 7, 8))
    for name in ("crops", "xyz", "visible", "rotation"):
        assert torch.equal(getattr(one, name), getattr(same, name)), name
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
    for before, after in zip(kept, (images, xyz, visible, rotation), strict=True):
        assert torch.equal(before, after)  # the stored faces are not touched
    assert one.crops.min() >= 0 and one.crops.max() <= 1


def test_with_all_amounts_zero_a_picture_keeps_its_values(heads):
    xyz, visible, rotation = heads
    images = torch.randint(0, 256, (16, 3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images[:, :, ::3] = 0
    batch = augment(images, xyz, visible, rotation)
    crop = Crop.around_boxes(tight_boxes(xyz), 1.4, SIZE, torch.zeros(16))
    torch.testing.assert_close(batch.crops, warp_batch(images.float(), crop) / 255, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "effect", ["gain", "gamma", "contrast", "brightness", "colour", "grey", "texture", "blur", "noise"]
)
def test_each_photometric_effect_has_a_key_and_moves_no_point(heads, effect):
    xyz, visible, rotation = heads
    images = torch.randint(0, 256, (16, 3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    still, changed = (augment(images, xyz, visible, rotation, **options) for options in ({}, {effect: 1.0}))
    assert (changed.crops - still.crops).abs().mean() > 0.005
    assert torch.equal(changed.xyz, still.xyz) and torch.equal(changed.visible, still.visible)


def test_the_points_alone_are_those_of_the_crops(heads):
    xyz, visible, rotation = heads
    augmenter = Augmenter(Augmentation(), SIZE, 1.4)
    points = augmenter.points(xyz, tight_boxes(xyz), torch.Generator().manual_seed(5))
    assert torch.equal(
        points, augmenter(StoredBatch(xyz, visible, rotation, images=plain(16)), torch.Generator().manual_seed(5)).xyz
    )


def test_grey_pictures_have_no_colour(heads):
    xyz, visible, rotation = heads
    images = torch.randint(0, 256, (16, 3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    spread = lambda **options: (augment(images, xyz, visible, rotation, **options).crops.std(1)).mean()  # noqa: E731
    assert spread(grey=1.0) < 1e-6 < spread()


def test_a_random_texture_keeps_mean_contrast_and_edges():
    # the right half of each picture is brighter in all channels, by a step of 80 of 255
    images = torch.full((8, 3, 64, 64), 80, dtype=torch.uint8)
    images[..., 32:] = 160
    crops = images.float() / 255
    for seed in range(6):
        changed = _random_texture(crops, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(changed.mean((2, 3)), crops.mean((2, 3)), atol=0.02, rtol=0)  # 5 px of 64 may differ
        torch.testing.assert_close(changed.std((1, 2, 3)), crops.std((1, 2, 3)), atol=0.02, rtol=0)
        flat = changed[..., 3:29], changed[..., 35:61]  # farther than half a kernel from step and border
        assert all(half.std((2, 3)).max() < 1e-4 for half in flat)
        assert (flat[0].mean((2, 3)) - flat[1].mean((2, 3))).abs().amax(1).min() > 0.05  # the edge is still there


def test_crops_may_be_aligned_to_a_mean_shape(heads):
    xyz, visible, rotation = heads
    mean = HEAD[:, :2] * [1, -1] / 250  # in crop sides
    aligned = Augmenter(Augmentation(**STILL), SIZE, 1.4, mean.tolist())
    batch = aligned(StoredBatch(xyz, visible, rotation, images=plain(16)), torch.Generator().manual_seed(0))
    crop = Crop.around_shapes(xyz[..., :2], torch.tensor(mean).float(), SIZE)
    assert crop.angle.abs().max() > 0.1  # the heads are rolled
    torch.testing.assert_close(batch.xyz, crop.crop_from_image(xyz))
    # what is left of the roll is that of the points about the mean shape
    turn = matrix_from_vector(crop.angle[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(batch.rotation, turn @ rotation)


# ---- draws and borders


def moves(count: int = 4000, **amounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations in degrees, factors of the face's size, shifts in box sides of many draws."""
    augmenter = Augmenter(Augmentation(**{**STILL, **amounts}), 64, 1.25)
    square = torch.tensor([[20.0, 20], [44, 20], [44, 44], [20, 44]]).repeat(17, 1)
    xyz = torch.cat([square, torch.zeros(68, 1)], 1).repeat(count, 1, 1)
    points = augmenter.points(xyz, tight_boxes(xyz), torch.Generator().manual_seed(0)).double().numpy()
    across = points[:, 1, :2] - points[:, 0, :2]
    middle = points[:, :4, :2].mean(1) - 31.5
    size = np.linalg.norm(across, axis=1)
    return np.rad2deg(np.arctan2(across[:, 1], across[:, 0])), size / (64 / 1.25), middle / size[:, None]


def test_uniform_draws_fill_their_ranges_and_go_no_farther():
    angle, factor, shift = moves(draws="uniform", rotation=35.0, scale=0.15, shift=0.05)
    assert np.abs(angle).max() <= 35.01 and angle.std() == pytest.approx(35 / 3**0.5, rel=0.05)
    assert factor.min() >= 0.8499 and factor.max() <= 1.1501 and factor.std() == pytest.approx(0.15 / 3**0.5, rel=0.05)
    assert np.linalg.norm(shift, axis=1).max() <= 0.05 * 2**0.5 + 1e-3


def test_normal_draws_end_at_the_clip_and_some_faces_are_not_turned():
    angle, _, _ = moves(rotation=40.0, upright=0.4, clip=2.0)
    still = np.abs(angle) < 1e-3
    assert still.mean() == pytest.approx(0.4, abs=0.03)
    assert np.abs(angle).max() <= 80.01 and (np.abs(angle) > 79.9).mean() == pytest.approx(0.6 * 0.0455, abs=0.01)


@pytest.mark.parametrize("outside", ["mirrored", "black"])
def test_beyond_the_picture_it_is_mirrored_or_black(outside):
    images = torch.full((1, 3, 40, 40), 200, dtype=torch.uint8)
    xyz = torch.tensor([[[5.0, 5, 0], [35, 35, 0]]]).repeat(1, 34, 1)
    augmenter = Augmenter(Augmentation(**STILL, outside=outside), 64, 2.0)  # the crop is 60 px, the picture 40
    seen = torch.ones(1, 68, dtype=torch.bool)
    crop = augmenter(StoredBatch(xyz, seen, torch.eye(3)[None], images=images), torch.Generator().manual_seed(0)).crops[
        0
    ]
    corner, middle = crop[:, 2, 2], crop[:, 32, 32]
    torch.testing.assert_close(middle, torch.full((3,), 200 / 255))
    torch.testing.assert_close(corner, torch.full((3,), 200 / 255 if outside == "mirrored" else 0.0))


def test_a_gaussian_blur_is_one_and_keeps_the_mean():
    """A dot becomes a Gaussian: its variance along x is that of the kernel, cut at 6 px."""
    dots = torch.zeros(3, 3, 33, 33)
    dots[:, :, 16, 16] = 1
    deviation = torch.tensor([0.5, 1.0, 2.0])
    blurred = _blurred(dots, deviation)
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(3, 3))
    across = blurred[:, 0].sum(1)
    variance = (across * (torch.arange(33) - 16.0) ** 2).sum(1)
    torch.testing.assert_close(variance[1:], deviation[1:] ** 2, rtol=0.02, atol=0)
    weights = torch.exp(-0.5 * (torch.arange(-6, 7) / 0.5) ** 2)
    torch.testing.assert_close(across[0, 10:23], weights / weights.sum())
    images = (torch.rand(64, 3, 40, 40) * 255).byte()
    xyz = torch.tensor([[[5.0, 5, 0], [35, 35, 0]]]).repeat(64, 34, 1)
    stored = StoredBatch(xyz, torch.ones(64, 68, dtype=torch.bool), torch.eye(3).repeat(64, 1, 1), images=images)
    plain, some = (
        Augmenter(Augmentation(**{**STILL, "soft": p, "softest": 2.0}), 40, 1.3)(
            stored, torch.Generator().manual_seed(0)
        ).crops
        for p in (0.0, 0.5)
    )
    changed = (plain != some).flatten(1).any(1).float().mean()
    assert 0.3 < changed < 0.7


def test_a_wide_blur_is_as_wide_as_asked():
    """A Gaussian cut at three deviations has 1 - 2 * 3 phi(3) / (2 Phi(3) - 1) = 0.973 of the variance; a sum over
    whole pixels, ends included, a little more."""
    dot = torch.zeros(1, 3, 65, 65)
    dot[:, :, 32, 32] = 1
    down = _blurred(dot, torch.tensor([5.0]))[0, 0].sum(1)
    variance = (down * (torch.arange(65) - 32.0) ** 2).sum()
    assert 0.973 < float(variance) / 25 < 1
    stripes = torch.zeros(8, 3, 40, 40, dtype=torch.uint8)
    stripes[..., ::4] = 255
    xyz = torch.tensor([[[5.0, 5, 0], [35, 35, 0]]]).repeat(8, 34, 1)
    stored = StoredBatch(xyz, torch.ones(8, 68, dtype=torch.bool), torch.eye(3).repeat(8, 1, 1), images=stripes)

    def contrast(softest: float) -> float:
        augmenter = Augmenter(Augmentation(**{**STILL, "soft": 1.0, "softest": softest}), 40, 1.3)
        return augmenter(stored, torch.Generator().manual_seed(0)).crops[..., 10:30, 10:30].std().item()

    assert contrast(6.0) < contrast(1.0) / 2


def test_masks_go_along_with_a_flip():
    known = torch.ones(1, 68, dtype=torch.bool)
    known[0, 36] = False
    xyz = torch.rand(1, 68, 3) * 30
    stored = StoredBatch(
        xyz, torch.ones(1, 68, dtype=torch.bool), torch.eye(3)[None],
        images=torch.zeros(1, 3, 40, 40, dtype=torch.uint8),
        known=known, deep=torch.zeros(1, dtype=torch.bool), posed=torch.ones(1, dtype=torch.bool),
    )  # fmt: skip
    batch = Augmenter(Augmentation(**{**STILL, "flip": 1.0}), 40, 1.3)(stored, torch.Generator().manual_seed(0))
    assert torch.nonzero(~batch.known[0]).flatten().tolist() == [45]  # the outer corner of the other eye
    assert batch.known_axes[0].sum(0).tolist() == [67, 67, 0]
    whole = FaceBatch(batch.xyz, batch.visible, batch.rotation, crops=batch.crops)
    joined = FaceBatch.concat([whole, batch])
    assert joined.known.sum(1).tolist() == [68, 67] and joined.deep.tolist() == [True, False]
    assert FaceBatch.concat([whole, whole]).known is None and whole.known_axes is None


def test_a_mirrored_face_blinks_with_the_other_eye():
    expression = torch.zeros(1, 52)
    expression[0, EXPRESSIONS.index("eyeBlinkLeft")] = 1
    stored = StoredBatch(
        torch.rand(1, 68, 3) * 30, torch.ones(1, 68, dtype=torch.bool), torch.eye(3)[None],
        expression=expression, images=torch.zeros(1, 3, 40, 40, dtype=torch.uint8),
    )  # fmt: skip
    flipped = Augmenter(Augmentation(**STILL | {"flip": 1.0}), 40, 1.3)(stored, torch.Generator().manual_seed(0))
    assert flipped.expression[0].nonzero().tolist() == [[EXPRESSIONS.index("eyeBlinkRight")]]


def test_covers_and_blurs_that_would_do_nothing_are_refused():
    for name, other in (("cover", "occlusion"), ("softest", "soft")):
        with pytest.raises(RecipeError, match=f"`augment.{name}` is 0.1"):
            Augmentation(**{name: 0.1, other: 0.5})
        Augmentation(**{name: 0.1, other: 0.0})


def test_normal_draws_end_at_so_many_deviations():
    given = STILL | {"scale": 0.1, "clip": 1.0, "rotation": 10.0, "shift": 0.02}
    augmenter = Augmenter(Augmentation(**given), 40, 1.3)
    xyz = torch.rand(2000, 68, 3, generator=torch.Generator().manual_seed(1)) * 30
    crop, _ = augmenter._placement(xyz, tight_boxes(xyz), torch.Generator().manual_seed(0))
    whole, _ = Augmenter(Augmentation(**STILL), 40, 1.3)._placement(
        xyz, tight_boxes(xyz), torch.Generator().manual_seed(0)
    )
    # a third of normal draws lies beyond one deviation, and is put there
    for moved, most in (((crop.side / whole.side).log(), 0.1), (crop.angle, math.radians(10))):
        assert moved.abs().max() == pytest.approx(most, rel=1e-4)
        assert (moved.abs() > most * 0.9999).float().mean() == pytest.approx(0.317, abs=0.04)
