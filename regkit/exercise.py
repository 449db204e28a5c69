"""Instant checks of the exercises in the chapters."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def check(
    attempt: Callable[[], Any],
    expected: Any,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Say whether an attempt at an exercise is right, and if it is not, what may be wrong.

    Args:
        attempt: calls the reader's code; a stub raises NotImplementedError with a hint.
        expected: the right result: a number, an array, a tensor, or a text.
        mistakes: hint -> what the attempt returns if that mistake was made.
        tolerance: largest difference that counts as equal.

    Example:
        >>> check(lambda: -3.0, expected=3.0, mistakes={"right size, wrong sign": -3.0})
        Not yet: right size, wrong sign.
    """
    try:
        result = attempt()
    except NotImplementedError as stub:
        print(f"Your turn: {stub}.")
        return
    if _equal(result, expected, tolerance):
        print("Right.")
        return
    for hint, wrong in (mistakes or {}).items():
        if _equal(result, wrong, tolerance):
            print(f"Not yet: {hint}.")
            return
    print(f"Not yet: your result is {result}.")


def _equal(result: Any, expected: Any, tolerance: float) -> bool:
    try:
        left, right = (
            np.asarray(side.detach() if isinstance(side, torch.Tensor) else side)
            for side in (result, expected)
        )
    except (TypeError, ValueError, RuntimeError):
        return False
    if left.shape != right.shape:
        return False
    numbers = left.dtype.kind in "fiub" and right.dtype.kind in "fiub"
    if not numbers:
        return bool((left == right).all())
    return bool(np.allclose(left, right, rtol=0, atol=tolerance))
