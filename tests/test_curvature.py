"""Derivatives against finite differences and plain backward passes."""

import pytest
import reference
import torch
from torch import nn

from regkit.curvature import hessian, hessian_diagonal, hvp, jacobian, ravel_parameters


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.fixture
def risk(network, generator):
    x, y = torch.randn(6, 3, generator=generator), torch.randn(6, 2, generator=generator)
    w, predict = ravel_parameters(network)
    return (lambda w: 0.5 * (predict(w, x) - y).square().sum(1).mean()), w


def test_ravel_parameters_evaluates_other_weights(network):
    w, predict = ravel_parameters(network)
    x = torch.randn(5, 3)
    torch.testing.assert_close(predict(w, x), network(x))
    before = network(x)
    predict(2 * w, x)
    torch.testing.assert_close(network(x), before)  # the model itself does not change
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(predict(2 * w, x), network(x))


def test_hessian_and_its_diagonal_and_products(risk, generator):
    function, w = risk
    H = hessian(function, w)
    torch.testing.assert_close(H, reference.hessian(function, w), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(H, H.T)
    torch.testing.assert_close(hessian(function, w, chunk_size=5), H)
    torch.testing.assert_close(hessian_diagonal(function, w), H.diagonal())
    v = torch.randn(len(w), generator=generator)
    torch.testing.assert_close(hvp(function, w, v), H @ v)


def test_jacobian_of_each_sample(network, generator):
    x = torch.randn(6, 3, generator=generator)
    torch.testing.assert_close(jacobian(network, x), reference.jacobian(network, x))


def test_bad_input():
    def square(w):
        return (w**2).sum()

    with pytest.raises(ValueError, match="model must have parameters, got Tanh with none"):
        ravel_parameters(nn.Tanh())
    with pytest.raises(ValueError, match=r"v must have the shape of w, \(2,\), got \(3,\)"):
        hvp(square, torch.ones(2), torch.ones(3))
    for function in (hessian, hessian_diagonal):
        with pytest.raises(ValueError, match=r"w must be a vector, got shape \(2, 2\)"):
            function(square, torch.ones(2, 2))
        with pytest.raises(ValueError, match="w must be finite"):
            function(square, torch.tensor([float("nan")]))
