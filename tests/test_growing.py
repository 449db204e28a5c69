"""Cascade-correlation against autograd, finite differences, least squares and other libraries."""

import itertools

import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from regkit.datasets import two_spirals
from regkit.growing import (
    OUTPUT_LR,
    CascadeCorrelation,
    Quickprop,
    _regress,
    _stagnant,
    cascade,
    covariance,
    error_drop,
    score_gradient,
    symmetric_sigmoid,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def sample(generator):
    """Candidates (P, N) = (4, 30), features (30, 5), errors (30, 3)."""
    w = torch.randn(4, 5, generator=generator)
    z = torch.randn(30, 5, generator=generator)
    return w, z, torch.randn(30, 3, generator=generator) + 0.7


def xor():
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return x, torch.tensor([0, 1, 1, 0])


def test_symmetric_sigmoid_against_autograd():
    s = torch.linspace(-20, 20, 41, requires_grad=True)
    a, slope = symmetric_sigmoid(s)
    torch.testing.assert_close(a, torch.tanh(s / 2) / 2)
    torch.testing.assert_close(slope, torch.autograd.grad(a.sum(), s)[0])


def test_covariance_is_n_times_numpys(sample):
    w, z, errors = sample
    a = w @ z.T
    score, _ = covariance(a, errors)
    cov = torch.cov(torch.cat([a, errors.T]), correction=0)[:4, 4:]
    torch.testing.assert_close(score, 30 * cov.abs().sum(1))


@pytest.mark.parametrize("criterion", [covariance, error_drop])
def test_gradients_against_autograd(sample, criterion):
    w, z, errors = sample
    w.requires_grad_()
    score, gradient = score_gradient(w, z, errors, criterion)
    a = torch.sigmoid(w @ z.T) - 0.5
    torch.testing.assert_close(gradient, torch.autograd.grad(criterion(a, errors)[0].sum(), w)[0])
    torch.testing.assert_close(score, criterion(a, errors)[0])


def test_error_drop_is_what_least_squares_finds(sample):
    w, z, errors = sample
    a = w @ z.T
    drop, _ = error_drop(a, errors)
    for unit, expected in zip(a, drop, strict=True):
        columns = torch.stack([torch.ones(30), unit], 1)
        before = errors - errors.mean(0)
        after = errors - columns @ torch.linalg.lstsq(columns, errors).solution
        torch.testing.assert_close((before**2).sum() - (after**2).sum(), expected)


def test_a_constant_unit_drops_nothing():
    drop, slope = error_drop(torch.full((1, 6), 0.25), torch.randn(6, 2))
    assert drop.item() == 0
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("function", [covariance, error_drop])
def test_shapes_must_fit(function):
    with pytest.raises(ValueError, match=r"a must be \(P, N\) and errors \(N, K\), got shapes"):
        function(torch.zeros(2, 5), torch.zeros(4, 1))


def quickprop_by_hand(slope, last, step, lr, mu):
    """One weight, in the words of the paper."""
    if step == 0:
        return -lr * slope
    linear = -lr * slope if slope * step <= 0 else 0.0
    if slope * last > 0 and abs(slope) >= mu / (1 + mu) * abs(last):
        return linear + mu * step
    return linear + step * slope / (last - slope)


def test_quickprop_against_one_weight_at_a_time(generator):
    slopes = torch.randn(12, 500, generator=generator)
    w = torch.zeros(500)
    w.grad = torch.zeros(500)
    assert Quickprop([w], lr=0.3).defaults["mu"] == 2
    optimizer = Quickprop([w], lr=0.3, mu=1.75)
    steps, last = [0.0] * 500, [0.0] * 500
    for row in slopes:
        w.grad.copy_(row)  # in place, as after zero_grad(set_to_none=False)
        before = w.clone()
        optimizer.step()
        steps = [
            quickprop_by_hand(g, p, d, 0.3, 1.75)
            for g, p, d in zip(row.tolist(), last, steps, strict=True)
        ]
        last = row.tolist()
        torch.testing.assert_close(w - before, torch.tensor(steps))


def test_quickprop_minimizes_a_quadratic(generator):
    A = torch.randn(6, 4, generator=generator)
    b = torch.randn(6, generator=generator)
    w = torch.zeros(4, requires_grad=True)
    optimizer = Quickprop([w], lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        ((A @ w - b) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.linalg.lstsq(A, b).solution, atol=1e-5, rtol=0)


def test_quickprop_skips_parameters_without_gradient():
    w = torch.ones(2, requires_grad=True)
    Quickprop([w], lr=1.0).step()
    assert w.tolist() == [1, 1]


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": 1.0, "mu": -1.0}])
def test_quickprop_needs_positive_numbers(bad):
    with pytest.raises(ValueError, match="must be positive and finite"):
        Quickprop([torch.zeros(1, requires_grad=True)], **bad)


def test_cascade_against_loops(generator):
    x = torch.randn(7, 2, generator=generator)
    weights = [torch.randn(3 + m, generator=generator) for m in range(3)]
    z = cascade(x, weights)
    for n in range(7):
        values = [1.0, *x[n].tolist()]
        for w in weights:
            s = sum(float(a) * b for a, b in zip(w, values, strict=True))
            values.append((1 + torch.exp(torch.tensor(-s))).reciprocal().item() - 0.5)
        torch.testing.assert_close(z[n], torch.tensor(values))
    with pytest.raises(ValueError, match="unit 1 must have 4 incoming weights, got 3"):
        cascade(x, [weights[0], weights[0]])


def test_linear_outputs_are_least_squares_at_every_size(generator):
    x = torch.randn(60, 3, generator=generator)
    y = torch.stack([x.prod(1), x[:, 0].sin() + x[:, 1] ** 2], 1)
    model = CascadeCorrelation("linear", max_units=4, generator=generator).fit(x, y)
    for units in range(5):
        z = cascade(x, model.input_weights_[:units])
        reference = LinearRegression().fit(z[:, 1:], y).predict(z[:, 1:])
        prediction = model.predict(x, units)
        torch.testing.assert_close(prediction, torch.from_numpy(reference))
        torch.testing.assert_close(
            model.losses_[units], 0.5 * ((prediction - y) ** 2).sum(1).mean()
        )
    assert (model.losses_.diff() <= 0).all()
    assert model.units_ == 4
    assert model.predict(x).shape == (60, 2)
    flat = CascadeCorrelation("linear", max_units=1, generator=generator).fit(x, y[:, 0])
    assert flat.predict(x).shape == (60,)


def test_softmax_outputs_approach_the_maximum_of_the_likelihood(generator):
    x = torch.randn(200, 2, generator=generator)
    noise = torch.randn(200, 3, generator=generator)
    y = (x @ torch.randn(2, 3, generator=generator) + noise).argmax(1)
    model = CascadeCorrelation("softmax", "adam", max_units=0, max_epochs=2000, generator=generator)
    model.fit(x, y)
    best = LogisticRegression(C=1e8, max_iter=1000).fit(x, y).predict_proba(x)
    likelihood = nn.functional.nll_loss(torch.from_numpy(best).log(), y)
    assert likelihood - 1e-9 <= model.losses_[0] < 1.1 * likelihood


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("K", [2, 3])
def test_outputs_follow_the_gradient_of_their_loss(generator, output, K):
    x = torch.randn(30, 2, generator=generator)
    y = torch.arange(30) % K
    first, same = (torch.Generator().manual_seed(1) for _ in range(2))
    model = CascadeCorrelation(output, max_units=0, max_epochs=1, offset=0.3, generator=first)
    model.fit(x, y)  # one plain gradient step
    v = torch.empty_like(model.output_weights_[0]).uniform_(-1, 1, generator=same)
    v.requires_grad_()
    s = cascade(x, []) @ v.T
    if output == "softmax":
        risk = nn.functional.cross_entropy(s, y)
    else:
        t = nn.functional.one_hot(y, K).double()[:, -s.shape[1] :]
        entropy = nn.functional.binary_cross_entropy_with_logits(s, t, reduction="none")
        risk = (0.5 * (torch.sigmoid(s) - t) ** 2 + 0.3 * entropy).sum(1).mean()
    risk.backward()
    torch.testing.assert_close(model.output_weights_[0], v.detach() - OUTPUT_LR * v.grad)


def test_a_candidate_reaches_the_score_that_scipy_finds(generator):
    x = torch.randn(80, 2, generator=generator)
    y = torch.sin(2 * x[:, 0])
    model = CascadeCorrelation("linear", pool=20, max_units=1, max_epochs=300, generator=generator)
    model.fit(x, y)
    z = cascade(x, [])
    errors = (model.predict(x, 0) - y)[:, None]

    def minus_score(w):
        score, gradient = score_gradient(torch.from_numpy(w)[None], z, errors)
        return -score.item(), -gradient[0].numpy()

    starts = torch.randn(50, 3, generator=generator)
    best = max(-minimize(minus_score, start.numpy(), jac=True).fun for start in starts)
    found = score_gradient(model.input_weights_[0][None], z, errors)[0].item()
    assert 0.95 * best < found <= 1.0001 * best


@pytest.mark.parametrize("optimizer", ["quickprop", "adam"])
def test_scores_rise_while_candidates_learn(generator, optimizer):
    x = torch.randn(80, 2, generator=generator)
    y = torch.sin(2 * x[:, 0])
    model = CascadeCorrelation("linear", optimizer, max_units=1, generator=generator).fit(x, y)
    scores = model.history_[1].values  # (E, P)
    assert (scores[-1] > scores[0]).all()
    errors = (model.predict(x, 0) - y)[:, None]
    best = score_gradient(model.input_weights_[0][None], cascade(x, []), errors)[0]
    assert best / (errors**2).sum() >= scores[-1].max() * (1 - 1e-2)


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
@pytest.mark.parametrize("optimizer", ["quickprop", "adam"])
def test_xor_needs_a_hidden_unit(output, optimizer, generator):
    x, y = xor()
    model = CascadeCorrelation(output, optimizer, tolerance=0.4, generator=generator).fit(x, y)
    assert model.units_ >= 1
    assert model.predict(x).tolist() == y.tolist()
    assert len(set(model.predict(x, 0).tolist() + y.tolist())) == 2
    assert not torch.equal(model.predict(x, 0), y)
    probability = model.predict_proba(x)
    torch.testing.assert_close(probability.sum(1), torch.ones(4))
    assert (probability.gather(1, y[:, None]) > 0.6).all()


def test_three_classes_with_sigmoid_outputs(generator):
    x = torch.randn(90, 2, generator=generator)
    y = (x.norm(dim=1) * 1.5).long().clamp(max=2)  # rings
    model = CascadeCorrelation("sigmoid", max_units=8, generator=generator).fit(x, y)
    assert model.outputs(x).shape == (90, 3)
    assert (model.predict(x) == y).double().mean() > 0.95
    assert (model.predict(x, 0) == y).double().mean() < 0.8
    torch.testing.assert_close(model.predict_proba(x).sum(1), torch.ones(90))


def test_growth_freezes_and_can_be_replayed(generator):
    x, y = two_spirals()
    short = CascadeCorrelation("sigmoid", max_units=3, generator=torch.Generator().manual_seed(1))
    long = CascadeCorrelation("sigmoid", max_units=6, generator=torch.Generator().manual_seed(1))
    short.fit(x, y)
    long.fit(x, y)
    for m in range(3):
        assert torch.equal(short.input_weights_[m], long.input_weights_[m])
        assert len(long.input_weights_[m]) == 1 + 2 + m
    assert torch.equal(short.outputs(x), long.outputs(x, units=3))
    assert not torch.equal(long.output_weights_[2], long.output_weights_[3][:, :-1])
    kinds = [(phase.kind, phase.units) for phase in short.history_]
    assert kinds == [
        *[(kind, m) for m in range(3) for kind in ("outputs", "candidates")],
        ("outputs", 3),
    ]
    assert short.history_[1].values.shape[1] == 8
    torch.testing.assert_close(
        short.losses_[3],
        0.5 * ((short.outputs(x)[:, 0] - (y - 0.5)) ** 2).mean(),
    )


def test_tolerance_ends_growth(generator):
    x, y = xor()
    model = CascadeCorrelation("sigmoid", tolerance=0.3, generator=generator).fit(x, y)
    errors = (model.outputs(x)[:, 0] - (y - 0.5)).abs().max()
    before = (model.outputs(x, model.units_ - 1)[:, 0] - (y - 0.5)).abs().max()
    assert errors < 0.3 <= before


def test_patience_looks_at_validation_data(generator):
    x = torch.randn(120, 4, generator=generator)
    y = x[:, 0] + torch.randn(120, generator=generator)  # units have nothing to find
    fit, held_out = (x[:40], y[:40]), (x[40:], y[40:])
    model = CascadeCorrelation("linear", max_units=30, patience=3, generator=generator)
    model.fit(*fit, held_out)
    units = len(model.input_weights_)
    assert 3 <= units < 30
    least = model.validation_losses_.argmin().item()
    assert model.units_ == least
    past = model.validation_losses_[:-3].min()
    assert (model.validation_losses_[-3:] > 0.99 * past).all()
    expected = 0.5 * (model.predict(held_out[0]) - held_out[1]).square().mean()
    torch.testing.assert_close(model.validation_losses_[least], expected)


@pytest.mark.parametrize("criterion", [covariance, error_drop])
@pytest.mark.parametrize("raw_error", [True, False])
def test_the_best_candidate_is_installed(criterion, raw_error):
    x, y = two_spirals()
    model = CascadeCorrelation(
        "sigmoid",
        pool=5,
        max_units=3,
        max_epochs=30,
        criterion=criterion,
        raw_error=raw_error,
        generator=torch.Generator().manual_seed(2),
    ).fit(x, y)
    for phase in model.history_[1::2]:
        assert phase.values.shape[1] == 5
        assert len(phase.values) <= 31
        z = cascade(x, model.input_weights_[: phase.units])
        g = torch.sigmoid(z @ model.output_weights_[phase.units].T) - 0.5
        errors = g - (y[:, None] - 0.5)
        if not raw_error:
            errors = errors * (0.25 - g**2 + 0.1)
        a = torch.sigmoid(z @ model.input_weights_[phase.units]) - 0.5
        score = criterion(a[None], errors)[0][0] / (errors**2).sum()
        torch.testing.assert_close(score, phase.values[-1].max())
        assert len(phase.values[-1].unique()) == 5


def test_outputs_go_on_from_where_they_were():
    x, y = two_spirals()
    model = CascadeCorrelation(
        "sigmoid", max_units=4, tolerance=0.4, generator=torch.Generator().manual_seed(3)
    ).fit(x, y)
    phases = model.history_[::2]
    for before, after in itertools.pairwise(phases):
        assert after.values[0] < before.values[-1]  # by the weight that the new unit starts with
        assert len(after.values) <= 100


def test_new_units_start_with_their_least_squares_weight(generator):
    errors, a = torch.randn(20, 3, generator=generator), torch.randn(20, generator=generator)
    columns = torch.stack([torch.ones(20), a], 1)
    torch.testing.assert_close(
        _regress(errors, a), torch.linalg.lstsq(columns, -errors).solution[1]
    )
    assert _regress(errors, torch.full((20,), 0.5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("values", "stagnant"),
    [
        ([], False),
        ([1.0, 1.0, 1.0, 1.0, 1.0], False),  # the wait begins with the first change
        ([1.0, 2.0, 2.0, 2.0], False),
        ([1.0, 2.0, 2.0, 2.0, 2.0], True),
        ([1.0, 2.0, 2.1, 2.15, 1.9], True),
        ([1.0, 2.0, 2.1, 2.3, 2.3], False),
        ([1.0, 0.5, 0.5, 0.5, 0.5], True),
    ],
)
def test_stagnation(values, stagnant):
    assert _stagnant(values, change=0.1, wait=3) == stagnant


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([1.0, 0.98, 0.98], False),
        ([1.0, 0.995, 0.995], True),
        ([1.0, 0.5, 0.9, 0.6], True),
        ([1.0, 0.5, 0.9, 0.4], False),
    ],
)
def test_patience_counts_units_without_a_lower_loss(losses, stop):
    model = CascadeCorrelation("linear", patience=2)
    assert model._stop(torch.ones(3, 1), torch.ones(3, 1), losses) == stop


def test_a_solved_network_is_not_trained_on(generator):
    x, y = xor()
    model = CascadeCorrelation("sigmoid", tolerance=0.4, generator=generator).fit(x, y)
    torch.testing.assert_close(model.history_[-1].values[-1], model.losses_[-1])


def test_nothing_left_to_learn_ends_growth():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    model = CascadeCorrelation("linear").fit(x, torch.zeros(3))
    assert model.units_ == 0


def test_the_offset_is_a_part_of_cross_entropy(generator):
    s = torch.randn(20, generator=generator, requires_grad=True)
    t = torch.randint(2, (20,), generator=generator).double()
    model = CascadeCorrelation("sigmoid", offset=0.3)
    errors = model._errors(s[:, None], t[:, None] - 0.5)[:, 0]
    squared = 0.5 * (torch.sigmoid(s) - t) ** 2
    entropy = nn.functional.binary_cross_entropy_with_logits(s, t, reduction="sum")
    torch.testing.assert_close(errors, torch.autograd.grad(squared.sum() + 0.3 * entropy, s)[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"output": "tanh"}, "output must be one of"),
        ({"output": "linear", "optimizer": "sgd"}, "optimizer must be one of"),
        ({"output": "linear", "pool": 0}, "pool must be an integer >= 1, got 0"),
        ({"output": "linear", "max_units": -1}, "max_units must be an integer >= 0, got -1"),
        ({"output": "linear", "max_epochs": 0}, "max_epochs must be an integer >= 1, got 0"),
        ({"output": "linear", "patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"output": "linear", "max_units": 2.5}, "max_units must be an integer >= 0, got 2.5"),
        ({"output": "linear", "tolerance": 0.0}, "tolerance must be positive"),
        ({"output": "sigmoid", "offset": -0.1}, "offset must be >= 0"),
    ],
)
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        CascadeCorrelation(**bad)


X, Y, LABELS = torch.zeros(4, 2), torch.zeros(4), torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("output", "data", "message"),
    [
        ("linear", (torch.zeros(4), torch.zeros(4)), r"x must have shape \(N, D\), N and D >= 1"),
        ("linear", (torch.zeros(4, 0), torch.zeros(4)), r"N and D >= 1, got \(4, 0\)"),
        ("linear", (torch.full((4, 2), torch.nan), torch.zeros(4)), "x must be finite"),
        ("linear", (X.long(), torch.zeros(4)), "x must have a floating-point dtype"),
        ("linear", (X, torch.zeros(3)), r"y must hold 4 targets, got shape \(3,\)"),
        ("linear", (X, torch.zeros(4).double()), "y must have the dtype of x"),
        ("linear", (X, torch.zeros(4, 1, 1)), r"y must hold 4 targets, got shape \(4, 1, 1\)"),
        ("linear", (X, torch.tensor(0.0)), r"y must hold 4 targets, got shape \(\)"),
        ("linear", (X, torch.zeros(4, 0)), r"y must hold 4 targets, got shape \(4, 0\)"),
        ("softmax", (X, torch.zeros(4)), "labels must be integers"),
        ("softmax", (X, LABELS[:, None]), r"labels must have shape \(N,\)"),
        ("sigmoid", (X, LABELS - 1), r"K >= 2, got \[-1, 0\]"),
        ("sigmoid", (X, LABELS * 0), r"labels must be 0, ..., K - 1, K >= 2, got \[0\]"),
        (
            "sigmoid",
            (X, LABELS, (X, 2 * LABELS)),
            "validation labels must be 0, ..., 1, got 0 to 2",
        ),
        ("linear", (X, Y, (X[:, :1], Y)), r"validation x must be \(N, 2\) of torch.float32, got"),
        ("linear", (X, Y, (X.double(), Y.double())), "validation x must be"),
        ("linear", (X, Y, (X, X)), "validation y must have as many outputs as y, got 2"),
    ],
)
def test_bad_data_leave_the_estimator_unchanged(output, data, message):
    good = Y if output == "linear" else LABELS
    model = CascadeCorrelation(output, max_units=1, max_epochs=5).fit(
        torch.randn(4, 2).float(), good
    )
    state = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(*data)
    assert vars(model) == state


