"""The data are what their source says."""

import random

import numpy as np
import pytest
import torch

from regkit import datasets
from regkit.datasets import (
    breast_cancer,
    co2,
    diabetes,
    digits,
    mnist,
    mnist_1d,
    monks,
    noisy_sides,
    study,
    sunspots,
    table,
    two_spirals,
)


def test_diabetes_is_standardized():
    x, y = diabetes()
    for columns in (x, y[:, None]):
        torch.testing.assert_close(columns.mean(0), torch.zeros(columns.shape[1]))
        torch.testing.assert_close(columns.var(0, correction=0), torch.ones(columns.shape[1]))
    # Body mass index is the measurement that predicts progression best (Efron et al. 2004).
    assert (x * y[:, None]).mean(0).argmax() == 2


def test_breast_cancer_is_standardized_and_malignant_is_one():
    x, y = breast_cancer()
    torch.testing.assert_close(x.mean(0), torch.zeros(30))
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(30))
    assert y.bincount().tolist() == [357, 212]
    assert (x[y == 1].mean(0) > x[y == 0].mean(0))[[0, 2, 3]].all()  # malignant ones are larger
    correlation = x[:, :10].T @ x[:, 20:] / 569  # the same ten properties in the same order
    assert (correlation.diagonal() > 0.6).all()
    assert correlation.argmax(0)[[1, 4, 6]].tolist() == [1, 4, 6]


def test_sunspots_are_lagged_by_one_year():
    x, y, year = sunspots(lags=3)
    assert x.shape == (306, 3)
    assert (int(year[0]), int(year[-1])) == (1703, 2008)
    torch.testing.assert_close(x[1:, -1], y[:-1])
    torch.testing.assert_close(x[2:, 0], x[:-2, 2])
    assert y.max() == 190.2  # 1957, the highest maximum on record
    assert int(year[y.argmax()]) == 1957


@pytest.mark.parametrize("lags", [0, 309])
def test_sunspots_reject_bad_lags(lags):
    with pytest.raises(ValueError, match=f"lags must be between 1 and 308, got {lags}"):
        sunspots(lags)


def test_digits_fill_the_unit_interval():
    x, y = digits()
    assert (x.min(), x.max()) == (0, 1)
    assert y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_mnist_is_shuffled_and_keeps_its_labels():
    x, y = mnist()
    assert (x.min(), x.max()) == (0, 1)
    assert len(y[:100].unique()) == 10
    # The mean images of two classes differ most where a zero is hollow and a one is not.
    ink = x.view(-1, 28, 28)[:, 12:16, 12:16].mean((1, 2))
    assert ink[y == 1].mean() > 5 * ink[y == 0].mean()
    x[:] = 0  # a caller's change stays with the caller
    assert mnist()[0].max() == 1


def test_co2_rises_and_has_a_season():
    time, ppm = co2()
    assert (time.diff() > 0).all()
    assert 1958.2 < time[0] < 1958.3
    assert 2001.9 < time[-1] < 2002
    assert 1.0 < (ppm[-1] - ppm[0]) / (time[-1] - time[0]) < 1.6  # ppm a year
    month = ((time % 1) * 12).long()
    means = torch.stack([ppm[(time > 1990) & (month == m)].mean() for m in range(12)])
    assert means.argmax() == 4  # most in May, before the northern summer
    assert means.argmin() in (8, 9)


@pytest.mark.parametrize(("problem", "rows", "wrong"), [(1, 124, 0), (2, 169, 0), (3, 122, 6)])
def test_monks_follow_their_rules(problem, rows, wrong):
    x, y, test_x, test_y = monks(problem)
    a = [block.argmax(1) + 1 for block in test_x.split([3, 3, 2, 3, 4, 2], dim=1)]
    assert len(torch.stack(a, 1).unique(dim=0)) == 432  # every robot once
    assert (test_x.sum(1) == 6).all()
    for values, label in zip(torch.stack(a, 1).tolist(), test_y.tolist(), strict=True):
        a1, a2, _, a4, a5, _ = values
        rule = {
            1: a1 == a2 or a5 == 1,
            2: values.count(1) == 2,
            3: (a5 == 3 and a4 == 1) or (a5 != 4 and a2 != 3),
        }[problem]
        assert label == rule
    assert len(x) == rows
    same = (x[:, None] == test_x).all(2)  # (N, 432)
    assert (same.sum(1) == 1).all()
    assert (same.sum(0) <= 1).all()  # no robot twice
    assert (test_y[same.double().argmax(1)] != y).sum() == wrong
    with pytest.raises(ValueError, match="problem must be 1, 2 or 3, got 0"):
        monks(0)


