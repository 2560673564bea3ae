"""swift: what its own functions promise; what all methods promise is in test_methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs `pip install canthus[train]`")

from torch.nn import functional  # noqa: E402

from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.face.landmarks import scheme  # noqa: E402
from canthus.face.measures import eye_aspect_ratio  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.methods.swift.answers import USUAL, Heatmaps, ShapeModes, landmark_modes  # noqa: E402
from canthus.methods.swift.config import SwiftConfig  # noqa: E402
from canthus.methods.swift.details import (  # noqa: E402
    LEFT_EYE,
    LOWER,
    MOUTH,
    PATCH,
    RIGHT_EYE,
    UPPER,
    Lids,
    Patches,
)
from canthus.methods.swift.method import Swift  # noqa: E402


def test_sigma_is_scaled_and_nothing_else():
    torch.manual_seed(0)
    aligner = Swift(SwiftConfig(size=32, widths=(4, 4), depths=(1, 1), features=8, places=2)).eval()
    crops = torch.rand(3, 3, 32, 32)
    before = aligner(crops)
    aligner.scale_sigma(1.5, 1.2)
    after = aligner(crops)
    torch.testing.assert_close(after.sigma / 32, 1.5 * (before.sigma / 32) ** 1.2)
    for name in ("xyz", "visible", "rotation"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=0)


def faces(count: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth pictures, points as of upright faces in sides of the crop, and rotations without a turn."""
    torch.manual_seed(1)
    pictures = functional.interpolate(torch.rand(count, 3, 8, 8), size=(size, size), mode="bicubic")
    points = torch.rand(count, 68, 2) * 0.6 - 0.3
    return pictures, points, torch.eye(3).repeat(count, 1, 1)


def test_an_upright_patch_is_the_picture_around_its_points():
    # a picture whose red rises by x and green by y, both in sides of the crop from its centre: -0.5 .. 0.5
    axis = (torch.arange(64) + 0.5) / 64 - 0.5
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    picture = torch.stack([u, v, torch.zeros_like(u)])[None]
    points = 0.2 * torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0)) - 0.1
    patches = Patches(picture, points, torch.eye(3)[None])
    width, height = points[0].amax(0) - points[0].amin(0)
    side = MOUTH.side * (width * height).sqrt()
    centre = points[0, list(MOUTH.points)].mean(0)
    step = (torch.arange(PATCH) + 0.5) / PATCH - 0.5
    patch = patches.cut(MOUTH)[0]
    torch.testing.assert_close(patch[0], (centre[0] + side * step)[None, :].expand(PATCH, PATCH), atol=1e-4, rtol=0)
    torch.testing.assert_close(patch[1], (centre[1] + side * step)[:, None].expand(PATCH, PATCH), atol=1e-4, rtol=0)


def test_a_turned_head_gives_the_patch_of_the_upright_one():
    pictures, points, upright = faces(3)
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # clockwise, in axes with y up
    turned = torch.rot90(pictures, -1, (2, 3))  # clockwise: x right becomes y down
    moved = torch.stack([-points[..., 1], points[..., 0]], -1)
    for region in (RIGHT_EYE, MOUTH):
        expected = Patches(pictures, points, upright).cut(region)
        torch.testing.assert_close(Patches(turned, moved, quarter @ upright).cut(region), expected, atol=1e-5, rtol=0)


def test_the_left_eye_of_a_face_is_the_right_eye_of_its_mirror_image():
    pictures, points, upright = faces(3)
    mirror = list(scheme("ibug68").mirror)
    other = points[:, mirror] * torch.tensor([-1.0, 1.0])
    left = Patches(pictures, points, upright).cut(LEFT_EYE)
    torch.testing.assert_close(left, Patches(pictures.flip(-1), other, upright).cut(RIGHT_EYE), atol=1e-5, rtol=0)


