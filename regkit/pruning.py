"""Pruning (section 8.7): remove weights after training, by their size or by what their loss costs.

A mask is a boolean tensor, True where a weight stays. Masks of a model are a dict from the names of
its weight matrices to masks. Optimal brain damage (OBD) and optimal brain surgeon (OBS) look at all
weights as one vector w, see ``curvature.ravel_parameters``, and at the Hessian H of the risk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import grad

from regkit._check import (
    require,
    require_nonnegative,
    require_symmetric,
    require_weights,
)
from regkit.curvature import Function

Masks = dict[str, Tensor]
Amount = float | Mapping[str, float]


# --- by magnitude ---


def keep_largest(scores: Tensor, amount: float) -> Tensor:
    """Mask that removes the given fraction of the entries, those with the smallest scores.

    Args:
        scores: importance scores, of shape (..., W); each row is pruned by itself. Among equal
            scores the first are removed.
        amount: fraction to remove, from 0 to 1; ``round(amount * W)`` entries of each row.

    Returns:
        Boolean tensor of shape (..., W), True where an entry stays.

    Raises:
        ValueError: if amount leaves its range, or a score is not finite.

    Example:
        >>> keep_largest(torch.tensor([3.0, 0.1, 2.0, 0.05]), amount=0.5)
        tensor([ True, False,  True, False])
    """
    require_weights("scores", scores)
    require(scores.ndim >= 1, "scores must have a dimension to prune along", "a scalar")
    require(0 <= amount <= 1, "amount must be from 0 to 1", amount)
    removed = round(amount * scores.shape[-1])
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(removed, dim=-1, keepdim=True).values  # (..., 1)
    below, at = scores < threshold, scores == threshold
    missing = removed - below.sum(-1, keepdim=True)
    return ~(below | (at & (at.cumsum(-1) <= missing)))


def _weight_matrices(model: nn.Module) -> Masks:
    """The parameters that are pruned: those with two dimensions or more, no biases or scales."""
    chosen = {name: p.detach() for name, p in model.named_parameters() if p.ndim >= 2}
    require(len(chosen) > 0, "model must have weight matrices", f"{type(model).__name__} with none")
    return chosen


def magnitude_masks(
    model: nn.Module, amount: Amount, scope: Literal["layer", "global"] = "layer"
) -> Masks:
    """Masks that remove the weights of smallest magnitude; biases always stay.

    Weights that are zero already are the smallest of all, so a network that was pruned before is
    pruned further: ``amount`` always counts from the full network.

    Args:
        model: any module; its parameters with at least two dimensions are pruned.
        amount: fraction to remove, from 0 to 1; with scope "layer" perhaps one for each layer, a
            dict by the name of the weight.
        scope: "layer" removes the fraction in each layer, "global" in all of them together.

    Returns:
        Name of a weight -> mask of its shape.

    Raises:
        ValueError: if an argument leaves its range, or a dict does not name the weights exactly.

    Reference:
        Han, Pool, Tran & Dally (2015), Learning both weights and connections.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -0.1], [0.2, -4.0]]))
        >>> magnitude_masks(model, amount=0.5)["weight"]
        tensor([[ True, False],
                [False,  True]])
    """
    require(scope in ("layer", "global"), "scope must be 'layer' or 'global'", repr(scope))
    matrices = _weight_matrices(model)
    if scope == "global":
        require(not isinstance(amount, Mapping), "a global amount must be one number", amount)
        scores = torch.cat([w.abs().flatten() for w in matrices.values()])
        pieces = keep_largest(scores, amount).split([w.numel() for w in matrices.values()])  # type: ignore[arg-type]
        return {n: m.view(w.shape) for (n, w), m in zip(matrices.items(), pieces, strict=True)}
    amounts = amount if isinstance(amount, Mapping) else dict.fromkeys(matrices, amount)
    require(
        amounts.keys() == matrices.keys(), f"amount must name {sorted(matrices)}", sorted(amounts)
    )
    return {
        name: keep_largest(w.abs().flatten(), amounts[name]).view(w.shape)
        for name, w in matrices.items()
    }


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: Masks) -> None:
    """Set the weights that the masks remove to zero.

    To keep them at zero while a model is trained again, call this after every step:
    ``train(objective, optimizer, steps, after_step=lambda step: apply_masks_(model, masks))``.

    Args:
        model: the model that the masks were made for.
        masks: name of a weight -> mask of its shape.

    Raises:
        ValueError: if a name or a shape does not fit. The model is unchanged then.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> apply_masks_(model, {"weight": torch.tensor([[True, False]])})
        >>> model.weight[0, 1].item()
        0.0
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        require(name in parameters, f"masks must name parameters, {sorted(parameters)}", name)
        shape = tuple(parameters[name].shape)
        require(mask.shape == shape, f"the mask of {name} must be {shape}", tuple(mask.shape))
        require(mask.dtype == torch.bool, f"the mask of {name} must be boolean", mask.dtype)
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask, 0.0)


