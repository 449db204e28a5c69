"""One training loop, and one way to repeat an experiment over seeds."""

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm.auto import tqdm

from regkit._check import require

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
