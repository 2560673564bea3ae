import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
losses = pytest.importorskip("canthus.training.losses")

from canthus.codecs import encode_gaussian  # noqa: E402


def double(*shape: int, seed: int = 0) -> "torch.Tensor":
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def wing_of(distance: float) -> float:
    return float(losses.wing(torch.tensor([[distance]], dtype=torch.float64), torch.zeros(1, 1), 18, 3))


# ---- coordinates


def test_wing_by_hand():
    # omega = 18, epsilon = 3: 18 ln 7 = 35.02638 at 18, so C = 18 - 35.02638 = -17.02638 and the value at 20
    # is 37.02638.
    assert wing_of(18) == pytest.approx(35.0264, abs=1e-4)
    assert wing_of(20) == pytest.approx(20 + 17.0264, abs=1e-4)
    assert wing_of(-20) == wing_of(20)
    assert wing_of(18 - 1e-9) == pytest.approx(wing_of(18 + 1e-9), abs=1e-7)


@pytest.mark.parametrize(("distance", "slope"), [(1e-9, 6), (18 - 1e-6, 18 / 21), (18 + 1e-6, 1)])
def test_wing_slopes(distance, slope):
    # omega / (epsilon + d): 6 at 0, 0.857 just below omega, and 1 above.
    point = torch.tensor([[distance]], dtype=torch.float64, requires_grad=True)
    losses.wing(point, torch.zeros(1, 1), 18, 3).sum().backward()
    assert float(point.grad) == pytest.approx(slope, rel=1e-6)


def test_smooth_l1_by_hand():
    # beta = 2: 1 / (2 * 2) = 0.25 within, 5 - 1 = 4 beyond; their mean is 2.125. Second sample: 4 / 4 = 1 and
    # 0.
    prediction = torch.tensor([[[1.0, -5.0]], [[2.0, 0.0]]])
    assert losses.smooth_l1(prediction, torch.zeros_like(prediction), 2.0).tolist() == [2.125, 0.5]


def test_mse_by_hand():
    assert losses.mse(torch.tensor([[1.0, -3.0], [0.0, 2.0]]), torch.zeros(2, 2)).tolist() == [5.0, 2.0]


# ---- cross-entropy


@pytest.mark.parametrize(
    ("sigma", "radius", "floor"),
    # Uncut: pi^3 / 3 sigma^2 / 4096, from 2 pi sigma^2 times the integral of H(u) / u over u in (0, 1), pi^2
    # / 6. Cut at 3 sigma the integral starts at u = exp(-4.5) and loses 0.0722 of 1.6449: a factor of 0.9561.
    [(5 / 3, None, 0.007009), (5 / 3, 5.0, 0.006702), (1.75, None, 0.007728), (1.0, 3.0, 0.002413)],
)
def test_floor_of_the_gaussian_target(sigma, radius, floor):
    centers = 20 + 24 * torch.rand(3, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = encode_gaussian(centers, 64, sigma, radius)
    found = losses.binary_cross_entropy_floor(truth)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, floor, rtol=0.01 if radius else 3e-4)
    reached = losses.binary_cross_entropy(torch.logit(truth, eps=1e-12), truth)
    np.testing.assert_allclose(reached, found, atol=1e-9)
    elsewhere = losses.binary_cross_entropy(torch.logit(truth, eps=1e-12) * 0.9, truth)
    assert (elsewhere > found + 1e-6).all()


def test_hard_targets_have_no_floor():
    assert losses.binary_cross_entropy_floor(torch.tensor([[0.0, 1.0, 1.0]])).tolist() == [0.0]


