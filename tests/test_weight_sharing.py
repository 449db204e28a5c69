"""Mixtures against torch, scipy and scikit-learn; tied matrices against convolution."""

import math
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from scipy import integrate, stats
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, Normal

from regkit.weight_sharing import (
    MixturePrior,
    circulant,
    quantize,
    quantized_size,
    tied_gradient,
)

MU = [-1.0, 0.0, 0.7]


def some_prior(floor=0.05, zero=False, dtype=torch.float64):
    """Three components that differ in all their parameters."""
    prior = MixturePrior(torch.tensor(MU, dtype=dtype), sigma=0.4, floor=floor, zero=zero)
    with torch.no_grad():
        prior.log_spreads += torch.tensor([0.3, -0.8, 0.0])
        prior.logits += torch.tensor([0.2, 1.0, -0.5])
    return prior


def of_torch(prior):
    components = Normal(prior.mu, prior.sigma)
    return MixtureSameFamily(Categorical(probs=prior.pi), components)


def test_log_density_is_that_of_torch(generator):
    prior, w = some_prior(), torch.randn(50, generator=generator)
    torch.testing.assert_close(prior.log_density(w), of_torch(prior).log_prob(w))
    torch.testing.assert_close(prior.penalty(w), -of_torch(prior).log_prob(w).sum())


def test_density_integrates_to_one_and_pi_sums_to_one():
    prior = some_prior()
    area, _ = integrate.quad(
        lambda w: prior.log_density(torch.tensor([w])).exp().item(), -8, 8, points=MU, limit=200
    )
    assert area == pytest.approx(1, abs=1e-9)
    assert prior.pi.sum().item() == pytest.approx(1, abs=1e-14)
    assert (prior.pi > 0).all()


def test_responsibilities_follow_bayes(generator):
    prior, w = some_prior(), 2 * torch.randn(40, generator=generator)
    mu, sigma, pi = (value.detach().numpy() for value in (prior.mu, prior.sigma, prior.pi))
    joint = pi[:, None] * stats.norm.pdf(w.numpy(), mu[:, None], sigma[:, None])
    r = prior.responsibilities(w)
    np.testing.assert_allclose(r.detach(), joint / joint.sum(0), atol=1e-12)
    torch.testing.assert_close(r.sum(0), torch.ones(40))


def test_one_component_at_zero_is_l2_up_to_a_constant(generator):
    prior = MixturePrior(torch.zeros(1), sigma=0.5, zero=True)
    w = torch.randn(30, generator=generator)
    constant = 30 * math.log(0.5 * math.sqrt(2 * math.pi))
    assert (prior.penalty(w) - constant).item() == pytest.approx(
        0.5 * (w**2).sum().item() / 0.5**2, abs=1e-10
    )


def test_penalty_far_away_and_at_a_sharp_peak_is_finite():
    prior = MixturePrior(torch.tensor([0.0, 1.0]), sigma=2e-3, floor=1e-3)
    w = torch.tensor([-1e6, 0.0, 1e6], requires_grad=True)
    value = prior.penalty(w)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(w.grad).all()
    for derivative, by_autograd in zip(
        prior.gradients(w.detach()), autograd_of(prior, w.detach()), strict=True
    ):
        torch.testing.assert_close(derivative, by_autograd)


def autograd_of(prior, w):
    """Derivatives in the weights, means, spreads and logits, by torch's own mixture."""
    mu, sigma = (value.detach().clone().requires_grad_() for value in (prior.mu, prior.sigma))
    logits, w = prior.logits.detach().clone().requires_grad_(), w.clone().requires_grad_()
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(mu, sigma))
    return torch.autograd.grad(-mixture.log_prob(w).sum(), [w, mu, sigma, logits])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_form_gradients_are_those_of_autograd(dtype, generator):
    prior, w = some_prior(dtype=dtype), torch.randn(60, generator=generator, dtype=dtype)
    for derivative, by_autograd in zip(prior.gradients(w), autograd_of(prior, w), strict=True):
        assert derivative.dtype == dtype
        torch.testing.assert_close(derivative, by_autograd)


def test_gradients_are_those_of_finite_differences(generator):
    prior, w = some_prior(), torch.randn(7, generator=generator)
    slow = reference.gradient(lambda w: prior.penalty(w).detach(), w)
    torch.testing.assert_close(prior.gradients(w).w, slow, rtol=1e-6, atol=1e-8)

    def of_means(mu):
        moved = some_prior()
        moved.means.data.copy_(mu)
        return moved.penalty(w).detach()

    slow = reference.gradient(of_means, torch.tensor(MU))
    torch.testing.assert_close(prior.gradients(w).mu, slow, rtol=1e-6, atol=1e-8)


def test_backward_reaches_the_parameters_by_the_chain_rule(generator):
    prior, w = some_prior(zero=True), torch.randn(20, generator=generator)
    prior.penalty(w).backward()
    derivatives = prior.gradients(w)
    torch.testing.assert_close(prior.means.grad, derivatives.mu)
    torch.testing.assert_close(prior.logits.grad, derivatives.logits)
    scaled = derivatives.sigma * (prior.sigma - prior.floor)  # d sigma / d log_spread
    torch.testing.assert_close(prior.log_spreads.grad, scaled)
    assert prior.means.grad[0] == 0
    assert derivatives.mu[0] == 0


