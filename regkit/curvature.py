"""Derivatives of networks and risks with respect to the weights.

A network is looked at as a function of one vector of weights w of shape (W,). Products with the
Hessian go through forward-over-reverse differentiation; no code here is about a special network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap

from regkit._check import require, require_weights

Function = Callable[[Tensor], Tensor]  # from weights (W,) to a scalar


def ravel_parameters(model: nn.Module) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """Return the parameters of a model as one vector, and the model as a function of it.

    Args:
        model: any module without state that changes in a forward pass.

    Returns:
        A copy of the parameters, of shape (W,), in the order of ``model.named_parameters()``,
        and ``predict(w, x)``, which evaluates the model at weights w of shape (W,).

    Example:
        >>> model = nn.Linear(3, 2)
        >>> w, predict = ravel_parameters(model)
        >>> x = torch.ones(5, 3)
        >>> w.shape, torch.equal(predict(w, x), model(x))
        (torch.Size([8]), True)
    """
    parameters = dict(model.named_parameters())
    require(
        len(parameters) > 0,
        "model must have parameters",
        f"{type(model).__name__} with none",
    )
    sizes = [parameter.numel() for parameter in parameters.values()]

    def predict(w: Tensor, x: Tensor) -> Tensor:
        pieces = w.split(sizes)
        named = {
            name: piece.view(parameter.shape)
            for (name, parameter), piece in zip(parameters.items(), pieces, strict=True)
        }
        return functional_call(model, named, (x,))

    return torch.cat([parameter.detach().flatten() for parameter in parameters.values()]), predict


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    r"""Derivative of every output for every sample, :math:`\partial \hat y_k^n / \partial w_i`.

    Args:
        model: maps (N, D) to (N, K) and treats each sample on its own.
        x: inputs of shape (N, D).

    Returns:
        Tensor of shape (N, K, W).

    Example:
        >>> jacobian(nn.Linear(3, 2), torch.ones(5, 3)).shape
        torch.Size([5, 2, 8])
    """
    require_weights("x", x)
    w, predict = ravel_parameters(model)
    return vmap(jacrev(lambda w, sample: predict(w, sample[None])[0]), (None, 0))(w, x)


def hvp(function: Function, w: Tensor, v: Tensor) -> Tensor:
    r"""Product of the Hessian with a vector, :math:`\nabla^2 f(w)\,v`, without the Hessian.

    Args:
        function: twice differentiable, from (W,) to a scalar.
        w: where, of shape (W,).
        v: the vector, of shape (W,).

    Returns:
        Tensor of shape (W,).

    Example:
        >>> hvp(lambda w: (w**3).sum(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor([ 6., 12.])
    """
    require_weights("w", w)
    require(v.shape == w.shape, f"v must have the shape of w, {tuple(w.shape)}", tuple(v.shape))
    return jvp(grad(function), (w,), (v,))[1]


def hessian(function: Function, w: Tensor, chunk_size: int = 128) -> Tensor:
    r"""All second derivatives, :math:`\partial^2 f / \partial w_i \partial w_j`.

    Args:
        function: twice differentiable, from (W,) to a scalar.
        w: where, of shape (W,).
        chunk_size: columns at a time; smaller needs less memory.

    Returns:
        Tensor of shape (W, W), symmetric up to rounding.

    Example:
        >>> hessian(lambda w: w[0] ** 2 * w[1], torch.tensor([1.0, 2.0]))
        tensor([[4., 2.],
                [2., 0.]])
    """
    require_weights("w", w)
    require(w.ndim == 1, "w must be a vector", f"shape {tuple(w.shape)}")
    return vmap(lambda v: hvp(function, w, v), chunk_size=chunk_size)(torch.eye(len(w)).to(w))


def hessian_diagonal(function: Function, w: Tensor, chunk_size: int = 128) -> Tensor:
    r"""The diagonal of the Hessian, :math:`\partial^2 f / \partial w_i^2`, and nothing else.

    Args:
        function: twice differentiable, from (W,) to a scalar.
        w: where, of shape (W,).
        chunk_size: weights at a time; smaller needs less memory.

    Returns:
        Tensor of shape (W,).

    Example:
        >>> hessian_diagonal(lambda w: (w**3).sum(), torch.tensor([1.0, 2.0]))
        tensor([ 6., 12.])
    """
    require_weights("w", w)
    require(w.ndim == 1, "w must be a vector", f"shape {tuple(w.shape)}")
    diagonal = vmap(lambda v: v @ hvp(function, w, v), chunk_size=chunk_size)
    return diagonal(torch.eye(len(w)).to(w))
