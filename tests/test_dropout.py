"""Masks against enumeration, scaling against masks, closed forms against autograd, bad input."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.linear_model import Ridge
from torch import nn

from regkit import dropout
from regkit.dropout import (
    Dropout,
    all_masks,
    dropout_ridge,
    gp_strengths,
    hoyer,
    logistic_penalty,
    mc_predict,
    ridge_strengths,
    scale_weights_,
    unscale_weights_,
)


def network(*dropouts: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    first, second = dropouts
    return nn.Sequential(
        nn.Sequential(nn.Linear(3, 6), nn.ReLU(), first),
        nn.Linear(6, 5),
        second,
        nn.ReLU(),
        nn.Linear(5, 2),
    )


# --- the layer ---


@pytest.mark.parametrize("keep_prob", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_output_is_zero_or_the_scaled_input(keep_prob, inverted, dtype, generator):
    a = torch.rand(40, 25, dtype=dtype) + 1
    out = Dropout(keep_prob, inverted, generator)(a)
    kept = out != 0
    torch.testing.assert_close(out[kept], a[kept] / (keep_prob if inverted else 1.0))
    assert out.dtype == dtype
    spread = (keep_prob * (1 - keep_prob) / a.numel()) ** 0.5
    assert abs(kept.double().mean() - keep_prob) <= 4 * spread


def test_masks_differ_between_rows_and_calls_and_follow_the_generator():
    def draw(layer):
        return layer(torch.ones(30, 40))

    layer = Dropout(0.5, generator=torch.Generator().manual_seed(1))
    first, second = draw(layer), draw(layer)
    assert len(torch.unique(first, dim=0)) == 30
    assert not torch.equal(first, second)
    torch.testing.assert_close(draw(Dropout(0.5, True, torch.Generator().manual_seed(1))), first)


def test_gradient_passes_through_kept_units_only(generator):
    a = torch.rand(50, requires_grad=True)
    out = Dropout(0.4, generator=generator)(a)
    out.sum().backward()
    torch.testing.assert_close(a.grad, (out.detach() != 0) / 0.4)


def test_evaluation_is_the_identity_and_the_layer_can_be_copied_and_printed():
    layer = Dropout(0.3, inverted=False)
    a = torch.rand(4, 5)
    assert layer.eval()(a) is a
    assert copy.deepcopy(layer).keep_prob == 0.3
    assert repr(layer) == "Dropout(keep_prob=0.3, inverted=False)"
    assert list(layer.state_dict()) == []  # as nn.Dropout: checkpoints fit


@pytest.mark.parametrize("keep_prob", [0.0, -0.1, 1.1, float("nan")])
def test_keep_prob_is_checked_everywhere(keep_prob):
    for call in (
        lambda: Dropout(keep_prob),
        lambda: all_masks(3, keep_prob),
        lambda: ridge_strengths(torch.ones(2, 2), keep_prob),
        lambda: logistic_penalty(torch.ones(2, 2), torch.ones(2), keep_prob),
        lambda: gp_strengths(torch.tensor([0.5, keep_prob]), 1.0, 1.0, 1),
    ):
        with pytest.raises(ValueError, match=r"must be (in \(0, 1\]|finite), got"):
            call()


def test_layer_rejects_integers():
    with pytest.raises(ValueError, match="floating-point dtype, got torch.int64"):
        Dropout(0.5)(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("keep_prob", [0.3, 1.0])
def test_all_masks_are_the_cartesian_product(keep_prob):
    masks, probabilities = all_masks(4, keep_prob)
    rows = list(product([0.0, 1.0], repeat=4))
    assert [tuple(row) for row in masks.tolist()] == rows
    by_hand = [np.prod([keep_prob if d else 1 - keep_prob for d in row]) for row in rows]
    np.testing.assert_allclose(probabilities, by_hand, atol=1e-15)
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("units", [0, 21])
def test_all_masks_rejects_sizes(units):
    with pytest.raises(ValueError, match=f"units must be from 1 to 20, got {units}"):
        all_masks(units, 0.5)


# --- weight scaling ---


def test_scaled_weights_give_the_mean_pre_activation():
    model = nn.Sequential(Dropout(0.3, inverted=False), nn.Linear(8, 2))
    x = torch.randn(8)
    masks, probabilities = all_masks(8, 0.3)
    mean = probabilities @ model[1](masks * x)
    scale_weights_(model)
    torch.testing.assert_close(model.eval()(x), mean)


def test_scaling_changes_outgoing_weights_only_and_unscaling_restores():
    model = network(Dropout(0.4, inverted=False), Dropout(0.7, inverted=False))
    before = copy.deepcopy(model.state_dict())
    scale_weights_(model)
    factors = {"1.weight": 0.4, "4.weight": 0.7}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, factors.get(name, 1.0) * before[name])
    unscale_weights_(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-15, atol=0.0)


def test_scaled_network_equals_inverted_training_with_divided_weights():
    """Weights W with unscaled masks, and pW with inverted masks, are one network."""
    unscaled = network(Dropout(0.5, inverted=False), Dropout(0.5, inverted=False))
    inverted = network(Dropout(0.5), Dropout(0.5))
    inverted.load_state_dict(unscaled.state_dict())
    with torch.no_grad():
        inverted[1].weight.mul_(0.5)
        inverted[4].weight.mul_(0.5)
    x = torch.randn(20, 3)
    passes = [
        mc_predict(model, x, 7, torch.Generator().manual_seed(2)) for model in (unscaled, inverted)
    ]
    torch.testing.assert_close(*passes)
    scale_weights_(unscaled)
    torch.testing.assert_close(unscaled.eval()(x), inverted.eval()(x))


def test_two_dropout_layers_before_one_layer_multiply():
    linear = nn.Linear(4, 1)
    before = linear.weight.detach().clone()
    model = nn.Sequential(
        Dropout(0.5, inverted=False), nn.Flatten(), Dropout(0.25, inverted=False), linear
    )
    scale_weights_(model)
    torch.testing.assert_close(linear.weight.detach(), before / 8)


SHARED = nn.Linear(3, 3)
OFF = {"inverted": False}


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "a Dropout layer with inverted=False, got none"),
        (nn.Sequential(Dropout(0.5), nn.Linear(2, 2)), "inverted=False, got none"),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)), "inverted=False, got none"),
        (nn.Sequential(nn.Linear(2, 2), Dropout(0.5, **OFF)), "followed by a layer with weights"),
        (nn.Sequential(Dropout(0.5, **OFF), nn.Tanh(), nn.Linear(2, 2)), "only, got Tanh"),
        (nn.Sequential(Dropout(0.5, **OFF), nn.BatchNorm1d(2)), "only, got BatchNorm1d"),
        (nn.Sequential(SHARED, Dropout(0.5, **OFF), SHARED), "stand once only, got Linear"),
        (nn.Transformer(8, 2, 1, 1, 8, batch_first=True), "built of nn.Sequential, got Transf"),
    ],
)
def test_scaling_rejects_models_it_cannot_scale_and_leaves_them(model, rule):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=rule):
        scale_weights_(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


# --- MC dropout ---


@pytest.mark.parametrize("kind", [lambda: Dropout(0.5), lambda: nn.Dropout(0.5)])
def test_mc_mean_and_spread_of_a_linear_unit(kind, generator):
    model = nn.Sequential(kind(), nn.Linear(6, 1))
    x = torch.randn(3, 6)
    samples = mc_predict(model, x, 4000, generator)
    assert samples.shape == (4000, 3, 1)
    masks, probabilities = all_masks(6, 0.5)
    outputs = model[1](2 * masks[:, None] * x).detach()  # (64, 3, 1)
    mean = torch.einsum("m,mnk->nk", probabilities, outputs)
    variance = torch.einsum("m,mnk->nk", probabilities, (outputs - mean) ** 2)
    assert ((samples.mean(0) - mean).abs() <= 4 * (variance / 4000).sqrt()).all()
    torch.testing.assert_close(samples.var(0), variance, rtol=0.15, atol=0.0)


@pytest.mark.parametrize("kind", [lambda: Dropout(0.5), lambda: nn.Dropout(0.5)])
def test_mc_follows_its_generator_and_leaves_the_global_one_alone(kind):
    model = network(kind(), kind())
    x = torch.randn(4, 3)
    state = torch.random.get_rng_state()
    first = mc_predict(model, x, 5, torch.Generator().manual_seed(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(first, mc_predict(model, x, 5, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, mc_predict(model, x, 5, torch.Generator().manual_seed(2)))
    assert len(torch.unique(first, dim=0)) == 5


def test_mc_without_generator_uses_those_of_the_layers():
    own = torch.Generator().manual_seed(4)
    model = nn.Sequential(Dropout(0.5, generator=own), nn.Linear(30, 1))
    first = mc_predict(model, torch.ones(1, 30), 3)
    own.manual_seed(4)
    torch.testing.assert_close(mc_predict(model, torch.ones(1, 30), 3), first)


def test_mc_keeps_batch_norm_in_evaluation_and_restores_every_mode(generator):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Dropout(0.5), nn.Dropout(0.5))
    model.train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    statistics = copy.deepcopy(model[1].state_dict())
    mc_predict(model, torch.randn(5, 3), 3, generator)
    assert [module.training for module in model.modules()] == modes
    for name, value in model[1].state_dict().items():
        assert torch.equal(value, statistics[name])
    assert model[2].generator is None


def test_mc_restores_modes_after_an_error(generator):
    model = nn.Sequential(Dropout(0.5), nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[2].eval()
    with pytest.raises(RuntimeError, match="shapes"):
        mc_predict(model, torch.ones(2, 4), 2, generator)
    assert [module.training for module in model] == [True, True, False]
    assert model[0].generator is None


def test_mc_in_pieces_draws_every_pass_afresh(generator, monkeypatch):
    model = nn.Sequential(Dropout(0.5), nn.Linear(6, 1))
    x = torch.randn(10, 6)
    sizes = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    monkeypatch.setattr(dropout, "ROWS", 30)
    small = mc_predict(model, x, 2000, generator)
    assert max(sizes) == 30
    assert small.shape == (2000, 10, 1)
    assert not small.requires_grad
    monkeypatch.setattr(dropout, "ROWS", 100_000)
    sizes.clear()
    whole = mc_predict(model, x, 2000, generator)
    assert sizes == [20_000]
    spread = (small.var(0) / 2000 + whole.var(0) / 2000).sqrt()
    assert ((small.mean(0) - whole.mean(0)).abs() <= 4.5 * spread).all()
    assert len(torch.unique(small[:, 0])) > 30


@pytest.mark.parametrize(
    ("model", "x", "passes", "rule"),
    [
        (Dropout(0.5), torch.ones(1, 2), 0, "passes must be >= 1, got 0"),
        (Dropout(0.5), torch.ones(0, 2), 1, r"x must have rows, got shape \(0, 2\)"),
        (nn.Linear(2, 2), torch.ones(1, 2), 1, "must have a dropout layer, got none"),
        (nn.Sequential(Dropout(0.5), nn.Flatten(0)), torch.ones(1, 2), 3, "must have 3 rows"),
    ],
)
def test_mc_rejects_bad_input(model, x, passes, rule):
    with pytest.raises(ValueError, match=rule):
        mc_predict(model, x, passes)


# --- linear and logistic regression ---


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("keep_prob", [0.3, 0.8, 1.0])
def test_dropout_ridge_minimizes_the_risk_over_all_masks(inverted, keep_prob, generator):
    X = torch.randn(15, 5, generator=generator) * torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    y = torch.randn(15, generator=generator)
    masks, probabilities = all_masks(5, keep_prob)
    scaled = masks / keep_prob if inverted else masks

    def risk(w):
        predicted = torch.einsum("nd,md,d->mn", X, scaled, w)
        return probabilities @ (0.5 * (predicted - y) ** 2).mean(1)

    w = dropout_ridge(X, y, keep_prob, inverted)
    torch.testing.assert_close(torch.func.grad(risk)(w), torch.zeros(5), rtol=0.0, atol=1e-12)
    twin = dropout_ridge(X, y, keep_prob, not inverted)
    torch.testing.assert_close(*((w, keep_prob * twin) if inverted else (keep_prob * w, twin)))


def test_dropout_ridge_on_standardized_columns_is_plain_ridge(generator):
    X = torch.randn(30, 4, generator=generator)
    X = X / (X**2).mean(0).sqrt()
    y = torch.randn(30, generator=generator)
    theirs = Ridge(alpha=30 * 0.25 / 0.75, fit_intercept=False).fit(X.numpy(), y.numpy())
    torch.testing.assert_close(dropout_ridge(X, y, 0.75), torch.from_numpy(theirs.coef_))


def test_dropout_ridge_rejects_bad_input():
    with pytest.raises(ValueError, match=r"y must have shape \(3,\) like X, got \(2,\)"):
        dropout_ridge(torch.ones(3, 2), torch.ones(2), 0.5)
    with pytest.raises(ValueError, match="the minimum must be unique, got keep_prob = 1.0"):
        dropout_ridge(torch.tensor([[1.0, 0.0]]), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match=r"X must be a matrix with rows, got shape \(0, 2\)"):
        ridge_strengths(torch.ones(0, 2), 0.5)


def test_logistic_penalty_is_the_second_order_term(generator):
    """Shrinking w by ten shrinks the gap to the mean over all masks by about ten to the fourth."""
    X, w = torch.randn(6, 4, generator=generator), torch.randn(4, generator=generator)
    masks, probabilities = all_masks(4, 0.6)

    def exact(w):
        partition = nn.functional.softplus(torch.einsum("nd,md,d->mn", X, masks / 0.6, w))
        return (probabilities @ partition - nn.functional.softplus(X @ w)).mean()

    def gap(w):
        return (exact(w) - logistic_penalty(X, w, 0.6)).abs() / exact(w)

    assert gap(0.01 * w) < 1e-3
    assert gap(0.1 * w) < 0.3 * gap(w)


def test_logistic_penalty_rejects_shapes():
    with pytest.raises(ValueError, match=r"must be \(N, D\) and w \(D,\), got \(2, 3\) and \(2,\)"):
        logistic_penalty(torch.ones(2, 3), torch.ones(2), 0.5)


# --- the Gaussian process, and sparsity ---


def test_gp_strengths_make_the_divergence_of_the_prior(generator):
    """tau N lambda m**2 is the part of E_q[-log prior] that depends on m."""
    keep, scale, precision, samples = 0.7, 1.5, 4.0, 50
    (lam,) = gp_strengths(torch.tensor([keep]), scale, precision, samples)
    m = torch.tensor(2.0)
    prior = torch.distributions.Normal(0.0, 1 / scale)
    energy = -keep * prior.log_prob(m) - (1 - keep) * prior.log_prob(torch.tensor(0.0))
    at_zero = -prior.log_prob(torch.tensor(0.0))
    torch.testing.assert_close(lam * m**2, (energy - at_zero) / (precision * samples))


@pytest.mark.parametrize(
    ("scale", "precision", "samples", "rule"),
    [
        (0.0, 1.0, 1, "length_scale must be positive and finite, got 0.0"),
        (1.0, -1.0, 1, "precision must be positive and finite, got -1.0"),
        (1.0, 1.0, 0, "samples must be >= 1, got 0"),
    ],
)
def test_gp_strengths_rejects_bad_input(scale, precision, samples, rule):
    with pytest.raises(ValueError, match=rule):
        gp_strengths(torch.tensor([0.5]), scale, precision, samples)


def test_hoyer_orders_vectors_by_sparsity_whatever_their_scale(generator):
    a = torch.randn(200, generator=generator).abs()
    thresholds = [0.0, 0.3, 0.8, 1.5]
    values = torch.stack([hoyer(torch.where(a > t, a, 0.0)) for t in thresholds])
    assert (values.diff() > 0).all()
    torch.testing.assert_close(hoyer(7 * a), hoyer(-a))


@pytest.mark.parametrize(
    ("a", "rule"),
    [
        (torch.ones(3, 1), r"M > 1, got \(3, 1\)"),
        (torch.tensor([[1.0, 1.0], [0.0, 0.0]]), "an entry other than 0, got a zero row"),
        (torch.tensor([1.0, float("nan")]), "a must be finite"),
    ],
)
def test_hoyer_rejects_bad_input(a, rule):
    with pytest.raises(ValueError, match=rule):
        hoyer(a)


def test_scipy_finds_the_same_ridge_minimum(generator):
    """A minimizer that knows only the risk over all masks."""
    X, y = torch.randn(8, 3, generator=generator), torch.randn(8, generator=generator)
    masks, probabilities = all_masks(3, 0.5)

    def risk(w):
        predicted = torch.einsum("nd,md,d->mn", X, 2 * masks, torch.from_numpy(w))
        return (probabilities @ (0.5 * (predicted - y) ** 2).mean(1)).item()

    found = optimize.minimize(risk, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(dropout_ridge(X, y, 0.5), found, atol=1e-6)