def test_many_networks_at_once(generator):
    mu, w = torch.randn(4, 3, generator=generator), torch.randn(4, 11, generator=generator)
    together = MixturePrior(mu, sigma=0.5)
    alone = [MixturePrior(row, sigma=0.5) for row in mu]
    pairs = list(zip(alone, w, strict=True))
    torch.testing.assert_close(together.penalty(w), torch.stack([p.penalty(v) for p, v in pairs]))
    r = torch.stack([p.responsibilities(v) for p, v in pairs])
    torch.testing.assert_close(together.responsibilities(w), r)
    for number, derivative in enumerate(together.gradients(w)):
        rows = torch.stack([p.gradients(v)[number] for p, v in pairs])
        torch.testing.assert_close(derivative, rows)
    together.em_(w, steps=5)
    torch.testing.assert_close(together.mu, torch.stack([p.em_(v, 5).mu for p, v in pairs]))


def test_em_agrees_with_scikit_learn(generator):
    centers = torch.tensor([-1.0, 0.0, 1.0])[torch.randint(3, (600,), generator=generator)]
    w = centers + 0.2 * torch.randn(600, generator=generator)
    prior = MixturePrior(torch.tensor([-0.7, 0.1, 0.6]), sigma=0.5, floor=1e-6)
    prior.em_(w, steps=400)
    theirs = GaussianMixture(
        3, tol=1e-12, max_iter=400, reg_covar=0.0, means_init=[[-0.7], [0.1], [0.6]]
    ).fit(w[:, None].numpy())
    np.testing.assert_allclose(prior.mu.detach(), theirs.means_[:, 0], atol=1e-5)
    np.testing.assert_allclose(prior.sigma.detach() ** 2, theirs.covariances_.ravel(), atol=1e-5)
    np.testing.assert_allclose(prior.pi.detach(), theirs.weights_, atol=1e-5)


@pytest.mark.parametrize("zero", [False, True])
def test_em_never_raises_the_penalty_and_stops_at_the_floor(zero, generator):
    w = torch.cat([torch.full((5,), 0.8), 0.1 * torch.randn(50, generator=generator)])
    prior = MixturePrior(torch.tensor([0.0, 0.5, 1.0]), sigma=0.3, floor=0.02, zero=zero)
    values = [prior.penalty(w).item()]
    for _ in range(60):
        values.append(prior.em_(w).penalty(w).item())
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(values))
    assert prior.sigma.min().item() == pytest.approx(0.02, rel=1e-5)  # five equal weights
    assert zero == (prior.mu[0].item() == 0)
    assert torch.isfinite(prior.log_spreads).all()
    # At a fixed point nothing pulls on what is free.
    slopes = prior.em_(w, steps=5000).gradients(w)
    assert slopes.mu.abs().max() < 1e-3
    assert slopes.logits.abs().max() < 1e-3


@pytest.mark.parametrize("zero", [False, True])
def test_one_step_of_em_is_the_formula_by_loops(zero, generator):
    w = torch.randn(9, generator=generator).tolist()
    prior = MixturePrior(torch.tensor([0.0, 1.0]), sigma=0.6, floor=1e-6, zero=zero)
    r = prior.responsibilities(torch.tensor(w)).tolist()
    prior.em_(torch.tensor(w))
    for j in range(2):
        count = sum(r[j])
        mean = sum(share * value for share, value in zip(r[j], w, strict=True)) / count
        mean = 0.0 if zero and j == 0 else mean
        squares = sum(s * (value - mean) ** 2 for s, value in zip(r[j], w, strict=True))
        found = [value[j].item() for value in (prior.pi, prior.mu, prior.sigma)]
        assert found == pytest.approx([count / 9, mean, (squares / count) ** 0.5], abs=1e-9)


def test_em_survives_a_component_without_weights():
    prior = MixturePrior(torch.tensor([0.0, 1e8]), sigma=0.1)
    prior.em_(torch.tensor([0.1, -0.1]), steps=3)
    assert all(torch.isfinite(parameter).all() for parameter in prior.parameters())


def test_quantize_takes_the_most_responsible_component(generator):
    prior, w = some_prior(), torch.randn(100, generator=generator)
    values, codes = quantize(w, prior)
    parts = zip(prior.mu, prior.sigma, prior.pi, strict=True)
    joint = torch.stack([Normal(m, s).log_prob(w) + p.log() for m, s, p in parts])
    assert torch.equal(codes, joint.argmax(0))
    assert torch.equal(values, prior.mu.detach()[codes])
    assert set(codes.tolist()) == {0, 1, 2}


