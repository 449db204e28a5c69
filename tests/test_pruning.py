"""Masks against torch's own, and OBD and OBS against brute force on quadratics."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from regkit.curvature import jacobian
from regkit.pruning import (
    apply_masks_,
    downdate,
    inverse_hessian,
    iterative_pruning,
    keep_largest,
    magnitude_masks,
    obd_saliency,
    obs_layer,
    obs_saliency,
    obs_step,
    prune_one_by_one,
    recursive_inverse,
    rewind_,
    shuffled_masks,
)
from regkit.training import train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def positive_definite(generator, W=6):
    A = torch.randn(W, 2 * W, generator=generator)
    return A @ A.T / W + 0.1 * torch.eye(W)


def least_cost(H, w, removed):
    """The cheapest change that deletes some weights, from the whole KKT system."""
    W, Q = len(w), len(removed)
    E = torch.eye(W)[removed]  # (Q, W)
    system = torch.cat([torch.cat([H, E.T], 1), torch.cat([E, torch.zeros(Q, Q)], 1)])
    right = torch.cat([torch.zeros(W), -w[removed]])
    change = torch.linalg.solve(system, right)[:W]
    return change, 0.5 * change @ H @ change


# --- by magnitude ---


@pytest.mark.parametrize("amount", [0.0, 0.13, 0.5, 0.88, 1.0])
def test_masks_are_those_of_torch(amount):
    ours, theirs = network(), network()
    for i in (0, 2):
        prune.l1_unstructured(theirs[i], "weight", amount)
        mask = magnitude_masks(ours, amount)[f"{i}.weight"]
        assert torch.equal(mask, theirs[i].weight_mask.bool())
    theirs = network()
    prune.global_unstructured(
        [(theirs[0], "weight"), (theirs[2], "weight")], prune.L1Unstructured, amount=amount
    )
    masks = magnitude_masks(ours, amount, scope="global")
    assert masks.keys() == {"0.weight", "2.weight"}
    for i in (0, 2):
        assert torch.equal(masks[f"{i}.weight"], theirs[i].weight_mask.bool())


def test_keep_largest_prunes_each_row_exactly(generator):
    scores = torch.rand(4, 3, 11, generator=generator)
    mask = keep_largest(scores, 0.4)
    assert (mask.sum(-1) == 7).all()
    for row, kept in zip(scores.flatten(0, 1), mask.flatten(0, 1), strict=True):
        assert row[kept].min() > row[~kept].max()


def test_keep_largest_breaks_ties_from_the_left():
    mask = keep_largest(torch.tensor([1.0, 0.0, 1.0, 1.0, 5.0]), 0.6)
    assert mask.tolist() == [False, False, False, True, True]


def test_an_amount_for_each_layer():
    masks = magnitude_masks(network(), {"0.weight": 0.2, "2.weight": 0.6})
    assert masks["0.weight"].sum() == 28
    assert masks["2.weight"].sum() == 6


def test_a_pruned_network_is_pruned_further():
    model = network()
    first = magnitude_masks(model, 0.5)
    apply_masks_(model, first)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.1)
    second = magnitude_masks(model, 0.8)
    for name, mask in second.items():
        assert not (mask & ~first[name]).any()


def test_masks_hold_during_training_with_momentum_and_decay(generator):
    model = network()
    masks = magnitude_masks(model, 0.6)
    apply_masks_(model, masks)
    before = copy.deepcopy(model.state_dict())
    x, y = torch.randn(30, 7, generator=generator), torch.randn(30, 3, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(
        lambda step: (model(x) - y).square().mean(),
        optimizer,
        steps=5,
        after_step=lambda step: apply_masks_(model, masks),
    )
    for name, parameter in model.named_parameters():
        moved = parameter != before[name]
        if name in masks:
            assert (parameter[~masks[name]] == 0).all()
            assert torch.equal(moved, masks[name])
        else:
            assert moved.all()


def test_rewind_restores_the_kept_weights_and_biases():
    model = network()
    start = copy.deepcopy(model.state_dict())
    masks = magnitude_masks(model, 0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    rewind_(model, start, masks)
    for name, parameter in model.named_parameters():
        wanted = start[name] * masks[name] if name in masks else start[name]
        assert torch.equal(parameter, wanted)


@pytest.mark.parametrize("rewinding", [True, False])
def test_iterative_pruning_trains_prunes_and_goes_back(rewinding):
    model = network()
    start = copy.deepcopy(model.state_dict())
    seen = []

    def fit(model, masks):
        seen.append((copy.deepcopy(model.state_dict()), masks))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-2.0)
        apply_masks_(model, masks)

    rounds = iterative_pruning(model, fit, [0.2, 0.4], start if rewinding else None)
    assert [masks["0.weight"].sum().item() for masks in rounds] == [28, 21]
    assert all(mask.all() for mask in seen[0][1].values())
    for (state, masks), factor in zip(seen, [1.0, 1.0 if rewinding else -2.0], strict=True):
        for name, value in state.items():
            wanted = factor * start[name] * masks.get(name, 1.0)
            torch.testing.assert_close(value, wanted, atol=0, rtol=0)
    factor = 1.0 if rewinding else 4.0
    torch.testing.assert_close(model[0].weight, factor * start["0.weight"] * rounds[-1]["0.weight"])


def test_iterative_pruning_with_one_threshold():
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(100)
    (masks,) = iterative_pruning(model, lambda model, masks: None, [0.5], scope="global")
    assert masks["2.weight"].all()
    assert masks["0.weight"].sum() == 25 - 15


def test_shuffled_masks_keep_their_counts(generator):
    masks = magnitude_masks(network(), {"0.weight": 0.7, "2.weight": 0.4})
    shuffled = shuffled_masks(masks, generator)
    again = shuffled_masks(masks, torch.Generator().manual_seed(0))
    assert all(torch.equal(again[name], mask) for name, mask in shuffled.items())
    for name, mask in masks.items():
        assert shuffled[name].shape == mask.shape
        assert shuffled[name].sum() == mask.sum()
        assert not torch.equal(shuffled[name], mask)


def test_bad_masks_change_nothing():
    model = network()
    start = copy.deepcopy(model.state_dict())
    masks = magnitude_masks(model, 0.5)
    for wrong, rule in [
        (masks | {"3.weight": masks["0.weight"]}, "masks must name parameters.*got 3.weight"),
        (masks | {"2.weight": masks["0.weight"]}, r"mask of 2.weight must be \(3, 5\)"),
        (masks | {"2.weight": masks["2.weight"].double()}, "must be boolean, got torch.float64"),
    ]:
        with pytest.raises(ValueError, match=rule):
            apply_masks_(model, wrong)
    with pytest.raises(ValueError, match="start must be a state with shapes"):
        rewind_(model, {"0.weight": torch.ones(5, 7)}, masks)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: keep_largest(torch.ones(3), 1.1), "amount must be from 0 to 1, got 1.1"),
        (lambda: keep_largest(torch.ones(3), float("nan")), "amount must be from 0 to 1, got nan"),
        (lambda: keep_largest(torch.tensor(1.0), 0.5), "got a scalar"),
        (lambda: keep_largest(torch.tensor([torch.nan]), 0.5), "scores must be finite"),
        (lambda: magnitude_masks(nn.Tanh(), 0.5), "must have weight matrices, got Tanh"),
        (lambda: magnitude_masks(network(), 0.5, "model"), "scope must be .*got 'model'"),
        (lambda: magnitude_masks(network(), {"0.weight": 0.5}), "amount must name"),
        (lambda: magnitude_masks(network(), {"a": 0.5}, "global"), "must be one number"),
    ],
)
def test_bad_amounts(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


# --- by curvature ---


def test_inverse_is_the_inverse(generator):
    H = positive_definite(generator)
    torch.testing.assert_close(inverse_hessian(H) @ H, torch.eye(6))
    torch.testing.assert_close(inverse_hessian(H, 0.3) @ (H + 0.3 * torch.eye(6)), torch.eye(6))
    singular = torch.ones(3, 3)
    with pytest.raises(ValueError, match="positive definite; more damping helps"):
        inverse_hessian(singular)
    with pytest.raises(ValueError, match="a smallest eigenvalue of -2"):
        inverse_hessian(torch.diag(torch.tensor([1.0, -2.0])))
    assert inverse_hessian(singular, 0.1).isfinite().all()


def test_recursive_inverse_is_the_direct_one(generator):
    model, x = network(), torch.randn(20, 7, generator=generator)
    J = jacobian(model, x)  # (N, K, W)
    H = torch.einsum("nkw,nkv->wv", J, J) / 20
    direct = inverse_hessian(H, 1e-2)
    torch.testing.assert_close(recursive_inverse(J, 1e-2), direct, rtol=1e-9, atol=1e-9)


def test_saliencies_are_the_cost_of_a_deletion(generator):
    for _ in range(20):
        H, w = positive_definite(generator), torch.randn(6, generator=generator)
        inverse = inverse_hessian(H)
        for i in range(6):
            change, cost = least_cost(H, w, [i])
            torch.testing.assert_close(obs_saliency(w, inverse)[i], cost)
            step = obs_step(w, inverse, i)
            torch.testing.assert_close(step, change)
            assert (w + step)[i] == 0.0
            alone = torch.zeros(6)
            alone[i] = -w[i]
            torch.testing.assert_close(obd_saliency(w, H.diagonal())[i], 0.5 * alone @ H @ alone)


def test_several_weights_at_once(generator):
    H, w = positive_definite(generator), torch.randn(6, generator=generator)
    for removed in itertools.combinations(range(6), 3):
        step = obs_step(w, inverse_hessian(H), removed)
        torch.testing.assert_close(step, least_cost(H, w, list(removed))[0])
        assert ((w + step)[list(removed)] == 0).all()


def test_downdate_is_the_inverse_of_what_is_left(generator):
    H = positive_definite(generator)
    inverse = inverse_hessian(H)
    for removed in (2, 5):
        inverse = downdate(inverse, removed)
    rest = [0, 1, 3, 4]
    torch.testing.assert_close(inverse[rest][:, rest], torch.linalg.inv(H[rest][:, rest]))
    assert (inverse[[2, 5]] == 0).all()
    assert (inverse[:, [2, 5]] == 0).all()
    w = torch.randn(6, generator=generator)
    assert obs_saliency(w, inverse)[[2, 5]].isinf().all()
    with pytest.raises(ValueError, match=r"still there, got \[2\]"):
        obs_step(w, inverse, [0, 2])
    with pytest.raises(ValueError, match="still there, got 5"):
        downdate(inverse, 5)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: obd_saliency(torch.ones(3), torch.ones(2)), r"must be \(3,\), got \(2,\)"),
        (lambda: obs_saliency(torch.ones(3), torch.eye(2)), r"must have shape \(3, 3\)"),
        (lambda: obs_saliency(torch.ones(3, 3), torch.eye(3)), "must be a vector"),
        (lambda: obs_step(torch.ones(3), torch.eye(3), 3), "different indices from 0 to 2, got 3"),
        (lambda: obs_step(torch.ones(3), torch.eye(3), [1, 1]), r"got \[1, 1\]"),
        (lambda: obs_step(torch.ones(3), torch.eye(3), []), r"got \[\]"),
        (lambda: downdate(torch.eye(3), -1), "from 0 to 2, got -1"),
        (lambda: downdate(torch.ones(2, 3), 0), "square matrix"),
        (lambda: recursive_inverse(torch.ones(3, 3), 0.1), r"shape \(N, K, W\), got \(3, 3\)"),
        (lambda: recursive_inverse(torch.ones(3, 1, 3), 0.0), "damping must be positive"),
        (lambda: inverse_hessian(torch.eye(2), -0.1), "damping must be >= 0"),
    ],
)
def test_bad_curvature(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


# --- one after another ---


@pytest.fixture
def quadratic(generator):
    """A risk, its minimum, and its Hessian."""
    H, best = positive_definite(generator), torch.randn(6, generator=generator)
    return (lambda w: 0.5 * (w - best) @ H @ (w - best)), best, H


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", ["obs", "obd", "magnitude"])
def test_one_by_one_on_a_quadratic(method, sign, quadratic):
    _, w, H = quadratic
    w = sign * w

    def risk(v):
        return 0.5 * (v - w) @ H @ (v - w)

    result = prune_one_by_one(risk, w, method, lambda w: H, deletions=1)
    (deletion,) = result.deletions
    costs = [least_cost(H, w, [i])[1].item() for i in range(6)]
    wanted = {
        "obs": min(costs),
        "obd": (0.5 * H.diagonal() * w**2).min().item(),
        "magnitude": 0.5 * (H.diagonal() * w**2)[w.abs().argmin()].item(),
    }[method]
    assert deletion.increase == pytest.approx(wanted)
    assert deletion.risk == pytest.approx(wanted)
    assert result.w[deletion.index] == 0.0
    assert result.mask.sum() == 5
    assert not result.mask[deletion.index]
    assert deletion.gradient == pytest.approx(0, abs=1e-12)
    assert deletion.change == pytest.approx((result.w - w).abs().max().item())
    if method == "magnitude":
        assert deletion.predicted != deletion.predicted  # NaN
    else:
        assert deletion.predicted == pytest.approx(wanted)


def test_one_by_one_goes_on_to_the_end(quadratic):
    risk, w, H = quadratic
    result = prune_one_by_one(risk, w, "obs", lambda w: H)
    assert result.reason == "no weight is left"
    assert sorted(deletion.index for deletion in result.deletions) == list(range(6))
    assert (result.w == 0).all()
    increases = torch.tensor([deletion.increase for deletion in result.deletions])
    risks = torch.tensor([deletion.risk for deletion in result.deletions])
    torch.testing.assert_close(increases.cumsum(0), risks)
    # On a quadratic, steps of OBS one after another stay at the minimum of what is left.
    assert result.deletions[3].gradient == pytest.approx(0, abs=1e-10)


def test_one_by_one_retrains_and_asks(quadratic):
    risk, w, H = quadratic

    def retrain(w, mask):
        rest = mask.nonzero()[:, 0]
        best = quadratic[1]
        full = torch.zeros(6)
        full[rest] = torch.linalg.solve(H[rest][:, rest], (H @ best)[rest])
        return full

    result = prune_one_by_one(
        risk, w, "magnitude", retrain=retrain, accept=lambda w: (w != 0).sum() >= 4
    )
    assert result.mask.sum() == 4
    assert result.reason == "the next deletion is not acceptable"
    assert result.deletions[0].risk < result.deletions[0].increase
    removed = [deletion.index for deletion in result.deletions]
    assert result.deletions[-1].risk == pytest.approx(least_cost(H, w, removed)[1].item())


def test_one_by_one_stops_by_each_rule(quadratic):
    risk, w, H = quadratic

    def stop(**rules):
        return prune_one_by_one(risk, w, "obs", lambda w: H, **rules)

    assert stop(deletions=2).reason == "2 deletions"
    assert stop(max_gradient=1e-20).reason.startswith("gradient")
    assert stop(damping=0.1, max_residual=0.05).reason.startswith("residual")
    assert stop(max_residual=1e-9).reason == "no weight is left"
    full = stop()
    changes = [deletion.change for deletion in full.deletions]
    limit = sorted(changes)[-1] * 0.999
    result = stop(max_change=limit)
    assert result.reason.startswith("change")
    assert len(result.deletions) == next(i for i, c in enumerate(changes) if c > limit)
    # Without retraining magnitude leaves the minimum, and the gradient says so.
    left = prune_one_by_one(risk, w, "magnitude", max_gradient=1e-6)
    assert len(left.deletions) == 1
    assert left.reason.startswith("gradient")


def test_residual_is_that_of_the_damped_inverse(quadratic):
    risk, w, H = quadratic
    result = prune_one_by_one(risk, w, "obs", lambda w: H, damping=0.2, deletions=1)
    h = torch.linalg.eigvalsh(H)
    assert result.deletions[0].residual == pytest.approx((0.2 / (h + 0.2)).max().item())


def test_one_by_one_rejects(quadratic):
    risk, w, H = quadratic
    with pytest.raises(ValueError, match="method must be one of .*got 'oba'"):
        prune_one_by_one(risk, w, "oba", lambda w: H)
    with pytest.raises(ValueError, match="obd needs a curvature"):
        prune_one_by_one(risk, w, "obd")
    with pytest.raises(ValueError, match="w must be a vector"):
        prune_one_by_one(risk, H, "obs", lambda w: H)


# --- a layer at a time ---


@pytest.mark.parametrize("rows_at_once", [1, 2, 32])
def test_layer_is_obs_row_by_row(rows_at_once, generator):
    W, x = torch.randn(15, 9, generator=generator), torch.randn(40, 9, generator=generator)
    x = x @ torch.randn(9, 9, generator=generator)
    x[:, 3] = 0.0  # an input that is never on
    given = W.clone()
    pruned = obs_layer(W, x, amount=0.7, damping=0.02, rows_at_once=rows_at_once)
    assert torch.equal(W, given)
    H = x.T @ x / 40
    start = torch.linalg.inv(H + 0.02 * H.diagonal().mean() * torch.eye(9))
    for row, wanted in zip(W, pruned, strict=True):
        w, inverse = row.clone(), start
        for _ in range(6):
            i = int(obs_saliency(w, inverse).argmin())
            w = w + obs_step(w, inverse, i)
            inverse = downdate((inverse + inverse.T) / 2, i)
        torch.testing.assert_close(w, wanted, rtol=1e-9, atol=1e-9)
        assert (wanted != 0).sum() == 3


def test_layer_beats_magnitude_on_its_own_outputs(generator):
    mix = torch.randn(12, 12, generator=generator)
    W, x = torch.randn(30, 12, generator=generator), torch.randn(200, 12, generator=generator) @ mix
    kept = W * keep_largest(W.abs(), 0.5)

    def lost(pruned):
        return ((pruned - W) @ x.T).square().sum()

    assert lost(obs_layer(W, x, 0.5, damping=1e-6)) < 0.5 * lost(kept)
    assert torch.equal(obs_layer(W, x, 0.0), W)
    assert (obs_layer(W, x, 1.0) == 0).all()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"x": torch.ones(4, 2)}, r"must share D, got \(2, 3\) and \(4, 2\)"),
        ({"amount": -0.1}, "amount must be from 0 to 1, got -0.1"),
        ({"damping": 0.0}, "damping must be positive and finite, got 0.0"),
        ({"rows_at_once": 0}, "rows_at_once must be >= 1, got 0"),
    ],
)
def test_layer_rejects(options, rule):
    with pytest.raises(ValueError, match=rule):
        obs_layer(**({"W": torch.ones(2, 3), "x": torch.ones(4, 3), "amount": 0.5} | options))
