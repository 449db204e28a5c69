"""Weight decay (section 8.1): penalties on the size of the weights and what they do to a minimum.

A penalty is a function of the weights. It is added to the empirical risk with strength lambda:
``R_reg = R_emp + lam * penalty``. For a whole model write ``l2(weights(model))``.
"""

import torch
from torch import Tensor, nn

from regkit._check import (
    require,
    require_nonnegative,
    require_positive,
    require_symmetric,
    require_weights,
)


def weights(model: nn.Module, biases: bool = False) -> Tensor:
    """Return the weights of a model as one vector, through which gradients flow.

    Args:
        model: any module; its parameters may have any shapes.
        biases: whether parameters whose name ends in "bias" are included. The scales of
            normalization layers have no such name and always are.

    Returns:
        Tensor of shape (W,), in the order of ``model.named_parameters()``.

    Raises:
        ValueError: if no parameter is left.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> weights(model).shape, weights(model, biases=True).shape
        (torch.Size([6]), torch.Size([8]))
    """
    chosen = [
        parameter.flatten()
        for name, parameter in model.named_parameters()
        if biases or not name.endswith("bias")
    ]
    require(len(chosen) > 0, "model must have weights", f"{type(model).__name__} with none")
    return torch.cat(chosen)  # (W,)


def l2(w: Tensor) -> Tensor:
    r"""Half the squared length of the weights, :math:`\frac12\lVert w\rVert_2^2`.

    Args:
        w: weights, floating point, any shape.

    Returns:
        Scalar. Its gradient is w.

    Raises:
        ValueError: if w is not a finite floating-point tensor.

    Example:
        >>> l2(torch.tensor([3.0, 4.0]))
        tensor(12.5000)
    """
    require_weights("w", w)
    return 0.5 * (w**2).sum()


def l1(w: Tensor) -> Tensor:
    r"""Sum of the absolute weights, :math:`\lVert w\rVert_1`.

    Args:
        w: weights, floating point, any shape.

    Returns:
        Scalar. Its gradient is sign(w); at 0 torch takes the subgradient 0.

    Raises:
        ValueError: if w is not a finite floating-point tensor.

    Example:
        >>> l1(torch.tensor([3.0, -4.0]))
        tensor(7.)
    """
    require_weights("w", w)
    return w.abs().sum()


def log_penalty(w: Tensor) -> Tensor:
    r"""Logarithm of one plus the squared length, :math:`\log(1 + w^\top w)`.

    Args:
        w: weights, floating point, any shape.

    Returns:
        Scalar. Its gradient is 2 w / (1 + w.w).

    Raises:
        ValueError: if w is not a finite floating-point tensor.

    Example:
        >>> log_penalty(torch.tensor([0.0, 0.0]))
        tensor(0.)
    """
    require_weights("w", w)
    return torch.log1p((w**2).sum())


def weight_elimination(w: Tensor, w0: float) -> Tensor:
    r"""A soft count of the large weights, :math:`\sum_i \frac{(w_i/w_0)^2}{1 + (w_i/w_0)^2}`.

    Args:
        w: weights, floating point, any shape.
        w0: scale, positive: a weight of this size counts one half.

    Returns:
        Scalar between 0 and the number of weights.

    Raises:
        ValueError: if w is not a finite floating-point tensor, or w0 <= 0.

    Reference:
        Weigend, Rumelhart & Huberman (1991), Generalization by weight-elimination.

    Example:
        >>> weight_elimination(torch.tensor([0.0, 0.5, 1000.0]), w0=0.5)
        tensor(1.5000)
    """
    require_weights("w", w)
    require_positive("w0", w0)
    ratio = w / w0
    share = ratio / torch.hypot(ratio, torch.ones_like(ratio))  # its square, without overflow
    return (share**2).sum()


def decay_trajectory(start: Tensor, lr: float, lam: float, steps: int) -> Tensor:
    r"""Weights under L2 decay alone, :math:`w^{(t)} = (1 - \eta\lambda)^t w^{(0)}`.

    Args:
        start: weights before the first step, of shape (W,).
        lr: learning rate eta, positive.
        lam: strength lambda, not negative.
        steps: number of steps, not negative.

    Returns:
        Tensor of shape (steps + 1, W), the start first.

    Raises:
        ValueError: if an argument leaves its range.

    Example:
        >>> decay_trajectory(torch.tensor([8.0]), lr=1.0, lam=0.5, steps=3).flatten()
        tensor([8., 4., 2., 1.])
    """
    require_weights("start", start)
    require(start.ndim == 1, "start must be a vector", f"shape {tuple(start.shape)}")
    require(steps >= 0, "steps must be >= 0", steps)
    factor = 1 - _decay_product(lr, lam)
    powers = torch.tensor(factor, dtype=start.dtype) ** torch.arange(steps + 1)  # (steps + 1,)
    return powers.to(start)[:, None] * start


