"""Flat minimum search: the box by its definition, gradients by autograd and differences."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import grad, jacrev, vmap

from regkit.curvature import jacobian, ravel_parameters
from regkit.flat_minimum import (
    AdaptiveStrength,
    box_edges,
    flatness_penalty,
    layered_penalty,
    penalty_gradient,
    penalty_slope,
    sharpness_aware_gradient,
)

NETWORKS = {
    "one hidden layer": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
    "one output": lambda: nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1)),
    "output activation": lambda: nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Sigmoid()
    ),
    "three layers, no biases": lambda: nn.Sequential(
        nn.Linear(3, 5, bias=False),
        nn.Softplus(),
        nn.Linear(5, 4, bias=False),
        nn.Tanh(),
        nn.Linear(4, 3, bias=False),
    ),
    "ReLU": lambda: nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    ),
    "two activations in a row": lambda: nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Softplus(), nn.Linear(4, 2)
    ),
}
networks = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())


def make(build, generator, N=6):
    torch.manual_seed(0)
    model = build()
    x = torch.randn(N, 3, generator=generator)
    x[0, 1] = 0.0  # its weights do not count at this input
    return model, x


def omega(model, x, tolerance=0.01):
    """The penalty summed over inputs as a function of the weights, through the Jacobian."""
    w, predict = ravel_parameters(model)
    derivative = vmap(jacrev(lambda w, sample: predict(w, sample[None])[0]), (None, 0))
    return w, lambda w: flatness_penalty(derivative(w, x), tolerance).sum()


# --- the box ---


@pytest.mark.parametrize("K", [1, 2, 5])
def test_box_saturates_the_tolerance_with_equal_flatness(K, generator):
    J = torch.randn(7, K, 9, generator=generator)
    edges = box_edges(J, 0.3)
    reached = (J.abs() * edges[:, None]).sum(2).square().sum(1)
    torch.testing.assert_close(reached, torch.full((7,), 0.3))
    alone = (J * edges[:, None]).square().sum(1)
    torch.testing.assert_close(alone.amin(1), alone.amax(1))
    assert bool((edges > 0).all())


def test_no_corner_of_the_box_changes_the_outputs_by_more(generator):
    J = torch.randn(1, 3, 8, generator=generator)
    edges = box_edges(J, 0.3)[0]
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)))
    assert ((signs * edges) @ J[0].T).square().sum(1).max() <= 0.3


def test_penalty_is_minus_the_logarithm_of_the_box(generator):
    J = torch.randn(4, 3, 8, generator=generator)
    torch.testing.assert_close(flatness_penalty(J, 0.2), -box_edges(J, 0.2).log().sum(1))


def test_weights_without_influence_are_not_counted(generator):
    J = torch.randn(2, 3, 8, generator=generator)
    J[0, :, [2, 5]] = 0.0
    J[1, 0] = 0.0  # a whole output
    edges = box_edges(J, 0.2)
    assert edges.isinf().nonzero().tolist() == [[0, 2], [0, 5]]
    rest = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(flatness_penalty(J, 0.2)[:1], flatness_penalty(J[:1, :, rest], 0.2))
    assert bool((penalty_slope(J)[0, :, [2, 5]] == 0).all())
    torch.testing.assert_close(penalty_slope(J)[:1, :, rest], penalty_slope(J[:1, :, rest]))
    assert flatness_penalty(torch.zeros(1, 2, 3), 0.2).item() == 0.0


# --- gradients ---


def test_slope_is_the_derivative_of_the_penalty(generator):
    J = torch.randn(4, 3, 8, generator=generator).requires_grad_()
    flatness_penalty(J, 0.2).sum().backward()
    torch.testing.assert_close(penalty_slope(J.detach()), J.grad)


@networks
def test_products_factors_and_autograd_agree(build, generator):
    model, x = make(build, generator)
    w, function = omega(model, x)
    values = layered_penalty(model, x, 0.01)
    torch.testing.assert_close(values, flatness_penalty(jacobian(model, x), 0.01))
    values.sum().backward()
    unused = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    factored = torch.cat([gradient.flatten() for gradient in unused])
    by_products = penalty_gradient(model, x)
    torch.testing.assert_close(by_products, factored, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(penalty_gradient(model, x, chunk_size=2), by_products)
    torch.testing.assert_close(grad(function)(w), by_products, rtol=1e-9, atol=1e-10)
    steps = 1e-6 * torch.eye(len(w))
    differences = torch.stack([(function(w + d) - function(w - d)) / 2e-6 for d in steps])
    torch.testing.assert_close(differences, by_products, rtol=1e-5, atol=1e-6)


def test_dead_units_count_neither_here_nor_there(generator):
    model, x = make(NETWORKS["ReLU"], generator)
    with torch.no_grad():
        model[0].bias[:2] = -50.0
        model[2].bias[4] = -50.0
    values = layered_penalty(model, x, 0.01)
    torch.testing.assert_close(values, flatness_penalty(jacobian(model, x), 0.01))
    values.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    with torch.no_grad():
        model[0].bias[:] = -50.0  # nothing gets through but the output biases
        model[2].bias[:] = -50.0
    torch.testing.assert_close(
        layered_penalty(model, x, 0.01), flatness_penalty(jacobian(model, x), 0.01)
    )


def test_where_nothing_counts_the_penalty_is_zero():
    model, x = nn.Sequential(nn.Linear(2, 3, bias=False)), torch.zeros(4, 2)
    assert layered_penalty(model, x, 0.01).tolist() == [0.0] * 4
    assert flatness_penalty(jacobian(model, x), 0.01).tolist() == [0.0] * 4


def test_floor_is_added_to_each_factor(generator):
    model, x = make(NETWORKS["one output"], generator)
    s = model[0](x)
    a, floor = s.sigmoid(), 0.3
    v = model[2].weight[0]
    hidden = (
        ((x**2 + floor).log().sum(1) * 4)
        + ((a * (1 - a)) ** 2 + floor).log().sum(1) * 4
        + (v**2 + floor).log().sum() * 4
    )  # 3 inputs and a bias into each of 4 units
    output = (a**2 + floor).log().sum(1) + math.log(1 + floor) * 10  # e and slope, 5 weights
    U = 4 * (v.abs() / (v**2 + floor).sqrt()).sum() + 5 / math.sqrt(1 + floor)
    expected = 0.5 * (hidden + output + 21 * (U.square().log() - math.log(0.01)))
    torch.testing.assert_close(layered_penalty(model, x, 0.01, floor), expected)


def test_one_linear_layer_has_no_gradient(generator):
    x = torch.randn(4, 3, generator=generator)
    gradient = penalty_gradient(nn.Linear(3, 2), x)
    torch.testing.assert_close(gradient, torch.zeros(8), rtol=0, atol=1e-13)


def test_penalty_of_many_networks_at_once(generator):
    model, x = make(NETWORKS["one hidden layer"], generator)

    class Penalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return layered_penalty(self.model, x, 0.01).sum()

    w, penalty = ravel_parameters(Penalty())
    weights = torch.stack([w, 2 * w])
    both = vmap(grad(penalty), (0, None))(weights, x)
    torch.testing.assert_close(both[0], penalty_gradient(model, x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: box_edges(torch.ones(2, 3), 0.1), "shape \\(N, K, W\\), got \\(2, 3\\)"),
        (lambda: box_edges(torch.ones(1, 2, 3), 0.0), "tolerance must be positive"),
        (lambda: flatness_penalty(torch.ones(1, 2, 3), -1.0), "tolerance must be positive"),
        (lambda: penalty_slope(torch.full((1, 1, 1), math.nan)), "J must be finite"),
        (
            lambda: layered_penalty(nn.Sequential(nn.Tanh()), torch.ones(1, 2), 0.1),
            "must begin with an nn.Linear layer, got Tanh",
        ),
        (
            lambda: layered_penalty(nn.Sequential(nn.Linear(2, 1)), torch.ones(2), 0.1),
            "x must have shape \\(N, D\\), got \\(2,\\)",
        ),
        (
            lambda: layered_penalty(nn.Sequential(), torch.ones(1, 2), 0.1),
            "must hold an nn.Linear layer, got none",
        ),
        (
            lambda: layered_penalty(nn.Sequential(nn.Linear(2, 1)), torch.ones(1, 2), 0.1, -1.0),
            "floor must be >= 0 and finite, got -1",
        ),
    ],
)
def test_bad_input_is_rejected(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


# --- strength, and today's relative ---


def test_strength_follows_the_three_rules():
    strength = AdaptiveStrength(step=0.1, target=0.2, memory=0.5)
    # falls, rises below the target, rises above it but below the mean, rises above the mean
    errors = [4.0, 0.1, 0.15, 0.9, 3.0]
    means = [4.0, 2.05, 1.1, 1.0, 2.0]
    lam, expected = 0.0, []
    for n, (error, mean) in enumerate(zip(errors, means, strict=True)):
        if error < 0.2 or n == 0 or error < errors[n - 1]:
            lam += 0.1
        elif error < mean:
            lam -= 0.1
        else:
            lam *= 0.9
        expected.append(lam)
    found = [float(strength.update(torch.tensor(error))) for error in errors]
    assert found == pytest.approx(expected)
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.18])


def test_strength_of_many_networks_and_never_below_zero():
    strength = AdaptiveStrength(step=1.0, target=0.1)
    strength.update(torch.tensor([1.0, 1.0]))
    lam = strength.update(torch.tensor([0.5, 1.1]))
    assert lam.tolist() == pytest.approx([2.0, 0.9])
    slow = AdaptiveStrength(step=1.0, target=0.1, memory=0.999)
    for error in (9.0, 0.5, 0.6, 0.7, 0.8, 0.9):
        lam = slow.update(torch.tensor(error))
    assert lam.item() == 0.0


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"step": 0.0, "target": 1.0}, "step must be positive"),
        ({"step": 1.0, "target": 0.0}, "target must be positive"),
        ({"step": 1.0, "target": 1.0, "memory": 1.0}, "memory must be in \\[0, 1\\), got 1"),
    ],
)
def test_strength_rejects(options, rule):
    with pytest.raises(ValueError, match=rule):
        AdaptiveStrength(**options)


def test_sharpness_aware_gradient_looks_at_the_worst_point_to_first_order(generator):
    A = torch.randn(5, 5, generator=generator)
    H, w = A @ A.T, torch.randn(5, generator=generator)

    def risk(w):
        return 0.5 * w @ H @ w

    g = H @ w
    expected = H @ (w + 0.3 * g / g.norm())
    torch.testing.assert_close(sharpness_aware_gradient(risk, w, 0.3), expected)
    torch.testing.assert_close(sharpness_aware_gradient(risk, w, 0.0), g)
    nowhere = sharpness_aware_gradient(risk, torch.zeros(5), 0.3)  # no way is up
    assert nowhere.tolist() == [0.0] * 5
    with pytest.raises(ValueError, match="radius must be >= 0 and finite, got -1"):
        sharpness_aware_gradient(risk, w, -1.0)
