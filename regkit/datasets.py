"""Real data from installed packages. Nothing here downloads."""

import torch
from torch import Tensor

from regkit._check import require


def diabetes() -> tuple[Tensor, Tensor]:
    """Disease progression of 442 patients, from scikit-learn.

    Returns:
        Inputs of shape (442, 10) and targets of shape (442,), both float64; every column and the
        targets have mean 0 and (population) variance 1.

    Reference:
        Efron, Hastie, Johnstone & Tibshirani (2004), Least angle regression.

    Example:
        >>> x, y = diabetes()
        >>> x.shape, y.shape
        (torch.Size([442, 10]), torch.Size([442]))
    """
    from sklearn.datasets import load_diabetes

    x, y = (torch.from_numpy(array) for array in load_diabetes(return_X_y=True, scaled=False))
    return _standardize(x), _standardize(y)


def _standardize(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0)


def sunspots(lags: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Yearly sunspot numbers 1700-2008, each with the years before it, from statsmodels.

    Args:
        lags: how many earlier years are the inputs, D.

    Returns:
        Inputs (N, D), the oldest year first; targets (N,); the year of each target (N,), integers.
        Sunspot numbers are float64 and not scaled.

    Raises:
        ValueError: if lags is not between 1 and 308.

    Example:
        >>> x, y, year = sunspots(lags=12)
        >>> x.shape, int(year[0]), bool(x[1, -1] == y[0])
        (torch.Size([297, 12]), 1712, True)
    """
    from statsmodels.datasets import sunspots as source

    table = source.load_pandas().data
    series = torch.tensor(table["SUNACTIVITY"].to_numpy())
    years = torch.tensor(table["YEAR"].to_numpy(dtype=int))
    require(0 < lags < len(series), f"lags must be between 1 and {len(series) - 1}", lags)
    return series.unfold(0, lags, 1)[:-1], series[lags:], years[lags:]
