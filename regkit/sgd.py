"""Stochastic gradient descent as a regularizer (section 8.11): its noise, its law, its loops.

A step is w <- w - lr (grad f(w) + noise). Many chains run at once: w has the shape (S, W). ``C`` is
the covariance of one minibatch gradient, ``D`` that of the gradient of one sample: C = D / B.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import grad, jacrev

from regkit._check import require, require_positive, require_symmetric, require_weights

SCHEMES = ("with replacement", "without replacement", "epochs")


def inverse_temperature(lr: float, batch_size: int, num_samples: int | None = None) -> float:
    r"""Return beta, which says how little the noise of the batches moves the weights.

    :math:`\beta^{-1} = \frac{\eta}{2B}`, times :math:`\frac{N-B}{N-1}` without replacement

    Args:
        lr: learning rate, positive.
        batch_size: B, at least 1.
        num_samples: N, if the samples of a batch are drawn without replacement; then B <= N.

    Returns:
        beta; infinite if the batch holds all samples.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Chaudhari & Soatto (2018), Stochastic gradient descent performs variational inference,
        converges to limit cycles for deep networks, equation 6.

    Example:
        >>> inverse_temperature(lr=0.5, batch_size=4)
        16.0
        >>> inverse_temperature(lr=0.5, batch_size=4, num_samples=4)
        inf
    """
    require_positive("lr", lr)
    share = _noise_share(batch_size, num_samples)
    return 2 / (lr * share) if share > 0 else math.inf


def _noise_share(batch_size: int, num_samples: int | None) -> float:
    """What a batch leaves of the variance of one sample."""
    require(batch_size >= 1, "batch_size must be >= 1", batch_size)
    if num_samples is None:
        return 1 / batch_size
    rule = f"batch_size must be at most num_samples = {num_samples}"
    require(batch_size <= num_samples, rule, batch_size)
    return (num_samples - batch_size) / (batch_size * max(num_samples - 1, 1))


def batches(
    num_samples: int,
    batch_size: int,
    chains: int,
    scheme: str,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Draw the samples of the next batch, for each chain its own, without end.

    Args:
        num_samples: N.
        batch_size: B; for "epochs" it divides N.
        chains: S.
        scheme: "with replacement"; "without replacement" within a batch, each batch afresh; or
            "epochs", which shuffles all samples and then goes through them, as DataLoader does.
        generator: source of the randomness.

    Yields:
        Row numbers of shape (S, B).

    Raises:
        ValueError: if the scheme is unknown or the batch size does not fit.

    Example:
        >>> rows = batches(4, 2, chains=1, scheme="epochs")
        >>> torch.cat([next(rows), next(rows)], 1).sort().values
        tensor([[0, 1, 2, 3]])
    """
    require(scheme in SCHEMES, f"scheme must be one of {SCHEMES}", repr(scheme))
    fits = batch_size >= 1 and (scheme == SCHEMES[0] or batch_size <= num_samples)
    require(fits, f"batch_size must be from 1 to {num_samples}", batch_size)
    if scheme == "epochs":
        whole = num_samples % batch_size == 0
        require(whole, f"batch_size must divide the {num_samples} samples", batch_size)
    return _batches(num_samples, batch_size, chains, scheme, generator)


def _batches(
    N: int, B: int, chains: int, scheme: str, generator: torch.Generator | None
) -> Iterator[Tensor]:
    while True:
        if scheme == "with replacement":
            yield torch.randint(N, (chains, B), generator=generator)
            continue
        order = torch.rand(chains, N, generator=generator).argsort(1)
        yield from order.split(B, 1) if scheme == "epochs" else [order[:, :B]]


