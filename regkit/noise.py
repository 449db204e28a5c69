"""Training noise (section 8.2): noise on inputs, neurons and weights, and its twins, the penalties.

Noise on the input of a smooth network adds, to second order, a penalty on derivatives with respect
to the input. The functions here compute these derivatives by forward differentiation along one
input at a time, so that a pass costs D forward passes and no Hessian is ever stored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vmap

from regkit._check import require, require_nonnegative, require_weights

MODES = ("additive", "multiplicative")
Network = Callable[[Tensor], Tensor]  # from (N, D) to (N, K), each sample on its own


def noisy(
    x: Tensor, sigma: float, mode: str = "additive", generator: torch.Generator | None = None
) -> Tensor:
    r"""Add Gaussian noise, :math:`x + \nu`, or multiply by it, :math:`x(1 + \nu)`.

    Args:
        x: any shape, floating point.
        sigma: standard deviation of each entry of the noise, not negative.
        mode: "additive" or "multiplicative".
        generator: where the noise comes from; torch's own if None.

    Returns:
        Tensor of the shape of x. Gradients flow through it to x.

    Raises:
        ValueError: if sigma is negative or mode is unknown.

    Example:
        >>> noisy(torch.tensor([1.0, 2.0]), sigma=0.0)
        tensor([1., 2.])
    """
    require_weights("x", x)
    _require_noise(sigma, mode)
    nu = sigma * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return x + nu if mode == "additive" else x * (1 + nu)


def _require_noise(sigma: float, mode: str) -> None:
    require_nonnegative("sigma", sigma)
    require(mode in MODES, f"mode must be one of {MODES}", repr(mode))


class GaussianNoise(nn.Module):
    r"""Noise in training, none in evaluation: on the inputs as first module, else on neurons.

    Args:
        sigma: standard deviation of each entry of the noise, not negative.
        mode: "additive" for :math:`a + \nu`, "multiplicative" for :math:`a(1 + \nu)`.
        generator: where the noise comes from; torch's own if None.

    Raises:
        ValueError: if sigma is negative or mode is unknown.

    Example:
        >>> layer = GaussianNoise(0.1)
        >>> a = torch.ones(2, 3)
        >>> torch.equal(layer(a), a), torch.equal(layer.eval()(a), a)
        (False, True)
    """

    def __init__(
        self, sigma: float, mode: str = "additive", generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _require_noise(sigma, mode)
        self.sigma, self.mode, self.generator = sigma, mode, generator

    def forward(self, a: Tensor) -> Tensor:
        """Return a, of any shape, with fresh noise in training mode and as it is otherwise."""
        return noisy(a, self.sigma, self.mode, self.generator) if self.training else a

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, mode={self.mode!r}"


@contextmanager
def weight_noise(
    model: nn.Module,
    sigma: float,
    mode: str = "additive",
    generator: torch.Generator | None = None,
    biases: bool = False,
) -> Iterator[None]:
    r"""Put noise on the weights of a model for a while, :math:`w + \nu` or :math:`w(1 + \nu)`.

    Inside, a forward and a backward pass see the noisy weights, and the gradient lands in
    ``parameter.grad`` as always. At the end, also after an error, the weights are as before: a
    step of the optimizer belongs behind the block. In evaluation mode there is no noise.

    Args:
        model: any module.
        sigma: standard deviation of each entry of the noise, not negative.
        mode: "additive" or "multiplicative".
        generator: where the noise comes from; torch's own if None.
        biases: whether parameters whose name ends in "bias" get noise too.

    Raises:
        ValueError: if sigma is negative or mode is unknown.

    Reference:
        Murray & Edwards (1994), Enhanced MLP performance and fault tolerance resulting from
        synaptic weight noise during training.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> before = model.weight.clone()
        >>> with weight_noise(model, sigma=0.5):
        ...     model(torch.ones(1, 2)).sum().backward()
        >>> torch.equal(model.weight, before), model.weight.grad
        (True, tensor([[1., 1.]]))
    """
    _require_noise(sigma, mode)
    chosen = [
        parameter
        for name, parameter in model.named_parameters()
        if model.training and (biases or not name.endswith("bias"))
    ]
    clean = [parameter.detach().clone() for parameter in chosen]
    try:
        with torch.no_grad():
            for parameter in chosen:
                parameter.copy_(noisy(parameter, sigma, mode, generator))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(chosen, clean, strict=True):
                parameter.copy_(value)


def input_derivatives(model: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""First and second derivative of every output along every input.

    Args:
        model: maps (N, D) to (N, K), twice differentiable, each sample on its own.
        x: inputs of shape (N, D).

    Returns:
        :math:`\partial \hat y_k / \partial x_i` and :math:`\partial^2 \hat y_k / \partial x_i^2`,
        both of shape (N, K, D). Gradients flow through them to the weights of the model. A ReLU
        network has second derivatives 0 wherever it has any.

    Raises:
        ValueError: if x is not a matrix.

    Example:
        >>> first, second = input_derivatives(lambda x: x**3, torch.tensor([[2.0]]))
        >>> first.item(), second.item()
        (12.0, 12.0)
    """
    require_weights("x", x)
    require(x.ndim == 2, "x must have shape (N, D)", f"shape {tuple(x.shape)}")

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:  # (D,) -> twice (N, K)
        v = direction.expand_as(x)
        derivatives = jvp(lambda x: jvp(model, (x,), (v,))[1], (x,), (v,))
        return derivatives[0], derivatives[1]

    axes = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    first, second = vmap(along)(axes)  # (D, N, K)
    return first.permute(1, 2, 0), second.permute(1, 2, 0)


