"""One training loop, one way to a local minimum, and one way to repeat an experiment over seeds."""

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm.auto import tqdm

from regkit._check import require
from regkit.curvature import restrict

Result = TypeVar("Result")


def progress(items: Iterable[Any], **options: Any) -> Any:
    """A bar for what takes longer than two seconds; none where TQDM_DISABLE is set."""
    # In notebooks tqdm itself does not look at that variable.
    disable = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(items, delay=2, leave=False, disable=disable, **options)


def train(
    objective: Callable[[int], Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int,
    after_step: Callable[[int], object] | None = None,
) -> Tensor:
    """Minimize an objective: one gradient step after another, with a progress bar.

    Args:
        objective: takes the number of the step, from 0, and returns the scalar to minimize; it
            draws its own minibatch if there is one.
        optimizer: holds the parameters.
        steps: number of steps.
        after_step: called with the number of each finished step, for example to record a path or
            to apply a mask.

    Returns:
        The objective before each step, of shape (steps,).

    Raises:
        ValueError: if steps is negative, or when the objective is no longer finite.

    Example:
        >>> w = torch.tensor([2.0], requires_grad=True)
        >>> train(lambda step: (w**2).sum(), torch.optim.SGD([w], lr=0.25), steps=3)
        tensor([4.0000, 1.0000, 0.2500])
    """
    require(steps >= 0, "steps must be >= 0", steps)
    values = []
    for step in progress(range(steps), desc="training"):
        optimizer.zero_grad()
        value = objective(step)
        values.append(value.detach())
        rule = f"the objective must stay finite (step {step}; try a smaller learning rate)"
        require(math.isfinite(value.item()), rule, value.item())
        value.backward()
        optimizer.step()
        if after_step is not None:
            after_step(step)
    return torch.stack(values) if values else torch.zeros(0)


def minimize(
    function: Callable[[Tensor], Tensor],
    w: Tensor,
    mask: Tensor | None = None,
    steps: int = 500,
    tolerance: float = 1e-7,
) -> Tensor:
    """Descend to a local minimum of a smooth function by L-BFGS.

    Args:
        function: from (W,) to a scalar, the same at every call.
        w: where to start, of shape (W,).
        mask: which weights may move, a boolean tensor of shape (W,); all if None.
        steps: at most so many.
        tolerance: it ends where no entry of the gradient is larger.

    Returns:
        The weights at the end, of shape (W,).

    Raises:
        ValueError: if the mask has another shape, or when the function is no longer finite.

    Example:
        >>> mask = torch.tensor([True, False])
        >>> w = minimize(lambda w: ((w - 3) ** 2).sum(), torch.zeros(2), mask)
        >>> w.round(decimals=4)
        tensor([3., 0.])
    """
    if mask is None:
        mask = torch.ones_like(w, dtype=torch.bool)
    part = restrict(function, w, mask)
    free = w[mask].detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def value() -> Tensor:
        optimizer.zero_grad()
        result = part(free)
        require(math.isfinite(result.item()), "the function must stay finite", result.item())
        result.backward()
        return result

    optimizer.step(value)
    return w.masked_scatter(mask, free.detach())


def replicate(
    experiment: Callable[[int], Result], seeds: Iterable[int], n_jobs: int = 1
) -> list[Result]:
    """Run an experiment once a seed, in parallel if asked, with a progress bar.

    Inside ``joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster.

    Args:
        experiment: takes a seed and draws all its randomness from it.
        seeds: which seeds.
        n_jobs: processes; -1 for all cores.

    Returns:
        The results in the order of the seeds.

    Raises:
        ValueError: if there is no seed.

    Example:
        >>> replicate(lambda seed: seed**2, seeds=range(4))
        [0, 1, 4, 9]
    """
    seeds = list(seeds)
    require(len(seeds) > 0, "seeds must hold at least one seed", seeds)
    run = Parallel(n_jobs=n_jobs, return_as="generator")
    dtype = torch.get_default_dtype()
    results = run(delayed(_run)(experiment, seed, dtype) for seed in seeds)
    return list(progress(results, total=len(seeds), desc="seeds"))


def _run(experiment: Callable[[int], Result], seed: int, dtype: torch.dtype) -> Result:
    """Run one seed, in a process of its own perhaps, with the caller's default dtype."""
    torch.set_default_dtype(dtype)
    return experiment(seed)