def least_squares_gradient(w: Tensor, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    r"""Gradient of the mean of half the squared errors over a batch, for each chain.

    Args:
        w: weights of shape (S, W).
        x: inputs of shape (N, W).
        y: targets of shape (N,).
        rows: the batch of each chain, of shape (S, B).

    Returns:
        Gradients of shape (S, W).

    Example:
        >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 0.0])
        >>> least_squares_gradient(torch.tensor([[1.0]]), x, y, torch.tensor([[0, 1]]))
        tensor([[2.]])
    """
    batch = x[rows]  # (S, B, W)
    errors = (batch @ w[..., None]).squeeze(-1) - y[rows]  # (S, B)
    return (errors[..., None] * batch).mean(1)


def simulate(
    gradient: Callable[[Tensor], Tensor],
    w: Tensor,
    lr: float | Tensor,
    steps: int,
    every: int = 1,
) -> Tensor:
    """Take steps of SGD with many chains at once, and keep where they were.

    Args:
        gradient: takes weights (S, W) and returns their gradients (S, W); it draws its own noise.
        w: where the chains start, of shape (S, W).
        lr: learning rate; or one for each step, of shape (steps,).
        steps: number of steps.
        every: keep the weights after each so many steps.

    Returns:
        Weights of shape (steps // every, S, W).

    Raises:
        ValueError: if there are not as many learning rates as steps, or the weights diverge.

    Example:
        >>> simulate(lambda w: w, torch.ones(1, 1), lr=0.5, steps=3).flatten()
        tensor([0.5000, 0.2500, 0.1250])
    """
    rates = lr if isinstance(lr, Tensor) else torch.full((steps,), lr)
    require(len(rates) == steps, f"lr must be one number, or {steps}", len(rates))
    require(1 <= every <= steps, f"every must be from 1 to steps = {steps}", every)
    path = []
    for step, rate in enumerate(rates.tolist(), 1):
        w = w - rate * gradient(w)
        if step % every == 0:
            path.append(w)
    require_weights("w", w)
    return torch.stack(path)


def stationary_covariance(H: Tensor, C: Tensor, lr: float) -> Tensor:
    r"""Exact covariance of the weights in the long run, for quadratic loss, constant noise.

    The steps give :math:`\Sigma = (I - \eta H)\Sigma(I - \eta H) + \eta^2 C`. In the
    eigenbasis of H that is :math:`\Sigma_{ij} = \eta C_{ij} / (h_i + h_j - \eta h_i h_j)`.

    Args:
        H: Hessian of shape (W, W), positive definite.
        C: covariance of the gradient's noise, of shape (W, W): D / B for batches of size B.
        lr: learning rate; lr times the largest eigenvalue of H is below 2.

    Returns:
        A covariance of shape (W, W).

    Raises:
        ValueError: if H or C is not symmetric, H not positive definite, or SGD diverges.

    Example:
        >>> stationary_covariance(torch.tensor([[1.0]]), torch.tensor([[1.0]]), lr=1.0)
        tensor([[1.]])
    """
    h, Q = _eigenbasis(H, C)
    require_positive("lr", lr)
    require(lr * h.max().item() < 2, "lr times the largest curvature must be < 2", lr * h.max())
    return Q @ (lr * (Q.T @ C @ Q) / (h[:, None] + h - lr * torch.outer(h, h))) @ Q.T


def diffusion_covariance(H: Tensor, C: Tensor, lr: float) -> Tensor:
    r"""Covariance of the weights in the limit of small steps: :math:`H\Sigma + \Sigma H = \eta C`.

    With :math:`C = D/B` the right side is :math:`2\beta^{-1}D`. Arguments and errors are those of
    ``stationary_covariance``; any positive learning rate is allowed.

    Reference:
        Mandt, Hoffman & Blei (2017), Stochastic gradient descent as approximate Bayesian inference,
        equation 12.

    Example:
        >>> diffusion_covariance(torch.tensor([[1.0]]), torch.tensor([[1.0]]), lr=1.0)
        tensor([[0.5000]])
    """
    require_positive("lr", lr)
    h, Q = _eigenbasis(H, C)
    return Q @ (lr * (Q.T @ C @ Q) / (h[:, None] + h)) @ Q.T


def _eigenbasis(H: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    require_symmetric("H", H)
    require_symmetric("the covariance of the noise", noise)
    same = H.shape == noise.shape
    require(same, "H and the noise must have one shape", f"{tuple(H.shape)}, {tuple(noise.shape)}")
    h, Q = torch.linalg.eigh(H)
    require(bool(h[0] > 0), "H must be positive definite", f"eigenvalue {h[0].item():.3g}")
    return h, Q


def least_squares_covariance(
    x: Tensor, y: Tensor, lr: float, batch_size: int, replacement: bool = True
) -> Tensor:
    r"""Exact covariance in the long run of minibatch SGD on linear regression.

    The noise grows with the distance from the minimum, since the Hessian of a batch varies too.
    With :math:`a = x x^\top`, the mean H of all a, and :math:`\kappa = 1/B`,

    :math:`\Sigma = (I-\eta H)\Sigma(I-\eta H) + \eta^2\kappa\,(\overline{a \Sigma a} - H\Sigma H)
    + \eta^2 \kappa D`.

    Args:
        x: inputs of shape (N, W).
        y: targets of shape (N,).
        lr: learning rate.
        batch_size: B.
        replacement: whether a batch is drawn with replacement; else kappa is (N-B)/(B(N-1)).

    Returns:
        A covariance of shape (W, W), about the least-squares solution.

    Raises:
        ValueError: if the second moment diverges at this learning rate, or H is singular.

    Example:
        >>> x, y = torch.ones(2, 1), torch.tensor([1.0, -1.0])  # D = 1, and all Hessians are 1
        >>> least_squares_covariance(x, y, lr=1.0, batch_size=1)
        tensor([[1.]])
    """
    N, W = x.shape
    kappa = _noise_share(batch_size, None if replacement else N)
    H = x.T @ x / N
    _eigenbasis(H, H)
    errors = x @ torch.linalg.solve(H, x.T @ y / N) - y  # at the minimum
    D = (errors[:, None] * x).T @ (errors[:, None] * x) / N
    eye = torch.eye(W, dtype=x.dtype, device=x.device)
    squares = torch.einsum("ni,nj,nk,nl->ikjl", x, x, x, x).reshape(W * W, W * W) / N
    step = torch.kron(eye - lr * H, eye - lr * H)
    step = step + lr**2 * kappa * (squares - torch.kron(H, H))  # acts on vec(Sigma)
    growth = torch.linalg.eigvals(step).abs().max().item()
    require(growth < 1, "the second moment must not grow (take a smaller lr): factor < 1", growth)
    solution = torch.linalg.solve(
        torch.eye(W * W, dtype=x.dtype, device=x.device) - step, lr**2 * kappa * D.flatten()
    )
    return solution.reshape(W, W)


def reshuffled_variance(h: float, noise: float, lr: float, num_batches: int) -> Tensor:
    r"""Variance of SGD on h w²/2 in the long run, where the batches of an epoch cancel.

    The noise of K batches has the variance s² each and sums to zero in each epoch, so two of them
    have the covariance -s²/(K-1). With :math:`a = 1 - \eta h` the variance after k steps of an
    epoch is

    :math:`V_k = a^{2k} V_0 + \frac{\eta^2 s^2}{K-1}\Bigl(K\sum_{i<k} a^{2i} -
    \bigl(\sum_{i<k} a^i\bigr)^2\Bigr)`, and :math:`V_K = V_0`.

    Args:
        h: curvature, positive; lr h < 2.
        noise: s².
        lr: learning rate.
        num_batches: K, at least 2.

    Returns:
        V_1 ... V_K, of shape (K,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> reshuffled_variance(h=1.0, noise=1.0, lr=1.0, num_batches=2)
        tensor([1., 1.])
    """
    require_positive("lr h", lr * h)
    require(lr * h < 2, "lr times the curvature must be < 2", lr * h)
    require(num_batches >= 2, "num_batches must be >= 2", num_batches)
    powers = (1 - lr * h) ** torch.arange(num_batches + 1, dtype=torch.get_default_dtype())
    a = powers[:-1]
    added = num_batches * (a**2).cumsum(0) - a.cumsum(0) ** 2
    added = lr**2 * noise / (num_batches - 1) * added
    start = added[-1] / (1 - powers[-1] ** 2)
    return powers[1:] ** 2 * start + added


def potential_matrix(H: Tensor, D: Tensor) -> Tensor:
    r"""The matrix P of the potential :math:`\Phi(w) = \frac12 w^\top P w` that SGD's law has.

    For a quadratic loss with Hessian H and constant noise D the law in the long run is
    :math:`\rho \propto e^{-\beta\Phi}` with :math:`P = X^{-1}`, :math:`HX + XH = 2D`.

    Args:
        H: Hessian of shape (W, W), positive definite.
        D: diffusion matrix of shape (W, W), positive definite.

    Returns:
        P of shape (W, W); it is H only if D is the identity.

    Raises:
        ValueError: if H or D is not positive definite.

    Reference:
        Chaudhari & Soatto (2018), section 3.

    Example:
        >>> H = torch.diag(torch.tensor([1.0, 10.0]))
        >>> potential_matrix(H, D=H)
        tensor([[1., 0.],
                [0., 1.]])
    """
    X = diffusion_covariance(H, D, lr=2.0)
    smallest = torch.linalg.eigvalsh(D)[0].item()
    require(smallest > 0, "D must be positive definite", f"eigenvalue {smallest:.3g}")
    return torch.linalg.inv(X)


def circulation(H: Tensor, D: Tensor) -> Tensor:
    r"""The antisymmetric matrix Q of the current that is left when the law no longer changes.

    The density flows at w with the velocity :math:`Q P w`, along the contours of the
    potential, with :math:`Q = D - HX = \frac12(XH - HX)`. It is zero exactly if D and H commute.

    Args and errors are those of ``potential_matrix``; D may be singular.

    Returns:
        Q of shape (W, W).

    Example:
        >>> H = torch.diag(torch.tensor([1.0, 3.0]))
        >>> circulation(H, torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        tensor([[ 0.0000,  0.2500],
                [-0.2500,  0.0000]])
    """
    h, Q = _eigenbasis(H, D)
    return Q @ ((Q.T @ D @ Q) * (h - h[:, None]) / (h + h[:, None])) @ Q.T


def current_velocity(
    f: Callable[[Tensor], Tensor],
    diffusion: Callable[[Tensor], Tensor],
    log_density: Callable[[Tensor], Tensor],
    beta: float,
    w: Tensor,
) -> Tensor:
    r"""Velocity of the flow at w: the current of the Fokker-Planck equation over the density.

    :math:`v = -\nabla f - \beta^{-1}\bigl(\nabla\cdot D + D\,\nabla\log\rho\bigr)`

    Args:
        f: loss, from (W,) to a scalar.
        diffusion: D, from (W,) to (W, W), symmetric.
        log_density: log rho, from (W,) to a scalar; a constant may be missing.
        beta: inverse temperature, positive.
        w: one place, of shape (W,); use ``torch.func.vmap`` for many.

    Returns:
        A velocity of shape (W,).

    Example:
        >>> f = lambda w: (w**2).sum() / 2
        >>> current_velocity(f, lambda w: torch.eye(2), lambda w: -4 * f(w), 4.0, torch.ones(2))
        tensor([0., 0.])
    """
    divergence = jacrev(diffusion)(w).diagonal(dim1=1, dim2=2).sum(1)  # sum over j of d_j D_ij
    return -grad(f)(w) - (divergence + diffusion(w) @ grad(log_density)(w)) / beta


def gibbs_density(potential: Tensor, beta: float, cell: float) -> Tensor:
    r"""The density :math:`e^{-\beta\Phi} / Z` on a grid.

    Args:
        potential: Phi on the grid, any shape.
        beta: inverse temperature, positive.
        cell: length, area or volume of a cell of the grid.

    Returns:
        A density of the shape of the potential; times ``cell`` it sums to one.

    Raises:
        ValueError: if beta or cell is not positive.

    Example:
        >>> gibbs_density(torch.zeros(4), beta=1.0, cell=0.5)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    require_positive("beta", beta)
    require_positive("cell", cell)
    return torch.softmax(-beta * potential.flatten(), 0).reshape(potential.shape) / cell


def free_energy(density: Tensor, potential: Tensor, beta: float, cell: float) -> Tensor:
    r"""Mean potential minus temperature times entropy.

    :math:`F(\rho) = \int \rho\,\Phi + \beta^{-1} \int \rho \log \rho`

    Arguments are those of ``gibbs_density``, whose result has the least free energy of all.

    Example:
        >>> free_energy(torch.full((4,), 0.5), torch.zeros(4), beta=1.0, cell=0.5)
        tensor(-0.6931)
    """
    require_positive("beta", beta)
    return cell * (density * potential + torch.special.xlogy(density, density) / beta).sum()


def noise_covariance(gradients: Tensor) -> Tensor:
    r"""Covariance of the gradients of single samples, the diffusion matrix of SGD.

    :math:`D = \frac1N \sum_n (g_n - \bar g)(g_n - \bar g)^\top`

    Args:
        gradients: one a sample, of shape (N, W).

    Returns:
        D of shape (W, W).

    Example:
        >>> noise_covariance(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor([[1., 0.],
                [0., 0.]])
    """
    require_weights("gradients", gradients)
    centered = gradients - gradients.mean(0)
    return centered.T @ centered / len(gradients)


def noise_spectrum(gradients: Tensor) -> Tensor:
    """Eigenvalues of the noise covariance, the largest first.

    Args:
        gradients: one a sample, of shape (N, W).

    Returns:
        min(N, W) eigenvalues; all others are zero.

    Example:
        >>> noise_spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor([1., 0.])
    """
    require_weights("gradients", gradients)
    centered = gradients - gradients.mean(0)
    small = centered if len(centered) < centered.shape[1] else centered.T
    eigenvalues = torch.linalg.eigvalsh(small @ small.T / len(gradients))
    return eigenvalues.flip(0).clamp(min=0)
