"""The data are what their source says."""

import pytest
import torch

from regkit.datasets import diabetes, sunspots


def test_diabetes_is_standardized():
    x, y = diabetes()
    for columns in (x, y[:, None]):
        torch.testing.assert_close(columns.mean(0), torch.zeros(columns.shape[1]))
        torch.testing.assert_close(columns.var(0, correction=0), torch.ones(columns.shape[1]))
    # Body mass index is the measurement that predicts progression best (Efron et al. 2004).
    assert (x * y[:, None]).mean(0).argmax() == 2


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
