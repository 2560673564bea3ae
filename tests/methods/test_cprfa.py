"""cprfa: point-set representations, vertices from codes, the face model in the network, and the two rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pointset = pytest.importorskip("canthus.methods.cprfa.pointset")

from faces_maker import make_faces  # noqa: E402
from small import CONFIGS, STILL  # noqa: E402
from torch import Tensor  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.sample import FaceBatch, StoredBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.faces import Alignment  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.face.morphable_fit import bounded_minimum  # noqa: E402
from canthus.geometry.crop import Crop, tight_boxes  # noqa: E402
from canthus.geometry.rotation import geodesic  # noqa: E402
from canthus.inference.runtime import OnnxAligner  # noqa: E402
from canthus.methods.cprfa import linear_face  # noqa: E402
from canthus.methods.cprfa.linear_face import LinearFace, normalised, pixels  # noqa: E402
from canthus.methods.cprfa.losses import code_image, distances, round_loss  # noqa: E402
from canthus.methods.cprfa.method import Cprfa, CprfaConfig  # noqa: E402
from canthus.methods.cprfa.pncc import lookup_forward, lookup_reverse, lookup_soft, nearest_code  # noqa: E402
from canthus.methods.cprfa.unet import UNet  # noqa: E402
from canthus.methods.cprfa.updates import Sample, Streams, Update  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.export import export_onnx  # noqa: E402

SIZE = 64
TURN = 0.3


def batch(count: int, size: int, seed: int = 0) -> FaceBatch:
    """Made faces with their vertices, cropped."""
    made = {name: torch.from_numpy(values) for name, values in make_faces(count, 2 * size, seed).items()}
    cut = Augmenter(Augmentation(**STILL), size, 1.375)
    images = made["image"].permute(0, 3, 1, 2)
    faces = cut(
        StoredBatch(made["xyz"], made["visible"], made["rotation"], images=images), torch.Generator().manual_seed(0)
    )
    crop = Crop.around_boxes(tight_boxes(made["xyz"]), 1.375, size)
    return replace(faces, vertices=crop.crop_from_image(made["vertices"]))


def config(**changes) -> CprfaConfig:
    return CprfaConfig(**{"size": SIZE, **CONFIGS["cprfa"], **changes})


def made(seed: int = 0, **changes) -> Cprfa:
    torch.manual_seed(seed)
    return Cprfa(config(**changes))


@pytest.fixture(scope="module")
def faces() -> FaceBatch:
    return batch(6, SIZE)


@pytest.fixture(scope="module")
def face() -> LinearFace:
    return LinearFace(MorphableModel.default(), 1.375)


@pytest.fixture
def states(face) -> Tensor:
    """Five faces, up to 1.2 rad from the front."""
    rng = torch.Generator().manual_seed(3)
    state = face.start(5)
    state[:, :-6] = torch.randn(5, face.coefficients, generator=rng)
    state[:, -6:] += torch.tensor([0.3, 0.8, 0.5, 0.2, 0.2, 0.2]) * (2 * torch.rand(5, 6, generator=rng) - 1)
    return state


# the face model in the network


def test_half_crops_and_pixels():
    # 4 px: centres 0..3 lie at -0.75, -0.25, 0.25, 0.75; y turns up
    points = torch.tensor([[0.0, 3.0, 2.0], [1.5, 1.5, 0.0]])
    there = normalised(points, 4)
    torch.testing.assert_close(there, torch.tensor([[-0.75, -0.75, 1.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(pixels(there, 4), points)
    torch.testing.assert_close(pixels(normalised(points[:, :2], 4), 4), points[:, :2])


def test_the_mean_face_fills_its_crop_at_the_papers_start(face):
    marks = face.project(face.shape(face.start(1)), face.start(1))[0, -68:, :2]
    low, high = marks.amin(0), marks.amax(0)
    torch.testing.assert_close((high + low) / 2, torch.zeros(2), atol=1e-5, rtol=0)
    assert float((high - low).max()) == pytest.approx(2 / 1.375, abs=1e-5)


def test_the_rotation_is_rz_ry_rx(face):
    x, y, z = 0.2, -0.5, 0.9
    state = face.start(1).double()
    state[0, -6:-3] = torch.tensor([x, y, z])

    one = torch.eye(3).double()

    def turn(axis: int, angle: float) -> Tensor:
        return torch.linalg.matrix_exp(angle * torch.linalg.cross(one[axis].expand(3, 3), one).T)

    torch.testing.assert_close(turn(0, np.pi / 2) @ one[1], one[2])  # right-handed: about +x it takes y to z
    torch.testing.assert_close(face.rotation(state)[0], turn(2, z) @ turn(1, y) @ turn(0, x))


def test_states_are_solved_exactly_from_vertices_and_landmarks(face, states):
    points = face.project(face.shape(states), states) + torch.tensor([0, 0, 7.0])  # z has no origin
    torch.testing.assert_close(face.solve(points, face.rotation(states)), states, atol=0.01, rtol=0)


def test_made_faces_are_solved_to_a_hundredth_of_a_pixel(face, faces):
    state = face.solve(normalised(torch.cat([faces.vertices, faces.xyz], 1), SIZE), faces.rotation)
    again = pixels(face.project(face.shape(state), state), SIZE)
    distance = torch.linalg.vector_norm(again[:, face.region, :2] - faces.vertices[:, face.region, :2], dim=-1)
    assert distance.max() < 0.01
    marks = torch.linalg.vector_norm(again[:, -68:, :2] - faces.xyz[..., :2], dim=-1)
    assert marks.max() < 0.01
    assert geodesic(face.rotation(state), faces.rotation).max() < 1e-3


def test_landmarks_that_no_vertex_has_count_as_much_as_all_vertices(face, faces):
    """All landmarks are moved by the same. Of a shift s of one half of the weight and none of the other, the shape
    aside, least squares leave s / 2 to each; the shape takes up some of it."""
    moved = torch.cat([faces.vertices, faces.xyz + torch.tensor([6.0, 0, 0])], 1)
    state = face.solve(normalised(moved, SIZE), faces.rotation)
    off = pixels(face.project(face.shape(state), state), SIZE)[..., 0] - moved[..., 0]
    assert (off[:, -68:].mean(1) < 0).all() and (off[:, : face.vertices].mean(1) > 0).all()
    assert (off[:, -68:].mean(1).abs() < 3.5).all() and (off[:, : face.vertices].mean(1) < 3.5).all()


def test_landmarks_alone_give_a_face_through_them(face, faces):
    state = face.solve(normalised(faces.xyz, SIZE), faces.rotation)
    marks = pixels(face.project(face.shape(state, slice(-68, None)), state), SIZE)
    assert torch.linalg.vector_norm(marks[..., :2] - faces.xyz[..., :2], dim=-1).mean() < 0.15
    assert (state[:, :-6].abs() < 8).all()


def test_a_mean_head_is_fitted_exactly_whatever_the_offset_of_its_depth(face, states):
    states[:, :-6] = 0
    points = face.project(face.shape(states, slice(-68, None)), states) + torch.tensor([0, 0, 7.0])
    found = face.fitted(face.start(5), points, torch.ones(5, 68, dtype=torch.bool))
    torch.testing.assert_close(found, states, atol=1e-4, rtol=0)


def test_a_fit_to_some_of_the_points_comes_nearer_each_time(face, states):
    states[:, :-6] = 0
    points = face.project(face.shape(states, slice(-68, None)), states) + torch.tensor([0, 0, 7.0])
    there = torch.rand(5, 68, generator=torch.Generator().manual_seed(0)) > 0.3
    points = torch.where(there[..., None], points, 100.0)
    found, errors = face.start(5), []
    for _ in range(20):  # points that are missing hold the head where it was, so each fit goes part of the way
        found = face.fitted(found, points, there)
        errors.append(float((found - states)[:, -6:].abs().max()))
    assert all(later < earlier for earlier, later in zip(errors[:4], errors[1:]))
    assert errors[-1] < 1e-2
    nothing = torch.zeros(5, 68, dtype=torch.bool)  # rounding: 1e-4 moves no landmark by over 1e-5 half crops
    torch.testing.assert_close(face.fitted(face.start(5), points, nothing), face.start(5), atol=1e-4, rtol=0)


def test_a_head_that_is_not_the_mean_is_turned_on_once_its_shape_is_known(face, states, monkeypatch):
    points = face.project(face.shape(states, slice(-68, None)), states)
    angles = []
    for refined in (0, 2):
        monkeypatch.setattr(linear_face, "REFINED", refined)
        found = face.fitted(face.start(5), points, torch.ones(5, 68, dtype=torch.bool))
        angles.append(float(geodesic(face.rotation(found), face.rotation(states)).mean()))
    assert angles[1] < angles[0]


def test_updates_begin_at_the_head_fitted_to_the_sparse_points(faces, face):
    """Untrained rounds change nothing but the shift."""
    found = made(solver="cpr-fused", fits=1).eval()(faces.crops, faces.xyz).xyz
    fitted = face.fitted(face.start(6), normalised(faces.xyz, SIZE), torch.ones(6, 68, dtype=torch.bool))
    apart = found - pixels(face.project(face.shape(fitted, slice(-68, None)), fitted), SIZE)
    torch.testing.assert_close(apart, apart.mean(1, keepdim=True).expand_as(apart), atol=1e-3, rtol=0)
    assert torch.linalg.vector_norm(found - faces.xyz, dim=-1).mean() < 1.0  # 2 % of the face is 0.9 px


# point-set representations


def clouds(count: int = 12) -> Tensor:
    """Points (2,N,3) of random heads, in double precision."""
    return torch.rand(2, count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


def rolled(points: Tensor, angle: float) -> Tensor:
    c, s = np.cos(angle), np.sin(angle)
    return points @ torch.tensor([[c, s], [-s, c]], dtype=points.dtype)


def pitched(points: Tensor, angle: float) -> Tensor:
    c, s = np.cos(angle), np.sin(angle)
    return points @ torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=points.dtype)


def change(kernel, moved: Tensor) -> float:
    """Mean absolute change of the entries off the diagonal."""
    there = ~torch.eye(moved.shape[-2], dtype=torch.bool)
    return float((kernel(moved) - kernel(clouds()[..., :2]))[..., there].abs().mean())


KERNELS = {
    "distance": pointset.distance,
    "in_plane": pointset.in_plane,
    "out_of_plane": pointset.out_of_plane,
    "literal": lambda points: pointset.in_plane(points, "literal"),
}
FLAT = clouds()[..., :2]
MOVES = {
    "shift": FLAT + 0.5,
    "scale": FLAT * 1.3,
    "roll": rolled(FLAT, TURN),
    "yaw": pitched(clouds(), TURN)[..., :2],
}


@pytest.mark.parametrize(
    ("kernel", "blind"),
    [
        ("out_of_plane", {"shift", "scale", "roll"}),
        ("in_plane", {"shift", "scale"}),
        ("distance", {"shift", "roll"}),
        # As printed: blind to the very turn that it should tell, and not to what it should be blind to.
        ("literal", {"roll", "scale"}),
    ],
)
def test_what_each_kernel_is_blind_to(kernel, blind):
    for move, points in MOVES.items():
        moved = change(KERNELS[kernel], points)
        assert moved < 1e-10 if move in blind else moved > 0.03, (kernel, move, moved)


def test_a_roll_changes_sines_by_what_geometry_says(face):
    """|sin(a + r) - sin a| = 2 sin(r/2) |cos(a + r/2)|, whose mean over all directions of edges is 2 sin(r/2) 2/pi:
    0.19 for 0.3 rad. The edges of a face do not point in all directions equally often."""
    points = face.mean[face.region[::15], :2].double()
    there = ~torch.eye(len(points), dtype=torch.bool)
    moved = (pointset.in_plane(rolled(points, 0.3)) - pointset.in_plane(points))[there].abs().mean()
    assert float(moved) == pytest.approx(2 * np.sin(0.15) * 2 / np.pi, abs=0.02)


def test_the_shape_kernel_in_3d_is_blind_to_every_pose():
    points = clouds()
    moved = pitched(points, TURN) * 1.3 + 0.5
    torch.testing.assert_close(pointset.out_of_plane(moved), pointset.out_of_plane(points))
    longer = points * torch.tensor([1.0, 1.2, 1.0])
    assert (pointset.out_of_plane(longer) - pointset.out_of_plane(points)).abs().mean() > 0.02


def test_matrices_by_hand():
    # a right angle: from the origin 3 to the right and 4 up
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(pointset.distance(points), torch.tensor([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]]))
    # rise / length of the edge from j (column) to i (row)
    sines = torch.tensor([[0, 0, -1], [0, 0, -0.8], [1, 0.8, 0]])
    torch.testing.assert_close(pointset.in_plane(points), sines)
    # entry (2,0): edge from 0 to 2 is (0,1), edge from 0's partner 1 to 0 is (-1,0): cosine 0;
    # (0,1): from 1 to 0 (-1,0), from 2 to 1 (0.6,-0.8): -0.6; (2,1): the edge from 2 to 1 and back: -1
    cosines = pointset.out_of_plane(points)
    assert cosines[2, 0] == pytest.approx(0) and cosines[0, 1] == pytest.approx(-0.6)
    assert cosines[2, 1] == pytest.approx(-1)


def compare(kernel: str, projected: Tensor, observed: Tensor, found: Tensor, in_plane: str = "edge_axis") -> Tensor:
    return getattr(pointset.Observation(observed, found, in_plane), kernel)(projected)


COMPARED = ("scale", "in_plane", "out_of_plane")


@pytest.mark.parametrize("kernel", ["edge_axis", "cross", "literal"])
def test_matrices_are_those_of_a_slow_twin(kernel):
    """Vectors with a last dimension of two and norms over it, as the kernels are written in the paper."""
    rng = torch.Generator().manual_seed(8)
    observed = FLAT + 0.1 * torch.randn(FLAT.shape, generator=rng, dtype=torch.float64)
    found = torch.rand(2, 12, generator=rng) < 0.8

    def edges(points: Tensor) -> Tensor:
        return points[..., :, None, :] - points[..., None, :, :]

    def unit(vectors: Tensor) -> Tensor:
        return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-4)

    def cosines(points: Tensor) -> Tensor:
        return (unit(edges(points)) * unit(points - points.roll(-1, -2))[..., None, :, :]).sum(-1)

    both = found[..., :, None] & found[..., None, :] & ~torch.eye(12, dtype=torch.bool)
    lengths = [torch.linalg.vector_norm(edges(points), dim=-1) for points in (FLAT, observed)]
    scale = ((lengths[0] / lengths[1].clamp(min=0.01)).clamp(0, 4) - 1) * (both & (lengths[1] >= 0.01))
    a, b = unit(edges(FLAT)), unit(edges(observed))
    in_plane = {
        "edge_axis": a[..., 1] - b[..., 1],
        "cross": a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        "literal": pointset.in_plane(FLAT, "literal") - pointset.in_plane(observed, "literal"),
    }[kernel]
    out_of_plane = (cosines(FLAT) - cosines(observed)) * (both & found.roll(-1, -1)[..., None, :])
    for name, slow in zip(COMPARED, (scale, in_plane * both, out_of_plane)):
        torch.testing.assert_close(compare(name, FLAT, observed, found, kernel), slow, atol=1e-12, rtol=0)


def test_a_pure_roll_is_one_number_everywhere_under_the_cross_kernel():
    turned = rolled(FLAT, TURN)
    entries = compare("in_plane", FLAT, turned, torch.ones(2, 12, dtype=torch.bool), "cross")
    there = ~torch.eye(12, dtype=torch.bool)
    torch.testing.assert_close(entries[:, there], torch.full((2, 132), np.sin(TURN), dtype=torch.float64))


def test_missing_points_and_perfect_matches_are_zero():
    rng = torch.Generator().manual_seed(0)
    found = torch.rand(2, 12, generator=rng) < 0.6
    other = FLAT + 0.1 * torch.randn(2, 12, 2, generator=rng)
    for kernel in COMPARED:
        assert (compare(kernel, FLAT, FLAT, found) == 0).all()
        entries = compare(kernel, FLAT, torch.where(found[..., None], other, 0), found)
        known = pointset.pairs(found)
        if kernel == "out_of_plane":
            known = pointset.triplets(found)
            entries = entries + torch.eye(12).roll(1, 0) * known  # from a partner and back: -1 whatever the points
        assert (entries[known].abs() > 1e-6).all() and (entries[~known] == 0).all()


def test_a_ratio_is_one_less_than_the_factor():
    entries = compare("scale", 1.2 * FLAT, FLAT, torch.ones(2, 12, dtype=torch.bool))
    there = ~torch.eye(12, dtype=torch.bool)
    torch.testing.assert_close(entries[:, there], torch.full((2, 132), 0.2, dtype=torch.float64))
    assert (compare("scale", 9 * FLAT, FLAT, torch.ones(2, 12, dtype=torch.bool))[:, there] == 3).all()


def test_the_mean_of_known_entries_is_the_least_squares_translation():
    rng = torch.Generator().manual_seed(5)
    other = FLAT + torch.randn(FLAT.shape, generator=rng, dtype=torch.float64)
    found = torch.tensor([[True] * 7 + [False] * 5, [True, False] * 6])
    matrices = pointset.translation(other, FLAT, found)
    assert matrices.shape == (2, 2, 12, 12)
    for k in range(2):
        points = int(found[k].sum())
        mean = matrices[k].sum((1, 2)) / points**2
        design = torch.eye(2, dtype=torch.float64).repeat(points, 1)
        least = torch.linalg.lstsq(design, (other - FLAT)[k, found[k]].reshape(-1, 1)).solution[:, 0]
        torch.testing.assert_close(mean, least, atol=1e-10, rtol=0)
        torch.testing.assert_close(pointset.shift(other, FLAT, found)[k], least, atol=1e-10, rtol=0)
        weights = torch.linspace(0, 0.01, 12, dtype=torch.float64)
        rows = weights.sqrt().repeat_interleave(2)[:, None]
        least = torch.linalg.lstsq(
            rows * torch.eye(2, dtype=torch.float64).repeat(12, 1), rows * (other - FLAT)[k].reshape(-1, 1)
        ).solution[:, 0]
        torch.testing.assert_close(pointset.shift(other, FLAT, weights.expand(2, -1))[k], least, atol=1e-10, rtol=0)
    assert (pointset.shift(other, FLAT, torch.zeros_like(found)) == 0).all()


def test_matrices_have_gradients_where_points_meet():
    points = torch.zeros(1, 4, 2, requires_grad=True)
    found = torch.ones(1, 4, dtype=torch.bool)
    other = torch.rand(1, 4, 2)
    for kernel in COMPARED:
        (gradient,) = torch.autograd.grad(compare(kernel, points, other, found).sum(), points)
        assert torch.isfinite(gradient).all()


# which vertices


def test_vertices_are_chosen_by_how_often_and_how_well():
    # Vertex 0 on every face of both yaws but badly, 1 always and well, 2 well but only from the front; 3 never.
    seen = torch.tensor([10.0, 5.0, 0.0])
    found = torch.tensor([[10.0, 10, 10, 0], [5.0, 5, 0, 0], [0.0, 0, 0, 0]])
    closeness = torch.tensor([1.5, 13.5, 9.0, 0])
    scores = pointset.vertex_scores(seen, found, closeness)
    # p1 = 1, 1, 1/2, 0; p2 = 0.1, 0.9, 0.9, 0
    torch.testing.assert_close(scores, torch.tensor([0.1, 0.9, 0.45, 0.0]))


def test_vertices_are_chosen_side_by_side_and_apart():
    x = torch.tensor([-1.0, -1.1, -3.0, 1.0, 1.1, 3.0, 0.0])
    mean = torch.stack([x, 0 * x, 0 * x], 1)
    scores = torch.tensor([9.0, 8.0, 7.0, 1.0, 3.0, 2.0, 99.0])
    right, left = pointset.select_vertices(scores, mean, 4)
    assert right.tolist() == [0, 1] and left.tolist() == [4, 5]  # none from the middle
    right, left = pointset.select_vertices(scores, mean, 4, spacing=0.5)
    assert right.tolist() == [0, 2] and left.tolist() == [4, 5]
    right, left = pointset.select_vertices(scores, mean, 6, spacing=0.5)
    assert right.tolist() == [0, 2, 1] and left.tolist() == [4, 5, 3]  # not enough: crowded ones after all


def test_the_layout_shuffles_each_side_and_takes_half_of_both():
    right, left = torch.arange(8), torch.arange(8) + 100
    rows = pointset.layout(right, left)
    assert rows.shape == (3, 8)
    assert sorted(rows[0].tolist()) == right.tolist() and sorted(rows[1].tolist()) == left.tolist()
    assert rows[0].tolist() != right.tolist()
    assert sorted(rows[2].tolist()) == [0, 2, 4, 6, 101, 103, 105, 107]
    assert torch.equal(rows, pointset.layout(right, left))


@pytest.mark.parametrize("length", [40, 64, 256])
def test_points_that_fill_a_matrix_stand_beside_others(length):
    """Of (N, N) pairs of N places that R points fill in turn, the share of a point with itself is 1 / R, a little more
    where N is no multiple of R; stretched, R points in 256 places have 85 % of partners j + 1 that are j itself."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [torch.arange(39), torch.arange(29, 68), torch.arange(68)]
    layout = pointset.repeated_layout(rows, length)
    assert layout.shape == (3, length) and (layout != layout.roll(-1, -1)).all()
    for row, filled in zip(rows, layout):
        assert set(filled.tolist()) <= set(row.tolist())
        assert filled.bincount(minlength=68)[row].max() <= -(-length // len(row))
        assert (filled[: len(row)].diff().abs() != 1).float().mean() > 0.9  # no neighbours in the face
        placed = points[filled]
        for matrix in (pointset.out_of_plane(placed), pointset.in_plane(placed)):
            assert (matrix == 0).double().mean() < 1.3 / min(len(row), length)


def test_what_the_sparse_stream_shows_is_nearly_nowhere_zero(face, states):
    """Away from the true state the matrices of the 68 points tell something nearly everywhere, in the paper's size."""
    layout = made(solver="cpr-fused", vertices=CprfaConfig().vertices).sparse_layout
    true = face.project(face.shape(states), states)[:, face.vertices + layout][..., :2]
    start = face.project(face.shape(face.start(5)), face.start(5))[:, face.vertices + layout][..., :2]
    observation = pointset.Observation(true, torch.ones_like(true[..., 0], dtype=torch.bool))
    for kernel in ("out_of_plane", "in_plane"):
        assert (getattr(observation, kernel)(start) == 0).float().mean() < 0.05
    assert observation.triplets.float().mean() > 0.99


# codes


@pytest.fixture(scope="module")
def painted(face) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True codes and masks of four faces at 128 px, their vertices and which of the region can be seen."""
    truth = batch(4, 128)
    aligner = Cprfa(config(size=128))
    codes, mask = code_image(aligner.face, truth.vertices, 128, 128)
    # seen: the code at the vertex's own pixel is near its own
    at = truth.vertices[:, face.region, :2].round().long().clamp(0, 127)
    there = torch.stack([c[:, p[:, 1], p[:, 0]].T for c, p in zip(codes, at)])
    seen = torch.linalg.vector_norm(there - face.codes[face.region], dim=-1) < 0.03
    return codes, mask > 0, truth.vertices[:, face.region, :2], seen


def test_codes_are_those_of_the_mean_face_within_0_and_1(face, painted):
    own = face.codes[face.region]
    torch.testing.assert_close(own.amin(0), torch.zeros(3))
    torch.testing.assert_close(own.amax(0), torch.ones(3))
    codes, mask, _, _ = painted
    assert (codes >= 0).all() and (codes <= 1).all() and (codes.movedim(1, -1)[~mask] == 0).all()
    assert 0.2 < mask.float().mean() < 0.8
    flipped = face.mean[face.region] * torch.tensor([-1.0, 1, 1])
    mirror = torch.cdist(flipped, face.mean[face.region]).argmin(1)
    torch.testing.assert_close(own[mirror, 0], 1 - own[:, 0], atol=2e-3, rtol=0)


def test_a_pixels_vertex_is_near_it(face, painted):
    codes, mask, true, _ = painted
    for image, inside, points in zip(codes, mask, true):
        y, x = inside.nonzero().T
        vertex = nearest_code(image[:, y, x].T, face.codes[face.region], 1.0)
        apart = torch.linalg.vector_norm(points[vertex] - torch.stack([x, y], 1), dim=1)
        # The largest triangles of the region are 0.08 of the code wide, 128 px * 0.08 / 1.1 = 9 px at the most.
        assert (apart < 5).float().mean() > 0.97 and apart.median() < 1.5


@pytest.mark.parametrize(
    ("lookup", "noise", "rate", "error"),
    [
        # Measured shares of the visible vertices that are found, and mean errors in px of 128. Pixels are 0.011 of
        # the code apart, more on slopes, so that half of one may be too far for reverse, too; the paper's model
        # has 14 times the vertices, of which forward finds less and reverse as much.
        (lookup_forward, 0.0, 0.75, 0.30),
        (lookup_reverse, 0.0, 0.88, 0.40),
        (lookup_forward, 0.005, 0.65, 0.60),
        (lookup_reverse, 0.005, 0.78, 0.60),
    ],
)
def test_how_many_vertices_are_found_and_how_well(face, painted, lookup, noise, rate, error):
    codes, mask, true, seen = painted
    codes = codes + noise * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    points, found = lookup(codes, mask, face.codes[face.region], 0.01)
    apart = torch.linalg.vector_norm(points - true, dim=-1)
    print(lookup.__name__, noise, found[seen].float().mean(), apart[found].mean(), apart[found & seen].median())
    assert float(found[seen].float().mean()) == pytest.approx(rate, abs=0.04)
    assert float(apart[found & seen].mean()) == pytest.approx(error, abs=0.2)


def test_with_true_codes_the_paper_finds_more_when_it_looks_in_reverse(face, painted):
    codes, mask, _, seen = painted
    own = face.codes[face.region]
    forward = lookup_forward(codes, mask, own, 0.01)[1][seen].float().mean()
    assert lookup_reverse(codes, mask, own, 0.01)[1][seen].float().mean() > forward + 0.1


def test_soft_lookup_is_a_slow_weighted_mean(face, painted):
    """At 64 px every pixel is looked at: the mean of all places, weighted by how alike the codes are."""
    codes, mask = (
        torch.nn.functional.interpolate(a.float(), scale_factor=0.5) for a in (painted[0], painted[1][:, None])
    )
    own = face.codes[face.region][::40]
    points, found = lookup_soft(codes, mask[:, 0] > 0, own, 0.03, 0.05)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for k in range(4):
        inside = mask[k, 0] > 0
        apart = torch.cdist(own.double(), codes[k][:, inside].T.double())
        weight = torch.exp(-(apart**2) / (2 * 0.05**2))
        mean = torch.stack([(weight * a[inside]).sum(1) / weight.sum(1) for a in (x, y)], -1).float()
        sure = (apart.amin(1) - 0.03).abs() > 1e-4
        assert torch.equal(found[k][sure], (apart.amin(1) < 0.03)[sure]) and 0.2 < found[k].float().mean() < 0.95
        torch.testing.assert_close(points[k][found[k]], mean[found[k]], atol=0.02, rtol=0)
        assert (points[k][~found[k]] == 0).all()


def test_wrong_codes_place_a_vertex_better_together(face, painted):
    codes, mask, true, seen = painted
    codes = codes + 0.05 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    errors = []
    for lookup in (lookup_reverse, lookup_soft):
        points, found = lookup(codes, mask, face.codes[face.region], 0.05)
        errors.append(torch.linalg.vector_norm(points - true, dim=-1)[found & seen].mean())
    assert errors[1] < 0.6 * errors[0]


# the networks


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def macs(module, *inputs) -> float:
    """Billions of multiply-adds, counted without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module.eval()(*inputs)
    return counter.get_total_flops() / 2e9


def test_sizes_of_the_papers_networks():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        unet = UNet(CprfaConfig().widths, 5)
        assert count(unet) == 20_552_015
        assert macs(unet, torch.zeros(1, 3, 256, 256)) == pytest.approx(45.5, abs=0.05)
        half = UNet((32, 64, 128, 256, 256), 5)
        assert count(half) == 5_141_679
        assert macs(half, torch.zeros(1, 3, 256, 256)) == pytest.approx(11.4, abs=0.05)
        update = Update(3, 228, 1, 0, CprfaConfig())
        assert count(update) == 3_072_740  # the paper's model has 199 + 29 coefficients
        assert macs(update, torch.zeros(1, 3, 256, 256), [torch.zeros(1, 256)]) == pytest.approx(0.29, abs=0.005)
        # 10 -> 32 -> 32 -> 1: 11*32 + 33*32 + 33, for each of two streams
        assert count(Update(3, 2, 2, 10, CprfaConfig()).weights) == 2 * 1441


def test_a_residual_trunk_answers_from_half_the_crops_side_on():
    unet = UNet((4, 8, 12, 16), 5, (1, 1, 2, 1)).eval()
    crops = torch.rand(2, 3, 64, 64)
    maps = unet.trunk.scales(crops)
    assert [m.shape[1:] for m in maps] == [(4, 32, 32), (8, 16, 16), (12, 8, 8), (16, 4, 4)]
    assert torch.equal(maps[-1], unet.trunk(crops))
    assert [a.shape[1:] for a in unet(crops)] == [(5, 8, 8), (5, 16, 16), (5, 32, 32)]


def test_the_default_is_the_papers():
    aligner = Cprfa(CprfaConfig())
    assert count(aligner) == 64_669_229  # 20.6 M and, of each of two streams with crossings, 4 and 3 groups
    assert aligner.layout.shape == (3, 256)
    assert [len(r.groups) for r in (aligner.round_1, aligner.round_2)] == [4, 3]
    # 3 recurrences of 4 and 3 groups: 21 looks of the networks
    assert [len(r.schedule) - 1 for r in (aligner.round_1, aligner.round_2)] == [12, 9]
    order = [name for name, q in aligner.round_1.schedule if q == 0]
    assert order == ["shape", "out_of_plane", "in_plane", "scale", "translation"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("solver", "pnp-sparse"), ("solver", "pnp-dense"), ("solver", "cpr"), ("solver", "cpr-fused"),
        ("solver", "cpr-fused-capu"), ("recurrences", 1), ("order", "joint"), ("order", "interleaved"),
        ("in_plane", "literal"), ("in_plane", "edge_axis"), ("lookup", "forward"), ("share", 0.5), ("samples", 2),
        ("vertices", 64), ("known", False), ("path_errors", "raw"),
        ("lookup", "soft"), ("bounded", True), ("lost", 0.5), ("detected", 1.0),
        ("regression", "parameters"), ("code_loss", "all"),
    ],
)  # fmt: skip
def test_every_row_of_the_ablations_is_one_key(faces, key, value):
    aligner = made(**{key: value})
    out = aligner(faces.crops, faces.xyz)
    terms = aligner.loss(out, faces)
    stages = aligner.stages()
    expected = {"pnp-sparse": 1, "pnp-dense": 1, "cpr": 2, "cpr-fused": 2}.get(value, 3)
    assert len(stages) == expected
    for stage in stages:
        some = aligner.training_terms(faces, stage)
        assert stage.terms.keys() <= some.keys() and stage.terms.keys() <= terms.keys()
        assert all(v.shape == (6,) and torch.isfinite(v).all() for v in some.values())
    assert out.xyz.shape == (6, 68, 3) and torch.isfinite(out.xyz).all()
    assert out.coefficients.shape == (6, 132)


