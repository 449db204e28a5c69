"""Risks against loops and autograd, missing labels, closed forms against optimizers, bad input."""

import copy

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from regkit.multitask import (
    MultiTaskNetwork,
    UncertaintyWeights,
    best_log_variances,
    masked_risk,
    shared_subspace,
    squared_loss,
    weighted_risk,
)

LOSSES = [
    squared_loss,
    nn.CrossEntropyLoss(reduction="none"),
    nn.L1Loss(reduction="none"),
    nn.BCEWithLogitsLoss(reduction="none"),
]


def network() -> MultiTaskNetwork:
    torch.manual_seed(2)
    flat = [nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)) for _ in range(2)]
    return MultiTaskNetwork(
        nn.Sequential(nn.Linear(4, 6), nn.Tanh()), [nn.Linear(6, 3), nn.Linear(6, 5), *flat]
    )


@pytest.fixture
def labels(generator) -> list[torch.Tensor]:
    return [
        torch.randn(20, 3, generator=generator),
        torch.randint(5, (20,), generator=generator),
        torch.randn(20, generator=generator),
        torch.randint(2, (20,), generator=generator).double(),
    ]


@pytest.fixture
def x(generator) -> torch.Tensor:
    return torch.randn(20, 4, generator=generator)


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


# --- the network ---


def test_each_head_reads_the_features_of_one_pass_through_the_trunk(x):
    model, passes = network(), []
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    outputs = model(x)
    assert len(passes) == 1
    assert [tuple(output.shape) for output in outputs] == [(20, 3), (20, 5), (20,), (20,)]
    weight, bias = model.trunk[0].weight, model.trunk[0].bias
    features = torch.tanh(x @ weight.T + bias)
    torch.testing.assert_close(outputs[1], features @ model.heads[1].weight.T + model.heads[1].bias)


def test_weights_have_names_and_can_be_stored(x):
    model = network()
    other = network()
    nn.init.zeros_(other.heads[0].weight)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model(x), other(x), strict=True))
    assert {name.split(".")[0] for name in model.state_dict()} == {"trunk", "heads"}


def test_a_head_may_have_a_weight_twice_but_not_one_of_another_part():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    MultiTaskNetwork(nn.Linear(2, 3), [tied, nn.Linear(3, 1)])
    head = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="must have no weights in common, got 2 twice"):
        MultiTaskNetwork(nn.Linear(2, 3), [head, head])
    trunk = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="no weights in common"):
        MultiTaskNetwork(trunk, [trunk])
    with pytest.raises(ValueError, match="a head for each task, got none"):
        MultiTaskNetwork(nn.Linear(2, 3), [])


# --- risks ---


def test_masked_risk_is_the_mean_over_known_labels(x, labels, generator):
    for loss, output, target in zip(LOSSES, network()(x), labels, strict=True):
        hidden = torch.rand(20, generator=generator) < 0.4
        target = target.clone()
        target[hidden] = torch.nan if target.is_floating_point() else -100
        rows = [n for n in range(20) if not hidden[n]]
        by_loop = sum(loss(output[n : n + 1], target[n : n + 1]).sum() for n in rows) / len(rows)
        torch.testing.assert_close(masked_risk(loss, output, target), by_loop)


