import subprocess
import sys

import numpy as np
import pytest
from made_up_face import face, turn

from canthus import codecs
from canthus.methods.cprfa import pncc

torch = pytest.importorskip("torch")
volumes = pytest.importorskip("canthus.codecs.volumes")

SIGMA = 5 / 3
DECODERS = [
    codecs.decode_argmax,
    codecs.decode_quarter,
    codecs.decode_dark,
    codecs.decode_local_soft_argmax,
    codecs.decode_soft_argmax,
]


def offsets_in_a_pixel(center: float = 8.0) -> np.ndarray:
    """Centres (4096, 2) spread evenly over the pixel at `center`, none of them on a tie."""
    inside = center + (np.arange(64) + 0.5) / 64 - 0.5
    return np.stack(np.meshgrid(inside, inside), axis=-1).reshape(-1, 2)


def in_crop(points: np.ndarray, size: float) -> np.ndarray:
    """The face in a square crop whose side is 1.25 times the longer side of its box, resampled to `size`."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    scaled = points * size / (1.25 * (high - low).max())
    scaled[:, :2] += (size - 1) / 2 - (low + high) / 2 * size / (1.25 * (high - low).max())
    return scaled


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


# ---- frames


def test_map_from_crop_by_hand():
    # (0 + 0.5) / 4 - 0.5 = -0.375; the crop's edge 255.5 is the map's edge 63.5; z only scales: -8 / 4.
    points = np.array([[0.0, 255.5, -8.0]])
    assert codecs.map_from_crop(points, 4).tolist() == [[-0.375, 63.5, -2.0]]
    assert codecs.map_from_crop(points[:, :2], 4).tolist() == [[-0.375, 63.5]]
    np.testing.assert_allclose(codecs.crop_from_map(codecs.map_from_crop(points, 4), 4), points, atol=1e-12)


# ---- encoding


def test_gaussian_equals_its_slow_twin():
    centers = np.array([[3.3, 4.8], [-0.4, 7.2], [20.0, 20.0]])
    expected = np.zeros((3, 9, 9))
    for n, (cx, cy) in enumerate(centers):
        for y in range(9):
            for x in range(9):
                r2 = (x - cx) ** 2 + (y - cy) ** 2
                expected[n, y, x] = np.exp(-r2 / (2 * 1.5**2)) if r2 <= 3.0**2 else 0.0
    np.testing.assert_allclose(codecs.encode_gaussian(centers, 9, 1.5, radius=3.0), expected, atol=1e-15)
    assert expected[2].max() == 0 and codecs.encode_gaussian(centers, 9, 1.5)[2].min() > 0


def test_gaussian_holds_its_integral():
    # 2 pi sigma^2 = 17.4533 of 4096 pixels: a mean of 0.00426, whose logit, the prior bias of a head, is
    # -5.45.
    mean = codecs.encode_gaussian(np.array([31.3, 30.9]), 64, SIGMA).mean()
    assert mean == pytest.approx(2 * np.pi * SIGMA**2 / 4096, rel=1e-6)
    assert np.log(mean / (1 - mean)) == pytest.approx(-5.45, abs=5e-3)


def test_disc_equals_its_slow_twin():
    centers = np.array([[3.3, 4.8], [7.9, 0.2]])
    expected = np.array([[[np.hypot(x - cx, y - cy) <= 2.5 for x in range(9)] for y in range(9)] for cx, cy in centers])
    np.testing.assert_array_equal(codecs.encode_disc(centers, 9, 2.5), expected.astype(float))


# ---- decoding


def test_argmax_floor():
    # Mean distance from a unit square's points to its middle: (sqrt 2 + ln(1 + sqrt 2)) / 6 = 0.38260.
    centers = offsets_in_a_pixel()
    error = distance(codecs.decode_argmax(codecs.encode_gaussian(centers, 17, SIGMA)), centers).mean()
    assert error == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 6, abs=2e-4)


def test_quarter_floor():
    # The quarter step leaves each axis uniform over half the width, so half the error: 0.19130.
    centers = offsets_in_a_pixel()
    error = distance(codecs.decode_quarter(codecs.encode_gaussian(centers, 17, SIGMA)), centers).mean()
    assert error == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 12, abs=2e-4)


def test_argmax_floor_in_nme_on_faces():
    # The box is 150 by 132, so in a 64 px crop of 1.25 * 150 the root of its area is 51.2 sqrt(132 / 150) =
    # 48.0 px: one pixel is 2.08 % and the floor 0.3826 * 2.08 = 0.80 %. 40 faces have a standard error of
    # about 0.003 %.
    rng = np.random.default_rng(0)
    faces = np.stack([in_crop(face(), 64)[:, :2] + rng.uniform(-0.5, 0.5, 2) for _ in range(40)])
    side = np.sqrt(np.ptp(faces[0], axis=0).prod())
    assert side == pytest.approx(48.0, abs=0.1)
    error = distance(codecs.decode_argmax(codecs.encode_gaussian(faces, 64, SIGMA)), faces).mean() / side
    assert error == pytest.approx(0.0080, abs=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("radius", [None, 5.0])
def test_dark_undoes_the_gaussian_through_the_stride(dtype, radius):
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 255.5, (500, 2)).astype(dtype)
    maps = codecs.encode_gaussian(codecs.map_from_crop(points, 4), 64, SIGMA, radius)
    found = codecs.crop_from_map(codecs.decode_dark(maps), 4)
    assert found.dtype == dtype
    assert distance(found, points).max() < 0.01


def test_dark_solves_the_cross_term():
    # The log of a slanted Gaussian is an exact parabola as well; ignoring fxy would miss by about 0.1 px
    # here.
    y, x = np.mgrid[:15, :15].astype(float)
    dx, dy = x - 7.4, y - 6.8
    maps = np.exp(-(dx**2 + 1.2 * dx * dy + dy**2) / 4)
    np.testing.assert_allclose(codecs.decode_dark(maps), [7.4, 6.8], atol=1e-9)


def test_dark_stays_at_the_highest_pixel_without_a_summit():
    flat = np.zeros((3, 9, 9))
    flat[1] = np.exp(-((np.arange(9.0)[:, None] - 4.3) ** 2))  # a ridge along x
    flat[2] = -np.hypot(*(np.mgrid[:9, :9] - 5.0)) - 1.0
    np.testing.assert_array_equal(codecs.decode_dark(flat), codecs.decode_argmax(flat))
    assert codecs.decode_dark(flat)[2].tolist() == [5, 5]


def test_dark_goes_no_further_than_a_pixel():
    # A centre three pixels outside cannot be told from the border: the parabola says so, the step is cut.
    maps = codecs.encode_gaussian(np.array([-3.0, 4.0]), 9, SIGMA)
    np.testing.assert_allclose(codecs.decode_dark(maps), [-1.0, 4.0], atol=1e-9)


def test_quarter_by_hand():
    maps = np.zeros((5, 6))
    maps[2, 3], maps[2, 4], maps[1, 3] = 1.0, 0.3, 0.2  # right of and above the highest
    assert codecs.decode_quarter(maps).tolist() == [3.25, 1.75]
    maps[2, 5] = 2.0  # at the border there is one neighbour only; above and below tie
    assert codecs.decode_quarter(maps).tolist() == [5.0, 2.0]


def test_local_soft_argmax_equals_its_slow_twin():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(40, 12, 10))
    expected = []
    for scores in maps:
        py, px = np.unravel_index(scores.argmax(), scores.shape)
        left, top = min(max(px - 3, 0), 10 - 7), min(max(py - 3, 0), 12 - 7)
        total = x = y = 0.0
        for j in range(top, top + 7):
            for i in range(left, left + 7):
                weight = np.exp(scores[j, i] / 0.5)
                total, x, y = total + weight, x + weight * i, y + weight * j
        expected.append((x / total, y / total))
    np.testing.assert_allclose(codecs.decode_local_soft_argmax(maps, 7, 0.5), expected, atol=1e-12)


def test_soft_argmax_reads_gaussians():
    # softmax(log g / t) is a Gaussian of deviation sigma sqrt t. At t = 0.25 that is 0.83 px: sampling it at
    # whole pixels errs by 4 pi 0.83^2 exp(-2 pi^2 0.83^2) = 1e-5 an axis, cutting it at 3 px, 3.6 deviations,
    # by < 0.005.
    centers = offsets_in_a_pixel()
    scores = np.log(codecs.encode_gaussian(centers, 17, SIGMA))
    assert distance(codecs.decode_soft_argmax(scores, 0.25), centers).max() < 1.5e-5
    assert distance(codecs.decode_local_soft_argmax(scores, 7, 0.25), centers).max() < 0.01
    # The Gaussian itself, peak 1, at a temperature of 0.1: far pixels weigh exp(-10), which the window shuts
    # out.
    maps = codecs.encode_gaussian(centers, 17, SIGMA)
    assert distance(codecs.decode_local_soft_argmax(maps, 7, 0.1), centers).max() < 0.03


def test_soft_argmax_knows_only_differences_and_does_not_overflow():
    maps = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(codecs.decode_soft_argmax(maps + 1000), codecs.decode_soft_argmax(maps), atol=1e-3)
    assert np.isfinite(codecs.decode_soft_argmax(maps * 1e4)).all()


@pytest.mark.parametrize("decode", DECODERS)
def test_decoders_agree_between_numpy_and_torch(decode):
    maps = np.random.default_rng(0).uniform(size=(2, 5, 11, 13))
    found = decode(torch.from_numpy(maps))
    assert found.shape == (2, 5, 2)
    np.testing.assert_allclose(found.numpy(), decode(maps), atol=1e-12)


@pytest.mark.parametrize("decode", DECODERS)
def test_decoders_answer_half_precision_in_float32(decode):
    centers = torch.tensor([[201.0, 203.0]])
    found = decode((100 * codecs.encode_gaussian(centers, 256, SIGMA)).to(torch.bfloat16))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), centers, atol=0.01)


def test_gradients():
    centers = torch.tensor([[3.3, 4.8], [5.1, 2.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: codecs.encode_gaussian(c, 9, 1.5), centers)
    maps = codecs.encode_gaussian(centers.detach(), 9, 1.5).requires_grad_()
    for decode in (codecs.decode_dark, codecs.decode_local_soft_argmax, codecs.decode_soft_argmax):
        assert torch.autograd.gradcheck(decode, maps)


def test_codecs_import_no_torch():
    code = "import sys, canthus.codecs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- volumes


@pytest.mark.parametrize("depth", [1, 2, 4, 64])
def test_one_landmark_peaks_at_its_voxel(depth):
    voxel = torch.tensor([[[20.0, 41.0, depth - 1.0]]])
    volume = volumes.encode_volume(voxel, 64, depth)
    assert volume.shape == (1, depth, 64, 64)
    assert volume[0, depth - 1, 41, 20] == 1 == volume.max()
    back = volumes.crop_from_voxel(voxel, 256, 64, depth, 1.3)
    assert torch.allclose(volumes.voxel_from_crop(back, 256, 64, depth, 1.3), voxel, atol=1e-4)


def test_voxel_frame_by_hand():
    # 64 voxels for 256 px: x, y as a map of stride 4. z = 0 lies in the middle, between slices 31 and 32; the
    # nearest end of the range, z = +1.3 * 128, is the front face of slice 0, -0.5; z = -166.4 the back face,
    # 63.5.
    points = torch.tensor([[0.0, 255.5, 0.0], [3.5, 3.5, 166.4], [3.5, 3.5, -166.4]])
    expected = torch.tensor([[-0.375, 63.5, 31.5], [0.5, 0.5, -0.5], [0.5, 0.5, 63.5]])
    assert torch.allclose(volumes.voxel_from_crop(points, 256, 64, 64, 1.3), expected, atol=1e-4)
    # One slice: its centre, index 0, is z = 0, and z = S/4 is a quarter of the slice in front of it.
    middle = volumes.voxel_from_crop(torch.tensor([[0.0, 0.0, 64.0]]), 256, 64, 1)
    assert middle[0, 2] == pytest.approx(-0.25)


def test_volume_equals_its_slow_twin():
    voxels = np.random.default_rng(0).uniform([-3, -3, -3], [14, 14, 9], (2, 12, 3))
    expected = np.zeros((2, 6, 11, 11))
    for b in range(2):
        for point in voxels[b]:
            for k, j, i in np.ndindex(6, 11, 11):
                cell = np.array([i, j, k])
                if (abs(cell - np.round(point)) <= 3).all():
                    value = np.exp(-0.5 * ((cell - point) ** 2).sum())
                    expected[b, k, j, i] = max(expected[b, k, j, i], value)
    found = volumes.encode_volume(torch.from_numpy(voxels), 11, 6)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_volume_is_the_max_of_its_landmarks():
    voxels = torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0)) * 3 + 6
    both, first, second = (volumes.encode_volume(v, 16, 16) for v in (voxels, voxels[:, :1], voxels[:, 1:]))
    assert torch.equal(both, torch.maximum(first, second))
    assert not torch.equal(both, first)


@pytest.mark.parametrize(("depth", "low", "high"), [(1, 0.040, 0.0522), (64, 1.3e-3, 1.445e-3)])
def test_mse_of_predicting_an_empty_volume(depth, low, high):
    # Without overlap each landmark adds the integral of exp(-r^2): pi^1.5 in a deep grid, 68 * 5.568 / 64^3 =
    # 1.444e-3, and at most pi in a single slice, 68 * 3.1416 / 64^2 = 0.0522. Overlap takes away some per
    # cent.
    faces = np.stack([in_crop(turn(face(), yaw), 256) for yaw in (-0.6, 0.0, 0.6)])
    voxels = volumes.voxel_from_crop(torch.from_numpy(faces), 256, 64, depth, 1.3)
    assert low < float((volumes.encode_volume(voxels, 64, depth) ** 2).mean()) < high


# ---- coordinate codes


def test_vertex_codes_fill_the_unit_cube():
    codes = pncc.encode_vertices(face())
    assert codes.min(axis=0).tolist() == [0, 0, 0] and codes.max(axis=0).tolist() == [1, 1, 1]
    # The box is 150 px wide about x = 0: the right outer eye corner, x = 46, has the code (46 + 75) / 150.
    assert codes[45, 0] == pytest.approx(121 / 150)


@pytest.mark.parametrize("asarray", [np.asarray, torch.asarray])
def test_nearest_code_equals_its_slow_twin(asarray, monkeypatch):
    rng = np.random.default_rng(0)
    codes, queries = rng.uniform(size=(300, 3)), rng.uniform(size=(200, 3))
    expected = []
    for query in queries:
        distances = [np.sqrt(((query - code) ** 2).sum()) for code in codes]
        nearest = int(np.argmin(distances))
        expected.append(nearest if distances[nearest] < 0.08 else -1)
    assert 20 < sum(n < 0 for n in expected) < 180
    assert pncc.nearest_code(asarray(queries), asarray(codes), 0.08).tolist() == expected
    monkeypatch.setattr(pncc, "CHUNK", 300 * 7)  # 7 queries at a time: the last chunk is a part of one
    assert pncc.nearest_code(asarray(queries), asarray(codes), 0.08).tolist() == expected
    assert pncc.nearest_code(asarray(queries[:0]), asarray(codes), 0.08).tolist() == []
    assert pncc.nearest_code(asarray(queries[:2]), asarray(codes[:0]), 0.08).tolist() == [-1, -1]


def painted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two images (2, 3, 4, 5): 3 pixels of vertex 0, 1 of vertex 2, 1 of none; and an empty one."""
    images, masks = np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), bool)
    for y, x, code in [
        (1, 1, codes[0]),
        (1, 2, codes[0] + 0.002),
        (3, 3, codes[0] - 0.004),
        (0, 4, codes[2]),
    ]:
        images[0, :, y, x], masks[0, y, x] = code, True
    images[0, :, 2, 0], masks[0, 2, 0] = codes[2] + 0.02, True
    images[0, :, 3, 0] = codes[1]  # background of the right colour
    return images, masks


