"""Flat minimum search (section 8.9): boxes in weight space in which the outputs hardly change.

With the derivatives :math:`g_{ki} = \\partial \\hat y_k / \\partial w_i` at one input, the box of
tolerances has edges from :math:`w_i - \\Delta w_i` to :math:`w_i + \\Delta w_i`, and the penalty is
minus the sum of the logarithms of the :math:`\\Delta w_i`: a large box, a small penalty.

One convention holds everywhere: a weight on which no output depends, at some input and to first
order, may change as it likes. It needs no bits, so at this input it is not counted.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, jvp, vmap

from regkit._check import require, require_nonnegative, require_positive, require_weights
from regkit.curvature import Function, ravel_parameters


def box_edges(J: Tensor, tolerance: float) -> Tensor:
    r"""Half the edges of the box, :math:`\Delta w_i`, for each input.

    .. math:: \Delta w_i = \sqrt{\varepsilon_{\mathrm{tol}}} \Big/
              \Bigl(r_i \sqrt{\textstyle\sum_k U_k^2}\Bigr), \quad
              r_i = \sqrt{\textstyle\sum_k g_{ki}^2}, \quad U_k = \sum_i |g_{ki}| / r_i

    Args:
        J: derivatives of the outputs, of shape (N, K, W).
        tolerance: how much the sum of the squared changes of the outputs may be.

    Returns:
        Tensor of shape (N, W); infinite where no output depends on the weight.

    Raises:
        ValueError: if J has another number of dimensions, or tolerance is not positive.

    Reference:
        Hochreiter & Schmidhuber (1997), Flat minima, section 3 and appendix A.

    Example:
        >>> box_edges(torch.tensor([[[1.0, 2.0]]]), tolerance=0.16)
        tensor([[0.2000, 0.1000]])
    """
    require_positive("tolerance", tolerance)
    r, counted, shares = _sizes(J)
    U = shares.sum(2)  # (N, K)
    return math.sqrt(tolerance) / (r * U.norm(dim=1, keepdim=True)).masked_fill(~counted, 0.0)


def _sizes(J: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The r_i (N, W), which of them are not zero, and the shares |g_ki| / r_i (N, K, W)."""
    require_weights("J", J)
    require(J.ndim == 3, "J must have shape (N, K, W)", tuple(J.shape))
    squares = J.square().sum(1)
    counted = squares > 0
    r = squares.where(counted, 1.0).sqrt()
    return r, counted, J.abs() / r[:, None]


def flatness_penalty(J: Tensor, tolerance: float) -> Tensor:
    r"""The penalty of flat minimum search for each input, from the derivatives.

    .. math:: \Omega = \tfrac12 \Bigl( -n_w \log \varepsilon_{\mathrm{tol}} + \sum_i \log r_i^2 +
              n_w \log \sum_k U_k^2 \Bigr)

    Args:
        J: derivatives of the outputs, of shape (N, K, W).
        tolerance: how much the sum of the squared changes of the outputs may be.

    Returns:
        Tensor of shape (N,), in nats; add it up over the inputs.

    Raises:
        ValueError: if J has another number of dimensions, or tolerance is not positive.

    Reference:
        Hochreiter & Schmidhuber (1997), Flat minima, equation 1.

    Example:
        >>> J = torch.tensor([[[1.0, 2.0]]])
        >>> flatness_penalty(J, tolerance=0.16), -box_edges(J, tolerance=0.16).log().sum(1)
        (tensor([3.9120]), tensor([3.9120]))
    """
    require_positive("tolerance", tolerance)
    r, counted, shares = _sizes(J)
    n = counted.sum(1)  # weights that count
    S = shares.sum(2).square().sum(1)
    return r.log().sum(1) + 0.5 * n * (S.where(n > 0, 1.0).log() - math.log(tolerance))


def penalty_slope(J: Tensor) -> Tensor:
    r"""Derivative of the penalty with respect to the derivatives, in closed form.

    .. math:: \frac{\partial\Omega}{\partial g_{ki}} = \frac{g_{ki}}{r_i^2} +
              \frac{n_w}{\sum_{k'} U_{k'}^2} \Bigl( U_k \frac{\operatorname{sign} g_{ki}}{r_i} -
              \frac{g_{ki}}{r_i^3} \sum_{k'} U_{k'} |g_{k'i}| \Bigr)

    Args:
        J: derivatives of the outputs, of shape (N, K, W).

    Returns:
        Tensor of shape (N, K, W); zero for weights that are not counted.

    Example:
        >>> penalty_slope(torch.tensor([[[1.0, 2.0]]]))
        tensor([[[1.0000, 0.5000]]])
    """
    r, counted, shares = _sizes(J)
    signed = J / r[:, None]  # (N, K, W)
    U = shares.sum(2)  # (N, K)
    S, n = U.square().sum(1), counted.sum(1)
    along = torch.einsum("nk,nki->ni", U, shares)
    second = U[:, :, None] * signed.sign() - signed * along[:, None]
    factor = (n / S.where(n > 0, 1.0))[:, None, None]
    return (signed + factor * second) / r[:, None]