def test_pnp_on_true_landmarks_of_the_mean_face_is_exact(face, states):
    states[:, :-6] = 0
    xyz = pixels(face.project(face.shape(states, slice(-68, None)), states), SIZE)
    aligner = made(solver="pnp-sparse").eval()
    out = aligner(torch.zeros(5, 3, SIZE, SIZE), xyz)
    torch.testing.assert_close(out.xyz[..., :2], xyz[..., :2], atol=0.01, rtol=0)
    assert geodesic(out.rotation, face.rotation(states)).max() < 1e-3


def true_sight(aligner: Cprfa, states: Tensor) -> tuple[Streams, Sample]:
    """All vertices where they are."""
    face = aligner.face
    points = face.project(face.shape(states), states)[..., :2]
    ids = face.region[aligner.layout]
    streams = Streams(points[:, ids], torch.ones_like(points[:, ids][..., 0], dtype=torch.bool), ids)
    sampled = points[:, face.region]
    return streams, Sample(sampled, torch.ones_like(sampled[..., 0]), face.region)


def test_the_mesh_of_a_face_is_the_methods_own(faces):
    """Coefficients, pose and placement say together where the vertices are, and so the landmarks."""
    aligner = made(solver="pnp-sparse").eval()
    torch.manual_seed(0)
    state = aligner.face.start(6)
    state[:, :-6] = 0.5 * torch.randn(6, aligner.face.coefficients)
    state[:, -6:] += 0.2 * torch.randn(6, 6)
    face = aligner.face
    coefficients, placement = state[:, :-6] * face.spread, aligner._placement(state)
    said = Alignment(
        aligner.landmarks(state), rotation=face.rotation(state), coefficients=coefficients, placement=placement
    )
    crop = Crop(np.full((6, 2), 50.0), np.full(6, 128.0), np.full(6, 0.3), SIZE)
    result = said.to_image(crop, (200, 200))
    on_mesh = MorphableModel.default().at_landmarks(result.mesh().vertices)
    np.testing.assert_allclose(on_mesh, result.xyz, atol=0.01)
    np.testing.assert_allclose(result.mesh().identity, coefficients[:, : face.identities], atol=1e-6)


