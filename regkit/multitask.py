"""Multi-task learning (section 8.5): one trunk, a head for each task, and a weight for each risk.

The superscript tau numbers the tasks 1, ..., T; it is never a power. Task 1 stands first in every
list. A missing label is NaN where labels are floating point and -100 where they are classes.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from regkit._check import require, require_weights

IGNORE = -100  # a class that is not known, as in torch
Loss = Callable[[Tensor, Tensor], Tensor]  # output (N, ...) and target (N, ...) to losses (N,)


class MultiTaskNetwork(nn.Module):
    r"""One trunk for all tasks and a head for each, :math:`g^\tau(x, w^{sh}, w^\tau)`.

    Args:
        trunk: maps the input to features; holds the shared weights.
        heads: one module a task, in the order of the tasks; each maps the features to its output.

    Raises:
        ValueError: if there is no head, or if a head has weights of the trunk or of another head.

    Reference:
        Caruana (1997), Multitask learning, section 1.

    Example:
        >>> trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        >>> model = MultiTaskNetwork(trunk, [nn.Linear(6, 1), nn.Linear(6, 3)])
        >>> [tuple(output.shape) for output in model(torch.ones(5, 4))]
        [(5, 1), (5, 3)]
    """

    def __init__(self, trunk: nn.Module, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)
        require(len(self.heads) > 0, "heads must hold a head for each task", "none")
        owned = [w for part in (trunk, *self.heads) for w in set(part.parameters())]
        rule = "trunk and heads must have no weights in common"
        require(len(owned) == len(set(owned)), rule, f"{len(owned) - len(set(owned))} twice")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of all tasks for inputs (N, ...); the trunk is evaluated once."""
        features = self.trunk(x)
        return [head(features) for head in self.heads]


def squared_loss(output: Tensor, target: Tensor) -> Tensor:
    r"""Half the squared error of each sample, :math:`\frac12\lVert\hat y^n - y^n\rVert^2`.

    Args:
        output: of shape (N,) or (N, K).
        target: of the same shape.

    Returns:
        Tensor of shape (N,).

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> squared_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([2.5000])
    """
    require(output.ndim > 0, "output must have a row for each sample", "a scalar")
    same = output.shape == target.shape
    require(same, f"target must have shape {tuple(output.shape)}", tuple(target.shape))
    return 0.5 * _rows((output - target).square()).sum(1)


def _rows(values: Tensor) -> Tensor:
    """All numbers of a sample as one row; works without samples too."""
    return values.unsqueeze(-1).flatten(1)  # (N, ...) to (N, K)


