"""The instant checks say what is wrong."""

import pytest
import torch

from regkit.exercise import check


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