def decay_regime(lr: float, lam: float) -> str:
    r"""Name what L2 decay alone does to a weight; the product :math:`\eta\lambda` decides.

    Args:
        lr: learning rate eta, positive.
        lam: strength lambda, not negative.

    Returns:
        "decays" for 0 < lr * lam <= 1 (to zero, without a change of sign), "oscillates" for
        1 < lr * lam < 2 (to zero, with a change of sign at every step), "diverges" above 2.
        At the borders the size does not change: "stays" at 0 and "flips" at 2.

    Raises:
        ValueError: if an argument leaves its range.

    Example:
        >>> decay_regime(lr=0.1, lam=5.0), decay_regime(lr=0.1, lam=15.0)
        ('decays', 'oscillates')
    """
    product = _decay_product(lr, lam)
    if product == 0:
        return "stays"
    if product <= 1:
        return "decays"
    if product < 2:
        return "oscillates"
    return "flips" if product == 2 else "diverges"


def _decay_product(lr: float, lam: float) -> float:
    require_positive("lr", lr)
    require_nonnegative("lam", lam)
    return lr * lam


def soft_threshold(w: Tensor, threshold: float) -> Tensor:
    r"""Proximal step of L1, :math:`\arg\min_v \frac12\lVert v-w\rVert^2 + \tau\lVert v\rVert_1`.

    Every weight moves toward zero by the threshold and stays there once it arrives.

    Args:
        w: weights, floating point, any shape.
        threshold: tau, not negative; eta * lambda after a gradient step of size eta.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: if w is not a finite floating-point tensor, or the threshold is negative.

    Example:
        >>> soft_threshold(torch.tensor([-2.0, 0.3, 1.0]), 0.5)
        tensor([-1.5000,  0.0000,  0.5000])
    """
    require_weights("w", w)
    require_nonnegative("threshold", threshold)
    return w.sign() * (w.abs() - threshold).clamp(min=0)


def shifted_minimum(H: Tensor, w_star: Tensor, lam: float) -> Tensor:
    r"""Where L2 moves the minimum of a quadratic risk, :math:`(H + \lambda I)^{-1} H w^*`.

    Args:
        H: Hessian of the risk at its minimum, symmetric, of shape (W, W).
        w_star: the minimum without decay, of shape (W,).
        lam: strength lambda, not negative.

    Returns:
        Tensor of shape (W,).

    Raises:
        ValueError: if H is not symmetric, shapes or dtypes differ, lam is negative, or
            H + lam I is not positive definite (without that there is no minimum).

    Example:
        >>> shifted_minimum(torch.diag(torch.tensor([9.0, 1.0])), torch.ones(2), lam=1.0)
        tensor([0.9000, 0.5000])
    """
    _require_quadratic(H, w_star, lam)
    identity = torch.eye(len(H)).to(H)
    L, failed = torch.linalg.cholesky_ex(H + lam * identity)
    _require_definite(L, bool(failed), lam)
    return torch.cholesky_solve((H @ w_star)[:, None], L).squeeze(1)


def _require_definite(L: Tensor, failed: bool, lam: float) -> None:
    """Require that a Cholesky factor exists and that its pivots are well above rounding."""
    pivots = L.diagonal() ** 2
    singular = len(L) > 0 and pivots.min() <= 100 * torch.finfo(L.dtype).eps * pivots.max()
    definite = not failed and not singular
    require(definite, "H + lam I must be positive definite", f"lam = {lam}")


def _require_quadratic(H: Tensor, w_star: Tensor, lam: float) -> None:
    require_symmetric("H", H)
    require_weights("w_star", w_star)
    fits = w_star.shape == H.shape[:1]
    require(fits, f"w_star must have shape ({len(H)},) like H", tuple(w_star.shape))
    require(w_star.dtype == H.dtype, f"w_star must have the dtype of H, {H.dtype}", w_star.dtype)
    require_nonnegative("lam", lam)


def shrinkage_factors(H: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    r"""By which factor L2 scales the minimum along each eigenvector of the Hessian.

    With :math:`H = Q \operatorname{diag}(h) Q^\top` the component :math:`q_i^\top w^*` becomes
    :math:`\frac{h_i}{h_i + \lambda} q_i^\top w^*`.

    Args:
        H: Hessian at the minimum, symmetric and positive semidefinite, of shape (W, W).
        lam: strength lambda, positive.

    Returns:
        The factors, of shape (W,), in the order of ascending eigenvalues, and the eigenvectors
        as the columns of a (W, W) tensor.

    Raises:
        ValueError: if H is not symmetric or has a negative eigenvalue, or lam <= 0.

    Example:
        >>> factors, Q = shrinkage_factors(torch.diag(torch.tensor([1.0, 9.0])), lam=1.0)
        >>> factors
        tensor([0.5000, 0.9000])
    """
    require_symmetric("H", H)
    require_positive("lam", lam)
    h, Q = torch.linalg.eigh(H)  # (W,), (W, W)
    _require_semidefinite(h)
    h = h.clamp(min=0)  # what rounding left below zero
    return h / (h + lam), Q


def _require_semidefinite(h: Tensor) -> None:
    rounding = 100 * torch.finfo(h.dtype).eps * h.abs().max().item()
    require(h[0].item() >= -rounding, "H must have no negative eigenvalue", f"{h[0].item():.3g}")