def masked_risk(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    r"""Mean loss over the samples whose label is known, :math:`\frac{1}{N^\tau}\sum_n \ell^\tau`.

    A sample without a label takes no part, in the value or in the gradient, and whatever the
    network puts out for it. Without any label the risk and its gradient are 0.

    Args:
        loss: of one task; maps n outputs and n targets to n losses, with no reduction.
        output: of the network for this task, of shape (N, ...).
        target: of shape (N, ...). A sample is left out if an entry is NaN, or, for targets of an
            integer dtype, -100.

    Returns:
        Scalar.

    Raises:
        ValueError: if output and target have different lengths, or the loss does not return one
            value a sample.

    Example:
        >>> output, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, torch.nan, 1.0])
        >>> masked_risk(squared_loss, output, target)
        tensor(1.2500)
    """
    for name, values in [("output", output), ("target", target)]:
        require(values.ndim > 0, f"{name} must have a row for each sample", "a scalar")
    lengths = f"{len(output)} and {len(target)}"
    require(len(output) == len(target), "output and target must be equally long", lengths)
    missing = target.isnan() if target.is_floating_point() else target == IGNORE
    known = ~_rows(missing).any(1)  # (N,)
    # Select before the loss: NaN times zero is NaN, also in a gradient.
    losses = loss(output[known], target[known])  # (n,)
    n = int(known.sum())
    require(losses.shape == (n,), f"loss must return {n} values", f"shape {tuple(losses.shape)}")
    return losses.sum() / max(n, 1)


def _stack(risks: Sequence[Tensor]) -> Tensor:
    """The risks of T tasks as one tensor (T,)."""
    require(len(risks) > 0, "risks must hold at least one task", "none")
    for risk in risks:
        require(risk.ndim == 0, "risks must be scalars", f"shape {tuple(risk.shape)}")
    dtypes = {risk.dtype for risk in risks}
    require(len(dtypes) == 1, "risks must have one dtype", sorted(map(str, dtypes)))
    return torch.stack(list(risks))


def weighted_risk(risks: Sequence[Tensor], weights: Sequence[float] | Tensor) -> Tensor:
    r"""What multi-task learning minimizes, :math:`\sum_\tau \alpha^\tau R^\tau_{emp}`.

    Args:
        risks: T scalars, the empirical risks of the tasks.
        weights: T numbers alpha, not negative.

    Returns:
        Scalar.

    Raises:
        ValueError: if there is no task, a risk is not a scalar, or a weight is missing, negative
            or not finite.

    Example:
        >>> weighted_risk([torch.tensor(2.0), torch.tensor(10.0)], weights=[1.0, 0.5])
        tensor(7.)
    """
    R = _stack(risks)  # (T,)
    alpha = torch.as_tensor(weights, dtype=R.dtype, device=R.device)
    require(alpha.shape == R.shape, f"weights must have shape ({len(R)},)", tuple(alpha.shape))
    require_weights("weights", alpha)
    require(bool((alpha >= 0).all()), "weights must be >= 0", alpha.tolist())
    return (alpha * R).sum()


class UncertaintyWeights(nn.Module):
    r"""Learned task weights, :math:`\sum_\tau e^{-s_\tau} R^\tau_{emp} + \frac12 s_\tau`.

    :math:`s_\tau = \log\sigma_\tau^2` is the logarithm of a noise variance; the weight of the task
    is :math:`\alpha^\tau = e^{-s_\tau}`. For halved squares of one number this is the negative
    log-likelihood of Gaussian noise up to a constant (for K numbers the likelihood has the price
    :math:`\frac K2 s_\tau`), for a cross-entropy an approximation of that of a softmax with
    temperature :math:`\sigma_\tau^2`. Give ``parameters()`` to the optimizer too,
    without weight decay.

    Args:
        tasks: T, at least 1. All weights start at 1.

    Raises:
        ValueError: if tasks is not an integer >= 1; from a call, if the risks are not T scalars.

    Reference:
        Kendall, Gal & Cipolla (2018), Multi-task learning using uncertainty to weigh losses,
        section 3.2.

    Example:
        >>> learned = UncertaintyWeights(2)
        >>> learned([torch.tensor(2.0), torch.tensor(3.0)]).item(), learned.weights.tolist()
        (5.0, [1.0, 1.0])
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        require(isinstance(tasks, int) and tasks >= 1, "tasks must be an integer >= 1", tasks)
        self.s = nn.Parameter(torch.zeros(tasks))  # (T,)

    @property
    def weights(self) -> Tensor:
        """The task weights alpha, of shape (T,), without a gradient."""
        return torch.exp(-self.s.detach())

    def forward(self, risks: Sequence[Tensor]) -> Tensor:
        """Return the objective for T risks, a scalar."""
        require(len(risks) == len(self.s), f"there must be {len(self.s)} risks", len(risks))
        R = _stack(risks)  # (T,)
        return (torch.exp(-self.s) * R + 0.5 * self.s).sum()


def best_log_variances(risks: Tensor) -> Tensor:
    r"""The minimum of the learned weights at fixed risks, :math:`s_\tau = \log(2 R^\tau_{emp})`.

    The weight of a task is then :math:`1/(2R^\tau_{emp})`, and what is left of the objective is
    :math:`\sum_\tau \frac12\log R^\tau_{emp}` plus a constant.

    Args:
        risks: of shape (T,), positive. At a risk of 0 there is no minimum.

    Returns:
        Tensor of shape (T,).

    Raises:
        ValueError: if risks is not a vector, or a risk is not positive and finite.

    Example:
        >>> torch.exp(-best_log_variances(torch.tensor([0.5, 2.0])))
        tensor([1.0000, 0.2500])
    """
    require_weights("risks", risks)
    require(risks.ndim == 1, "risks must be a vector", f"shape {tuple(risks.shape)}")
    require(bool((risks > 0).all()), "risks must be positive", risks.tolist())
    return torch.log(2 * risks)


def shared_subspace(X: Tensor, Y: Tensor, width: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""The best linear network with a narrow trunk (reduced-rank regression).

    Minimizes :math:`\sum_\tau\alpha^\tau\frac{1}{2N}\lVert X U v^\tau - y^\tau\rVert^2` over trunk
    and heads: least squares for each task, then the best approximation of the weighted
    fits by rank M.

    Args:
        X: inputs of shape (N, D), of rank D.
        Y: targets of shape (N, T), one column a task.
        width: M, the number of features of the trunk, from 1 to D.
        weights: alpha, of shape (T,), positive.

    Returns:
        Trunk U of shape (D, M) and heads V of shape (M, T); column tau is the head of task tau.
        If M > T, the features beyond T could do nothing, and M in both shapes is T.

    Raises:
        ValueError: if X or Y is not finite or floating point, shapes do not fit, X has a lower
            rank than D, width leaves its range, or a weight is not positive.

    Reference:
        Izenman (1975), Reduced-rank regression for the multivariate linear model.

    Example:
        >>> X, Y = torch.eye(3), torch.tensor([[2.0, 4.0], [1.0, 2.0], [0.0, 0.0]])
        >>> U, V = shared_subspace(X, Y, width=1, weights=torch.ones(2))
        >>> bool(torch.allclose(U @ V, Y, atol=1e-6))
        True
    """
    for name, matrix in [("X", X), ("Y", Y)]:
        require_weights(name, matrix)
        require(matrix.ndim == 2, f"{name} must be a matrix", f"shape {tuple(matrix.shape)}")
    require(len(X) == len(Y), "X and Y must be equally long", f"{len(X)} and {len(Y)}")
    whole = isinstance(width, int) and 1 <= width <= X.shape[1]
    require(whole, f"width must be an integer from 1 to {X.shape[1]}", width)
    require_weights("weights", weights)
    fits = weights.shape == Y.shape[1:]
    require(fits, f"weights must have shape ({Y.shape[1]},)", tuple(weights.shape))
    require(bool((weights > 0).all()), "weights must be positive", weights.tolist())
    rank = int(torch.linalg.matrix_rank(X))
    require(rank == X.shape[1], f"X must have rank {X.shape[1]}", rank)
    B = torch.linalg.lstsq(X, Y).solution  # (D, T), each task on its own
    root = weights.sqrt()
    _, _, Q = torch.linalg.svd(X @ B * root, full_matrices=False)  # rows by falling importance
    V = Q[:width]  # (M, T), orthonormal rows; fewer than M if T < M
    U = B * root @ V.T  # (D, M)
    return U, V / root
