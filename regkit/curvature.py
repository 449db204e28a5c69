"""Derivatives of networks and risks with respect to the weights.

A network is looked at as a function of one vector of weights w of shape (W,). Products with the
Hessian go through forward-over-reverse differentiation. Only ``layered_hessian_diagonal`` is about
special networks, for which it is some hundred times faster.
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


def restrict(function: Function, w: Tensor, mask: Tensor) -> Function:
    """A function of all weights as a function of some of them, the others fixed.

    Args:
        function: from (W,) to a scalar.
        w: where, of shape (W,).
        mask: which weights are free, a boolean tensor of shape (W,).

    Returns:
        A function of the free weights, in the order of w; its value at ``w[mask]`` is that of the
        whole at w.

    Raises:
        ValueError: if the mask has another shape.

    Example:
        >>> mask = torch.tensor([True, False, True])
        >>> part = restrict(lambda w: (w**2).sum(), torch.ones(3), mask)
        >>> part(torch.tensor([2.0, 3.0]))
        tensor(14.)
    """
    require(mask.shape == w.shape, f"mask must have shape {tuple(w.shape)}", tuple(mask.shape))
    chosen = mask.nonzero()[:, 0]
    return lambda free: function(w.scatter(0, chosen, free))


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


def layered_hessian_diagonal(
    model: nn.Sequential,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    chunk_size: int = 512,
) -> Tensor:
    r"""The exact diagonal of the Hessian of a mean loss, for layers one after another.

    Second derivatives go back from layer to layer. With pre-activations s, activations a = f(s) and
    the matrix W of the next layer: :math:`\nabla_a = W^\top \nabla_s`,
    :math:`H_a = W^\top H_s W`, and below the activation function
    :math:`\nabla_s = f' \circ \nabla_a` and
    :math:`H_s = f' f'^\top \circ H_a + \operatorname{diag}(f'' \circ \nabla_a)`. A weight from
    activation j to unit i has :math:`\partial^2 \ell / \partial w_{ij}^2 = [H_s]_{ii} a_j^2`.

    Args:
        model: ``nn.Linear`` layers and elementwise activation functions, ending in a layer.
        x: inputs of shape (N, D).
        y: targets, N of them.
        loss: takes outputs and targets of some samples and returns the mean loss.
        chunk_size: samples at a time; smaller needs less memory.

    Returns:
        Tensor of shape (W,), in the order of ``ravel_parameters``.

    Raises:
        ValueError: if the model is not of that form, or the numbers of samples differ.

    Reference:
        LeCun, Denker & Solla (1990), Optimal brain damage, equations 7 to 10; they drop the
        off-diagonal terms of H_a, which are kept here.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1))
        >>> layered_hessian_diagonal(model, torch.ones(2, 1), torch.ones(2, 1), nn.MSELoss()).shape
        torch.Size([4])
    """
    require_weights("x", x)
    same = x.ndim == 2 and len(x) == len(y) > 0
    require(same, "x (N, D) and y must hold as many samples", (tuple(x.shape), len(y)))
    layers = list(model)
    fit = len(layers) > 0 and isinstance(layers[-1], nn.Linear)
    require(fit, "model must be a Sequential that ends in a Linear layer", layers[-1:])
    total = [torch.zeros(0)] * len(layers)
    for rows in torch.arange(len(x)).split(chunk_size):
        share = len(rows) / len(x)
        for i, part in enumerate(_layered_diagonal(layers, x[rows], y[rows], loss)):
            total[i] = share * part + (total[i] if len(total[i]) else 0.0)
    return torch.cat(total)


def _layered_diagonal(
    layers: list[nn.Module],
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """Diagonal for the parameters of each layer, a mean over samples; empty where it has none."""
    values = [x]  # before each layer, and the output
    for layer in layers:
        values.append(layer(values[-1]).detach())

    def one_loss(output: Tensor, target: Tensor) -> Tensor:
        return loss(output[None], target[None])

    G = vmap(grad(one_loss))(values[-1], y)  # (N, K)
    H = vmap(torch.func.hessian(one_loss))(values[-1], y)  # (N, K, K)
    lowest = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    parts = [torch.zeros(0)] * len(layers)
    for i in reversed(range(len(layers))):
        layer, a = layers[i], values[i]
        if isinstance(layer, nn.Linear):
            h = H if H.ndim == 2 else H.diagonal(dim1=1, dim2=2)  # (N, units)
            parts[i] = (h.T @ a**2).flatten() / len(a)
            if layer.bias is not None:
                parts[i] = torch.cat([parts[i], h.mean(0)])
            if i == lowest:
                break
            W = layer.weight.detach()
            G, HW = G @ W, H @ W  # (N, units below), (N, units, units below)
            between = layers[lowest + 1 : i]
            deep = any(isinstance(below, nn.Linear) for below in between)
            H = W.T @ HW if deep else (HW * W).sum(1)  # the lowest layer needs the diagonal only
        else:
            H, G = _through_activation(layer, a, G, H)
    return [part.to(x) for part in parts]


def _through_activation(f: nn.Module, s: Tensor, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """Second and first derivatives of the loss before an elementwise function, from those after."""
    ones = torch.ones_like(s)

    def slope(s: Tensor) -> Tensor:
        return jvp(f, (s,), (ones,))[1]

    first, second = slope(s), jvp(slope, (s,), (ones,))[1]
    if H.ndim == 2:
        return first**2 * H + second * G, first * G
    return first[:, :, None] * H * first[:, None, :] + torch.diag_embed(second * G), first * G
