"""The instant checks say what is wrong."""

import numpy as np
import pytest
import torch

from regkit.exercise import check, expect


def stub():
    raise NotImplementedError("return the slope")


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (stub, "Your turn: return the slope."),
        (lambda: torch.tensor([1.0, -2.0]), "Right."),
        (lambda: [1.0, -2.0], "Right."),
        (lambda: torch.tensor([1.0, -2.0], requires_grad=True), "Right."),
        (lambda: torch.tensor([-1.0, 2.0]), "Not yet: right size, wrong sign."),
        (lambda: torch.tensor([7.0, 7.0]), "Not yet: your result is"),
        (lambda: torch.tensor([[1.0, -2.0]]), "Not yet: your result is"),
        (lambda: torch.tensor([1.0, float("nan")]), "Not yet: your result is"),
        (lambda: None, "Not yet: your result is"),
        (lambda: "1, -2", "Not yet: your result is"),
        (lambda: 1.0, "Not yet: your result is"),
    ],
)
def test_check(attempt, said, capsys):
    expected = torch.tensor([1.0, -2.0])
    check(attempt, expected, mistakes={"right size, wrong sign": -expected})
    assert capsys.readouterr().out.startswith(said)


def test_check_does_not_hide_other_errors():
    with pytest.raises(ZeroDivisionError):
        check(lambda: 1 / 0, expected=1.0)


def test_check_compares_words(capsys):
    check(lambda: "decays", expected="decays")
    check(lambda: "stays", expected="decays")
    assert capsys.readouterr().out == "Right.\nNot yet: your result is stays.\n"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([-1.0, 2.0, -3.0], "right size, wrong sign"),
        (np.array([0.3, -0.6, 0.9]), "your result is 0.3 times the right one"),
        ([1.0, 0.0, 3.0], "the mean is left out"),
        ([1.0, 0.5, 3.0], "your result is [1.0, 0.5, 3.0]"),
        (None, "your function returns nothing: is a return missing?"),
        ([1.0, 2.0], "your result has shape (2,), the right one (3,)"),
        ([1.0, float("nan"), 3.0], "your result is not finite"),
        ([1.0, [2.0]], "your result is no array or number, but [1.0, [2.0]]"),
        ("1, -2, 3", "your result is '1, -2, 3'"),
        ([True, False, True], "your result is [True, False, True]"),
    ],
)
def test_expect_says_what_is_wrong(result, said):
    with pytest.raises(AssertionError) as failure:
        expect(result, [1.0, -2.0, 3.0], mistakes={"the mean is left out": [1.0, 0.0, 3.0]})
    assert str(failure.value) == said


def test_expect_passes_what_is_right():
    expect(torch.tensor([1.0, -2.0], requires_grad=True), [1.0, -2.0 + 1e-9])
    expect("decays", "decays")
    with pytest.raises(AssertionError, match="transpose"):
        expect([[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [2.0, 4.0]])


def test_expect_does_not_betray_a_number():
    """Any wrong number is some multiple of the right one; only telling factors are said."""
    with pytest.raises(AssertionError, match=r"^your result is 2 times the right one$"):
        expect(1.4, 0.7)
    with pytest.raises(AssertionError, match=r"^your result is 0.6$"):
        expect(0.6, 0.7)
    with pytest.raises(AssertionError, match=r"^your result is 0.0$"):
        expect(0.0, float("inf"))
    with pytest.raises(AssertionError) as failure:
        expect(torch.arange(784.0), torch.zeros(784))
    assert len(str(failure.value)) < 300