def penalty_gradient(model: nn.Module, x: Tensor, chunk_size: int | None = None) -> Tensor:
    r"""Gradient of the penalty, summed over inputs, by products with the outputs' Hessians.

    :math:`\nabla\Omega = \sum_k \mathbf{H}_k \nabla_{\mathbf{g}_k} \Omega`. A product is the
    derivative of a gradient along a direction (the R-operator), so no Hessian is formed.

    Args:
        model: maps (N, D) to (N, K), treats each sample on its own; any architecture.
        x: inputs of shape (N, D).
        chunk_size: inputs at a time; smaller needs less memory.

    Returns:
        Tensor of shape (W,), in the order of ``ravel_parameters``.

    Reference:
        Hochreiter & Schmidhuber (1997), appendix A.3; Pearlmutter (1994), Fast exact
        multiplication by the Hessian.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> penalty_gradient(model, torch.ones(4, 2)).shape
        torch.Size([13])
    """
    require_weights("x", x)
    w, predict = ravel_parameters(model)

    def outputs(w: Tensor, sample: Tensor) -> Tensor:
        return predict(w, sample[None])[0]  # (K,)

    def of_sample(sample: Tensor) -> Tensor:
        J = jacrev(outputs)(w, sample)  # (K, W)
        directions = penalty_slope(J[None])[0]
        unit = torch.eye(len(J)).to(J)

        def product(e: Tensor, direction: Tensor) -> Tensor:
            slope = grad(lambda w: outputs(w, sample) @ e)
            return jvp(slope, (w,), (direction,))[1]

        return vmap(product)(unit, directions).sum(0)

    return vmap(of_sample, chunk_size=chunk_size)(x).sum(0)


def layered_penalty(
    model: nn.Sequential, x: Tensor, tolerance: float, floor: float = 0.0
) -> Tensor:
    r"""The penalty for each input, for layers one after another, without any Jacobian.

    The derivative with respect to a weight from activation j to unit i is
    :math:`e_{ki} f'_i a_j`, where :math:`e_{ki}` is the derivative of output k with respect to
    what the unit puts out. So :math:`r_{ij}^2 = a_j^2\, f_i'^2 \sum_k e_{ki}^2`, its logarithm is
    a sum, and :math:`|g_{k,ij}| / r_{ij} = |e_{ki}| / \sqrt{\sum_{k'} e_{k'i}^2}` holds neither
    :math:`a_j` nor :math:`f'_i`.

    Autograd goes through it. The cost grows as K times the number of weights.

    Args:
        model: ``nn.Linear`` layers and elementwise activation functions.
        x: inputs of shape (N, D).
        tolerance: how much the sum of the squared changes of the outputs may be.
        floor: is added to each of the three squared factors of :math:`r_{ij}^2`. It keeps the
            gradient finite where a factor comes close to zero, and then all weights are counted.

    Returns:
        Tensor of shape (N,), in nats.

    Raises:
        ValueError: if the model does not begin with a linear layer, x has another shape,
            tolerance is not positive, or floor is negative.

    Reference:
        Hochreiter & Schmidhuber (1997), Flat minima, equation 1; the factors are ours.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> layered_penalty(model, torch.ones(4, 2), tolerance=0.01).shape
        torch.Size([4])
    """
    require_weights("x", x)
    require_positive("tolerance", tolerance)
    require_nonnegative("floor", floor)
    require(x.ndim == 2, "x must have shape (N, D)", tuple(x.shape))
    layers = _layers_with_slopes(model, x)
    K = layers[-1][0].out_features
    e = torch.eye(K).to(x)[None]  # (1 or N, K, units), from the output down
    count, logs, U = x.new_zeros(()), x.new_zeros(()), x.new_zeros(())
    for depth, (layer, a, slope) in reversed(list(enumerate(layers))):
        size = e.square().sum(1) + floor  # (1 or N, units)
        outer = size * (slope.square() + floor)  # (N, units)
        inner = a.square() + floor  # (N, units below)
        dead, unfed = (outer == 0).to(x), (inner == 0).to(x)  # as numbers: log(0 + 1) = 0
        n_out = layer.out_features - dead.sum(1)  # (N,)
        n_in = layer.in_features + (layer.bias is not None) - unfed.sum(1)
        count = count + n_in * n_out
        logs = logs + n_in * (outer + dead).log().sum(1) + n_out * (inner + unfed).log().sum(1)
        shares = e.abs() * (size + (size == 0)).rsqrt()[:, None]  # (1 or N, K, units)
        U = U + n_in[:, None] * (shares @ (1 - dead)[:, :, None])[:, :, 0]  # (N, K)
        if depth > 0:
            e = (e * slope[:, None]) @ layer.weight
    S = U.square().sum(1)
    return 0.5 * (logs + count * ((S + (count == 0)).log() - math.log(tolerance)))


