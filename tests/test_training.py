"""The loop takes the optimizer's steps and no others; replicate keeps the order of the seeds."""

import pytest
import torch

from regkit.training import minimize, replicate, train


def test_train_takes_gradient_steps_and_reports():
    w = torch.tensor([4.0], requires_grad=True)
    seen = []
    values = train(
        lambda step: ((w - step) ** 2).sum(),
        torch.optim.SGD([w], lr=0.5),
        steps=3,
        after_step=lambda step: seen.append((step, w.item())),
    )
    # With rate 1/2 every step lands on its own target: 0, then 1, then 2.
    assert seen == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert values.tolist() == [16.0, 1.0, 1.0]
    assert values.dtype == torch.float64


def test_minimize_finds_the_minimum_and_moves_only_what_may_move(generator):
    A = torch.randn(5, 5, generator=generator)
    H, b = A @ A.T + torch.eye(5), torch.randn(5, generator=generator)
    start = torch.randn(5, generator=generator)

    def quadratic(w):
        return 0.5 * w @ H @ w - b @ w

    torch.testing.assert_close(minimize(quadratic, start), torch.linalg.solve(H, b))
    mask = torch.tensor([True, False, True, True, False])
    w = minimize(quadratic, start, mask)
    assert torch.equal(w[~mask], start[~mask])
    torch.testing.assert_close((H @ w - b)[mask], torch.zeros(3), atol=1e-6, rtol=0)
    assert minimize(quadratic, start, steps=1).sub(start).norm() > 0
    with pytest.raises(ValueError, match=r"mask must have shape \(5,\), got \(4,\)"):
        minimize(quadratic, start, mask[:4])
    with pytest.raises(ValueError, match="must stay finite, got -?(inf|nan)"):
        minimize(lambda w: w.log().sum(), torch.zeros(2))


def test_train_stops_when_the_objective_is_not_finite():
    w = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"step \d+; try a smaller learning rate.*, got (inf|nan)"):
        train(lambda step: (w**4).sum(), torch.optim.SGD([w], lr=10.0), steps=50)
    assert torch.isfinite(w).all()


def test_train_rejects_negative_steps():
    with pytest.raises(ValueError, match="steps must be >= 0, got -1"):
        train(lambda step: torch.zeros(()), torch.optim.SGD([torch.zeros(1)], lr=1.0), steps=-1)


def experiment(seed: int) -> float:
    return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()


def test_replicate_gives_the_same_in_parallel():
    one, two = replicate(experiment, range(6)), replicate(experiment, range(6), n_jobs=2)
    assert one == two == [experiment(seed) for seed in range(6)]


def test_replicate_needs_seeds():
    with pytest.raises(ValueError, match="at least one seed"):
        replicate(experiment, [])