def test_pnp_without_a_vertex_stays_where_it_was(face):
    aligner = made(solver="pnp-dense")
    streams, _ = true_sight(aligner, face.start(2))
    blind = streams._replace(observed=torch.zeros_like(streams.observed), found=torch.zeros_like(streams.found))
    torch.testing.assert_close(aligner._pnp(blind), face.start(2), atol=1e-4, rtol=0)


def test_true_updates_end_at_the_truth(face, states):
    """With networks that give the wanted change, one round from the paper's start ends at the true state; its shift is
    solved, not told."""
    aligner = made(solver="cpr", known=False)
    true = states
    streams, sample = true_sight(aligner, true)

    class Oracle(torch.nn.Module):
        def __init__(self, group):
            super().__init__()
            self.group, self.calls = group, 0

        def forward(self, matrices, memory):
            self.calls += 1
            start = face.start(5)
            wanted = (true - start)[:, self.group.begin : self.group.end] * (self.calls == 2)  # at the second look
            return wanted[:, None], memory

    part = aligner.round_1
    for name, group in part.groups.items():
        part.updates[name] = Oracle(group)
    state, trail = part(face, face.start(5), streams, sample)
    torch.testing.assert_close(state, true, atol=1e-4, rtol=0)
    assert trail.shape == (5, 8, face.coefficients + 6)
    # each group is done before the next one begins
    assert (trail[:, 1, : face.coefficients] == true[:, : face.coefficients]).all()
    assert (trail[:, 1, -6:] == face.start(5)[:, -6:]).all()