def test_a_sample_with_one_missing_number_is_left_out():
    output = torch.zeros(3, 2, requires_grad=True)
    target = torch.tensor([[1.0, torch.nan], [2.0, 0.0], [torch.nan, torch.nan]])
    masked_risk(squared_loss, output, target).backward()
    torch.testing.assert_close(output.grad, torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_missing_samples_take_no_part_whatever_their_output(bad):
    output = torch.tensor([1.0, bad, 3.0], requires_grad=True)
    target = torch.tensor([0.0, torch.nan, 1.0])
    risk = masked_risk(squared_loss, output, target)
    risk.backward()
    assert risk.item() == 0.5 * (0.5 + 2.0)
    assert output.grad.tolist() == [0.5, 0.0, 1.0]


def test_without_any_label_risk_and_gradient_are_zero(x, labels):
    model = network()
    for loss, output, target in zip(LOSSES, model(x), labels, strict=True):
        empty = torch.full_like(target, torch.nan if target.is_floating_point() else -100)
        risk = masked_risk(loss, output, empty)
        gradient = torch.autograd.grad(risk, model.trunk.parameters(), retain_graph=True)
        assert risk.item() == 0
        assert (flat(gradient) == 0).all()


def test_masked_risk_agrees_with_ignore_index(x, labels):
    output, target = network()(x)[1], labels[1].clone()
    target[::3] = -100
    theirs = nn.functional.cross_entropy(output, target)
    torch.testing.assert_close(masked_risk(LOSSES[1], output, target), theirs)


def test_masked_risk_rejects_reduced_losses_and_unequal_lengths():
    output, target = torch.zeros(3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"loss must return 3 values, got shape \(\)"):
        masked_risk(nn.MSELoss(), output, target)
    with pytest.raises(ValueError, match="equally long, got 3 and 2"):
        masked_risk(squared_loss, output, target[:2])


def test_only_the_marks_of_a_missing_label_are_left_out():
    output = torch.tensor([1.0, 2.0, 3.0])
    signs = torch.tensor([-1, 1, -100])  # -1 is a label, -100 is none
    assert masked_risk(lambda f, y: f * y, output, signs).item() == 0.5
    cold = torch.tensor([1.0, -100.0, 3.0])  # floating point: -100 is a number
    assert masked_risk(squared_loss, output, cold).item() == pytest.approx(102**2 / 6)


def test_losses_must_be_one_number_a_sample():
    with pytest.raises(ValueError, match=r"loss must return 3 values, got shape \(3, 2\)"):
        masked_risk(nn.L1Loss(reduction="none"), torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="output must have a row for each sample"):
        masked_risk(squared_loss, torch.tensor(1.0), torch.zeros(1))
    with pytest.raises(ValueError, match="output must have a row for each sample"):
        squared_loss(torch.tensor(1.0), torch.tensor(1.0))


def test_weights_take_the_dtype_of_the_risks_and_pass_a_gradient():
    alpha = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    risk = weighted_risk([torch.tensor(3.0).float(), torch.tensor(4.0).float()], alpha)
    assert risk.dtype == torch.float32
    risk.backward()
    assert alpha.grad.tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="risks must have one dtype"):
        weighted_risk([torch.tensor(3.0).float(), torch.tensor(4.0).double()], [1.0, 1.0])


def test_squared_loss_does_not_broadcast():
    with pytest.raises(ValueError, match=r"target must have shape \(4, 1\), got \(4,\)"):
        squared_loss(torch.zeros(4, 1), torch.zeros(4))
    three = squared_loss(torch.ones(2, 3, 2), torch.zeros(2, 3, 2))
    assert three.tolist() == [3.0, 3.0]


def test_weighted_risk_has_the_weighted_gradients_and_isolates_heads(x, labels):
    model, alpha = network(), [1.0, 0.0, 2.5, 0.3]
    trunk = list(model.trunk.parameters())

    def risks():
        return [masked_risk(*task) for task in zip(LOSSES, model(x), labels, strict=True)]

    def gradient(value, weights):
        return flat(torch.autograd.grad(value, weights))

    for tensor in (alpha, torch.tensor(alpha)):
        total = gradient(weighted_risk(risks(), tensor), trunk)
        single = sum(a * gradient(risks()[i], trunk) for i, a in enumerate(alpha))
        torch.testing.assert_close(total, single)
    for i, head in enumerate(model.heads):
        own = list(head.parameters())
        total = gradient(weighted_risk(risks(), alpha), own)
        torch.testing.assert_close(total, alpha[i] * gradient(risks()[i], own))
        for j in range(4):
            none = torch.autograd.grad(risks()[j], own, allow_unused=True)
            assert all((g is None) == (i != j) for g in none)


@pytest.mark.parametrize(
    ("risks", "weights", "rule"),
    [
        ([], [], "at least one task"),
        ([1.0, 2.0], [1.0], r"weights must have shape \(2,\), got \(1,\)"),
        ([1.0, 2.0], [[1.0], [0.0]], r"weights must have shape \(2,\), got \(2, 1\)"),
        ([1.0, 2.0], torch.tensor(1.0), r"weights must have shape \(2,\), got \(\)"),
        ([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0], r"risks must be scalars, got shape \(2,\)"),
        ([1.0, 2.0], [1.0, -0.5], r"weights must be >= 0, got \[1.0, -0.5\]"),
        ([1.0], [float("nan")], "weights must be finite"),
    ],
)
def test_weighted_risk_rejects(risks, weights, rule):
    with pytest.raises(ValueError, match=rule):
        weighted_risk([torch.tensor(risk) for risk in risks], weights)


# --- learned weights ---


def test_objective_is_the_gaussian_likelihood(generator):
    output, target = torch.randn(2, 30, generator=generator)
    learned = UncertaintyWeights(1)
    nn.init.constant_(learned.s, 0.7)
    likelihood = torch.distributions.Normal(output, np.exp(0.35)).log_prob(target).mean()
    risk = squared_loss(output, target).mean()
    torch.testing.assert_close(learned([risk]), -likelihood - torch.tensor(0.5 * np.log(2 * np.pi)))


