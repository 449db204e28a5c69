"""Risk and complexity (section 8.0): a bound, fits with few and with many features, a map.

Squared errors are halved, as everywhere in the book: the risk of a fit is the mean of halved
squares.
"""

import math
from collections.abc import Callable
from importlib.resources import files

import pandas as pd
import torch
import yaml
from torch import Tensor
from torch.func import hessian, vmap

from regkit._check import require, require_nonnegative, require_weights


def hoeffding_complexity(num_functions: int, num_samples: int, delta: float) -> float:
    r"""What the risk of any function of a finite class may exceed its empirical risk by.

    :math:`c = \sqrt{(\ln\lvert\mathcal{F}\rvert + \ln(1/\delta)) / (2N)}`. With probability at
    least :math:`1-\delta` over the N samples, :math:`R \le R_{\mathrm{emp}} + c` for all functions
    at once. The samples are independent and identically distributed, the class was chosen before
    they were seen, and the loss lies in [0, 1].

    Args:
        num_functions: size of the class, at least 1; an integer of any size, such as ``2**32000``.
        num_samples: number of samples N, at least 1.
        delta: probability with which the bound may fail, above 0 and below 1.

    Returns:
        The complexity term c; from 1 on it says nothing.

    Raises:
        ValueError: if an argument leaves its range.

    Reference:
        Hoeffding (1963), Probability inequalities for sums of bounded random variables, theorem 1.

    Example:
        >>> round(hoeffding_complexity(num_functions=16, num_samples=200, delta=0.05), 3)
        0.12
    """
    require(num_functions >= 1, "num_functions must be >= 1", num_functions)
    require(num_samples >= 1, "num_samples must be >= 1", num_samples)
    require(0 < delta < 1, "delta must be above 0 and below 1", delta)
    return math.sqrt((math.log(num_functions) + math.log(1 / delta)) / (2 * num_samples))


def minimum_norm_fit(features: Tensor, targets: Tensor, lam: float = 0.0) -> Tensor:
    r"""Least squares; where many weights fit equally well, the shortest of them.

    :math:`\mathbf{w} = \boldsymbol\Phi^+ \mathbf{y}`, or with a penalty the minimum of
    :math:`\frac{1}{2N}\lVert\boldsymbol\Phi\mathbf{w} - \mathbf{y}\rVert^2
    + \frac\lambda2\lVert\mathbf{w}\rVert^2`.

    Args:
        features: one sample a row, of shape (..., N, W).
        targets: of shape (..., N, K).
        lam: strength of the penalty, not negative.

    Returns:
        Weights of shape (..., W, K).

    Raises:
        ValueError: if the shapes do not fit, or lam is negative.

    Example:
        >>> features = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
        >>> minimum_norm_fit(features, torch.tensor([[1.0], [3.0]])).squeeze()
        tensor([1.0000, 1.0000])
    """
    _require_rows("targets", targets, features)
    return _inverse(features, lam) @ targets


