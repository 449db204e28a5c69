"""The rules that arguments must keep."""

import torch
from torch import Tensor


def require(kept: bool, rule: str, value: object) -> None:
    """Raise a ValueError that states ``rule`` and the offending ``value`` unless it is kept."""
    if not kept:
        raise ValueError(f"{rule}, got {value}")


def require_positive(name: str, value: float) -> None:
    """Require a positive, finite number."""
    require(0 < value < float("inf"), f"{name} must be positive and finite", value)


def require_nonnegative(name: str, value: float) -> None:
    """Require a finite number that is not negative."""
    require(0 <= value < float("inf"), f"{name} must be >= 0 and finite", value)


def require_weights(name: str, w: Tensor) -> None:
    """Require a floating-point tensor without NaN or infinity."""
    require(isinstance(w, Tensor), f"{name} must be a tensor", type(w).__name__)
    require(w.is_floating_point(), f"{name} must have a floating-point dtype", w.dtype)
    finite = torch.isfinite(w.detach())
    try:
        all_finite = bool(finite.all())
    except RuntimeError:  # inside torch.func.vmap there are no values to look at
        return
    if not all_finite:
        require(False, f"{name} must be finite", w.detach()[~finite][:3].tolist())


def require_symmetric(name: str, H: Tensor) -> None:
    """Require a finite, square and, up to rounding, symmetric matrix."""
    require_weights(name, H)
    square = H.ndim == 2 and H.shape[0] == H.shape[1]
    require(square, f"{name} must be a square matrix", f"shape {tuple(H.shape)}")
    gap = (H - H.T).abs().max().item() if H.numel() else 0.0
    rounding = 100 * torch.finfo(H.dtype).eps * H.abs().max().item() if H.numel() else 0.0
    require(
        gap <= rounding,
        f"{name} must be symmetric",
        f"a difference of {gap:.3g} to its transpose",
    )
