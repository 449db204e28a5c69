"""SGD: laws in the long run against enumeration, Kronecker solutions, SciPy and simulation."""

import itertools
import math

import pytest
import torch
from scipy import linalg
from torch.func import vmap

from regkit.sgd import (
    SCHEMES,
    batches,
    circulation,
    current_velocity,
    diffusion_covariance,
    free_energy,
    gibbs_density,
    inverse_temperature,
    least_squares_covariance,
    least_squares_gradient,
    noise_covariance,
    noise_spectrum,
    potential_matrix,
    reshuffled_variance,
    simulate,
    stationary_covariance,
)


def positive(W, generator):
    A = torch.randn(W, W, generator=generator)
    return A @ A.T + 0.1 * torch.eye(W)


def regression(N, W, generator):
    x = torch.randn(N, W, generator=generator)
    return x, x @ torch.ones(W) + torch.randn(N, generator=generator)


# --- batches and temperature ---


@pytest.mark.parametrize("replacement", [True, False])
def test_temperature_is_that_of_all_possible_batches(replacement, generator):
    """The covariance of the batch mean, from every batch that can be drawn."""
    N, B, lr = 5, 3, 0.2
    gradients = torch.randn(N, 2, generator=generator)
    if replacement:
        rows = itertools.product(range(N), repeat=B)
    else:
        rows = itertools.permutations(range(N), B)
    means = torch.stack([gradients[list(batch)].mean(0) for batch in rows])
    beta = inverse_temperature(lr, B, None if replacement else N)
    expected = noise_covariance(gradients) * 2 / (beta * lr)
    torch.testing.assert_close(noise_covariance(means), expected, rtol=1e-12, atol=1e-14)


def test_a_batch_of_all_samples_has_no_noise():
    assert inverse_temperature(0.1, 7, 7) == math.inf
    assert inverse_temperature(0.1, 1, 1) == math.inf
    assert inverse_temperature(0.1, 7) == pytest.approx(140)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batches_hold_what_the_scheme_says(scheme, generator):
    draws = batches(6, 2, 500, scheme, generator)
    rows = torch.stack([next(draws) for _ in range(6)], 1)  # (S, 6, B): two epochs
    assert rows.min() == 0
    assert rows.max() == 5
    repeats = (rows[..., 0] == rows[..., 1]).double().mean().item()
    assert repeats == (pytest.approx(1 / 6, abs=0.03) if scheme == SCHEMES[0] else 0)
    epochs = rows.reshape(500, 2, 6).sort(2).values
    whole = (epochs == torch.arange(6)).all()
    assert whole == (scheme == "epochs")
    counts = rows.flatten().bincount(minlength=6) / rows.numel()
    assert (counts - 1 / 6).abs().max() < 0.02
    assert not torch.equal(rows[0], rows[1])  # chains draw their own
    again = batches(6, 2, 500, scheme, torch.Generator().manual_seed(0))
    assert torch.equal(next(again), rows[:, 0])


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((6, 2, 1, "shuffle"), "scheme must be one of"),
        ((6, 0, 1, "with replacement"), "batch_size must be from 1 to 6, got 0"),
        ((6, 7, 1, "without replacement"), "batch_size must be from 1 to 6, got 7"),
        ((6, 4, 1, "epochs"), "batch_size must divide the 6 samples, got 4"),
    ],
)
def test_batches_that_do_not_fit(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        batches(*arguments)


def test_batches_with_replacement_may_be_larger_than_the_data():
    assert next(batches(3, 10, 1, "with replacement")).shape == (1, 10)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((0.0, 1), "lr must be positive"),
        ((0.1, 0), "batch_size must be >= 1, got 0"),
        ((0.1, 5, 4), "at most num_samples = 4, got 5"),
    ],
)
def test_temperature_rejects_bad_arguments(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        inverse_temperature(*arguments)


def test_least_squares_gradient_is_that_of_autograd(generator):
    x, y = regression(7, 3, generator)
    w = torch.randn(4, 3, generator=generator, requires_grad=True)
    rows = torch.randint(7, (4, 5), generator=generator)
    losses = [((x[r] @ v - y[r]) ** 2).mean() / 2 for r, v in zip(rows, w, strict=True)]
    (expected,) = torch.autograd.grad(sum(losses), w)
    torch.testing.assert_close(least_squares_gradient(w.detach(), x, y, rows), expected)


# --- chains ---


def test_a_chain_is_plain_gradient_descent():
    rates = torch.tensor([0.1, 0.2, 0.3, 0.4])
    path = simulate(lambda w: 2 * w, torch.ones(1, 1), rates, 4, every=2).flatten()
    torch.testing.assert_close(path, torch.tensor([0.8 * 0.6, 0.8 * 0.6 * 0.4 * 0.2]))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((torch.ones(3), 4, 1), "lr must be one number, or 4, got 3"),
        ((0.1, 4, 5), "every must be from 1 to steps = 4, got 5"),
        ((0.1, 4, 0), "every must be from 1 to steps = 4, got 0"),
        ((1e200, 4, 1), "w must be finite"),
    ],
)
def test_simulate_rejects_bad_arguments(arguments, rule):
    lr, steps, every = arguments
    with pytest.raises(ValueError, match=rule):
        simulate(lambda w: 3 * w, torch.ones(1, 1), lr, steps, every)