def test_best_log_variances_are_where_an_optimizer_ends():
    risks = torch.tensor([0.02, 1.0, 40.0])

    def objective(s):
        return float((np.exp(-s) * risks.numpy() + 0.5 * s).sum())

    found = optimize.minimize(objective, np.zeros(3), options={"gtol": 1e-9}).x
    torch.testing.assert_close(
        best_log_variances(risks), torch.from_numpy(found), atol=1e-5, rtol=0
    )
    learned = UncertaintyWeights(3)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        learned(list(risks)).backward()
        optimizer.step()
    torch.testing.assert_close(learned.weights, 1 / (2 * risks), atol=0, rtol=1e-3)
    assert not learned.weights.requires_grad


def test_learned_weights_and_network_train_together(x, labels):
    model, learned = network(), UncertaintyWeights(4)
    before = copy.deepcopy(model)
    optimizer = torch.optim.Adam([*model.parameters(), *learned.parameters()], lr=0.01)
    values = []
    for _ in range(50):
        optimizer.zero_grad()
        risks = [masked_risk(*task) for task in zip(LOSSES, model(x), labels, strict=True)]
        value = learned(risks)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.1
    assert (learned.s != 0).all()
    assert not torch.equal(model.trunk[0].weight, before.trunk[0].weight)


def test_learned_weights_reject_bad_input():
    for tasks in (0, 1.5):
        with pytest.raises(ValueError, match=f"tasks must be an integer >= 1, got {tasks}"):
            UncertaintyWeights(tasks)
    with pytest.raises(ValueError, match=r"risks must be scalars, got shape \(4,\)"):
        UncertaintyWeights(1)([torch.ones(4)])
    with pytest.raises(ValueError, match=r"risks must be a vector, got shape \(2, 2\)"):
        best_log_variances(torch.ones(2, 2))
    with pytest.raises(ValueError, match="risks must be finite"):
        best_log_variances(torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="there must be 2 risks, got 1"):
        UncertaintyWeights(2)([torch.tensor(1.0)])
    with pytest.raises(ValueError, match="risks must be positive"):
        best_log_variances(torch.tensor([1.0, 0.0]))


# --- the linear trunk ---


@pytest.fixture
def linear_tasks(generator) -> tuple[torch.Tensor, torch.Tensor]:
    X = torch.randn(30, 5, generator=generator)
    return X, torch.randn(30, 4, generator=generator)


@pytest.mark.parametrize("width", [4, 5])
def test_a_wide_linear_trunk_is_one_regression_a_task(linear_tasks, width):
    X, Y = linear_tasks
    U, V = shared_subspace(X, Y, width, torch.tensor([1.0, 0.1, 3.0, 2.0]))
    single = np.linalg.lstsq(X.numpy(), Y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(U @ V, single, atol=1e-12)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_narrow_linear_trunk_is_where_an_optimizer_ends(linear_tasks, width):
    X, Y = linear_tasks
    alpha = torch.tensor([1.0, 0.1, 3.0, 2.0])

    def risk(U, V):
        return (alpha * 0.5 * (X @ U @ V - Y).square().mean(0)).sum()

    def objective(w):
        w = torch.from_numpy(w).requires_grad_()
        U, V = w.split([5 * width, 4 * width])
        value = risk(U.view(5, width), V.view(width, 4))
        return value.item(), torch.autograd.grad(value, w)[0].numpy()

    ends = [
        optimize.minimize(
            objective, np.random.default_rng(seed).normal(size=9 * width), jac=True
        ).fun
        for seed in range(5)
    ]
    U, V = shared_subspace(X, Y, width, alpha)
    assert (U.shape, V.shape) == ((5, width), (width, 4))
    assert risk(U, V).item() == pytest.approx(min(ends), abs=1e-8)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"width": 0}, "width must be an integer from 1 to 5, got 0"),
        ({"width": 6}, "width must be an integer from 1 to 5, got 6"),
        ({"width": 1.5}, "width must be an integer from 1 to 5, got 1.5"),
        ({"weights": torch.tensor([1.0, torch.inf, 1.0, 1.0])}, "weights must be finite"),
        ({"weights": torch.ones(3)}, r"weights must have shape \(4,\), got \(3,\)"),
        ({"weights": torch.tensor([1.0, 0.0, 1.0, 1.0])}, "weights must be positive"),
        ({"X": torch.ones(30, 5)}, "X must have rank 5, got 1"),
        ({"X": torch.ones(29, 5)}, "equally long, got 29 and 30"),
        ({"Y": torch.ones(30)}, r"Y must be a matrix, got shape \(30,\)"),
        ({"Y": torch.full((30, 4), torch.nan)}, "Y must be finite"),
    ],
)
def test_shared_subspace_rejects(linear_tasks, change, rule):
    X, Y = linear_tasks
    arguments = {"X": X, "Y": Y, "width": 2, "weights": torch.ones(4)} | change
    with pytest.raises(ValueError, match=rule):
        shared_subspace(**arguments)
