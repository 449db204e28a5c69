"""Noise has the stated moments and leaves no trace; the penalties agree with full Hessians."""

import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacrev, vmap

from regkit.noise import (
    GaussianNoise,
    curvature_penalty,
    input_derivatives,
    noisy,
    tikhonov,
    weight_noise,
)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2))


# --- noise ---


@pytest.mark.parametrize(("mode", "spread"), [("additive", 0.3), ("multiplicative", 0.3 * 5)])
def test_noise_has_mean_zero_and_the_stated_spread(mode, spread, generator):
    x = torch.full((200_000,), 5.0)
    added = noisy(x, 0.3, mode, generator) - x
    error = spread / 200_000**0.5  # standard error of the mean
    assert abs(added.mean()) < 4 * error
    assert abs(added.std() - spread) < 4 * error / 2**0.5


def test_noise_comes_from_the_generator_and_is_new_in_every_row(generator):
    x = torch.zeros(4, 3)
    first = noisy(x, 1.0, generator=generator.manual_seed(5))
    again = noisy(x, 1.0, generator=generator.manual_seed(5))
    assert torch.equal(first, again)
    assert len(first.unique()) == 12
    state = torch.get_rng_state()
    noisy(x, 1.0, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)  # torch's own generator is not touched


def test_noise_keeps_dtype_and_lets_gradients_through(generator):
    x = torch.ones(5, dtype=torch.float32, requires_grad=True)
    out = noisy(x, 0.5, "multiplicative", generator)
    assert out.dtype == torch.float32
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())  # d x(1+nu) / dx = 1 + nu


def test_module_is_noisy_in_training_only(generator):
    layer, a = GaussianNoise(0.4, "multiplicative", generator), torch.randn(6, 2)
    nu = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(a), a * (1 + 0.4 * nu))
    assert torch.equal(layer.eval()(a), a)
    assert "sigma=0.4, mode='multiplicative'" in repr(layer)
    zero = GaussianNoise(0.0)
    assert torch.equal(zero(a), a)


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_weight_noise_is_there_inside_and_gone_outside(mode, network, generator):
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    x = torch.randn(7, 3)
    with weight_noise(network, 0.2, mode, generator):
        changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
        noisy_weights = {n: p.detach().clone() for n, p in network.named_parameters()}
        network(x).square().sum().backward()
    assert changed == {"0.weight", "2.weight", "4.weight"}
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
    replay = torch.Generator().manual_seed(0)
    for name, parameter in before.items():
        if name in changed:
            nu = 0.2 * torch.randn(parameter.shape, generator=replay)
            expected_noisy = parameter + nu if mode == "additive" else parameter * (1 + nu)
            torch.testing.assert_close(noisy_weights[name], expected_noisy)
    # The gradient is the one at the noisy weights.
    expected = grad(lambda w: torch.func.functional_call(network, w, (x,)).square().sum())
    for name, gradient in expected(noisy_weights).items():
        torch.testing.assert_close(dict(network.named_parameters())[name].grad, gradient)


def test_weight_noise_restores_after_an_error_and_rests_in_evaluation(network, generator):
    before, bias = network[0].weight.detach().clone(), network[0].bias.detach().clone()

    def fail():
        with weight_noise(network, 1.0, biases=True):
            assert not torch.equal(network[0].weight, before)
            assert not torch.equal(network[0].bias, bias)
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(network[0].weight, before)
    assert torch.equal(network[0].bias, bias)
    network.eval()
    with weight_noise(network, 1.0):
        assert torch.equal(network[0].weight, before)


