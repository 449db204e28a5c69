"""The data are what their source says."""

import pytest
import torch

from regkit import datasets
from regkit.datasets import (
    breast_cancer,
    co2,
    diabetes,
    digits,
    mnist,
    study,
    sunspots,
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
