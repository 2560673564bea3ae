"""The torch rasteriser against a loop over triangles and pixels that uses fractions, and against closed forms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from canthus.errors import CanthusError  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.geometry import raster  # noqa: E402
from canthus.geometry.raster import Rasteriser, rasterise  # noqa: E402


def twin(points: np.ndarray, triangles: np.ndarray, size: int, distance: np.ndarray | None = None):
    """What `rasterise` returns for one picture, one triangle and one pixel after the other, in exact arithmetic."""
    ids, weights = np.full((size, size), -1), np.zeros((size, size, 3))
    front = np.full((size, size), -np.inf)
    for t, triangle in enumerate(triangles):
        corners = [(Fraction(round(float(x) * 1024), 1024), Fraction(round(float(y) * 1024), 1024))
                   for x, y in points[triangle, :2]]  # fmt: skip

        def edge(a, b, p):
            return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

        area = edge(*corners)
        if area == 0:
            continue
        for row in range(size):
            for column in range(size):
                values, inside = [], True
                for k in range(3):
                    a, b = corners[(k + 1) % 3], corners[(k + 2) % 3]
                    a, b = (a, b) if area > 0 else (b, a)
                    value = edge(a, b, (column, row))
                    left, top = b[1] < a[1], b[1] == a[1] and b[0] > a[0]
                    inside &= value > 0 or (value == 0 and (left or top))
                    values.append(value)
                if not inside:
                    continue
                share = np.array([float(v / abs(area)) for v in values])
                if distance is None:
                    near = np.float32(share @ points[triangle, 2])
                else:
                    share = share / distance[triangle]
                    near = np.float32(share.sum())
                    share /= share.sum()
                if near > front[row, column]:
                    front[row, column], ids[row, column], weights[row, column] = near, t, share
    return ids, weights


def compare(points: np.ndarray, triangles: np.ndarray, size: int, distance: np.ndarray | None = None) -> None:
    ids, weights = rasterise(
        torch.tensor(points), torch.tensor(triangles), size, None if distance is None else torch.tensor(distance)
    )
    assert ids.dtype == torch.int64 and weights.dtype == torch.float32
    for k in range(len(points)):
        expected = twin(points[k], triangles, size, None if distance is None else distance[k])
        np.testing.assert_array_equal(ids[k], expected[0])
        np.testing.assert_allclose(weights[k], expected[1], atol=1e-6)


@pytest.mark.parametrize("perspective", [False, True])
def test_random_triangles_as_a_plain_loop_draws_them(perspective):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-4, 16, (3, 24, 2)), rng.normal(size=(3, 24, 1))], 2)
    distance = rng.uniform(1, 9, (3, 24)) if perspective else None
    compare(points, rng.integers(0, 24, (20, 3)), 12, distance)


def test_points_on_pixel_centres_as_a_plain_loop_draws_them():
    # Every edge and corner meets pixel centres, so the rule for edges decides nearly everything.
    rng = np.random.default_rng(1)
    points = rng.integers(-1, 9, (4, 12, 3)).astype(float)
    compare(points, rng.integers(0, 12, (15, 3)), 8)


def test_many_small_portions_give_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    points, triangles = torch.tensor(rng.uniform(0, 40, (2, 60, 3))), torch.tensor(rng.integers(0, 60, (50, 3)))
    ids, weights = rasterise(points, triangles, 40)
    monkeypatch.setattr(raster, "CHUNK", 300)
    assert len(list(Rasteriser(points[0], triangles, torch.zeros(50, dtype=torch.int64), (1, 40)).fragments())) > 10
    again = rasterise(points, triangles, 40)
    assert torch.equal(ids, again[0]) and torch.equal(weights, again[1])


@pytest.mark.parametrize("shift", [0.0, 0.5, 0.1234])
def test_a_flat_mesh_covers_each_pixel_once(shift):
    # A triangulated sheet over the whole picture, its inner points anywhere: no gaps, no pixel covered twice.
    rng = np.random.default_rng(3)
    n = 9
    grid = np.stack(np.meshgrid(np.linspace(-3, 34, n), np.linspace(-3, 34, n)), -1)
    grid[1:-1, 1:-1] += rng.uniform(-1.5, 1.5, (n - 2, n - 2, 2))
    points = np.concatenate([grid.reshape(-1, 2) + shift, np.zeros((n * n, 1))], 1)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    triangles = np.concatenate([
        np.stack([corner, corner + 1, corner + n], 1), np.stack([corner + n + 1, corner + 1, corner + n], 1)
    ])  # fmt: skip
    sheet = Rasteriser(torch.tensor(points), torch.tensor(triangles), torch.zeros(2 * (n - 1) ** 2, dtype=int), (1, 32))
    pixels = torch.cat([f.pixel for f in sheet.fragments()])
    assert sorted(pixels.tolist()) == list(range(32 * 32))


def test_a_square_owns_its_left_and_top_edge_only():
    # Corners at pixel centres 1 and 4: three columns and rows, 1 to 3.
    square = torch.tensor([[[1.0, 1, 0], [4, 1, 0], [4, 4, 0], [1, 4, 0]]])
    ids, _ = rasterise(square, torch.tensor([[0, 1, 2], [0, 2, 3]]), 6)
    expected = torch.zeros(6, 6, dtype=bool)
    expected[1:4, 1:4] = True
    assert torch.equal(ids[0] >= 0, expected)


def test_weights_give_the_pixel_centre_back():
    points = torch.tensor(np.random.default_rng(4).uniform(-10, 40, (2, 30, 3)))
    triangles = torch.arange(30).view(10, 3)
    ids, weights = rasterise(points, triangles, 32)
    for k in range(2):
        row, column = (ids[k] >= 0).nonzero().T
        at = (points[k][triangles[ids[k, row, column]]] * weights[k, row, column, :, None]).sum(1)
        # Points are rounded to 1/1024 px and the weights to float32.
        np.testing.assert_allclose(at[:, :2], torch.stack([column, row], 1), atol=1e-3)
    assert (weights[ids < 0] == 0).all()


def test_perspective_weights_are_those_on_the_surface():
    # A pinhole of focal length 20 px looks at the plane q_z = -0.5 q_x, 4 away: the ray through pixel (u, v) is
    # (u, -v, -20) t, which meets distance 4 + 0.5 q_x at t (20 - 0.5 u) = 4.
    corners = np.array([[-3.0, -3], [3, -3], [0, 3]])
    head = np.column_stack([corners, -0.5 * corners[:, 0]])
    distance = 4 - head[:, 2]
    points = np.column_stack([20 * head[:, 0] / distance + 16, -20 * head[:, 1] / distance + 16, np.zeros(3)])
    ids, weights = rasterise(torch.tensor(points)[None], torch.tensor([[0, 1, 2]]), 32, torch.tensor(distance)[None])
    row, column = (ids[0] >= 0).nonzero().numpy().T
    got = weights[0, row, column].numpy() @ head
    t = 4 / (20 - 0.5 * (column - 16))
    np.testing.assert_allclose(got[:, 0], (column - 16) * t, atol=1e-3)
    np.testing.assert_allclose(got[:, 1], -(row - 16) * t, atol=1e-3)
    flat = rasterise(torch.tensor(points)[None], torch.tensor([[0, 1, 2]]), 32)[1][0, row, column].numpy() @ head
    assert np.abs(flat[:, 0] - (column - 16) * t).max() > 0.1  # without distances it is another place


def test_the_nearer_wins_and_at_equal_depth_the_lower_id():
    square = torch.tensor([[0.0, 0], [8, 0], [8, 8], [0, 8]])
    for z, winner in (((-3.0, -2.0), 1), ((-2.0, -3.0), 0), ((1e-3, 2e-3), 1), ((-1.0, 1.0), 1), ((0.0, -0.0), 0)):
        points = torch.cat([torch.cat([square, torch.full((4, 1), h)], 1) for h in z])[None]
        ids, _ = rasterise(points, torch.tensor([[0, 1, 2], [4, 5, 6]]), 8)
        assert set(ids.unique().tolist()) == {-1, winner}, z


def test_what_cannot_be_drawn_is_left_out():
    good = [[0.0, 0, 0], [8, 0, 0], [0, 8, 0]]
    points = torch.tensor([[*good, [float("nan"), 1, 1], [float("inf"), 1, 1], [1e9, 1e9, 5]]])
    triangles = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 4, 2], [0, 0, 1], [5, 5, 5]])
    ids, _ = rasterise(points, triangles, 8)
    assert set(ids.unique().tolist()) == {-1, 0}
    distance = torch.tensor([[1.0, 1, 1, 1, 1, 1]])
    assert (rasterise(points, triangles[:1], 8, distance)[0] == 0).any()
    distance[0, 1] = -0.5  # behind the camera
    assert (rasterise(points, triangles[:1], 8, distance)[0] == -1).all()
    ids, weights = rasterise(points + 100, triangles, 8)  # beside the picture
    assert (ids == -1).all() and (weights == 0).all()
    assert (rasterise(points, triangles[:0], 8)[0] == -1).all()


def test_wrong_shapes_are_named():
    points, triangles = torch.zeros(2, 5, 3), torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(CanthusError, match=r"wanted \(B, V, 3\)"):
        rasterise(points[0], triangles, 8)
    with pytest.raises(CanthusError, match=r"got distances \(5,\)"):
        rasterise(points, triangles, 8, torch.ones(5))


def test_a_head_hides_its_back():
    model = MorphableModel.default()
    scale = 64 / 330
    points = torch.tensor(model.mean) * torch.tensor([scale, -scale, scale]) + torch.tensor([32.0, 32, 0])
    triangles = torch.tensor(model.triangles).long()
    mesh = Rasteriser(points, triangles, torch.zeros_like(triangles[:, 0]), (1, 64))
    seen = mesh.visible().owner
    assert mesh.front[seen].float().mean() > 0.99  # triangles run anticlockwise seen from outside
    xyz = points[triangles[seen]]
    behind = (xyz.mean(1)[:, 2] < -120 * scale).float().mean()  # the back of the head lies 193 mm behind, the neck 140
    assert behind < 0.02
    assert 0.3 < len(seen) / 64**2 < 0.7
