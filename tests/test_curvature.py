"""Derivatives against finite differences and plain backward passes."""

import pytest
import reference
import torch
from torch import nn

from regkit.curvature import (
    hessian,
    hessian_diagonal,
    hvp,
    jacobian,
    layered_hessian_diagonal,
    ravel_parameters,
    restrict,
)


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


def test_restrict_leaves_the_rest_alone(risk, generator):
    function, w = risk
    mask = torch.rand(len(w), generator=generator) < 0.4
    part = restrict(function, w, mask)
    torch.testing.assert_close(part(w[mask]), function(w))
    torch.testing.assert_close(hessian(part, w[mask]), hessian(function, w)[mask][:, mask])
    with pytest.raises(ValueError, match="mask must have shape"):
        restrict(function, w, mask[1:])


def test_jacobian_of_each_sample(network, generator):
    x = torch.randn(6, 3, generator=generator)
    torch.testing.assert_close(jacobian(network, x), reference.jacobian(network, x))


def squared(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


@pytest.mark.parametrize("loss", [squared, torch.nn.functional.cross_entropy])
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 2)],
        [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Tanh(), nn.Linear(3, 4, bias=False), nn.Softplus(), nn.Sigmoid(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Linear(5, 3), nn.GELU(), nn.Linear(3, 2)],
    ],
)
def test_layered_diagonal_is_the_diagonal(layers, loss, generator):
    torch.manual_seed(1)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    model, x = nn.Sequential(*layers).double(), torch.randn(7, 3, generator=generator)
    y = torch.randn(7, 2, generator=generator) if loss is squared else torch.arange(7) % 2
    w, predict = ravel_parameters(model)
    wanted = hessian_diagonal(lambda w: loss(predict(w, x), y), w)
    for chunk_size in (512, 3):
        diagonal = layered_hessian_diagonal(model, x, y, loss, chunk_size)
        torch.testing.assert_close(diagonal, wanted)
    assert (wanted < 0).any() or len(layers) == 1  # not at a minimum: both signs are tested


def test_layered_diagonal_rejects(network):
    x, y = torch.ones(4, 3), torch.ones(4, 2)
    with pytest.raises(ValueError, match="ends in a Linear layer"):
        layered_hessian_diagonal(nn.Sequential(*network, nn.Tanh()), x, y, squared)
    with pytest.raises(ValueError, match="as many samples, got"):
        layered_hessian_diagonal(network, x, y[:3], squared)


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
