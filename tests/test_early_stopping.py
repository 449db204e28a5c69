"""Early stopping: the rule against a plain loop, criteria against their definitions, filters."""

import math

import pytest
import torch
from torch import nn

from regkit.early_stopping import (
    EarlyStopping,
    epochs_since_best,
    equivalent_decay,
    filter_factors,
    first_stop,
    generalization_loss,
    progress_quotient,
    successive_rises,
    training_progress,
)


def follow(errors, patience, min_change=0.0):
    """Feed errors to the rule; the weight of the model tells the epoch."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    stopping = EarlyStopping(model, patience, min_change)
    for epoch, error in enumerate(errors):
        with torch.no_grad():
            model[0].weight.fill_(epoch)
            model[1].num_batches_tracked.fill_(epoch)  # a buffer
        if stopping.should_stop(error):
            break
    return model, stopping, epoch


def random_curves(generator, runs=50, E=40):
    """Rounded, so that there are ties."""
    return (10 * torch.rand(runs, E, generator=generator)).round() / 10 + 0.1


# --- the rule ---


@pytest.mark.parametrize("patience", [1, 3, 10])
def test_stops_where_nothing_new_came_for_the_patience(patience, generator):
    for curve in random_curves(generator):
        errors = curve.tolist()
        model, stopping, last = follow(errors, patience)
        expected = len(errors) - 1
        for t in range(len(errors)):
            if t >= patience and min(errors[: t - patience + 1]) <= min(errors[: t + 1]):
                expected = t
                break
        assert last == expected
        best = errors.index(min(errors[: last + 1]))
        assert (stopping.best_epoch, stopping.best_error) == (best, errors[best])
        stopping.restore_()
        assert model[0].weight.item() == model[1].num_batches_tracked.item() == best


def test_small_improvements_are_kept_but_do_not_reset_the_counter():
    model, stopping, last = follow([1.0, 0.95, 0.9, 0.2], patience=2, min_change=0.15)
    assert last == 2
    stopping.restore_()
    assert model[0].weight.item() == 2
    assert follow([1.0, 0.95, 0.84, 0.2], patience=2, min_change=0.15)[2] == 3


def test_counts_from_the_last_real_improvement_not_from_the_epoch_before():
    # each step is small, two together are not
    assert follow([1.0, 0.94, 0.88, 0.82, 0.76], patience=3, min_change=0.1)[2] == 4


def test_keeps_one_copy_of_the_model_and_writes_over_it():
    model = nn.Linear(4, 4)
    stopping = EarlyStopping(model, patience=5)
    kept = [value.data_ptr() for value in stopping._best.values()]
    for error in (3.0, 2.0, 1.0):
        stopping.should_stop(error)
    assert [value.data_ptr() for value in stopping._best.values()] == kept
    assert set(kept).isdisjoint(p.data_ptr() for p in model.parameters())


def test_restores_the_start_if_nothing_was_measured():
    model = nn.Linear(1, 1, bias=False)
    start = model.weight.item()
    stopping = EarlyStopping(model, patience=1)
    with torch.no_grad():
        model.weight.fill_(9.0)
    stopping.restore_()
    assert model.weight.item() == start
    assert (stopping.best_epoch, stopping.best_error) == (-1, math.inf)


def test_rejects_what_makes_no_sense_and_changes_nothing():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="patience must be >= 1, got 0"):
        EarlyStopping(model, patience=0)
    with pytest.raises(ValueError, match="min_change must be >= 0 and finite, got -1"):
        EarlyStopping(model, patience=1, min_change=-1)
    stopping = EarlyStopping(model, patience=2)
    stopping.should_stop(1.0)
    with pytest.raises(ValueError, match="must be a number, got nan"):
        stopping.should_stop(float("nan"))
    assert (stopping.best_epoch, stopping.waited) == (0, 0)
    assert not stopping.should_stop(float("inf"))
    assert stopping.should_stop(2.0)


# --- criteria ---


def test_epochs_since_best_is_the_patience_used_up(generator):
    curves = random_curves(generator)
    for curve, waited in zip(curves.tolist(), epochs_since_best(curves).tolist(), strict=True):
        for t, count in enumerate(waited):
            assert count == t - curve.index(min(curve[: t + 1]))


def test_criteria_by_their_definitions(generator):
    validation = random_curves(generator)
    training = 0.1 + torch.rand(50, 40, 5, generator=generator)
    loss, progress = generalization_loss(validation), training_progress(training)
    quotient, rises = progress_quotient(validation, training), successive_rises(validation)
    for run in range(50):
        for t in range(40):
            past = validation[run, : t + 1]
            gl = 100 * (past[-1] / past.min() - 1)
            strip = training[run, t]
            pk = 1000 * (strip.sum() / (5 * strip.min()) - 1)
            up = 0
            while up < t and past[-1 - up] > past[-2 - up]:
                up += 1
            torch.testing.assert_close(loss[run, t], gl)
            torch.testing.assert_close(progress[run, t], pk)
            torch.testing.assert_close(quotient[run, t], gl / pk)
            assert rises[run, t] == up


def test_no_progress_is_no_division_by_zero():
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert training_progress(flat).tolist() == [0, 0, 0, math.inf]
    validation = torch.tensor([1.0, 2.0, 2.0, 0.5])
    assert progress_quotient(validation, flat).tolist() == [0, math.inf, math.inf, 0]


def test_first_stop_is_the_first_or_the_last():
    stop = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    assert first_stop(stop).tolist() == [1, 0, 3]
    assert first_stop(stop[0]).item() == 1


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: generalization_loss(torch.tensor([1.0, 0.0])), "errors must be positive, got 0"),
        (lambda: epochs_since_best(torch.zeros(3, 0)), "at least one error, got shape \\(3, 0\\)"),
        (lambda: successive_rises(torch.tensor([1.0, math.nan])), "validation must be finite"),
        (lambda: training_progress(torch.ones(3)), "shape \\(..., E, k\\), got \\(3,\\)"),
        (lambda: training_progress(-torch.ones(3, 2)), "errors must be >= 0, got -1"),
        (
            lambda: progress_quotient(torch.ones(3), torch.ones(2, 5)),
            "must hold \\(3,\\) strips, got \\(2,\\)",
        ),
        (lambda: first_stop(torch.ones(3)), "must hold booleans, got torch.float64"),
        (lambda: first_stop(torch.ones(3, 0).bool()), "must not be empty"),
    ],
)
def test_criteria_reject_bad_curves(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


# --- gradient descent as a filter ---


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 50])
def test_filter_is_what_gradient_descent_does(steps, generator):
    A = torch.randn(6, 9, generator=generator)
    H, w_star = A @ A.T / 9, torch.randn(6, generator=generator)
    h, Q = torch.linalg.eigh(H)
    lr = (1.9 / h.max()).item()
    w = torch.zeros(6)
    for _ in range(steps):
        w = w - lr * H @ (w - w_star)
    expected = Q @ (filter_factors(h, lr, steps) * (Q.T @ w_star))
    torch.testing.assert_close(w, expected, rtol=1e-11, atol=1e-12)


def test_filter_keeps_its_digits_for_tiny_eigenvalues():
    tiny = torch.tensor([0.0, 1e-18, 1e-12])
    torch.testing.assert_close(
        filter_factors(tiny, 0.5, 3), 1.5 * tiny, rtol=1e-11, atol=0.0
    )  # 1 - (1 - x)^t would be zero for the second
    assert equivalent_decay(tiny, 0.5, 3).allclose(torch.full((3,), 2 / 3), rtol=1e-11)


@pytest.mark.parametrize("steps", [1, 4, 33])
def test_equivalent_decay_shrinks_as_much(steps, generator):
    h = torch.rand(50, generator=generator) * 1.99
    lam = equivalent_decay(h, 1.0, steps)
    torch.testing.assert_close(h / (h + lam), filter_factors(h, 1.0, steps), rtol=1e-9, atol=0.0)


def test_both_keep_the_dtype():
    h = torch.tensor([0.1, 1.0], dtype=torch.float32)
    assert filter_factors(h, 1.0, 3).dtype == equivalent_decay(h, 1.0, 3).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (([-0.1], 1.0, 3), "eigenvalues must be >= 0, got -0.1"),
        (([2.0], 1.0, 3), "lr times the largest eigenvalue must be < 2, got 2"),
        (([1.0], 0.0, 3), "lr must be positive and finite, got 0"),
        (([1.0], 1.0, -1), "steps must be a count, got -1"),
        (([1.0], 1.0, 2.5), "steps must be a count, got 2.5"),
        (([], 1.0, 2), "h must not be empty"),
    ],
)
def test_filters_reject_what_does_not_converge(arguments, rule):
    h, lr, steps = arguments
    for function in (filter_factors, equivalent_decay):
        with pytest.raises(ValueError, match=rule):
            function(torch.tensor(h), lr, steps)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        equivalent_decay(torch.ones(1), 1.0, 0)
