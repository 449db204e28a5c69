"""Early stopping (section 8.8): when to stop, what to keep, and what stopping does to the weights.

Error curves are tensors of shape (..., E): one error each time it was measured, E times in all. So
one call handles many runs.
"""

import copy
import math

import torch
from torch import Tensor, nn

from regkit._check import require, require_nonnegative, require_positive, require_weights


class EarlyStopping:
    """Watch a validation error, keep the best parameters seen, and say when to stop.

    Stop when the error has not fallen below its best by more than ``min_change`` for ``patience``
    measurements in a row. The best parameters and buffers are kept in one copy of the model's
    state, which is written over at each improvement, however small.

    Args:
        model: what is trained.
        patience: so many measurements without improvement end the training, at least 1.
        min_change: an improvement of at most this resets no counter.

    Attributes:
        best_error: the smallest error seen; infinite before the first.
        best_epoch: which measurement that was, from 0; -1 before the first.
        waited: measurements since the last improvement by more than ``min_change``.

    Raises:
        ValueError: if patience or min_change is out of range, or when an error is not a number.

    Reference:
        Morgan & Bourlard (1990), Generalization and parameter estimation in feedforward nets.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> stopping = EarlyStopping(model, patience=2)
        >>> [stopping.should_stop(error) for error in (0.9, 0.5, 0.7, 0.6)]
        [False, False, False, True]
        >>> stopping.best_epoch, stopping.best_error
        (1, 0.5)
        >>> stopping.restore_()
    """

    def __init__(self, model: nn.Module, patience: int, min_change: float = 0.0) -> None:
        require(patience >= 1, "patience must be >= 1", patience)
        require_nonnegative("min_change", min_change)
        self.model, self.patience, self.min_change = model, patience, min_change
        self.best_error, self.best_epoch, self.waited = math.inf, -1, 0
        self._reference, self._epoch = math.inf, -1  # the error to beat; measurements so far
        self._best = copy.deepcopy(model.state_dict())

    def should_stop(self, error: float) -> bool:
        """Take the newest validation error; return whether the patience is used up."""
        error = float(error)
        require(not math.isnan(error), "the validation error must be a number", error)
        self._epoch += 1
        if error < self.best_error:
            self.best_error, self.best_epoch = error, self._epoch
            for kept, value in zip(
                self._best.values(), self.model.state_dict().values(), strict=True
            ):
                kept.copy_(value)
        self.waited += 1
        if error < self._reference - self.min_change:
            self._reference, self.waited = error, 0
        return self.waited >= self.patience

    def restore_(self) -> None:
        """Give the model the best parameters and buffers seen, or those it began with."""
        self.model.load_state_dict(self._best)


def epochs_since_best(validation: Tensor) -> Tensor:
    """How many measurements ago the smallest error so far was first seen; patience counts these.

    Args:
        validation: validation errors of shape (..., E).

    Returns:
        Integers of shape (..., E).

    Example:
        >>> epochs_since_best(torch.tensor([0.9, 0.5, 0.7, 0.5, 0.4]))
        tensor([0, 0, 1, 2, 0])
    """
    _require_curve("validation", validation)
    epoch = torch.arange(validation.shape[-1], device=validation.device)
    best = validation.cummin(-1).values
    earlier = torch.cat([torch.full_like(best[..., :1], torch.inf), best[..., :-1]], -1)
    found = torch.where(validation < earlier, epoch, 0).cummax(-1).values
    return epoch - found


def generalization_loss(validation: Tensor) -> Tensor:
    r"""By how many percent the error is above its smallest value so far.

    :math:`\mathrm{GL}(t) = 100\,\bigl(E_{va}(t) / \min_{t' \le t} E_{va}(t') - 1\bigr)`

    Args:
        validation: positive validation errors of shape (..., E).

    Returns:
        Percentages of shape (..., E).

    Raises:
        ValueError: if an error is not positive.

    Reference:
        Prechelt (1998), Early stopping - but when?, section 2.2.1.

    Example:
        >>> generalization_loss(torch.tensor([2.0, 1.0, 1.5]))
        tensor([ 0.,  0., 50.])
    """
    _require_curve("validation", validation)
    require(bool((validation > 0).all()), "errors must be positive", validation.min().item())
    return 100 * (validation / validation.cummin(-1).values - 1)


def training_progress(training: Tensor) -> Tensor:
    r"""By how many per mille the mean training error of a strip is above its smallest one.

    A strip is k epochs of training; at its end the validation error is measured.
    :math:`P_k(t) = 1000\,\bigl(\frac1k \sum_{t'} E_{tr}(t') / \min_{t'} E_{tr}(t') - 1\bigr)`

    Args:
        training: training errors of shape (..., E, k), the k epochs of each strip.

    Returns:
        Tensor of shape (..., E). Where the smallest error of a strip is zero and the mean is not,
        it is infinite; where all are zero there is no progress, and it is zero.

    Reference:
        Prechelt (1998), Early stopping - but when?, section 2.2.2.

    Example:
        >>> training_progress(torch.tensor([[1.0, 0.5], [0.5, 0.5]]))
        tensor([500.,   0.])
    """
    _require_curve("training", training)
    require(training.ndim >= 2, "training must have shape (..., E, k)", tuple(training.shape))
    require(bool((training >= 0).all()), "errors must be >= 0", training.min().item())
    return (1000 * (training.mean(-1) / training.amin(-1) - 1)).nan_to_num(0.0, torch.inf)