# --- laws in the long run ---


def test_stationary_covariance_solves_the_discrete_lyapunov_equation(generator):
    H, C = positive(4, generator), positive(4, generator)
    lr = 1.5 / torch.linalg.eigvalsh(H).max().item()
    A = torch.eye(4) - lr * H
    expected = linalg.solve_discrete_lyapunov(A.numpy(), (lr**2 * C).numpy())
    torch.testing.assert_close(
        stationary_covariance(H, C, lr), torch.from_numpy(expected), rtol=1e-9, atol=1e-12
    )


def test_diffusion_covariance_solves_the_lyapunov_equation_and_is_the_limit(generator):
    H, C = positive(4, generator), positive(4, generator)
    expected = torch.from_numpy(linalg.solve_continuous_lyapunov(H.numpy(), 0.3 * C.numpy()))
    torch.testing.assert_close(diffusion_covariance(H, C, 0.3), expected, rtol=1e-9, atol=1e-12)
    gaps = []
    for lr in (1e-3, 1e-4):
        limit = diffusion_covariance(H, C, lr)
        gaps.append(((stationary_covariance(H, C, lr) - limit).norm() / limit.norm()).item())
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.02)


def test_chains_have_the_stationary_covariance(generator):
    H, C = positive(2, generator), positive(2, generator)
    lr = 1.2 / torch.linalg.eigvalsh(H).max().item()
    root = torch.linalg.cholesky(C)

    def gradient(w):
        return w @ H + torch.randn(w.shape, generator=generator) @ root.T

    w = simulate(gradient, torch.zeros(20_000, 2), lr, 200, every=200)[0]
    expected = stationary_covariance(H, C, lr)
    assert (w.T.cov() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("replacement", [True, False])
def test_least_squares_covariance_against_a_step_over_all_batches(replacement, generator):
    """One more step from the law in the long run, over every batch, gives the same law."""
    N, W, B, lr = 5, 2, 2, 0.3
    x, y = regression(N, W, generator)
    covariance = least_squares_covariance(x, y, lr, B, replacement)
    w_star = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    draws = itertools.product if replacement else itertools.permutations
    options = {"repeat": B} if replacement else {"r": B}
    after = []
    for batch in draws(range(N), **options):
        rows = list(batch)
        A = torch.eye(W) - lr * x[rows].T @ x[rows] / B
        b = lr * x[rows].T @ (x[rows] @ w_star - y[rows]) / B
        after.append(A @ covariance @ A.T + torch.outer(b, b))
    torch.testing.assert_close(torch.stack(after).mean(0), covariance, rtol=1e-10, atol=1e-12)


def test_least_squares_covariance_against_chains(generator):
    x, y = regression(20, 2, generator)
    rows = batches(20, 4, 20_000, "with replacement", generator)
    w = simulate(
        lambda w: least_squares_gradient(w, x, y, next(rows)), torch.zeros(20_000, 2), 0.4, 100, 100
    )[0]
    expected = least_squares_covariance(x, y, 0.4, 4)
    assert (w.T.cov() - expected).abs().max() < 0.05 * expected.abs().max()


def test_least_squares_covariance_of_all_samples_is_zero(generator):
    x, y = regression(6, 2, generator)
    covariance = least_squares_covariance(x, y, 0.1, 6, replacement=False)
    assert covariance.abs().max() < 1e-15


def test_divergence_is_refused(generator):
    H, C = torch.eye(1), torch.eye(1)
    with pytest.raises(ValueError, match="lr times the largest curvature must be < 2"):
        stationary_covariance(H, C, 2.0)
    x, y = regression(20, 2, generator)
    with pytest.raises(ValueError, match="second moment must not grow"):
        least_squares_covariance(x, y, 1.0, 1)  # the mean would converge
    grows = torch.ones(2, 1) * torch.tensor([[1.0], [3.0]])  # h = 5, mean square of h_n is 41
    with pytest.raises(ValueError, match=r"factor < 1, got 1\.\d"):
        least_squares_covariance(grows, torch.zeros(2), 0.26, 1)  # 1 - 2.6 + 0.0676 * 41 = 1.17
    assert least_squares_covariance(grows, torch.zeros(2), 0.24, 1) == 0  # 0.96
    with pytest.raises(ValueError, match="H must be positive definite"):
        least_squares_covariance(x[:1], y[:1], 0.1, 1)


def test_reshuffled_variance_is_that_of_all_orders():
    """Steady state over all orders of four noises, with the start as an unknown."""
    noises = torch.tensor([1.0, -2.0, 0.5, 0.5])  # sums to zero
    lr, h, K = 0.3, 0.8, 4
    a = 1 - lr * h
    expected, variance = [], None
    for k in [K, *range(1, K + 1)]:
        powers = a ** torch.arange(k - 1, -1, -1)
        orders = itertools.permutations(range(K))
        moved = torch.stack([lr * powers @ noises[list(order)[:k]] for order in orders])
        if variance is None:
            variance = moved.square().mean() / (1 - a ** (2 * K))
        else:
            expected.append(a ** (2 * k) * variance + moved.square().mean())
    found = reshuffled_variance(h, noises.square().mean().item(), lr, K)
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((-1.0, 1.0, 0.1, 3), "lr h must be positive"),
        ((1.0, 1.0, 2.0, 3), "lr times the curvature must be < 2, got 2.0"),
        ((1.0, 1.0, 0.1, 1), "num_batches must be >= 2, got 1"),
    ],
)
def test_reshuffled_variance_rejects_bad_arguments(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        reshuffled_variance(*arguments)


# --- potential and current ---


def test_potential_and_circulation_split_the_drift(generator):
    """-H = (Q - D) P: what circulates, and what falls against the potential."""
    H, D = positive(4, generator), positive(4, generator)
    P, Q = potential_matrix(H, D), circulation(H, D)
    torch.testing.assert_close((Q - D) @ P, -H, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(Q, -Q.T)
    torch.testing.assert_close(P, P.T)
    beta = 7.0
    velocity = vmap(
        lambda w: current_velocity(
            lambda w: w @ H @ w / 2, lambda w: D, lambda w: -beta * w @ P @ w / 2, beta, w
        )
    )
    w = torch.randn(5, 4, generator=generator)
    torch.testing.assert_close(velocity(w), w @ (Q @ P).T, rtol=1e-9, atol=1e-9)


def test_circulation_vanishes_exactly_if_noise_and_hessian_commute(generator):
    H = positive(3, generator)
    _, Q = torch.linalg.eigh(H)
    commuting = Q @ torch.diag(torch.tensor([3.0, 1.0, 2.0])) @ Q.T
    assert circulation(H, commuting).abs().max() < 1e-13
    assert circulation(H, positive(3, generator)).abs().max() > 0.01
    torch.testing.assert_close(potential_matrix(H, 2 * torch.eye(3)), H / 2)


def test_velocity_of_a_noise_that_depends_on_the_place():
    """In one dimension the law has no current: rho = exp(-beta int f'/D) / D."""

    def diffusion(w):
        return (1 + w**2).reshape(1, 1)

    def log_density(w):  # int f'/D = log(1 + w²)/2 for f = w²/2
        return -(1 + 3.0 / 2) * torch.log(1 + w**2).sum()

    w = torch.tensor([0.7])
    velocity = current_velocity(lambda w: (w**2).sum() / 2, diffusion, log_density, 3.0, w)
    torch.testing.assert_close(velocity, torch.zeros(1), rtol=0, atol=1e-14)


def test_velocity_of_a_noise_along_circles(generator):
    """Its divergence, by hand: D = (1 - bc) I + b² c u u', u = (-w2, w1): div D = -b² c w."""
    beta, c = 3.0, 0.2

    def diffusion(w):
        u = torch.stack([-w[1], w[0]])
        return (1 - beta * c) * torch.eye(2) + beta**2 * c * torch.outer(u, u)

    w = torch.randn(2, generator=generator)
    velocity = current_velocity(lambda w: w[0] * 0, diffusion, lambda w: w[0] * 0, beta, w)
    torch.testing.assert_close(velocity, beta * c * w)


@pytest.mark.parametrize(
    ("H", "D", "rule"),
    [
        (torch.eye(2), torch.eye(3), "H and the noise must have one shape"),
        (torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2), "H must be positive definite"),
        (torch.eye(2), torch.diag(torch.tensor([1.0, 0.0])), "D must be positive definite"),
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.eye(2), "H must be symmetric"),
        (torch.eye(2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "the noise must be symmetric"),
    ],
)
def test_potential_rejects_bad_matrices(H, D, rule):
    with pytest.raises(ValueError, match=rule):
        potential_matrix(H, D)


# --- densities ---


def test_gibbs_density_has_the_least_free_energy(generator):
    potential, beta, cell = torch.randn(6, 5, generator=generator), 2.5, 0.3
    gibbs = gibbs_density(potential, beta, cell)
    torch.testing.assert_close(cell * gibbs.sum(), torch.tensor(1.0))
    least = free_energy(gibbs, potential, beta, cell)
    log_Z = torch.log(cell * torch.exp(-beta * potential).sum())
    torch.testing.assert_close(least, -log_Z / beta)
    other = gibbs_density(torch.randn(6, 5, generator=generator), 1.0, cell)
    divergence = cell * (other * (other / gibbs).log()).sum()
    excess = free_energy(other, potential, beta, cell) - least
    torch.testing.assert_close(excess, divergence / beta)


def test_densities_with_empty_cells_and_low_temperatures():
    density = torch.tensor([1.0, 0.0])
    assert free_energy(density, torch.tensor([2.0, 3.0]), 1.0, 1.0) == 2.0
    cold = gibbs_density(torch.tensor([0.0, 1.0]), 1e6, 1.0)
    assert cold.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("beta", "cell", "name"), [(0.0, 1.0, "beta"), (1.0, -1.0, "cell")])
def test_densities_reject_bad_arguments(beta, cell, name):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        gibbs_density(torch.zeros(2), beta, cell)


# --- the noise of a network ---


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_spectrum_is_that_of_the_covariance(shape, generator):
    gradients = torch.randn(shape, generator=generator) + 3
    full = torch.linalg.eigvalsh(noise_covariance(gradients)).flip(0)
    spectrum = noise_spectrum(gradients)
    torch.testing.assert_close(spectrum, full[: min(shape)].clamp(min=0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(noise_covariance(gradients), gradients.T.cov(correction=0))