@pytest.mark.parametrize(
    ("name", "classes", "columns"),
    [
        ("australian", [383, 307], 14),
        ("bupa", [145, 200], 6),
        ("heart", [150, 120], 13),
        ("ionosphere", [126, 225], 33),
        ("mammographic", [427, 403], 5),
        ("pima", [500, 268], 8),
        ("sonar", [111, 97], 60),
        ("vehicle", [218, 212, 217, 199], 18),
        ("vowel", [90] * 11, 13),
        ("wdbc", [357, 212], 30),
        ("wine", [59, 71, 48], 13),
        ("wisconsin", [444, 239], 9),
    ],
)
def test_tables_have_the_sizes_of_their_source(name, classes, columns):
    x, y = table(name)
    assert y.bincount().tolist() == classes
    assert x.shape == (sum(classes), columns)
    assert x.amin(0).tolist() == [0.0] * columns
    assert x.amax(0).tolist() == [1.0] * columns


def test_tables_are_the_data_that_others_have():
    from sklearn.datasets import load_breast_cancer, load_wine

    # Rows may be in another order: compare sorted columns. KEEL rounds those of wdbc.
    for name, source, rounding in (("wdbc", load_breast_cancer, 0.03), ("wine", load_wine, 1e-6)):
        theirs = torch.from_numpy(source().data).sort(0).values
        theirs = (theirs - theirs[0]) / (theirs[-1] - theirs[0])
        ours = table(name)[0].sort(0).values
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)
    with pytest.raises(ValueError, match="name must be one of .*'wisconsin'.*, got 'iris'"):
        table("iris")


def test_noisy_sides_has_the_noise_it_says(generator):
    x, y = noisy_sides(200_000, generator)
    assert x.shape == (200_000, 2)
    assert set(y.tolist()) == {0.0, 1.0}
    wrong = ((x[:, 0] > 0) != (y > 0.5)).double().mean()
    assert abs(wrong - 0.0927) < 0.003
    far = x[:, 0].abs() > 0.8  # there only flipped labels are wrong
    assert abs(((x[far, 0] > 0) != (y[far] > 0.5)).double().mean() - 0.05) < 0.003
    torch.testing.assert_close(x.var(0), torch.full((2,), 0.9733 + 0.15**2), rtol=0.02, atol=0)
    assert x.abs().max() < 4  # the true ones end at 3, and have the variance 0.9733
    with pytest.raises(ValueError, match="N must be positive, got 0"):
        noisy_sides(0)


def test_mnist_1d_is_always_the_same_and_leaves_the_seeds_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    x, y, test_x, test_y = mnist_1d()
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(mnist_1d()[0], x)
    assert set(y.tolist()) == set(test_y.tolist()) == set(range(10))
    # A linear model learns something that holds on the test curves, and far from all of it.
    targets = torch.nn.functional.one_hot(y, 10).double()
    right = (test_x @ torch.linalg.lstsq(x, targets).solution).argmax(1) == test_y
    assert 0.2 < right.double().mean() < 0.5


def test_study_reads_the_table_or_says_where_it_is(monkeypatch, capsys, tmp_path):
    table = study("lecun_networks")
    assert set(table["shift"]) == {0, 2}
    assert table["net1"].between(0, 1).all()
    assert table["seed"].dtype.kind == "i"
    with pytest.raises(ValueError, match="name must be one of .*lecun_networks.*, got 'none'"):
        study("none")
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "regkit" / "datasets.py"))
    assert study("lecun_networks") is None
    assert "clone the repository" in capsys.readouterr().out


def test_two_spirals_turn_three_times_and_face_each_other():
    x, y = two_spirals()
    torch.testing.assert_close(x[97:], -x[:97])
    assert y.tolist() == [1] * 97 + [0] * 97
    radius = x[:97].norm(dim=1)
    torch.testing.assert_close(radius[[0, 96]], torch.tensor([6.5, 0.5]))
    assert (radius.diff() < 0).all()
    turns = torch.linalg.det(torch.stack([x[:96], x[1:97]], 1)) / (radius[1:] * radius[:-1])
    torch.testing.assert_close(turns.asin().abs().sum(), torch.tensor(6 * torch.pi))