def progress_quotient(validation: Tensor, training: Tensor) -> Tensor:
    r"""Generalization loss per progress, :math:`\mathrm{PQ}(t) = \mathrm{GL}(t) / P_k(t)`.

    Training may go on at a loss as long as it still makes progress.

    Args:
        validation: positive validation errors of shape (..., E), one at the end of each strip.
        training: training errors of shape (..., E, k).

    Returns:
        Tensor of shape (..., E). Where nothing is lost it is zero, even without progress; a loss
        without progress makes it infinite.

    Raises:
        ValueError: if the two do not have the same number of strips.

    Reference:
        Prechelt (1998), Early stopping - but when?, section 2.2.2.

    Example:
        >>> training = torch.tensor([[1.0, 0.5], [0.5, 0.5]])
        >>> progress_quotient(torch.tensor([1.0, 1.5]), training)
        tensor([0., inf])
    """
    loss, progress = generalization_loss(validation), training_progress(training)
    require(
        loss.shape == progress.shape,
        f"training must hold {tuple(loss.shape)} strips",
        tuple(progress.shape),
    )
    return torch.where(loss > 0, loss / progress, 0.0)


def successive_rises(validation: Tensor) -> Tensor:
    """How many times in a row the validation error has risen; criterion UP_s waits for s.

    Args:
        validation: validation errors of shape (..., E), one at the end of each strip.

    Returns:
        Integers of shape (..., E).

    Reference:
        Prechelt (1998), Early stopping - but when?, section 2.2.3.

    Example:
        >>> successive_rises(torch.tensor([3.0, 1.0, 2.0, 3.0, 3.0]))
        tensor([0, 0, 1, 2, 0])
    """
    _require_curve("validation", validation)
    rises = torch.zeros_like(validation, dtype=torch.bool)
    rises[..., 1:] = validation.diff(dim=-1) > 0
    epoch = torch.arange(validation.shape[-1], device=validation.device)
    last_fall = torch.where(rises, -1, epoch).cummax(-1).values  # the first always counts as one
    return epoch - last_fall


def first_stop(stop: Tensor) -> Tensor:
    """The first measurement at which a criterion says stop; the last one if it never does.

    Args:
        stop: booleans of shape (..., E), for example ``generalization_loss(validation) > 5``.

    Returns:
        Integers of shape (...).

    Example:
        >>> first_stop(torch.tensor([[False, True, True], [False, False, False]]))
        tensor([1, 2])
    """
    require(stop.dtype == torch.bool, "stop must hold booleans", stop.dtype)
    require(stop.ndim >= 1 and stop.shape[-1] > 0, "stop must not be empty", tuple(stop.shape))
    never = ~stop.any(-1)
    return torch.where(never, stop.shape[-1] - 1, stop.int().argmax(-1))


def filter_factors(h: Tensor, lr: float, steps: int) -> Tensor:
    r"""How much of each component gradient descent has learned, :math:`1 - (1-\eta h_i)^t`.

    It starts at zero and descends a quadratic whose Hessian has the eigenvalues h.

    Args:
        h: eigenvalues, none negative, of any shape.
        lr: learning rate; ``lr * h`` must be below 2, where the descent converges.
        steps: number of steps t.

    Returns:
        Factors of the shape of h.

    Raises:
        ValueError: if an eigenvalue is negative or too large, or steps is not a count.

    Reference:
        Ali, Kolter & Tibshirani (2019), A continuous-time view of early stopping, section 3.

    Example:
        >>> filter_factors(torch.tensor([1.0, 0.1, 0.0]), lr=0.5, steps=3)
        tensor([0.8750, 0.1426, 0.0000])
    """
    _require_descent(h, lr, steps)
    x = lr * h
    small = -torch.expm1(steps * torch.log1p(-x.clamp(max=0.5)))  # exact for tiny eigenvalues
    return torch.where(x < 0.5, small, 1 - (1 - x) ** steps)


def equivalent_decay(h: Tensor, lr: float, steps: int) -> Tensor:
    r"""The strength of weight decay that shrinks each component as t steps do.

    :math:`\lambda_i = h_i (1-\eta h_i)^t / \bigl(1 - (1-\eta h_i)^t\bigr)`, from
    :math:`h_i / (h_i + \lambda_i) = 1 - (1-\eta h_i)^t`; its limit for small eigenvalues is
    :math:`1/(\eta t)`.

    Args:
        h: eigenvalues, none negative, of any shape.
        lr: learning rate; ``lr * h`` must be below 2.
        steps: number of steps t, at least 1.

    Returns:
        Strengths of the shape of h; negative where a step overshoots and t is odd.

    Raises:
        ValueError: if an eigenvalue is negative or too large, or steps is not a count above 0.

    Example:
        >>> equivalent_decay(torch.tensor([1.0, 0.1, 0.0]), lr=0.5, steps=3)
        tensor([0.1429, 0.6011, 0.6667])
    """
    _require_descent(h, lr, steps)
    require(steps > 0, "steps must be at least 1", steps)
    learned = filter_factors(h, lr, steps)
    limit = torch.full_like(h, 1 / (lr * steps))
    return torch.where(h > 0, h * (1 - lr * h) ** steps / learned.where(h > 0, 1.0), limit)


def _require_curve(name: str, errors: Tensor) -> None:
    require_weights(name, errors)
    kept = errors.ndim >= 1 and errors.shape[-1] > 0
    require(kept, f"{name} must hold at least one error", f"shape {tuple(errors.shape)}")


def _require_descent(h: Tensor, lr: float, steps: int) -> None:
    require_weights("h", h)
    require_positive("lr", lr)
    require(steps >= 0 and steps == int(steps), "steps must be a count", steps)
    require(h.numel() > 0, "h must not be empty", tuple(h.shape))
    require(bool((h >= 0).all()), "eigenvalues must be >= 0", h.min().item())
    largest = lr * h.max().item()
    require(largest < 2, "lr times the largest eigenvalue must be < 2", largest)
