"""Similarity transforms: recovery, optimality, a closed-form twin, and the algebra."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.geometry import rotation, similarity


def random_similarity(xp, dimensions, count, seed=0):
    rng = np.random.default_rng(seed)
    R = np.asarray(rotation.nearest_rotation(rng.normal(size=(count, dimensions, dimensions))))
    return similarity.Similarity(xp(rng.uniform(0.2, 5, count)), xp(R), xp(rng.normal(size=(count, dimensions)) * 30))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fit_recovers_the_truth(xp, dimensions):
    truth = random_similarity(xp, dimensions, 6)
    source = xp(np.random.default_rng(1).normal(size=(6, 10, dimensions)))
    found = similarity.fit_similarity(source, similarity.apply(truth, source))
    for got, want in zip(found, truth, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fit_never_reflects(xp, dimensions):
    source = np.random.default_rng(2).normal(size=(5, 10, dimensions))
    mirrored = source * ([-1, 1] if dimensions == 2 else [-1, 1, 1])
    found = similarity.fit_similarity(xp(source), xp(mirrored))
    np.testing.assert_allclose(np.linalg.det(np.asarray(found.rotation)), 1, atol=1e-12)


def test_fit_in_2d_is_the_complex_quotient(xp):
    # In the plane the least-squares similarity is y = a x + b with a = sum(w conj(x) y) / sum(w |x|^2).
    rng = np.random.default_rng(3)
    source, target, w = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)) + 5, rng.uniform(0, 1, 12)
    x, y = source @ [1, 1j], target @ [1, 1j]
    mean_x, mean_y = np.average(x, weights=w), np.average(y, weights=w)
    a = (w * np.conj(x - mean_x) * (y - mean_y)).sum() / (w * np.abs(x - mean_x) ** 2).sum()
    b = mean_y - a * mean_x
    found = similarity.fit_similarity(xp(source), xp(target), xp(w))
    np.testing.assert_allclose(found.scale, abs(a))
    np.testing.assert_allclose(found.rotation[:, 0], [np.cos(np.angle(a)), np.sin(np.angle(a))])
    np.testing.assert_allclose(found.shift, [b.real, b.imag])


def test_fit_in_3d_beats_its_neighbours(xp):
    rng = np.random.default_rng(4)
    source, target, w = rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), rng.uniform(0, 1, 9)
    best = similarity.Similarity(*(np.asarray(f) for f in similarity.fit_similarity(xp(source), xp(target), xp(w))))

    def error(fit):
        return (w * ((similarity.apply(fit, source) - target) ** 2).sum(-1)).sum()

    for step in rng.normal(size=(50, 7)) * 1e-3:
        turn = rotation.matrix_from_vector(step[:3])
        near = similarity.Similarity(best.scale * np.exp(step[3]), turn @ best.rotation, best.shift + step[4:])
        assert error(near) > error(best)


def test_weight_zero_ignores_a_point(xp):
    truth = random_similarity(xp, 3, 1)
    source = xp(np.random.default_rng(5).normal(size=(1, 8, 3)))
    target = np.asarray(similarity.apply(truth, source)).copy()
    target[:, 3] += 100
    weights = np.ones((1, 8))
    weights[:, 3] = 0
    found = similarity.fit_similarity(source, xp(target), xp(weights))
    np.testing.assert_allclose(found.scale, truth.scale)
    np.testing.assert_allclose(found.shift, truth.shift)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_invert_and_compose(xp, dimensions):
    a, b = random_similarity(xp, dimensions, 4, 6), random_similarity(xp, dimensions, 4, 7)
    points = xp(np.random.default_rng(8).normal(size=(4, 5, dimensions)))
    there = similarity.apply(a, points)
    np.testing.assert_allclose(similarity.apply(similarity.invert(a), there), points, atol=1e-12)
    np.testing.assert_allclose(similarity.apply(similarity.compose(b, a), points), similarity.apply(b, there))


def test_apply_by_hand():
    # A quarter turn takes (1, 0) to (0, 1); twice that plus (10, 20) is (10, 22).
    quarter = similarity.Similarity(np.array(2.0), np.array([[0.0, -1], [1, 0]]), np.array([10.0, 20]))
    np.testing.assert_allclose(similarity.apply(quarter, np.array([[1.0, 0]])), [[10, 22]])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradients(dimensions):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    source, target = (
        torch.randn(2, 7, dimensions, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    weights = torch.rand(2, 7, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(similarity.fit_similarity, (source, target, weights))
