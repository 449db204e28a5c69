"""Slow and obvious versions of what regkit does fast: one finite difference at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def gradient(function: Callable[[Tensor], Tensor], w: Tensor, step: float = 1e-6) -> Tensor:
    result = torch.zeros_like(w)
    for i in range(len(w)):
        e = torch.zeros_like(w)
        e[i] = step
        result[i] = (function(w + e) - function(w - e)) / (2 * step)
    return result


def hessian(function: Callable[[Tensor], Tensor], w: Tensor, step: float = 1e-4) -> Tensor:
    result = torch.zeros(len(w), len(w), dtype=w.dtype)
    for i in range(len(w)):
        e = torch.zeros_like(w)
        e[i] = step
        above, below = gradient(function, w + e, step), gradient(function, w - e, step)
        result[i] = (above - below) / (2 * step)
    return result


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K, W) from one backward pass an output and sample."""
    rows = []
    for sample in x:
        for output in model(sample[None])[0]:
            pieces = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
            rows.append(torch.cat([piece.flatten() for piece in pieces]))
    return torch.stack(rows).view(len(x), -1, len(rows[0]))