def decode(codes, components, gap_bits):
    """Write a stream of (gap, code) entries and count its bits; checks that it can be read back."""
    stream, zeros = [], 0
    for code in codes:
        if code == 0:
            zeros += 1
            continue
        while zeros >= 2**gap_bits:
            stream.append((2**gap_bits - 1, 0))  # a filler: it stands for one more zero
            zeros -= 2**gap_bits
        stream.append((zeros, code))
        zeros = 0
    read = []
    for gap, code in stream:
        read += [0] * gap + [code]
    read += [0] * (len(codes) - len(read))
    assert read == list(codes)
    return len(stream) * (gap_bits + math.ceil(math.log2(components)))


@pytest.mark.parametrize("components", [4, 6, 8])
@pytest.mark.parametrize(("share", "count"), [(0.001, 5000), (0.02, 500), (0.3, 500), (1.0, 500)])
def test_sparse_size_is_that_of_a_stream_that_can_be_read_back(share, count, components, generator):
    codes = torch.randint(1, components, (count,), generator=generator)
    codes[torch.rand(count, generator=generator) > share] = 0
    bits = min(decode(codes.tolist(), components, gap_bits) for gap_bits in range(1, 17))
    size = quantized_size(codes, components, biases=7)
    code_bits = {4: 2, 6: 3, 8: 3}[components]
    fixed = 32 * (components + 7)
    assert size == (32 * (count + 7), code_bits * count + fixed, bits + fixed)


@pytest.mark.parametrize(("size", "kernel_size"), [(7, 1), (7, 3), (8, 8)])
def test_circulant_is_a_circular_convolution(size, kernel_size, generator):
    kernel = torch.randn(kernel_size, generator=generator)
    x = torch.randn(size, generator=generator)
    around = torch.cat([x, x[: kernel_size - 1]])
    theirs = torch.nn.functional.conv1d(around[None, None], kernel[None, None]).flatten()
    torch.testing.assert_close(circulant(kernel, size) @ x, theirs)
    torch.testing.assert_close(circulant(kernel, size) @ x.roll(2), theirs.roll(2))


def test_tied_gradient_is_that_of_autograd_through_the_matrix(generator):
    kernel = torch.randn(3, generator=generator, requires_grad=True)
    G = torch.randn(6, 6, generator=generator)
    (circulant(kernel, 6) * G).sum().backward()
    torch.testing.assert_close(tied_gradient(G, 3), kernel.grad)


W = torch.ones(3)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: MixturePrior(torch.tensor([0, 1]), 0.1), "mu must have a floating-point dtype"),
        (lambda: MixturePrior(torch.ones(0), 0.1), r"mu must hold a component, got \(0,\)"),
        (lambda: MixturePrior(torch.tensor(1.0), 0.1), r"mu must hold a component, got \(\)"),
        (lambda: MixturePrior(W, 0.0), "sigma must be positive and finite, got 0.0"),
        (lambda: MixturePrior(W, 0.1, floor=0.0), "floor must be positive and finite, got 0.0"),
        (lambda: MixturePrior(W, 0.1, floor=0.1), "sigma must be above the floor, 0.1, got 0.1"),
        (lambda: some_prior().penalty(W / 0), r"w must be finite, got \[inf"),
        (lambda: some_prior().gradients(W.int()), "w must have a floating-point dtype"),
        (lambda: some_prior().responsibilities([1.0]), "w must be a tensor, got list"),
        (lambda: some_prior().em_(W, steps=-1), "steps must be >= 0, got -1"),
        (lambda: some_prior().em_(W * float("nan")), r"w must be finite, got \[nan"),
        (lambda: quantize(torch.ones(2, 2), some_prior()), "w must be a vector, got shape"),
        (
            lambda: quantize(W, MixturePrior(torch.ones(2, 3), 0.1)),
            r"prior must be for one network, got \(2, 3\)",
        ),
        (lambda: quantized_size(W.long(), 1, 0), "components must be >= 2, got 1"),
        (lambda: quantized_size(W.long(), 3, -1), "biases must be >= 0, got -1"),
        (lambda: quantized_size(W, 3, 0), "codes must be a vector of integers, got torch.float32"),
        (lambda: quantized_size(3 * W.long(), 3, 0), r"codes must be in 0..2, got \(3, 3\)"),
        (lambda: quantized_size(-W.long(), 3, 0), r"codes must be in 0..2, got \(-1, -1\)"),
        (lambda: circulant(W, 2), r"kernel must be a vector of 1 to 2 numbers, got \(3,\)"),
        (lambda: circulant(torch.ones(1, 1), 2), r"1 to 2 numbers, got \(1, 1\)"),
        (lambda: tied_gradient(torch.ones(2, 3), 1), r"square matrix, got shape \(2, 3\)"),
        (lambda: tied_gradient(torch.ones(2, 2), 3), r"kernel_size must be in 1..2, got 3"),
        (lambda: tied_gradient(torch.ones(2, 2), 0), r"kernel_size must be in 1..2, got 0"),
    ],
)
def test_bad_input_is_rejected(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


def test_bad_input_leaves_the_prior_as_it_was():
    prior = some_prior()
    before = [parameter.detach().clone() for parameter in prior.parameters()]
    with pytest.raises(ValueError, match="finite"):
        prior.em_(torch.tensor([1.0, float("nan")]), steps=3)
    for parameter, old in zip(prior.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