def test_a_correction_moves_points_along_the_axes_of_the_head():
    _, points, upright = faces(1)
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    width, height = (points.amax(1) - points.amin(1))[0]
    side = RIGHT_EYE.side * (width * height).sqrt()
    down = torch.tensor(
        [[[0.0, 1.0]]]
    )  # one side of the patch; of a head turned clockwise, down is left in the picture
    crop = torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(
        Patches(crop, points, upright).offsets(down, RIGHT_EYE)[0, 0], side * torch.tensor([0.0, 1.0])
    )
    torch.testing.assert_close(
        Patches(crop, points, quarter @ upright).offsets(down, RIGHT_EYE)[0, 0], side * torch.tensor([-1.0, 0.0])
    )


def drawn(*cells: tuple[int, int]) -> torch.Tensor:
    """The point of a heatmap of 4 x 4 cells in which these (row, column) share everything, as a branch says it; the
    depth of a cell is 0.1 times its row."""
    branch = Heatmaps(4, 4, 4)
    score = torch.full((1, 68, 4, 4), -200.0)
    for row, column in cells:
        score[:, :, row, column] = 200.0
    depth = 0.1 * torch.arange(4.0)[:, None].expand(1, 68, 4, 4)
    branch.draw.forward = lambda maps: torch.cat([score, depth], 1)
    return branch(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 2, 2))[0, 0]


def test_a_point_is_the_mean_of_a_heatmap():
    # Cells are 1/4 of the side wide, their centres at -3/8, -1/8, 1/8, 3/8 from the middle; x is the column.
    torch.testing.assert_close(drawn((0, 3)), torch.tensor([0.375, -0.375, 0.0]))
    torch.testing.assert_close(drawn((2, 1)), torch.tensor([-0.125, 0.125, 0.2]))
    torch.testing.assert_close(drawn((1, 1), (2, 3)), torch.tensor([0.125, 0.0, 0.15]))


@pytest.mark.parametrize("added", [("heatmaps",), ("modelled",), ("heatmaps", "modelled")])
def test_points_are_the_mean_of_all_answers(added):
    torch.manual_seed(0)
    sizes = {"size": 64, "widths": (4, 4, 4), "depths": (1, 1, 1), "features": 8, "places": 2, "details": False}
    keys, branch = {"heatmaps": "heatmaps", "modelled": "modes"}, {"heatmaps": "heatmaps.", "modelled": "shape."}
    crops = torch.rand(2, 3, 64, 64)
    several = Swift(SwiftConfig(**sizes, **{keys[name]: 8 for name in added})).eval()
    steps = torch.stack(several(crops).steps)
    assert several.answers == ("regressed", *added) and len(steps) == 1 + len(added)
    torch.testing.assert_close(several(crops).xyz, steps.mean(0))
    assert ((steps - steps[0]).abs().amax((1, 2, 3))[1:] > 1e-3).all()
    alone = Swift(SwiftConfig(**sizes)).eval()
    left = several.load_state_dict(alone.state_dict(), strict=False)
    assert {name.split(".")[0] + "." for name in left.missing_keys} == {branch[name] for name in added}
    assert not left.unexpected_keys
    torch.testing.assert_close(several(crops).steps[0], alone(crops).xyz)
    assert alone(crops).steps == () and "regressed" not in alone.stages()[0].terms
    assert set(several.stages()[0].terms) - set(alone.stages()[0].terms) == {"regressed", *added}


def test_modes_are_those_of_the_head_model():
    """All of them give back every head of the model around its centre, and the first ones are the strongest: what the
    rest of 16 leaves of heads with identity N(0, 1) is the sum of the squares of the other modes."""
    model = MorphableModel.default()
    mean, modes = landmark_modes(model, 132)
    rng = np.random.default_rng(0)
    identity, usual = rng.normal(size=(400, 80)), USUAL * rng.normal(size=(400, 52))
    basis = np.concatenate([model.at_landmarks(model.identity), model.at_landmarks(model.expression)])
    heads = np.einsum("nk,klc->nlc", np.hstack([identity, usual]), basis) + model.landmarks()[0]
    moved = (heads - heads.mean(1, keepdims=True) - mean).reshape(400, -1)
    flat = modes.reshape(132, -1)
    amounts = moved @ np.linalg.pinv(flat)
    np.testing.assert_allclose(amounts @ flat, moved, atol=0.01)  # mm
    np.testing.assert_allclose(amounts[:, :16].std(0), 1, atol=0.15)  # 400 draws: 0.035 each
    left = moved - moved @ np.linalg.pinv(flat[:16]) @ flat[:16]
    assert (left**2).sum(1).mean() == pytest.approx((flat[16:] ** 2).sum(), rel=0.1)


