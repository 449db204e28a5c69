"""Penalties against finite differences, closed forms against simulation, and bad input."""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from regkit.weight_decay import (
    decay_regime,
    decay_trajectory,
    l1,
    l2,
    log_penalty,
    shifted_minimum,
    shrinkage_factors,
    soft_threshold,
    weight_elimination,
    weights,
)

PENALTIES = {
    "l2": l2,
    "l1": l1,
    "log": log_penalty,
    "elimination": lambda w: weight_elimination(w, w0=0.7),
}
GRADIENTS = {
    "l2": lambda w: w,
    "l1": lambda w: w.sign(),
    "log": lambda w: 2 * w / (1 + (w**2).sum()),
    "elimination": lambda w: (2 * w / 0.7**2) / (1 + w**2 / 0.7**2) ** 2,
}


def random_hessian(size: int, generator: torch.Generator) -> torch.Tensor:
    root = torch.randn(size, size + 3, generator=generator)
    return root @ root.T / size


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 2, 2)])
def test_penalty_is_zero_at_zero_and_has_the_gradient_of_the_book(name, shape, generator):
    penalty, w = PENALTIES[name], torch.randn(shape, generator=generator)
    assert penalty(torch.zeros(shape)) == 0
    assert penalty(w).shape == ()
    assert penalty(w) > 0
    torch.testing.assert_close(torch.func.grad(penalty)(w), GRADIENTS[name](w))
    step = torch.zeros(shape)
    step.view(-1)[1] = 1e-6
    slope = (penalty(w + step) - penalty(w - step)) / 2e-6
    torch.testing.assert_close(slope, GRADIENTS[name](w).view(-1)[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalty_keeps_the_dtype(name, dtype):
    assert PENALTIES[name](torch.ones(3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize(
    ("w", "rule"),
    [
        (torch.tensor([1, 2]), "floating-point dtype, got torch.int64"),
        (torch.tensor([1.0, float("nan")]), r"finite, got \[nan\]"),
        (torch.tensor([float("-inf")]), r"finite, got \[-inf\]"),
        (np.ones(2), "must be a tensor, got ndarray"),
    ],
)
def test_penalty_rejects_bad_weights(name, w, rule):
    with pytest.raises(ValueError, match=rule):
        PENALTIES[name](w)


@pytest.mark.parametrize("w0", [0.0, -1.0, float("nan"), float("inf")])
def test_elimination_rejects_bad_scale(w0):
    with pytest.raises(ValueError, match=f"w0 must be positive and finite, got {w0}"):
        weight_elimination(torch.ones(2), w0)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_of_many_networks_at_once(name, generator):
    w = torch.randn(4, 3, generator=generator)
    values = torch.func.vmap(PENALTIES[name])(w)
    torch.testing.assert_close(values, torch.stack([PENALTIES[name](row) for row in w]))


@pytest.mark.parametrize(("dtype", "huge"), [(torch.float16, 1e3), (torch.float32, 1e30)])
def test_elimination_counts_huge_weights_without_overflow(dtype, huge):
    w = torch.tensor([huge, -huge, 0.0], dtype=dtype, requires_grad=True)
    value = weight_elimination(w, w0=0.5)
    value.backward()
    assert value == 2
    assert torch.isfinite(w.grad).all()


def test_weights_leaves_biases_out_unless_asked():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    by_hand = [model[0].weight.flatten(), model[2].weight.flatten()]
    torch.testing.assert_close(weights(model), torch.cat(by_hand))
    assert weights(model, biases=True).shape == (3 * 4 + 4 + 4 * 2 + 2,)
    l2(weights(model)).backward()
    torch.testing.assert_close(model[0].weight.grad, model[0].weight)
    assert model[0].bias.grad is None


def test_weights_rejects_a_model_without():
    with pytest.raises(ValueError, match="must have weights, got Tanh with none"):
        weights(nn.Tanh())


@pytest.mark.parametrize("product", [0.0, 0.3, 1.0, 1.7, 2.0, 2.3])
def test_trajectory_equals_single_steps(product):
    w = start = torch.tensor([2.0, -3.0])
    path = decay_trajectory(start, lr=product or 1.0, lam=1.0 if product else 0.0, steps=50)
    assert path.shape == (51, 2)
    for row in path:
        torch.testing.assert_close(row, w)
        w = w - product * w


@pytest.mark.parametrize(
    ("product", "regime"),
    [
        (0.0, "stays"),
        (0.5, "decays"),
        (1.0, "decays"),
        (1.5, "oscillates"),
        (2.0, "flips"),
        (2.5, "diverges"),
    ],
)
def test_regime(product, regime):
    assert decay_regime(lr=0.5, lam=2 * product) == regime


@pytest.mark.parametrize(
    "function", [decay_regime, lambda **k: decay_trajectory(torch.ones(1), **k)]
)
@pytest.mark.parametrize(
    ("lr", "lam", "rule"),
    [
        (0.0, 1.0, "lr must be positive and finite, got 0.0"),
        (-1.0, 1.0, "lr must be positive and finite, got -1.0"),
        (1.0, -0.1, "lam must be >= 0 and finite, got -0.1"),
        (1.0, float("nan"), "lam must be >= 0 and finite, got nan"),
    ],
)
def test_decay_rejects_bad_rates(function, lr, lam, rule):
    steps = {} if function is decay_regime else {"steps": 1}
    with pytest.raises(ValueError, match=rule):
        function(lr=lr, lam=lam, **steps)


def test_trajectory_rejects_bad_start_and_steps():
    with pytest.raises(ValueError, match=r"start must be a vector, got shape \(1, 1\)"):
        decay_trajectory(torch.ones(1, 1), 1.0, 1.0, steps=1)
    with pytest.raises(ValueError, match="steps must be >= 0, got -1"):
        decay_trajectory(torch.ones(1), 1.0, 1.0, steps=-1)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 3.0])
def test_soft_threshold_solves_the_proximal_problem(threshold):
    for v in (-2.0, -0.3, 0.0, 0.39, 1.1):

        def problem(w, v=v):
            return 0.5 * (w - v) ** 2 + threshold * abs(w)

        best = optimize.minimize_scalar(problem, bounds=(-3, 3), options={"xatol": 1e-10}).x
        assert soft_threshold(torch.tensor([v]), threshold).item() == pytest.approx(best, abs=1e-6)


def test_soft_threshold_rejects_bad_input():
    with pytest.raises(ValueError, match="threshold must be >= 0 and finite, got -0.1"):
        soft_threshold(torch.ones(1), -0.1)
    with pytest.raises(ValueError, match="floating-point dtype"):
        soft_threshold(torch.ones(1, dtype=torch.int32), 0.1)


@pytest.mark.parametrize("lam", [0.0, 0.05, 1.0, 50.0])
def test_shifted_minimum_is_where_gradient_descent_ends(lam, generator):
    H, w_star = random_hessian(4, generator), torch.randn(4, generator=generator)
    w, lr = torch.zeros(4), 1 / (torch.linalg.eigvalsh(H)[-1] + lam)
    for _ in range(20_000):
        w = w - lr * (H @ (w - w_star) + lam * w)
    torch.testing.assert_close(shifted_minimum(H, w_star, lam), w, rtol=1e-8, atol=1e-8)


def test_shrinkage_factors_scale_the_components(generator):
    H, w_star = random_hessian(5, generator), torch.randn(5, generator=generator)
    factors, Q = shrinkage_factors(H, lam=0.3)
    torch.testing.assert_close(Q @ Q.T, torch.eye(5))
    components = Q.T @ torch.linalg.inv(H + 0.3 * torch.eye(5)) @ H @ w_star
    torch.testing.assert_close(factors * (Q.T @ w_star), components)
    eigenvalues = torch.linalg.eigvals(torch.linalg.inv(H + 0.3 * torch.eye(5)) @ H).real
    torch.testing.assert_close(factors, eigenvalues.sort().values)


def test_shrinkage_of_a_flat_direction_is_zero():
    factors, _ = shrinkage_factors(torch.diag(torch.tensor([0.0, 1.0])), lam=1.0)
    assert factors.tolist() == [0.0, 0.5]


EYE = torch.eye(2, dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("H", "w_star", "lam", "rule"),
    [
        (EYE + torch.tensor([[0, 1e-3], [0, 0]]), ONES, 1.0, "H must be symmetric, got .* 0.001"),
        (torch.ones(2, 3).double(), ONES, 1.0, r"H must be a square matrix, got shape \(2, 3\)"),
        (EYE, torch.ones(3).double(), 1.0, r"w_star must have shape \(2,\) like H, got \(3,\)"),
        (
            EYE,
            ONES.float(),
            1.0,
            "w_star must have the dtype of H, torch.float64, got torch.float32",
        ),
        (EYE, ONES, -1.0, "lam must be >= 0 and finite, got -1.0"),
        (0 * EYE, ONES, 0.0, r"H \+ lam I must be positive definite, got lam = 0.0"),
        (torch.diag(torch.tensor([-3.0, 1.0])).double(), ONES, 1.0, "positive definite"),
        (torch.ones(2, 2).double(), ONES, 0.0, "positive definite"),
        (EYE * float("nan"), ONES, 1.0, r"H must be finite, got \[nan"),
        (EYE.long(), ONES, 1.0, "H must have a floating-point dtype, got torch.int64"),
    ],
)
def test_shifted_minimum_rejects_bad_input(H, w_star, lam, rule):
    with pytest.raises(ValueError, match=rule):
        shifted_minimum(H, w_star, lam)


def test_shrinkage_factors_rejects_bad_input():
    with pytest.raises(ValueError, match="lam must be positive and finite, got 0.0"):
        shrinkage_factors(EYE, 0.0)
    with pytest.raises(ValueError, match="no negative eigenvalue, got -1"):
        shrinkage_factors(-EYE, 1.0)
