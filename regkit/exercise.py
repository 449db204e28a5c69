"""Instant checks of the exercises in the chapters, and tests of the graded assignments."""

import textwrap
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


def expect(
    result: Any,
    expected: Any,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Pass if a result is right; if it is not, fail with what may be wrong.

    Args:
        result: what the student's code returned.
        expected: the right result: a number, an array, a tensor, or a text.
        mistakes: hint -> what the code returns if that mistake was made.
        tolerance: largest difference that counts as equal.

    Raises:
        AssertionError: if the result is not the expected one, with the hint of the mistake that
            leads to it, or else with what differs: kind, shape, sign, or factor.

    Example:
        >>> expect(2.0, expected=4.0)
        Traceback (most recent call last):
        AssertionError: your result is 0.5 times the right one
    """
    if _equal(result, expected, tolerance):
        return
    for hint, wrong in (mistakes or {}).items():
        if _equal(result, wrong, tolerance):
            raise AssertionError(hint)
    raise AssertionError(_difference(result, expected, tolerance))


def _difference(result: Any, expected: Any, tolerance: float) -> str:
    """What is wrong with a result, in words."""
    if result is None:
        return "your function returns nothing: is a return missing?"
    try:
        left, right = _array(result), _array(expected)
    except (TypeError, ValueError, RuntimeError):
        return f"your result is no array or number, but {result!r}"
    if left.dtype.kind not in "fiub" or right.dtype.kind not in "fiub":
        return f"your result is {result!r}"
    if left.shape != right.shape:
        return f"your result has shape {left.shape}, the right one {right.shape}"
    if not np.isfinite(left).all():
        return "your result is not finite"
    left, right = left.astype(float), right.astype(float)
    if _equal(-left, right, tolerance):
        return "right size, wrong sign"
    if left.ndim == 2 and _equal(left.T, right, tolerance):
        return "your result is the transpose of the right one"
    comparable = right.any() and np.isfinite(right).all()
    factor = float((left * right).sum() / (right * right).sum()) if comparable else 0.0
    telling = np.count_nonzero(right) > 1 or round(factor, 9) in (0.25, 0.5, 2.0, 4.0)
    if telling and factor and _equal(left / factor, right, tolerance):
        return f"your result is {factor:.4g} times the right one"
    return f"your result is {textwrap.shorten(str(result), 200)}"


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)


def _equal(result: Any, expected: Any, tolerance: float) -> bool:
    try:
        left, right = _array(result), _array(expected)
    except (TypeError, ValueError, RuntimeError):
        return False
    if left.shape != right.shape:
        return False
    numbers = left.dtype.kind in "fiub" and right.dtype.kind in "fiub"
    if not numbers:
        return bool((left == right).all())
    return bool(np.allclose(left, right, rtol=0, atol=tolerance))