def test_the_modelled_answer_is_turned_scaled_and_shifted():
    """Of an untrained branch the mean head from the front, of which the longer side of the box is 1 / crop_scale of the
    crop; then a head turned to 90 degrees, twice as large, moved, with one mode."""
    config = SwiftConfig(size=64, widths=(4, 4, 4), depths=(1, 1, 1), places=2, features=8, modes=5, crop_scale=1.4)
    branch = ShapeModes(4, 64, config).eval()
    mean, modes = landmark_modes(MorphableModel.default(), 5)
    scale = 1 / 1.4 / np.ptp(mean[:, :2], axis=0).max()
    said = branch.out.bias.detach()[None].clone()
    branch.out.forward = lambda hidden: said
    maps = torch.zeros(1, 4, 8, 8)
    front = branch(maps)[0].numpy()
    np.testing.assert_allclose(front, scale * mean * [1, -1, 1], atol=1e-6)
    assert np.ptp(front[:, :2], axis=0).max() == pytest.approx(1 / 1.4)
    # columns of the rotation: the head's x points away from the camera, its y stays: z becomes x
    said[0, :6], said[0, 6:8] = torch.tensor([0.0, 0, -1, 0, 1, 0]), torch.tensor([0.1, -0.2])
    said[0, 8], said[0, 9] = float(np.log(2 * scale)), 3.0
    head = mean + 3 * modes[0]
    expected = 2 * scale * np.stack([head[:, 2], -head[:, 1], -head[:, 0]], 1) + [0.1, -0.2, 0]
    np.testing.assert_allclose(branch(maps)[0].numpy(), expected, atol=1e-6)


def test_details_are_one_key():
    torch.manual_seed(0)
    sizes = {"size": 64, "widths": (4, 4, 4), "depths": (1, 1, 1), "features": 8, "places": 2}
    crops = torch.rand(2, 3, 64, 64)
    bare = Swift(SwiftConfig(**sizes, details=False)).eval()
    assert bare(crops).expression is None and [s.name for s in bare.stages()] == ["regression", "likelihood"]
    whole = Swift(SwiftConfig(**sizes)).eval()
    missing, unexpected = whole.load_state_dict(bare.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("details.") for name in missing)
    answer, kept = whole(crops), [k for k in range(68) if k not in RIGHT_EYE.points + LEFT_EYE.points + MOUTH.points]
    assert len(kept) == 17 + 9  # jaw and nose
    torch.testing.assert_close(answer.xyz[:, kept], bare(crops).xyz[:, kept])
    unknown = [EXPRESSIONS[k] for k in answer.expression.isnan().all(0).nonzero()[:, 0]]
    assert unknown == ["tongueOut"] and answer.expression_sigma.isfinite().all()


def test_expressions_that_are_not_known_do_not_count():
    torch.manual_seed(0)
    aligner = Swift(SwiftConfig(size=64, widths=(4, 4, 4), depths=(1, 1, 1), features=8, places=2)).train()
    known = torch.full((2, 52), torch.nan)
    known[0, :3] = 0.5
    batch = FaceBatch(
        torch.rand(2, 68, 3), torch.ones(2, 68), torch.eye(3).repeat(2, 1, 1), crops=torch.rand(2, 3, 64, 64)
    )
    answer = aligner(batch.crops)
    terms = aligner.loss(answer, replace(batch, expression=known))
    expected = ((answer.expression[0, :3] - 0.5) ** 2).mean()
    torch.testing.assert_close(terms["expression_square"], torch.stack([expected, torch.zeros(())]))
    assert float(terms["expression"][1].detach()) == 0
    sum(terms[name].sum() for name in ("expression", "expression_square")).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in aligner.parameters())
    assert aligner.loss(aligner(batch.crops), batch)["expression_square"].abs().max() == 0  # no truth at all