def test_backward_after_the_context_is_refused(network):
    """The weights have changed under the graph: torch must not hand out a wrong gradient."""
    with weight_noise(network, 0.1):
        loss = network(torch.randn(2, 3)).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("sigma", "mode", "message"),
    [
        (-0.1, "additive", "sigma must be >= 0 and finite, got -0.1"),
        (float("nan"), "additive", "sigma must be >= 0 and finite, got nan"),
        (0.1, "uniform", "mode must be one of .*, got 'uniform'"),
    ],
)
def test_bad_noise_is_refused_and_changes_nothing(sigma, mode, message, network):
    before = network[0].weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        noisy(torch.zeros(2), sigma, mode)
    with pytest.raises(ValueError, match=message):
        GaussianNoise(sigma, mode)
    with pytest.raises(ValueError, match=message), weight_noise(network, sigma, mode):
        pass
    assert torch.equal(network[0].weight, before)
    with pytest.raises(ValueError, match="x must have a floating-point dtype"):
        noisy(torch.zeros(2, dtype=torch.long), 0.1)


# --- derivatives with respect to the input ---


def test_input_derivatives_agree_with_jacobian_and_hessian(network):
    x = torch.randn(6, 3)
    first, second = input_derivatives(network, x)
    torch.testing.assert_close(first, vmap(jacrev(network))(x))
    full = vmap(hessian(network))(x)  # (N, K, D, D)
    torch.testing.assert_close(second, full.diagonal(dim1=2, dim2=3))


def test_input_derivatives_of_relu_are_piecewise_constant(generator):
    relu = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    first, second = input_derivatives(relu, torch.randn(5, 2))
    assert (second == 0).all()
    assert (first != 0).any()


@pytest.mark.parametrize("second_order", [True, False])
def test_tikhonov_is_half_the_variance_times_the_laplacian_of_the_loss(second_order, network):
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    first = vmap(jacrev(network))(x)
    expected = 0.5 * 0.3**2 * (first**2).sum() / 6
    if second_order:

        def loss(x, y):
            return 0.5 * (network(x) - y).square().sum()

        laplacians = vmap(lambda x, y: hessian(loss)(x, y).trace())(x, y)
        expected = 0.5 * 0.3**2 * laplacians.mean()
    torch.testing.assert_close(tikhonov(network, x, y, 0.3, second_order), expected)


def differences(value, weight):
    """Central differences of a function of no argument as one weight after the other moves."""
    result = torch.zeros_like(weight)
    with torch.no_grad():
        for index in range(weight.numel()):
            weight.view(-1)[index] += 1e-5
            above = value()
            weight.view(-1)[index] -= 2e-5
            result.view(-1)[index] = (above - value()) / 2e-5
            weight.view(-1)[index] += 1e-5
    return result


def test_gradient_of_the_curvature_penalty_agrees_with_finite_differences(network):
    x = torch.randn(4, 3)
    curvature_penalty(network, x).backward()

    def value():
        full = vmap(hessian(network))(x).diagonal(dim1=2, dim2=3)
        return 0.5 * (full**2).sum() / 4

    weight = network[0].weight
    torch.testing.assert_close(weight.grad, differences(value, weight), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("layer", [0, 4])
def test_gradient_of_tikhonov_agrees_with_finite_differences(second_order, layer, network):
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    tikhonov(network, x, y, 0.5, second_order).backward()

    def value():
        added = vmap(jacrev(network))(x).square().sum(-1)
        if second_order:
            laplacian = vmap(hessian(network))(x).diagonal(dim1=2, dim2=3).sum(-1)
            added = added + (network(x) - y) * laplacian
        return 0.5 * 0.5**2 * added.sum() / 4

    weight = network[layer].weight
    torch.testing.assert_close(weight.grad, differences(value, weight), rtol=1e-6, atol=1e-8)


def test_bad_shapes_are_refused(network):
    with pytest.raises(ValueError, match=r"x must have shape \(N, D\), got shape \(3,\)"):
        input_derivatives(network, torch.zeros(3))
    with pytest.raises(ValueError, match=r"y must have shape \(4, 2\), got shape \(4,\)"):
        tikhonov(network, torch.zeros(4, 3), torch.zeros(4), 0.1)
    with pytest.raises(ValueError, match="sigma must be >= 0"):
        tikhonov(network, torch.zeros(4, 3), torch.zeros(4, 2), -1)