def test_a_fit_that_breaks_off_leaves_the_estimator_unchanged(generator):
    x, y = torch.randn(9, 2, generator=generator), torch.randn(9, generator=generator)
    model = CascadeCorrelation("linear", max_units=2, generator=generator).fit(x, y)
    state = dict(vars(model))

    def broken(a, errors):
        raise RuntimeError("no score")

    model.criterion = state["criterion"] = broken
    with pytest.raises(RuntimeError, match="no score"):
        model.fit(x, 2 * y)
    assert vars(model) == state


def test_targets_that_need_a_gradient_are_no_obstacle(generator):
    x = torch.randn(9, 2, generator=generator, requires_grad=True)
    model = CascadeCorrelation("linear", max_units=1, generator=generator).fit(x, x[:, 0] ** 2)
    assert not model.output_weights_[1].requires_grad


@pytest.mark.parametrize("y", [torch.full((9,), 3.3), torch.arange(9.0) * 1e6])
def test_growth_does_not_fit_rounding_errors(y):
    x = torch.arange(9.0)[:, None].double()
    assert CascadeCorrelation("linear").fit(x, y.double()).units_ == 0


def test_prediction_needs_a_fit_and_its_units(generator):
    model = CascadeCorrelation("linear", max_units=1, generator=generator)
    with pytest.raises(ValueError, match="fit must be called first"):
        model.predict(X)
    model.fit(torch.randn(5, 2, generator=generator), torch.randn(5, generator=generator))
    with pytest.raises(ValueError, match="units must be from 0 to 1, got 2"):
        model.predict(X, units=2)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\)"):
        model.predict(X[:, :1].double())
    with pytest.raises(ValueError, match="x must have the dtype of the training data"):
        model.predict(X.float())
    with pytest.raises(ValueError, match="probabilities need sigmoid or softmax, got linear"):
        model.predict_proba(X)


def test_single_precision_stays_single(generator):
    x, y = xor()
    model = CascadeCorrelation("softmax", max_units=1, generator=generator).fit(x.float(), y)
    assert model.predict_proba(x.float()).dtype == torch.float32