def test_each_network_sees_nothing_once_its_group_is_right(face, states):
    """The matrices of a group are zero when it and all before it are true, whatever comes later."""
    aligner = made(solver="cpr", known=False)
    streams, _ = true_sight(aligner, states)
    observation = pointset.Observation(streams.observed, streams.found, aligner.config.in_plane)
    for group in aligner.round_1.groups.values():
        for end, zero in ((group.end, True), (group.begin, False)):
            end = max(end, face.coefficients + 2 if group.kernels == ("out_of_plane",) and zero else 0)
            state = torch.cat([states[:, :end], face.start(5)[:, end:]], 1)
            projected = face.project(face.shape(state, streams.ids), state[:, None])[..., :2]
            shown = aligner.round_1.matrices(group, projected, observation)
            assert shown.abs().mean() < 1e-4 if zero else shown.abs().mean() > 0.01


def test_path_errors_are_those_of_a_slow_twin(face, states):
    aligner = made(solver="cpr-capu", path_errors="raw")
    part = aligner.round_2
    _, (points, found, ids) = true_sight(aligner, states)
    found = torch.rand(points.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.3
    state = torch.cat([states[:, :-6], face.start(5)[:, -6:]], 1)
    group = part.groups["out_of_plane"]
    change = states[:, group.begin : group.end] - state[:, group.begin : group.end]
    shape = face.shape(state, ids)
    errors = part.path_errors(face, shape, state, "out_of_plane", change[:, None], Sample(points, found.float(), ids))[
        :, 0
    ]
    for i in range(10):
        there = state.clone()
        there[:, group.begin : group.end] += (i + 1) / 5 * change
        apart = torch.linalg.vector_norm(face.project(face.shape(there, face.region), there)[..., :2] - points, dim=-1)
        expected = torch.stack([a[f].mean() for a, f in zip(apart, found)])
        torch.testing.assert_close(errors[:, i], expected, atol=1e-4, rtol=0)


def test_normalised_errors_tell_a_path_apart_from_what_all_points_are_off_by(face, states):
    """The lowest error is where the whole change is done, the fifth of ten, however far one point in fifty is off; on a
    path whose errors vary less, they still run over their whole range."""
    aligner = made(solver="cpr-capu", path_errors="normalised")
    part = aligner.round_2
    _, (points, weight, ids) = true_sight(aligner, states)
    group = part.groups["in_plane"]
    state = states.clone()
    state[:, group.begin] -= 0.4
    change = torch.full((5, 1, 1), 0.4)
    wild = points.clone()
    wild[:, ::50] += 10.0
    for seen in (points, wild):
        told = part.path_errors(face, face.shape(state, ids), state, "in_plane", change, Sample(seen, weight, ids))[
            :, 0
        ]
        assert told.shape == (5, 12) and (told[:, :10].argmin(1) == 4).all()
        # from the start, whose value is 0, down to the lowest: a range of 1
        torch.testing.assert_close(told[:, 4], torch.full((5,), -1.0), atol=0.05, rtol=0)


@pytest.mark.parametrize("side", [SIZE, SIZE // 2])
def test_vertices_are_looked_up_in_half_crops_whatever_the_side_of_the_answer(faces, side):
    aligner = made(lookup="reverse", threshold=0.05)
    codes, mask = code_image(aligner.face, faces.vertices, SIZE, side)
    answer = torch.cat([torch.logit(codes, 1e-6), -mask[:, None], mask[:, None]], 1)
    region = torch.arange(len(aligner.face.region))
    points, found = aligner.look_up(answer, region)
    true = normalised(faces.vertices[:, aligner.face.region, :2], SIZE)
    assert torch.linalg.vector_norm(points - true, dim=-1)[found].median() < 2 / side  # a pixel of the answer


def test_errors_are_measured_on_a_random_tenth_of_the_vertices(faces):
    aligner = made(share=0.1).eval()
    codes, mask = code_image(aligner.face, faces.vertices, SIZE, SIZE)
    answer = torch.cat([torch.logit(codes, 1e-6), -mask[:, None], mask[:, None]], 1)
    streams, sample, _ = aligner._observe(answer, None)
    tenth = -(-len(aligner.face.region) // 10)
    assert sample.ids.shape == (tenth,) and len(set(sample.ids.tolist())) == tenth
    assert 0.05 < sample.weight.mean() < 0.9
    true = normalised(faces.vertices[:, sample.ids, :2], SIZE)
    assert torch.linalg.vector_norm(sample.observed - true, dim=-1)[sample.weight > 0].median() < 0.03  # 1 px of 64
    assert torch.equal(streams.ids, aligner.face.region[aligner.layout])
    assert torch.equal(sample.ids, aligner._observe(answer, None)[1].ids)
    assert not torch.equal(sample.ids, aligner.train()._observe(answer, None)[1].ids)
    # where no step is weighed there are none
    assert made(solver="cpr").eval()._observe(answer, None)[1].observed.shape == (len(answer), 0, 2)


def test_weights_learn_to_lengthen_and_shorten_steps():
    """Errors that fall along the whole path ask for a longer step, rising ones for none, a valley for what it is."""
    torch.manual_seed(0)
    update = Update(3, 1, 1, 10, config())
    way = torch.arange(1, 11) / 5
    valley = lambda best: (way - best[:, None]).abs() + 0.1  # noqa: E731
    assert torch.equal(update.weight(valley(torch.tensor([0.3, 1.7]))[:, None]), torch.ones(2, 1, 1))  # to begin with
    optimizer = torch.optim.Adam(update.weights.parameters(), 1e-2)
    for _ in range(200):
        best = 2 * torch.rand(64)
        loss = ((update.weight(valley(best)[:, None])[:, 0, 0] - best) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    falling, rising, middle = update.weight(valley(torch.tensor([2.0, 0.0, 1.0]))[:, None])[:, 0, 0].tolist()
    assert falling > 1.6 and rising < 0.4 and middle == pytest.approx(1, abs=0.2)


def test_without_norm_a_network_sees_how_large_differences_are():
    """Convolutions without bias and ReLU: twice the matrices, twice the maps. Group norm gives the same for both."""
    matrices = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for norm in (False, True):
        torch.manual_seed(0)
        trunk = Update(3, 2, 1, 0, replace(config(vertices=64), norm=norm)).trunk.requires_grad_(False)
        factor = (trunk(2 * matrices) / trunk(matrices).clamp(min=1e-9))[trunk(matrices) > 1e-3].median()
        assert float(factor) == pytest.approx(1 if norm else 2, rel=0.05)


def test_two_streams_hear_each_other():
    torch.manual_seed(0)
    update = Update(3, 2, 2, 0, config())
    for out in update.outs:
        torch.nn.init.normal_(out.weight)
    one, two, other = torch.rand(3, 1, 3, 32, 32)
    memory = [torch.zeros(1, 64)] * 2
    before, after = (update(torch.cat([one, rest], 1), memory)[0][0] for rest in (two, other))
    assert (before[0] != after[0]).any() and (before[1] != after[1]).any()
    update.cross = torch.nn.Identity()  # without the crossing each hears itself alone
    before, after = (update(torch.cat([one, rest], 1), memory)[0][0] for rest in (two, other))
    assert torch.equal(before[0], after[0]) and (before[1] != after[1]).any()


def test_grouped_streams_are_two_networks():
    """A network of two streams without the crossing is two of one stream that have its halves of the weights."""
    torch.manual_seed(0)
    both = Update(3, 2, 2, 0, config())
    both.cross = torch.nn.Identity()
    for out in both.outs:
        torch.nn.init.normal_(out.weight)
    matrices, memory = torch.rand(4, 6, 32, 32), [torch.rand(4, 64), torch.rand(4, 64)]
    said, _ = both(matrices, memory)
    for k in (0, 1):
        one = Update(3, 2, 1, 0, config())
        weights = {n: v.chunk(2)[k] for n, v in both.state_dict().items() if n.startswith(("trunk", "full"))}
        for part in ("cells", "outs"):
            rest = getattr(both, part)[k].state_dict()
            weights |= {f"{part}.0.{n}": v for n, v in rest.items()}
        one.load_state_dict(weights)
        alone, _ = one(matrices[:, 3 * k : 3 * k + 3], [memory[k]])
        torch.testing.assert_close(alone[:, 0], said[:, k], atol=1e-5, rtol=0)


def test_changes_of_both_streams_add_up(faces):
    aligner = made(solver="cpr-fused", recurrences=1).eval()
    for update in aligner.round_1.updates.values():
        update.outs[0].bias.data.fill_(0.01)
        update.outs[1].bias.data.fill_(0.02)
    trail = aligner(faces.crops, faces.xyz).maps[-1]
    torch.testing.assert_close(trail[:, -1, :-2], aligner.face.start(6)[:, :-2] + 0.03)


def test_vertices_weigh_less_in_the_shift_than_sparse_points(face):
    """New networks change nothing, so that only the shift remains: vertices are off by 0.2, sparse points by nothing,
    and there are as many of either."""
    aligner = made(solver="cpr-fused", trust=0.25)
    start, ids = face.start(2), torch.cat([face.region[aligner.layout], face.vertices + aligner.sparse_layout])
    observed = face.flat(face.shape(start, ids), start[:, None])
    observed[:, :3, :, 0] += 0.2
    found = torch.ones(observed.shape[:3], dtype=torch.bool)
    found[1, 3:] = False  # the second face has no sparse points
    sample = Sample(observed[:, 0], found[:, 0].float(), ids[0])
    state, _ = aligner.round_1(face, start, Streams(observed, found, ids), sample)
    torch.testing.assert_close(state[:, -2], torch.tensor([0.25 * 0.2 / 1.25, 0.2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(state[:, :-2], start[:, :-2])


def test_the_shipped_detector_stands_in(faces):
    aligner = made(solver="cpr-fused-capu").eval()
    points = aligner.sparse_points(faces.crops)
    assert points.shape == (6, 68, 3) and torch.isfinite(points).all()
    torch.testing.assert_close(aligner(faces.crops).xyz, aligner(faces.crops, points).xyz)


def test_sparse_points_that_are_not_there_are_not_seen(faces):
    aligner = made(solver="cpr-fused")
    start = faces.xyz.clone()
    start[:, 0] = torch.nan
    answer = aligner.unet(faces.crops)[-1]
    streams, whole = (aligner._observe(answer, points)[0] for points in (start, faces.xyz))
    gone = aligner.sparse_layout == 0
    assert gone.any() and torch.equal(streams.found[:, 3:], ~gone.expand(6, -1, -1)) and whole.found[:, 3:].all()
    assert (streams.observed[:, 3:][:, gone] == 0).all()
    torch.testing.assert_close(streams.observed[:, 3:][:, ~gone], whole.observed[:, 3:][:, ~gone])


# training


def test_sparse_points_of_training_are_noisy_detected_or_missing(faces):
    torch.manual_seed(0)
    noisy = made(solver="cpr-fused", sparse_noise=0.02)._training_start(faces)
    off = torch.linalg.vector_norm(noisy - faces.xyz, dim=-1)
    size = tight_boxes(faces.xyz)
    size = (size[:, 2:] - size[:, :2]).prod(1).sqrt()
    # the mean length of three deviations of 0.02: 0.02 sqrt(8 / pi)
    assert float((off / size[:, None]).mean()) == pytest.approx(0.02 * np.sqrt(8 / np.pi), rel=0.1)
    aligner = made(solver="cpr-fused", detected=1.0)
    torch.testing.assert_close(aligner._training_start(faces), aligner.sparse_points(faces.crops))
    many = FaceBatch(**{k: torch.cat([v] * 50) if v is not None else None for k, v in vars(faces).items()})
    gone = made(solver="cpr-fused", lost=0.5)._training_start(many).isnan().all(-1).float().mean(1)
    # half of the faces lack some; of these each point is lost at a rate uniform in 0..1.25, so a fifth lack all
    assert float((gone == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float((gone == 1).float().mean()) == pytest.approx(0.1, abs=0.06)


def test_bounded_states_have_coefficients_of_heads(face):
    wild = face.start(3)
    wild[:, :-6] = 9 * torch.randn(3, face.coefficients, generator=torch.Generator().manual_seed(0))
    state = face.bounded(wild)
    identity, expression = (state[:, :-6] * face.spread).split(
        [face.identities, face.coefficients - face.identities], 1
    )
    assert identity.abs().max() == 3.0
    assert expression.min() == 0 and expression.max() == pytest.approx(1.0)
    assert torch.equal(state[:, -6:], wild[:, -6:])
    inside = face.bounded(state)
    torch.testing.assert_close(inside, state)


def test_bounded_states_are_the_nearest_by_landmarks_and_prior(face):
    """Against an active set that ends at the minimum itself."""
    wild = face.start(6)
    wild[:, :-6] = 2 * torch.randn(6, face.coefficients, generator=torch.Generator().manual_seed(0))
    shown = face.basis[:, -68:].flatten(1).double().numpy()
    hessian = shown @ shown.T / linear_face.NOISE_OF_LANDMARKS**2 + np.eye(len(shown))
    gradient = wild[:, :-6].double().numpy() @ hessian
    limits = face.bounds.double().numpy().T
    best = bounded_minimum(np.tile(hessian, (6, 1, 1)), gradient, limits, np.zeros(gradient.shape))
    found = face.bounded(wild)
    cut = torch.minimum(torch.maximum(wild[:, :-6], face.bounds[0]), face.bounds[1])
    far, near = (np.abs((c.numpy() - best) @ shown).mean() for c in (cut, found[:, :-6]))
    assert near < 0.1 * far


def test_near_a_profile_no_update_has_to_tell_rx_from_rz(face):
    """At ry = 90 degrees a turn about x is one in the plane: to be wrong by it costs nothing while rz is still open."""
    groups, chosen = made(solver="cpr").round_1.groups, face.region
    true = face.start(1)
    true[:, -5] = np.pi / 2
    wrong = true.clone()
    wrong[:, -6] += 0.3
    cost = {
        name: float(distances(face, chosen, [groups[name]], wrong[:, None], true))
        for name in ("out_of_plane", "in_plane")
    }
    assert cost["out_of_plane"] < 1e-4 < 0.05 < cost["in_plane"]
    front = face.start(1)
    wrong = front.clone()
    wrong[:, -6] += 0.3
    assert float(distances(face, chosen, [groups["out_of_plane"]], wrong[:, None], front)) > 0.03


def test_stages_train_one_part_each_and_leave_the_others(faces):
    aligner = made(solver="cpr-fused-capu")
    assert [(s.name, s.trains) for s in aligner.stages()] == [
        ("dense", ("unet",)), ("round_1", ("round_1",)), ("round_2", ("round_2",)),
    ]  # fmt: skip
    for stage in aligner.stages():
        aligner.zero_grad()
        terms = aligner.training_terms(faces, stage)
        torch.stack([w * terms[n].mean() for n, w in stage.terms.items()]).sum().backward()
        for name, parameter in getattr(aligner, stage.trains[0]).named_parameters():
            assert parameter.grad is not None, (stage.name, name)


def test_a_hundredth_of_the_faces_is_held_out_of_every_stage_and_chooses_the_vertices(faces):
    aligner = made()
    numbered = replace(faces, number=torch.tensor([0, 99, 100, 299, 1, 2]))
    held = torch.tensor([False, True, False, True, False, False])
    for stage in aligner.stages():
        for name, term in aligner.training_terms(numbered, stage).items():
            assert torch.equal(term == 0, held), name
    assert aligner.steps == 1 and aligner.seen.sum() == 2  # the two that are held out, in the first stage alone
    aligner.training_terms(faces, aligner.stages()[0])  # faces without numbers are all learnt from
    aligner.training_terms(replace(numbered, number=torch.arange(1, 7)), aligner.stages()[0])
    assert aligner.steps == 1


def test_vertices_are_chosen_by_what_is_found_of_them_last(faces):
    aligner = made()
    before, everyone = aligner.layout.clone(), torch.ones(6, dtype=torch.bool)
    codes, mask = code_image(aligner.face, faces.vertices, SIZE, SIZE)
    answer = torch.cat([torch.logit(codes, 1e-6), -mask[:, None], mask[:, None]], 1)
    nothing = torch.cat([answer[:, :3], torch.tensor([1.0, -1.0])[:, None, None].expand(6, 2, SIZE, SIZE)], 1)
    for shown in (nothing, answer, answer):
        aligner._count(shown, faces, faces.vertices, everyone)
    # the counts weigh as 1 * 2, 2 * 3 and 3 * 4 over 3 * 4
    assert aligner.seen.sum() == pytest.approx(6 * (2 + 6 + 12) / 12)
    assert aligner.found.max() <= aligner.seen.max() * (6 + 12) / 20 + 1e-4
    assert not torch.equal(aligner.layout, before)
    chosen = aligner.layout.unique()
    assert aligner.found[:, chosen].sum(0).min() > 0
    sides = aligner.face.mean[aligner.face.region][aligner.layout][..., 0]
    assert (sides[0] < 0).all() and (sides[1] > 0).all()


def test_wanted_states_cost_nothing_and_late_groups_do_not_count(faces):
    aligner = made(solver="cpr")
    true, face, part = aligner.true_state(faces), aligner.face, aligner.round_1
    chosen = face.region[aligner.layout[:2].flatten()]
    trail = true[:, None].expand(-1, 8, -1).clone()
    assert round_loss(face, part, trail, true, chosen).max() < 1e-6
    late = trail.clone()
    late[:, :2, -6:] = 0.5  # while the shape is updated the pose does not matter
    assert round_loss(face, part, late, true, chosen).max() < 1e-6
    late[:, 7, -3] += 0.1
    assert round_loss(face, part, late, true, chosen).min() > 0.01


@pytest.mark.slow
def test_onnx_says_what_torch_says(faces, tmp_path):
    """The whole of it, lookups, updates and fusion, for any number of faces."""
    pytest.importorskip("onnxscript")
    two_updates = {"order": "joint", "recurrences": 1}  # a small graph
    aligner = made(solver="cpr-fused-capu", threshold=0.3, fits=2, **two_updates)
    with torch.no_grad():
        for name, parameter in aligner.named_parameters():
            if name.startswith("round"):  # untrained rounds change nothing
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    aligner.save(tmp_path / "torch")
    export_onnx(tmp_path / "torch", tmp_path / "onnx")
    twin = OnnxAligner(tmp_path / "onnx", threads=1)
    assert twin.card.start == "swift" and twin.starter.card.name == "swift" and twin.judge is twin.starter
    crops = (faces.crops * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    ours = aligner.run(crops)
    assert aligner.look_up(aligner.unet(faces.crops)[-1], aligner.layout.flatten())[1].float().mean() > 0.05
    for count in (1, 6):
        theirs = twin.run(crops[:count])
        np.testing.assert_allclose(theirs.xyz, ours.xyz[:count], atol=aligner.parity)
        np.testing.assert_allclose(theirs.rotation, ours.rotation[:count], atol=0.01)
        assert theirs.coefficients.shape == (count, 132)


def test_a_model_of_ones_own(faces, tmp_path):
    """Sizes follow the model; its truth comes from the landmarks, as vertices are those of the default head."""
    model = MorphableModel.default()
    replace(model, identity=model.identity[:9], name="other").save(tmp_path / "other.npz")
    aligner = build("cprfa", {"size": SIZE, **CONFIGS["cprfa"], "model": str(tmp_path / "other.npz")})
    out = aligner(faces.crops)
    assert out.coefficients.shape == (6, 9 + 52)
    assert all(torch.isfinite(term).all() for term in aligner.loss(out, faces).values())


@pytest.mark.parametrize("change", [{"size": 66}, {"recurrences": 0}, {"samples": 0}, {"vertices": 0}])
def test_values_that_do_not_fit_are_refused(change):
    with pytest.raises(RecipeError, match="wanted"):
        CprfaConfig(**change)