def test_cross_entropy_of_visibility_by_hand():
    # An undecided logit costs ln 2; logit 2 costs ln(1 + e^-2) = 0.126928 if visible, 2 more if not.
    logits, visible = torch.tensor([[0.0, 2.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    expected = [(math.log(2) + 0.126928) / 2, (0.126928 + 2.126928) / 2]
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, visible), expected, atol=1e-6)


# ---- likelihoods


@pytest.mark.parametrize("nll", [losses.gaussian_nll, losses.laplace_nll])
def test_likelihoods_are_densities_of_deviation_sigma(nll):
    # On a grid of 0.05 sigma out to 10 sigma: the density integrates to 1 and each axis has the variance
    # sigma^2.
    axis = torch.arange(-10, 10.01, 0.05, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    plane = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) * 2.5
    density = torch.exp(-nll(torch.zeros_like(plane), torch.full_like(plane[..., :1], math.log(2.5)), plane))
    cell = (0.05 * 2.5) ** 2
    assert float(density.sum() * cell) == pytest.approx(1, abs=2e-3)
    assert float((density * plane[:, 0, 0] ** 2).sum() * cell) == pytest.approx(2.5**2, rel=2e-3)

    # z is a factor of its own: divide the density at the plane's centre by its value there without z.
    z = torch.arange(-10, 10.001, 0.01, dtype=torch.float64).reshape(-1, 1, 1) * 4.0
    points = torch.cat([torch.zeros(len(z), 1, 2, dtype=torch.float64), z], dim=-1)
    log_sigma = torch.tensor([0.7, math.log(4.0)], dtype=torch.float64).expand(len(z), 1, 2)
    origin = torch.zeros_like(points)
    without = nll(origin[..., :2], log_sigma[..., :1], points[..., :2])
    density = torch.exp(without - nll(origin, log_sigma, points))
    assert float(density.sum() * 0.04) == pytest.approx(1, abs=2e-3)
    assert float((density * z[:, 0, 0] ** 2).sum() * 0.04) == pytest.approx(16, rel=3e-3)


def test_best_sigma_is_the_error():
    # d/ds of r^2 / (2 s^2) + 2 ln s is 0 at s^2 = r^2 / 2; of sqrt(3) r / s + 2 ln s at s = sqrt(3) r / 2.
    truth = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    for nll, best in ((losses.gaussian_nll, 5 / math.sqrt(2)), (losses.laplace_nll, math.sqrt(3) * 5 / 2)):
        log_sigma = torch.tensor([[[math.log(best)]]], dtype=torch.float64, requires_grad=True)
        nll(torch.zeros_like(truth), log_sigma, truth).sum().backward()
        assert float(log_sigma.grad) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("nll", [losses.gaussian_nll, losses.laplace_nll])
def test_likelihoods_refuse_a_sigma_that_does_not_fit(nll):
    with pytest.raises(ValueError, match=r"got points \(2, 5, 2\) with log sigma \(2, 5, 2\), want"):
        nll(torch.zeros(2, 5, 2), torch.zeros(2, 5, 2), torch.zeros(2, 5, 2))


# ---- all of them


POINTS = [
    lambda p, t: losses.mse(p, t),
    lambda p, t: losses.smooth_l1(p, t, 0.5),
    lambda p, t: losses.wing(p, t, 1.0, 0.3),
    lambda p, t: losses.binary_cross_entropy(p, torch.sigmoid(t)),
    lambda p, t: losses.gaussian_nll(p, t[..., 1:], t),
    lambda p, t: losses.laplace_nll(p, t[..., 1:], t),
]


@pytest.mark.parametrize("loss", POINTS)
def test_gradients_and_samples_are_apart(loss):
    prediction, truth = double(3, 5, 3, seed=1).requires_grad_(), double(3, 5, 3, seed=2)
    assert torch.autograd.gradcheck(lambda p: loss(p, truth), prediction)
    together = loss(prediction, truth)
    assert together.shape == (3,)
    alone = torch.cat([loss(prediction[n : n + 1], truth[n : n + 1]) for n in range(3)])
    assert torch.allclose(together, alone)


@pytest.mark.parametrize("loss", POINTS)
def test_gradients_are_finite_at_a_perfect_prediction(loss):
    truth = double(2, 5, 3)
    prediction = truth.clone().requires_grad_()
    loss(prediction, truth).sum().backward()
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("nll", [losses.gaussian_nll, losses.laplace_nll])
def test_gradients_of_log_sigma(nll):
    prediction, truth = double(2, 4, 3, seed=1), double(2, 4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: nll(prediction, s, truth), double(2, 4, 2, seed=3).requires_grad_())


def test_terms_are_means_of_what_is_known():
    # of the points 1 and 3 off, only the second is known: 9; of the second sample nothing is known: 0
    known = torch.tensor([[False, True], [False, False]])
    assert losses.mse(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), torch.zeros(2, 2), known).tolist() == [9.0, 0.0]