def test_what_is_said_of_expressions_teaches_the_trunk():
    torch.manual_seed(0)
    aligner = Swift(SwiftConfig(size=64, widths=(4, 4, 4), depths=(1, 1, 1), features=8, places=2)).train()
    aligner(torch.rand(2, 3, 64, 64)).expression[:, :3].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in aligner.trunk.parameters())
    trains = {stage.name: stage.trains for stage in aligner.stages()}
    assert trains["details"] == ("details",) and {"trunk", "details"} < set(trains["joint"])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"modes": -3}, "`modes` is -3; 0 or more"),
        ({"modes": 500}, "`modes` is 500; at most 132"),  # 80 of identity and 52 expressions
        ({"heatmaps": -4}, "`heatmaps` is -4; 0 or more"),
        ({"features": 0}, "`features` is 0; 1 or more"),
        ({"size": 50}, "`size` is 50; a multiple of 16"),
        ({"depths": (1,)}, r"`depths` \(1,\); as many numbers above zero in each"),
        ({"widths": (8,), "depths": (1,)}, "two or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, said):
    with pytest.raises(RecipeError, match=said):
        Swift(SwiftConfig(**sizes))


def mean_head(yaw: float = 0.3) -> torch.Tensor:
    """The mean landmarks of the shipped head, seen from a side, in sides of the crop (1,68,3), y down."""
    points = torch.tensor(MorphableModel.default().landmarks()[0], dtype=torch.float32) / 250
    c, s = np.cos(yaw), np.sin(yaw)
    turned = points @ torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=torch.float32)
    return (turned - turned.mean(0))[None] * torch.tensor([1.0, -1, 1])


def test_lids_alone_move_by_shares_of_the_eyes_width_along_the_faces_vertical():
    lids, points = Lids(4), mean_head()
    expression = torch.rand(1, 52, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lids(points, expression), points, rtol=0, atol=0)  # untrained
    with torch.no_grad():
        lids.moves[2].bias.copy_(torch.tensor([0.1, -0.05]))  # upper lids up, lower ones down
    moved = lids(points, expression)
    before, after = (torch.tensor(eye_aspect_ratio(p.numpy() * [1, -1, 1])) for p in (points, moved.detach()))
    torch.testing.assert_close(after, before + 0.15, rtol=0, atol=1e-4)
    still = [k for k in range(68) if k not in UPPER + LOWER]
    torch.testing.assert_close(moved[:, still], points[:, still], rtol=0, atol=0)


def test_lids_of_a_mirrored_face_are_those_of_the_face_mirrored():
    torch.manual_seed(0)
    lids, points, expression = Lids(8), mean_head(), torch.rand(1, 52)
    torch.nn.init.normal_(lids.moves[2].weight)
    swapped = [EXPRESSIONS.index(_other_side(name)) for name in EXPRESSIONS]
    mirror, flip = list(scheme("ibug68").mirror), torch.tensor([-1.0, 1, 1])
    expected = (lids(points, expression) * flip)[:, mirror]
    torch.testing.assert_close(lids((points * flip)[:, mirror], expression[:, swapped]), expected, rtol=0, atol=1e-6)


def _other_side(name: str) -> str:
    for a, b in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(a):
            return name.removesuffix(a) + b
    return name


def test_lids_learn_what_expressions_say():
    """Points that know nothing of the blink; the loss of the stage, its optimiser and rate."""
    torch.manual_seed(0)
    lids, points = Lids(16), mean_head().repeat(64, 1, 1)
    expression = torch.zeros(64, 52)
    for side in ("Left", "Right"):
        expression[:, EXPRESSIONS.index(f"eyeBlink{side}")] = torch.linspace(0, 1, 64)
    truth = points.clone()
    truth[:, UPPER] += torch.linspace(0, 1, 64)[:, None, None] * (points[:, LOWER] - points[:, UPPER])
    optimizer = torch.optim.AdamW(lids.parameters(), 3e-3)

    def loss() -> torch.Tensor:
        error = lids(points, expression) - truth
        return 1e3 * ((error[:, UPPER] - error[:, LOWER])[..., :2] ** 2).sum(-1).mean()

    first = loss().item()
    for _ in range(300):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.1 * first


def test_lids_without_expressions_are_refused():
    with pytest.raises(RecipeError, match="`details: true` is wanted"):
        SwiftConfig(lids=16, details=False)