def bias_variance(
    features: Tensor,
    truth: Tensor,
    new_features: Tensor,
    new_truth: Tensor,
    noise: float,
    lam: float = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""Risk of ``minimum_norm_fit`` on noisy targets, averaged over their noise: its two parts.

    With :math:`\mathbf{S} = \boldsymbol\Phi_{\mathrm{new}} \boldsymbol\Phi^+` and M new points,

    .. math:: \tfrac{1}{2M} \lVert\mathbf{S}\mathbf{f} - \mathbf{f}_{\mathrm{new}}\rVert^2
              \quad\text{and}\quad \tfrac{\sigma^2}{2M} \lVert\mathbf{S}\rVert_F^2 .

    The inputs stay as they are; the risk at noisy new targets is :math:`\sigma^2/2` larger.

    Args:
        features: of the training samples, of shape (..., N, W).
        truth: targets without noise, of shape (..., N, 1).
        new_features: of the points that represent the distribution of inputs, (..., M, W).
        new_truth: of shape (..., M, 1).
        noise: standard deviation of the independent noise of the targets.
        lam: strength of the penalty, not negative.

    Returns:
        Half the mean squared bias, and half the mean variance, both of shape (...).

    Raises:
        ValueError: if the shapes do not fit, or noise or lam is negative.

    Reference:
        Geman, Bienenstock & Doursat (1992), Neural networks and the bias/variance dilemma.

    Example:
        >>> one = torch.ones(4, 1)
        >>> bias, variance = bias_variance(one, 2 * one, one[:1], 3 * one[:1], noise=1.0)
        >>> bias, variance
        (tensor(0.5000), tensor(0.1250))
    """
    _require_rows("truth", truth, features)
    _require_rows("new_truth", new_truth, new_features)
    require_nonnegative("noise", noise)
    S = new_features @ _inverse(features, lam)  # (..., M, N)
    bias = 0.5 * (S @ truth - new_truth).square().mean((-2, -1))
    variance = 0.5 * noise**2 * S.square().sum(-1).mean(-1)
    return bias, variance


def _inverse(features: Tensor, lam: float) -> Tensor:
    """The pseudo-inverse, or that of ridge regression, of shape (..., W, N)."""
    require_weights("features", features)
    require_nonnegative("lam", lam)
    N, W = features.shape[-2:]
    U, s, Vh = torch.linalg.svd(features, full_matrices=False)
    rounding = max(N, W) * torch.finfo(s.dtype).eps * s[..., :1]
    filtered = torch.where(s > rounding, s / (s.square() + N * lam), 0.0)
    return Vh.mT * filtered[..., None, :] @ U.mT


def _require_rows(name: str, values: Tensor, features: Tensor) -> None:
    require_weights(name, values)
    require_weights("features", features)
    fits = values.ndim >= 2 and features.ndim >= 2 and values.shape[-2] == features.shape[-2]
    shapes = f"{tuple(values.shape)} and {tuple(features.shape)}"
    require(fits, f"{name} must have as many rows as its features", shapes)


def roughness(function: Callable[[Tensor], Tensor], nodes: Tensor, weights: Tensor) -> Tensor:
    r"""How much a function bends: the integral of its squared second derivatives.

    :math:`\int \lVert\nabla_{\mathbf{x}}^2 g\rVert_F^2\,d\mathbf{x}`. The integral is the sum over
    the nodes of a quadrature rule, the Hessian is that of autograd.
    Of a function of one input it is :math:`\int g''(x)^2\,dx`.

    Args:
        function: from one input of shape (D,) to a scalar; twice differentiable.
        nodes: points of the rule, of shape (Q, D).
        weights: of the rule, of shape (Q,).

    Returns:
        The integral, a scalar that can be differentiated.

    Raises:
        ValueError: if the shapes do not fit.

    Reference:
        Green & Silverman (1994), Nonparametric regression and generalized linear models, chapter 2.

    Example:
        >>> nodes = torch.tensor([[0.25], [0.75]])
        >>> roughness(lambda x: 3 * x[0] ** 2, nodes, torch.tensor([0.5, 0.5]))
        tensor(36.)
    """
    require_weights("nodes", nodes)
    require_weights("weights", weights)
    fits = nodes.ndim == 2 and weights.shape == nodes.shape[:1]
    shapes = f"{tuple(nodes.shape)} and {tuple(weights.shape)}"
    require(fits, "nodes must have shape (Q, D) and weights (Q,)", shapes)
    curvatures = vmap(hessian(function))(nodes)  # (Q, D, D)
    return weights @ curvatures.square().sum((1, 2))


def methods() -> pd.DataFrame:
    """All methods of the book, one a row: what each acts on, when, and what kind of term it is.

    Returns:
        A table with the columns section, name, acts_on, when ("during" or "after" training), kind
        ("smoothing", "number" or "precision" of weights, or "neither"), and because: the reason.

    Example:
        >>> table = methods()
        >>> table[table["when"] == "after"]["name"].tolist()
        ['Pruning']
    """
    text = files("regkit").joinpath("methods.yml").read_text(encoding="utf-8")
    places = yaml.safe_load(text)
    rows = [
        {"acts_on": place["acts_on"], **method} for place in places for method in place["methods"]
    ]
    return pd.DataFrame(rows)[["section", "name", "acts_on", "when", "kind", "because"]]