def rewind_(model: nn.Module, start: Mapping[str, Tensor], masks: Masks) -> None:
    """Set a model back to stored weights, and to zero where the masks say so.

    Args:
        model: the model that is pruned.
        start: a stored state, ``copy.deepcopy(model.state_dict())``: of the same model before
            training for a winning ticket, of a freshly drawn one for the control.
        masks: name of a weight -> mask of its shape.

    Raises:
        ValueError: if the state or the masks do not fit the model.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> start = {"weight": torch.tensor([[5.0, 6.0]]), "bias": torch.zeros(1)}
        >>> rewind_(model, start, {"weight": torch.tensor([[True, False]])})
        >>> model.weight.data
        tensor([[5., 0.]])
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in start.items()}
    require(given == shapes, f"start must be a state with shapes {shapes}", given)
    model.load_state_dict(start)
    apply_masks_(model, masks)


def iterative_pruning(
    model: nn.Module,
    fit: Callable[[nn.Module, Masks], object],
    amounts: Sequence[Amount],
    start: Mapping[str, Tensor] | None = None,
    scope: Literal["layer", "global"] = "layer",
) -> list[Masks]:
    """Train, prune a little, and again: iterative magnitude pruning, with or without rewinding.

    Args:
        model: starts as it is, and ends pruned by the last masks, not trained after that.
        fit: takes the model and its masks, and trains the model in place with the masks applied.
        amounts: fraction of the full network that is removed after each training, rising.
        start: stored weights to which the kept weights go back after each pruning, as for lottery
            tickets; None to go on with the trained weights.
        scope: as in ``magnitude_masks``.

    Returns:
        The masks after each round, one for each amount.

    Reference:
        Frankle & Carbin (2019), The lottery ticket hypothesis, section 1.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> rounds = iterative_pruning(model, lambda model, masks: None, amounts=[0.5, 0.75])
        >>> [masks["weight"].sum().item() for masks in rounds]
        [2, 1]
    """
    masks = magnitude_masks(model, 0.0)
    rounds = []
    for amount in amounts:
        fit(model, masks)
        masks = magnitude_masks(model, amount, scope)
        if start is None:
            apply_masks_(model, masks)
        else:
            rewind_(model, start, masks)
        rounds.append(masks)
    return rounds


def shuffled_masks(masks: Masks, generator: torch.Generator | None = None) -> Masks:
    """As many weights in each layer, in random places: the control for a mask.

    Args:
        masks: name of a weight -> mask of its shape.
        generator: source of randomness; torch's global one if None.

    Returns:
        Masks with the same names, shapes and numbers of kept weights.

    Example:
        >>> masks = {"weight": torch.tensor([[True, True, False, False]])}
        >>> shuffled_masks(masks)["weight"].sum()
        tensor(2)
    """
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)
        for name, mask in masks.items()
    }


# --- by curvature: what a deletion costs ---


def obd_saliency(w: Tensor, diagonal: Tensor) -> Tensor:
    r"""Cost of deleting one weight, all others fixed: :math:`\frac12 H_{ii} w_i^2`.

    Exact for a quadratic risk at its minimum. For several deletions the sum leaves out the products
    :math:`H_{ij} w_i w_j`.

    Args:
        w: weights, of shape (W,).
        diagonal: of the Hessian, of shape (W,); see ``curvature.hessian_diagonal``, and for layered
            networks ``curvature.layered_hessian_diagonal``.

    Returns:
        Tensor of shape (W,).

    Raises:
        ValueError: if the shapes differ.

    Reference:
        LeCun, Denker & Solla (1990), Optimal brain damage, equation 5.

    Example:
        >>> obd_saliency(torch.tensor([2.0, 1.0]), diagonal=torch.tensor([1.0, 3.0]))
        tensor([2.0000, 1.5000])
    """
    require_weights("w", w)
    require(diagonal.shape == w.shape, f"diagonal must be {tuple(w.shape)}", tuple(diagonal.shape))
    return 0.5 * diagonal * w**2


def inverse_hessian(H: Tensor, damping: float = 0.0) -> Tensor:
    r"""The inverse :math:`(\mathbf{H} + \alpha \mathbf{I})^{-1}` by Cholesky's method.

    Args:
        H: symmetric, of shape (W, W).
        damping: alpha, not negative. A Hessian without an inverse needs it.

    Returns:
        Tensor of shape (W, W).

    Raises:
        ValueError: if H + alpha I is not positive definite.

    Example:
        >>> inverse_hessian(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), damping=1.0)
        tensor([[ 0.4000, -0.2000],
                [-0.2000,  0.6000]])
    """
    require_symmetric("H", H)
    require_nonnegative("damping", damping)
    damped = H + damping * torch.eye(len(H)).to(H)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        smallest = torch.linalg.eigvalsh(damped)[0].item()
        rule = "H + damping I must be positive definite; more damping helps"
        require(False, rule, f"a smallest eigenvalue of {smallest:.3g}")
    inverse = torch.cholesky_inverse(factor)
    return (inverse + inverse.T) / 2  # symmetric to the last bit


def recursive_inverse(jacobian: Tensor, damping: float) -> Tensor:
    r"""The inverse of :math:`\alpha\mathbf{I} + \frac1N\sum_{n,k} \mathbf{g}\mathbf{g}^\top`.

    The sum runs over the gradients g of all outputs k for all samples n. One rank-1
    step after another, as in the paper:
    :math:`\mathbf{B} \leftarrow \mathbf{B} - \mathbf{B}\mathbf{g}\mathbf{g}^\top\mathbf{B} /
    (N + \mathbf{g}^\top\mathbf{B}\mathbf{g})`, from :math:`\mathbf{B} = \mathbf{I}/\alpha`. It
    never solves a system, and costs O(W^2) a step. ``inverse_hessian`` of the sum is faster.

    Args:
        jacobian: gradients of the outputs, of shape (N, K, W).
        damping: alpha, positive.

    Returns:
        Tensor of shape (W, W).

    Raises:
        ValueError: if the shape is another one, or damping is not positive.

    Reference:
        Hassibi & Stork (1993), Second order derivatives for network pruning, equations 14 and 16.

    Example:
        >>> recursive_inverse(torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), damping=0.5)
        tensor([[1.0000, 0.0000],
                [0.0000, 0.4000]])
    """
    require_weights("jacobian", jacobian)
    require(jacobian.ndim == 3, "jacobian must have shape (N, K, W)", tuple(jacobian.shape))
    require(0 < damping < float("inf"), "damping must be positive and finite", damping)
    N = len(jacobian)
    B = torch.eye(jacobian.shape[2]).to(jacobian) / damping  # (W, W)
    for g in jacobian.flatten(0, 1):  # (W,)
        Bg = B @ g
        B -= torch.outer(Bg, Bg) / (N + g @ Bg)
    return B


def obs_saliency(w: Tensor, inverse: Tensor) -> Tensor:
    r"""Cost of deleting one weight if all others adapt: :math:`\frac12 w_i^2 / [H^{-1}]_{ii}`.

    Args:
        w: weights, of shape (W,).
        inverse: of the Hessian, of shape (W, W). Where its diagonal is zero the weight has been
            removed before, see ``downdate``.

    Returns:
        Tensor of shape (W,); infinity for weights that were removed before.

    Raises:
        ValueError: if the shapes do not fit.

    Reference:
        Hassibi & Stork (1993), Second order derivatives for network pruning, equation 5.

    Example:
        >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> obs_saliency(torch.tensor([1.0, 1.0]), inverse_hessian(H))
        tensor([0.5000, 0.2500])
    """
    _require_inverse(w, inverse)
    diagonal = inverse.diagonal()
    return torch.where(diagonal > 0, 0.5 * w**2 / diagonal, torch.inf)


def obs_step(w: Tensor, inverse: Tensor, removed: int | Sequence[int]) -> Tensor:
    r"""Change of all weights that deletes some at the least cost.

    For one weight
    :math:`\Delta\mathbf{w} = -\frac{w_i}{[H^{-1}]_{ii}} \mathbf{H}^{-1}\mathbf{e}_i`, and for a set
    Q of weights, with the columns Q of the inverse,
    :math:`\Delta\mathbf{w} = -[\mathbf{H}^{-1}]_{:Q} ([\mathbf{H}^{-1}]_{QQ})^{-1} \mathbf{w}_Q`.

    Args:
        w: weights, of shape (W,).
        inverse: of the Hessian, of shape (W, W).
        removed: which weight, or which weights, to delete.

    Returns:
        The change, of shape (W,); ``w + change`` is exactly zero at the removed weights.

    Raises:
        ValueError: if shapes or indices do not fit, or a weight was removed before.

    Reference:
        Hassibi & Stork (1993), Second order derivatives for network pruning, equation 5.

    Example:
        >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> obs_step(torch.tensor([1.0, 1.0]), inverse_hessian(H), removed=1)
        tensor([ 0.5000, -1.0000])
    """
    _require_inverse(w, inverse)
    Q = [removed] if isinstance(removed, int) else list(removed)
    fit = len(set(Q)) == len(Q) > 0 and all(0 <= i < len(w) for i in Q)
    require(fit, f"removed must be different indices from 0 to {len(w) - 1}", removed)
    gone = [i for i in Q if inverse[i, i] <= 0]
    require(not gone, "removed must name weights that are still there", gone)
    change = -inverse[:, Q] @ torch.linalg.solve(inverse[Q][:, Q], w[Q])
    change[Q] = -w[Q]  # without rounding
    return change


def downdate(inverse: Tensor, removed: int) -> Tensor:
    r"""Inverse of the Hessian without one row and column, from the full inverse, in O(W^2).

    :math:`\mathbf{H}^{-1} - [\mathbf{H}^{-1}]_{:i} [\mathbf{H}^{-1}]_{i:} / [H^{-1}]_{ii}`

    Args:
        inverse: of the Hessian, symmetric, of shape (W, W).
        removed: index i of the weight that was deleted.

    Returns:
        Tensor of shape (W, W). Row and column i are zero, the rest is the inverse of the rest.

    Raises:
        ValueError: if the index does not fit, or the weight was removed before.

    Example:
        >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> downdate(inverse_hessian(H), removed=1)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.0000]])
    """
    square = inverse.ndim == 2 and inverse.shape[0] == inverse.shape[1]
    require(square, "inverse must be a square matrix", tuple(inverse.shape))
    require(0 <= removed < len(inverse), f"removed must be from 0 to {len(inverse) - 1}", removed)
    require(inverse[removed, removed].item() > 0, "removed must name a weight still there", removed)
    column = inverse[:, removed]
    smaller = inverse - torch.outer(column, column) / column[removed]
    smaller[removed] = smaller[:, removed] = 0.0  # without rounding
    return smaller


def _require_inverse(w: Tensor, inverse: Tensor) -> None:
    require_weights("w", w)
    require(w.ndim == 1, "w must be a vector", f"shape {tuple(w.shape)}")
    fit = inverse.shape == (len(w), len(w))
    require(fit, f"inverse must have shape {(len(w), len(w))}", tuple(inverse.shape))


# --- one weight after another ---


@dataclass(frozen=True)
class Deletion:
    """One deletion, and what the rules looked at.

    Attributes:
        index: of the deleted weight.
        gradient: length of the gradient before the deletion; the theory wants 0.
        residual: :math:`\\lVert \\mathbf{I} - \\hat{\\mathbf{H}}^{-1}\\mathbf{H} \\rVert`, largest
            singular value: 0 for an exact inverse, about 1 where damping hides a flat direction;
            0 for other methods, which need no inverse.
        change: largest absolute change of a weight.
        predicted: increase of the risk that the method predicts; NaN for magnitude.
        increase: true increase of the risk, before retraining.
        risk: after the deletion, and after retraining if there is any.
    """

    index: int
    gradient: float
    residual: float
    change: float
    predicted: float
    increase: float
    risk: float


@dataclass(frozen=True)
class Surgery:
    """Result of ``prune_one_by_one``.

    Attributes:
        w: weights at the end, of shape (W,), zero where ``mask`` is False.
        mask: which weights are left, of shape (W,).
        deletions: a list of ``Deletion``.
        reason: why it ended.
    """

    w: Tensor
    mask: Tensor
    deletions: list[Deletion]
    reason: str


def prune_one_by_one(
    risk: Function,
    w: Tensor,
    method: Literal["obs", "obd", "magnitude"],
    curvature: Callable[[Tensor], Tensor] | None = None,
    damping: float = 0.0,
    retrain: Callable[[Tensor, Tensor], Tensor] | None = None,
    accept: Callable[[Tensor], bool] | None = None,
    max_gradient: float = float("inf"),
    max_residual: float = float("inf"),
    max_change: float = float("inf"),
    deletions: int | None = None,
) -> Surgery:
    r"""Delete the weight that costs least, and again, until a rule says stop.

    Before each deletion it looks at the length of the gradient, at the quality of the inverse, and
    at the size of the change. After it, it may retrain, and asks whether the result is acceptable.
    For a part of a network let w be that part, and ``risk`` a function of it.

    Args:
        risk: twice differentiable, from (W,) to a scalar.
        w: weights at a minimum of the risk, of shape (W,).
        method: what is deleted and how: "obs", "obd", or "magnitude".
        curvature: returns the Hessian at given weights, of shape (W, W), exact or Gauss-Newton;
            "magnitude" needs none.
        damping: alpha, added to the diagonal before OBS inverts.
        retrain: takes weights and mask, returns weights that are trained again and zero outside of
            the mask; None for no retraining.
        accept: says whether weights after a deletion are good enough; if not, the deletion is
            undone and it ends.
        max_gradient: it ends where the gradient of the weights that are left is longer.
        max_residual: beta; OBS ends where :math:`\lVert\mathbf{I}-\hat{\mathbf{H}}^{-1}\mathbf{H}
            \rVert` is larger.
        max_change: gamma; it ends where a weight would change by more.
        deletions: it ends after so many; None for no limit.

    Returns:
        A ``Surgery`` with weights, mask, a record of each deletion, and the reason for the end.

    Raises:
        ValueError: if the method is unknown, has no curvature, or H + alpha I is not positive
            definite.

    Reference:
        Hassibi & Stork (1993), Second order derivatives for network pruning, section 3.

    Example:
        >>> H = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        >>> best = torch.tensor([1.0, 1.0])
        >>> risk = lambda w: 0.5 * (w - best) @ H @ (w - best)
        >>> result = prune_one_by_one(risk, best, "obs", lambda w: H, deletions=1)
        >>> result.w, result.mask, result.reason
        (tensor([1.5000, 0.0000]), tensor([ True, False]), '1 deletion')
    """
    methods = ("obs", "obd", "magnitude")
    require(method in methods, f"method must be one of {methods}", repr(method))
    require_weights("w", w)
    require(w.ndim == 1, "w must be a vector", f"shape {tuple(w.shape)}")
    if curvature is None:
        require(method == "magnitude", f"{method} needs a curvature", None)
    mask = torch.ones_like(w, dtype=torch.bool)
    done: list[Deletion] = []
    while True:
        if not mask.any():
            return Surgery(w, mask, done, "no weight is left")
        if deletions is not None and len(done) == deletions:
            plural = "" if deletions == 1 else "s"
            return Surgery(w, mask, done, f"{deletions} deletion{plural}")
        gradient = grad(risk)(w)[mask].norm().item()
        if gradient > max_gradient:
            return Surgery(w, mask, done, f"gradient {gradient:.2g} > {max_gradient:.2g}")
        H = None if curvature is None else curvature(w)[mask][:, mask]
        i, step, predicted, residual = _propose(w[mask], method, H, damping)
        change = step.abs().max().item()
        if residual > max_residual:
            return Surgery(w, mask, done, f"residual {residual:.2g} > {max_residual:.2g}")
        if change > max_change:
            return Surgery(w, mask, done, f"change {change:.2g} > {max_change:.2g}")
        index = int(mask.nonzero()[i])
        trial, trial_mask = w.clone(), mask.clone()
        trial[mask] += step
        trial_mask[index] = False
        increase = (risk(trial) - risk(w)).item()
        if retrain is not None:
            trial = retrain(trial, trial_mask)
        if accept is not None and not accept(trial):
            return Surgery(w, mask, done, "the next deletion is not acceptable")
        w, mask = trial, trial_mask
        risk_after = risk(w).item()
        done.append(Deletion(index, gradient, residual, change, predicted, increase, risk_after))


def _propose(
    w: Tensor, method: str, H: Tensor | None, damping: float
) -> tuple[int, Tensor, float, float]:
    """Which of the weights (W,) to delete, by which step, at what cost; and the residual."""
    if method == "obs" and H is not None:
        inverse = inverse_hessian(H, damping)
        scores = obs_saliency(w, inverse)
        i = int(scores.argmin())
        residual = torch.linalg.matrix_norm(torch.eye(len(w)).to(H) - inverse @ H, 2).item()
        return i, obs_step(w, inverse, i), scores[i].item(), residual
    scores = w.abs() if method == "magnitude" or H is None else obd_saliency(w, H.diagonal())
    i = int(scores.argmin())
    step = torch.zeros_like(w)
    step[i] = -w[i]
    predicted = float("nan") if method == "magnitude" else scores[i].item()
    return i, step, predicted, 0.0


# --- a layer at a time ---


@torch.no_grad()
def obs_layer(
    W: Tensor, x: Tensor, amount: float, damping: float = 1e-2, rows_at_once: int = 32
) -> Tensor:
    r"""Optimal brain surgeon for one linear layer: keep its outputs, not the risk.

    Each row of the matrix is a problem of its own, to keep :math:`\mathbf{w}^\top\mathbf{x}`, and
    all rows share the Hessian :math:`\mathbf{H} = \frac1N\sum_n\mathbf{x}^n\mathbf{x}^{n\top}`.
    Every row loses as many weights T, one after another, with a down-date of the inverse for each:
    O(K D T^2) operations in all, and O(D T) memory for each row at a time.

    Args:
        W: weight matrix, of shape (K, D).
        x: inputs of the layer, of shape (N, D).
        amount: fraction to remove, from 0 to 1; ``round(amount * D)`` weights of each row.
        damping: what is added to the diagonal of H, as a multiple of its mean, positive.
        rows_at_once: rows whose inverses are in memory together.

    Returns:
        The pruned weight matrix, of shape (K, D).

    Raises:
        ValueError: if shapes do not fit or an argument leaves its range.

    Reference:
        Frantar & Alistarh (2022), Optimal brain compression, section 4.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [1.0, 0.9], [-1.0, -1.1]])
        >>> obs_layer(torch.tensor([[1.0, 0.5]]), x, amount=0.5, damping=1e-6)
        tensor([[1.5000, 0.0000]])
    """
    require_weights("W", W)
    require_weights("x", x)
    fit = W.ndim == x.ndim == 2 and W.shape[1] == x.shape[1]
    require(fit, "W (K, D) and x (N, D) must share D", f"{tuple(W.shape)} and {tuple(x.shape)}")
    require(0 <= amount <= 1, "amount must be from 0 to 1", amount)
    require(0 < damping < float("inf"), "damping must be positive and finite", damping)
    require(rows_at_once >= 1, "rows_at_once must be >= 1", rows_at_once)
    H = x.T @ x / len(x)
    full = inverse_hessian(H, damping * H.diagonal().mean().item())  # (D, D)
    blocks = [
        _obs_rows(rows.clone(), full, round(amount * W.shape[1])) for rows in W.split(rows_at_once)
    ]
    return torch.cat(blocks)


def _obs_rows(w: Tensor, full: Tensor, removals: int) -> Tensor:
    """Prune rows w (R, D) that share the inverse (D, D), each in an order of its own.

    The down-dates u u^T of a row's inverse are not carried out but kept, since a step needs only
    its diagonal and one column.
    """
    rows = torch.arange(len(w), device=w.device)
    U = w.new_zeros(len(w), removals, w.shape[1])  # (R, steps, D)
    diagonal = full.diagonal().repeat(len(w), 1)  # (R, D)
    gone = torch.zeros_like(w, dtype=torch.bool)
    for step in range(removals):
        saliency = 0.5 * w**2 / diagonal
        i = saliency.masked_fill(gone, torch.inf).argmin(1)  # (R,)
        before = U[:, :step]
        column = full[i] - torch.einsum("rs,rsd->rd", before[rows, :, i], before)  # (R, D)
        u = column / column[rows, i].sqrt()[:, None]
        w -= (w[rows, i] / u[rows, i])[:, None] * u
        U[:, step], diagonal = u, diagonal - u**2
        gone[rows, i] = True
        w[gone] = 0.0
    return w