def _layers_with_slopes(model: nn.Sequential, x: Tensor) -> list[tuple[nn.Linear, Tensor, Tensor]]:
    """Each linear layer, its inputs (N, units below), and the slopes above it (1 or N, units)."""
    layers: list[tuple[nn.Linear, Tensor, Tensor]] = []
    for layer in model:
        if isinstance(layer, nn.Linear):
            layers.append((layer, x, x.new_ones(1, layer.out_features)))
            x = layer(x)
        else:
            rule = "model must begin with an nn.Linear layer"
            require(len(layers) > 0, rule, type(layer).__name__)
            linear, a, slope = layers.pop()
            moved = jvp(layer, (x,), (torch.ones_like(x),))  # autograd goes through it
            x = moved[0]
            layers.append((linear, a, slope * moved[1]))
    require(len(layers) > 0, "model must hold an nn.Linear layer", "none")
    return layers


class AdaptiveStrength:
    r"""Strength of a penalty that grows while training goes well and gives way when it does not.

    With :math:`A` a running mean of the error: the strength grows by ``step`` where the error is
    below ``target`` or has fallen; it shrinks by ``step`` where the error has risen but is below
    A, and by a tenth of itself where it is not.

    Args:
        step: by how much the strength changes.
        target: an error that is good enough.
        memory: weight of the past in the running mean.

    Attributes:
        lam: the strength, a float or a tensor of the shape of the errors; zero at first.

    Raises:
        ValueError: if step or target is not positive, or memory is not in [0, 1).

    Reference:
        Weigend, Rumelhart & Huberman (1991), Generalization by weight-elimination with application
        to forecasting; Hochreiter & Schmidhuber (1997) use it for flat minimum search.

    Example:
        >>> strength = AdaptiveStrength(step=0.1, target=0.2)
        >>> [round(float(strength.update(torch.tensor(e))), 3) for e in (0.5, 0.1, 0.1, 0.9)]
        [0.1, 0.2, 0.3, 0.27]
    """

    def __init__(self, step: float, target: float, memory: float = 0.9) -> None:
        require_positive("step", step)
        require_positive("target", target)
        require(0 <= memory < 1, "memory must be in [0, 1)", memory)
        self.step, self.target, self.memory = step, target, memory
        self.lam: Tensor | float = 0.0
        self._last: Tensor | float = math.inf
        self._mean: Tensor | None = None

    def update(self, error: Tensor) -> Tensor:
        """Take the newest error, one or one a network; return the strength to use next."""
        require_weights("error", error)
        mean = error if self._mean is None else self._mean
        mean = self.memory * mean + (1 - self.memory) * error
        well = (error < self.target) | (error < self._last)
        smaller = torch.where(error < mean, self.lam - self.step, 0.9 * self.lam).clamp(min=0)
        self.lam = torch.where(well, self.lam + self.step, smaller)
        self._last, self._mean = error, mean
        return self.lam


def sharpness_aware_gradient(function: Function, w: Tensor, radius: float) -> Tensor:
    r"""The gradient where the function is highest nearby, to first order.

    :math:`\nabla f(w + \rho\, \nabla f(w) / \lVert \nabla f(w) \rVert)`

    Args:
        function: differentiable, from (W,) to a scalar.
        w: where, of shape (W,).
        radius: how far uphill to look; with 0 it is the gradient.

    Returns:
        Tensor of shape (W,).

    Raises:
        ValueError: if radius is negative.

    Reference:
        Foret, Kleiner, Mobahi & Neyshabur (2021), Sharpness-aware minimization for efficiently
        improving generalization, equation 3.

    Example:
        >>> sharpness_aware_gradient(lambda w: (w**2).sum(), torch.tensor([3.0, 4.0]), radius=0.5)
        tensor([6.6000, 8.8000])
    """
    require_weights("w", w)
    require_nonnegative("radius", radius)
    slope = grad(function)
    g = slope(w)
    return slope(w + radius * g / g.norm().clamp(min=torch.finfo(w.dtype).tiny))
