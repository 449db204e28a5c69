"""Dropout (section 8.4): random masks in training, and three ways to predict without them.

Throughout, ``keep_prob`` is the probability that a unit is *kept*, the lecture's p. The argument of
``torch.nn.Dropout`` is the probability that it is dropped, 1 - p.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from regkit._check import require, require_positive, require_weights

ROWS = 1024  # that mc_predict sends through a model at once, unless one pass has more


def _require_keep_prob(keep_prob: float) -> None:
    require(0 < keep_prob <= 1, "keep_prob must be in (0, 1]", keep_prob)


class Dropout(nn.Module):
    r"""Multiply activations by a mask in training, :math:`d \odot a` with :math:`d_i \sim B(1, p)`.

    Every element has its own mask entry, drawn afresh at each call. With ``inverted`` the kept
    activations are also divided by p. In evaluation mode the layer is the identity.

    Args:
        keep_prob: probability p that an activation is kept, in (0, 1].
        inverted: whether kept activations are multiplied by 1/p in training. If not, scale the
            outgoing weights after training: ``scale_weights_``.
        generator: source of the masks; torch's global one if None.

    Raises:
        ValueError: if keep_prob leaves its range; from a call, if the input is not floating point.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov (2014), Dropout, section 4.

    Example:
        >>> layer = Dropout(0.5, generator=torch.Generator().manual_seed(0))
        >>> sorted(layer(torch.ones(1000)).unique().tolist())
        [0.0, 2.0]
        >>> layer.eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(
        self, keep_prob: float, inverted: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _require_keep_prob(keep_prob)
        self.keep_prob = keep_prob
        self.inverted = inverted
        self.generator = generator

    def forward(self, a: Tensor) -> Tensor:
        """Drop activations of any shape, for example (N, M)."""
        if not self.training:
            return a
        require(a.is_floating_point(), "activations must have a floating-point dtype", a.dtype)
        d = torch.empty_like(a).bernoulli_(self.keep_prob, generator=self.generator)
        if self.inverted:
            d /= self.keep_prob
        return d * a

    def extra_repr(self) -> str:
        """What stands between the parentheses when the layer is printed."""
        return f"keep_prob={self.keep_prob}, inverted={self.inverted}"


def all_masks(units: int, keep_prob: float) -> tuple[Tensor, Tensor]:
    r"""All masks of a layer with their probabilities, :math:`p^{k}(1-p)^{M-k}` for k kept units.

    Args:
        units: number M of units, from 1 to 20.
        keep_prob: p, in (0, 1].

    Returns:
        Masks of shape (2^M, M), the entries 0 and 1, and probabilities of shape (2^M,).

    Raises:
        ValueError: if an argument leaves its range.

    Example:
        >>> masks, probabilities = all_masks(2, keep_prob=0.75)
        >>> masks.tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
        >>> probabilities
        tensor([0.0625, 0.1875, 0.1875, 0.5625])
    """
    require(1 <= units <= 20, "units must be from 1 to 20", units)
    _require_keep_prob(keep_prob)
    places = torch.arange(units - 1, -1, -1)
    bits = (torch.arange(2**units)[:, None] >> places) & 1  # (2^M, M)
    masks = bits.to(torch.get_default_dtype())
    return masks, (masks * keep_prob + (1 - masks) * (1 - keep_prob)).prod(1)


def scale_weights_(model: nn.Module) -> None:
    r"""Multiply the outgoing weights of each ``Dropout(p, inverted=False)`` by p, in place.

    This is how a network that was trained with unscaled masks predicts without them. Biases are
    not scaled. Call it once, after training; ``unscale_weights_`` is the inverse.

    Args:
        model: an ``nn.Sequential``, possibly of others. After each such dropout layer the next
            layer with weights must be ``nn.Linear``, and what stands between must pass a positive
            factor on: ReLU, Flatten, Identity, another such dropout layer.

    Raises:
        ValueError: if the model is not of this form or has no such dropout layer. It is unchanged
            then.

    Reference:
        Srivastava et al. (2014), Dropout, figure 2.

    Example:
        >>> model = nn.Sequential(Dropout(0.5, inverted=False), nn.Linear(3, 1))
        >>> before = model[1].weight.clone()
        >>> scale_weights_(model)
        >>> bool((model[1].weight == 0.5 * before).all())
        True
    """
    with torch.no_grad():
        for weight, factor in _outgoing_weights(model):
            weight.mul_(factor)


def unscale_weights_(model: nn.Module) -> None:
    """Divide by p what ``scale_weights_`` has multiplied by p; exact up to rounding.

    Args:
        model: as for ``scale_weights_``.

    Raises:
        ValueError: if the model is not of that form. It is unchanged then.

    Example:
        >>> model = nn.Sequential(Dropout(0.5, inverted=False), nn.Linear(3, 1))
        >>> before = model[1].weight.clone()
        >>> scale_weights_(model)
        >>> unscale_weights_(model)
        >>> bool((model[1].weight == before).all())
        True
    """
    with torch.no_grad():
        for weight, factor in _outgoing_weights(model):
            weight.div_(factor)


def _outgoing_weights(model: nn.Module) -> list[tuple[Tensor, float]]:
    """The weights after unscaled dropout layers, with the keep probabilities before them."""
    layers = _leaves(model)
    outgoing: list[tuple[Tensor, float]] = []
    factor = 1.0  # of the dropout layers since the last weights
    for layer in layers:
        if isinstance(layer, Dropout) and not layer.inverted:
            factor *= layer.keep_prob
        elif factor < 1 and isinstance(layer, nn.Linear):
            shared = sum(other is layer for other in layers) > 1
            require(not shared, "a layer after dropout must stand once only", repr(layer))
            outgoing.append((layer.weight, factor))
            factor = 1.0
        elif factor < 1:
            passes_on = isinstance(layer, nn.ReLU | nn.Flatten | nn.Identity)  # f(p a) = p f(a)
            rule = "after dropout there may be ReLU, Flatten, Identity and then nn.Linear only"
            require(passes_on, rule, type(layer).__name__)
    require(factor == 1, "dropout must be followed by a layer with weights", "the end")
    require(len(outgoing) > 0, "model must have a Dropout layer with inverted=False", "none")
    return outgoing


def _leaves(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nn.Sequential):
        return [leaf for child in model for leaf in _leaves(child)]
    has_children = next(model.children(), None) is not None
    require(not has_children, "model must be built of nn.Sequential", type(model).__name__)
    return [model]


@contextmanager
def _only_dropout_random(model: nn.Module, generator: torch.Generator | None) -> Iterator[None]:
    """Training mode for dropout layers, evaluation mode for all else; then as it was."""
    modes = {module: module.training for module in model.modules()}
    ours = [module for module in modes if isinstance(module, Dropout)]
    theirs = [module for module in modes if isinstance(module, _DropoutNd)]
    sources = {module: module.generator for module in ours}
    require(len([*ours, *theirs]) > 0, "model must have a dropout layer", "none")
    try:
        model.eval()
        for module in [*ours, *theirs]:
            module.training = True
        if generator is None:
            yield
            return
        for dropout in ours:
            dropout.generator = generator
        # The layers of torch draw from its global generator.
        with torch.random.fork_rng(enabled=len(theirs) > 0):
            if theirs:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for dropout, source in sources.items():
            dropout.generator = source


def mc_predict(
    model: nn.Module,
    x: Tensor,
    passes: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Predict with fresh masks at each of S passes (MC dropout); no gradients are kept.

    Only dropout layers are random, ours and those of torch; all else, such as batch norm, is in
    evaluation mode. Dropout inside a module, as in ``nn.LSTM``, stays off. Afterward every mode is
    what it was before, also when the model raises an error.

    Args:
        model: treats the rows of its input one by one in evaluation mode.
        x: inputs of shape (N, ...).
        passes: S, at least 1.
        generator: source of the masks, instead of those of the layers.

    Returns:
        Outputs of shape (S, N, ...), for a classifier (S, N, K). Their mean over S estimates
        the expectation over the masks.

    Raises:
        ValueError: if passes < 1, x has no rows, the model has no dropout layer, or its
            output does not have a row for each row of the input.

    Reference:
        Gal & Ghahramani (2016), Dropout as a Bayesian approximation, section 4.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), Dropout(0.5), nn.Linear(8, 2))
        >>> mc_predict(model.eval(), torch.ones(4, 3), passes=10).shape
        torch.Size([10, 4, 2])
    """
    require(passes >= 1, "passes must be >= 1", passes)
    require(x.ndim > 0 and len(x) > 0, "x must have rows", f"shape {tuple(x.shape)}")
    at_once = max(1, min(passes, ROWS // len(x)))
    outputs = []
    with torch.no_grad(), _only_dropout_random(model, generator):
        for first in range(0, passes, at_once):
            number = min(at_once, passes - first)
            output = model(x.repeat(number, *[1] * (x.ndim - 1)))  # (number * N, ...)
            rule = f"the output must have {number * len(x)} rows"
            require(len(output) == number * len(x), rule, f"shape {tuple(output.shape)}")
            outputs.append(output.unflatten(0, (number, len(x))))
    return torch.cat(outputs)  # (S, N, ...)


def ridge_strengths(X: Tensor, keep_prob: float, inverted: bool = True) -> Tensor:
    r"""The feature-wise L2 strengths that dropout of the inputs gives a linear regression.

    The mean over the masks of the risk :math:`\frac{1}{2N}\sum_n(\hat y^n - y^n)^2` is the risk of
    the mean input plus :math:`\frac12\sum_i\lambda_i w_i^2` with
    :math:`\lambda_i = c\,\frac1N\sum_n (x_i^n)^2`, where :math:`c = \frac{1-p}{p}` for inverted
    and :math:`c = p(1-p)` for unscaled masks.

    Args:
        X: inputs of shape (N, D).
        keep_prob: p, in (0, 1].
        inverted: whether kept inputs are multiplied by 1/p.

    Returns:
        Tensor of shape (D,).

    Raises:
        ValueError: if X is not a finite floating-point matrix, or keep_prob leaves its range.

    Reference:
        Srivastava et al. (2014), Dropout, section 9.1; there the squares are summed.

    Example:
        >>> ridge_strengths(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), keep_prob=0.5)
        tensor([1., 2.])
    """
    require_weights("X", X)
    require(X.ndim == 2 and len(X) > 0, "X must be a matrix with rows", f"shape {tuple(X.shape)}")
    _require_keep_prob(keep_prob)
    factor = (1 - keep_prob) / keep_prob if inverted else keep_prob * (1 - keep_prob)
    return factor * (X**2).mean(0)  # (D,)


def dropout_ridge(X: Tensor, y: Tensor, keep_prob: float, inverted: bool = True) -> Tensor:
    r"""Weights of a linear regression that minimize the mean risk over all masks of the inputs.

    With :math:`c = 1` for inverted and :math:`c = p` for unscaled masks,
    :math:`w = (c^2 X^\top X/N + \operatorname{diag}(\lambda_i))^{-1}\, c\, X^\top y/N`.

    Args:
        X: inputs of shape (N, D).
        y: targets of shape (N,).
        keep_prob: p, in (0, 1].
        inverted: whether kept inputs are multiplied by 1/p.

    Returns:
        Weights of shape (D,), to be used without masks if inverted; else p times them.

    Raises:
        ValueError: if X or y is not finite or floating point, shapes do not fit, keep_prob leaves
            its range, or the minimum is not unique.

    Example:
        >>> dropout_ridge(torch.tensor([[1.0], [1.0]]), torch.tensor([2.0, 4.0]), keep_prob=0.5)
        tensor([1.5000])
    """
    strengths = ridge_strengths(X, keep_prob, inverted)
    require_weights("y", y)
    require(y.shape == X.shape[:1], f"y must have shape ({len(X)},) like X", tuple(y.shape))
    c = 1.0 if inverted else keep_prob
    H = c**2 * X.T @ X / len(X) + torch.diag(strengths)  # (D, D)
    L, failed = torch.linalg.cholesky_ex(H)
    require(not failed, "the minimum must be unique", f"keep_prob = {keep_prob} and X of low rank")
    return torch.cholesky_solve((c * X.T @ y / len(X))[:, None], L).squeeze(1)


def logistic_penalty(X: Tensor, w: Tensor, keep_prob: float) -> Tensor:
    r"""Second-order approximation of what inverted dropout adds to a logistic regression's risk.

    :math:`\frac12\frac{1-p}{p}\,\frac1N\sum_n \hat y^n(1-\hat y^n)\sum_i (x_i^n w_i)^2` with
    :math:`\hat y = \operatorname{sigmoid}(w^\top x)`.

    Args:
        X: inputs of shape (N, D).
        w: weights of shape (D,).
        keep_prob: p, in (0, 1].

    Returns:
        Scalar.

    Raises:
        ValueError: if X or w is not finite or floating point, shapes do not fit, or keep_prob
            leaves its range.

    Reference:
        Wager, Wang & Liang (2013), Dropout training as adaptive regularization.

    Example:
        >>> logistic_penalty(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0, -1.0]), keep_prob=0.5)
        tensor(1.)
    """
    require_weights("X", X)
    require_weights("w", w)
    fits = X.ndim == 2 and len(X) > 0 and w.shape == X.shape[1:]
    require(fits, "X must be (N, D) and w (D,)", f"{tuple(X.shape)} and {tuple(w.shape)}")
    _require_keep_prob(keep_prob)
    y_hat = torch.sigmoid(X @ w)  # (N,)
    variance = (1 - keep_prob) / keep_prob * ((X * w) ** 2).sum(1)  # of the pre-activation, (N,)
    return 0.5 * (y_hat * (1 - y_hat) * variance).mean()


def gp_strengths(keep_probs: Tensor, length_scale: float, precision: float, samples: int) -> Tensor:
    r"""L2 strength of each layer in the Gaussian-process view, :math:`p_l l^2 / (2 \tau N)`.

    They stand before :math:`\lVert M_l \rVert^2`, without a half. One strength serves all layers
    only if the keep probabilities are equal.

    Args:
        keep_probs: keep probability of each layer, in (0, 1], of shape (L,).
        length_scale: l of the prior, whose standard deviation is 1/l; positive.
        precision: tau, one over the variance of the noise; positive.
        samples: N, at least 1.

    Returns:
        Tensor of shape (L,).

    Raises:
        ValueError: if an argument leaves its range.

    Reference:
        Gal & Ghahramani (2016), Dropout as a Bayesian approximation, section 3.

    Example:
        >>> gp_strengths(torch.tensor([1.0, 0.5]), length_scale=2.0, precision=10.0, samples=100)
        tensor([0.0020, 0.0010])
    """
    require_weights("keep_probs", keep_probs)
    inside = bool(((keep_probs > 0) & (keep_probs <= 1)).all())
    require(inside, "keep_probs must be in (0, 1]", keep_probs.tolist())
    require_positive("length_scale", length_scale)
    require_positive("precision", precision)
    require(samples >= 1, "samples must be >= 1", samples)
    return keep_probs * length_scale**2 / (2 * precision * samples)


def hoyer(a: Tensor) -> Tensor:
    r"""Hoyer's sparsity, :math:`(\sqrt M - \lVert a\rVert_1/\lVert a\rVert_2)/(\sqrt M - 1)`.

    It is 0 when all entries have one size, 1 when a single entry is not zero, and does not depend
    on the scale of a.

    Args:
        a: values of shape (..., M) with M > 1; no row may be zero throughout.

    Returns:
        Tensor of shape (...).

    Raises:
        ValueError: if a is not finite or floating point, M < 2, or a row is zero.

    Reference:
        Hoyer (2004), Non-negative matrix factorization with sparseness constraints.

    Example:
        >>> hoyer(torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 0.0]]))
        tensor([0., 1.])
    """
    require_weights("a", a)
    require(a.ndim > 0 and a.shape[-1] > 1, "a must have shape (..., M), M > 1", tuple(a.shape))
    length = a.norm(dim=-1)
    require(
        bool((length > 0).all()), "every row of a must have an entry other than 0", "a zero row"
    )
    root = a.shape[-1] ** 0.5
    return (root - a.abs().sum(-1) / length) / (root - 1)