def tikhonov(
    model: Network, x: Tensor, y: Tensor, sigma: float, second_order: bool = True
) -> Tensor:
    r"""What input noise adds to the halved squared error, to order :math:`\sigma^2`.

    .. math:: \frac{\sigma^2}{2N} \sum_{n,k} \bigl( \lVert \nabla_x \hat y_k^n \rVert^2
              + (\hat y_k^n - y_k^n)\, \Delta_x \hat y_k^n \bigr)

    Args:
        model: maps (N, D) to (N, K), each sample on its own.
        x: inputs of shape (N, D).
        y: targets of shape (N, K).
        sigma: standard deviation of the noise, not negative.
        second_order: whether the second term counts. Without it the result is not negative, and
            costs one reverse pass an output instead of two forward passes an input.

    Returns:
        Scalar, the mean over samples of the sum over outputs.

    Raises:
        ValueError: if sigma is negative or the shapes do not fit.

    Reference:
        Bishop (1995), Training with noise is equivalent to Tikhonov regularization, eq. 12-14.

    Example:
        >>> x = torch.tensor([[1.0]])
        >>> tikhonov(lambda x: x**2, x, y=torch.zeros(1, 1), sigma=1.0)
        tensor(3.)
    """
    require_nonnegative("sigma", sigma)
    require_weights("x", x)
    y_hat = model(x)  # (N, K)
    shape = tuple(y_hat.shape)
    require(y.shape == shape, f"y must have shape {shape}", f"shape {tuple(y.shape)}")
    if second_order:
        first, second = input_derivatives(model, x)  # (N, K, D)
        added = (first**2).sum(-1) + (y_hat - y) * second.sum(-1)  # (N, K)
    else:
        first = vmap(jacrev(lambda sample: model(sample[None])[0]))(x)  # (N, K, D)
        added = (first**2).sum(-1)
    return 0.5 * sigma**2 * added.sum(1).mean()


def curvature_penalty(model: Network, x: Tensor) -> Tensor:
    r"""How sharply a network bends at its inputs, :math:`\frac{1}{2N} \sum_{n,k,i}
    \bigl( \partial^2 \hat y_k^n / \partial x_i^2 \bigr)^2`.

    Args:
        model: maps (N, D) to (N, K), each sample on its own.
        x: inputs of shape (N, D).

    Returns:
        Scalar.

    Reference:
        Bishop (1993), Curvature-driven smoothing: a learning algorithm for feedforward networks;
        there a sum over samples.

    Example:
        >>> curvature_penalty(lambda x: x**3, torch.tensor([[2.0]]))
        tensor(72.)
    """
    second = input_derivatives(model, x)[1]  # (N, K, D)
    return 0.5 * (second**2).sum((1, 2)).mean()