@pytest.mark.parametrize("asarray", [np.asarray, torch.asarray])
def test_lookups_by_hand(asarray):
    codes = np.array([[0.2, 0.2, 0.2], [0.5, 0.5, 0.5], [0.8, 0.1, 0.4]])
    images, masks = painted(codes)
    arguments = asarray(images), asarray(masks), asarray(codes)
    points, found = pncc.lookup_forward(*arguments)
    assert found.tolist() == [[True, False, True], [False, False, False]]
    # Vertex 0: mean of (1, 1), (2, 1), (3, 3).
    np.testing.assert_allclose(points, [[[2, 5 / 3], [0, 0], [4, 0]], np.zeros((3, 2))])
    points, found = pncc.lookup_reverse(*arguments)
    assert found.tolist() == [[True, False, True], [False, False, False]]
    np.testing.assert_allclose(points, [[[1, 1], [0, 0], [4, 0]], np.zeros((3, 2))])


def test_lookup_of_a_painted_surface():
    # Half an ellipsoid seen from the front is a height field, so its image needs no renderer: the code of
    # each pixel is that of the surface point behind it. Vertices 1.5 px apart, 2.1 along a cell's diagonal;
    # pixels 1 px apart.
    def surface(x, y):
        return 40 * np.sqrt(np.clip(1 - (x / 60) ** 2 - (y / 60) ** 2, 0, None))

    grid = np.arange(-45, 45.1, 1.5)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    kept = np.hypot(x, y) < 42
    mean_shape = np.stack([x, y, surface(x, y)], axis=1)[kept]
    codes = pncc.encode_vertices(mean_shape)
    v, u = np.mgrid[:96, :96].astype(float)
    image = np.stack([u - 48, v - 48, surface(u - 48, v - 48)])
    mask = np.hypot(image[0], image[1]) < 41
    low, high = mean_shape.min(axis=0), mean_shape.max(axis=0)
    image = (image - low[:, None, None]) / (high - low)[:, None, None]

    pixels, places = image[:, mask].T, np.stack([u[mask], v[mask]], axis=1)
    vertex = pncc.nearest_code(pixels, codes, 0.05)
    near = distance(mean_shape[vertex, :2] + 48, places) < 2.13
    assert (vertex >= 0).all() and near.mean() > 0.99

    for lookup in (pncc.lookup_forward, pncc.lookup_reverse):
        points, found = lookup(image[None], mask[None], codes, 0.05)
        interior = np.hypot(*mean_shape[:, :2].T) < 38
        assert distance(points[0], mean_shape[:, :2] + 48)[found[0] & interior].max() < 1.5
        share = found[0, interior].mean()
        # 2.25 pixels for each vertex: nearly all are hit forward, all are found in reverse.
        assert share == 1 if lookup is pncc.lookup_reverse else share > 0.95
