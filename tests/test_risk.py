"""Risk: the bound against simulation, fits against lstsq and autograd, the table of methods."""

import math
from importlib.resources import files

import pytest
import torch
from book_extension import MethodMap, chapters

from regkit.ledger import SECTIONS
from regkit.risk import (
    bias_variance,
    hoeffding_complexity,
    methods,
    minimum_norm_fit,
    roughness,
)

# --- the bound ---


@pytest.mark.parametrize(("functions", "samples", "delta"), [(1, 7, 0.5), (30, 100, 0.01)])
def test_complexity_solves_the_union_bound(functions, samples, delta):
    c = hoeffding_complexity(functions, samples, delta)
    assert functions * math.exp(-2 * samples * c**2) == pytest.approx(delta, rel=1e-12)


def test_complexity_of_a_class_that_is_larger_than_any_float():
    c = hoeffding_complexity(2**32_000, 10_000, 0.05)
    assert c == pytest.approx(math.sqrt((32_000 * math.log(2) + math.log(20)) / 20_000), rel=1e-12)


def test_bound_holds_for_all_functions_at_once(generator):
    wrong = torch.rand(4000, 30, 20, generator=generator) < 0.3  # data sets, samples, functions
    c = hoeffding_complexity(20, 30, 0.3)
    broken = (0.3 - wrong.double().mean(1) > c).any(1).double().mean()
    assert 0 < broken < 0.3
    alone = hoeffding_complexity(1, 30, 0.3)
    assert (0.3 - wrong.double().mean(1) > alone).any(1).double().mean() > 0.3


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((0, 10, 0.1), "num_functions must be >= 1, got 0"),
        ((5, 0, 0.1), "num_samples must be >= 1, got 0"),
        ((5, 10, 0.0), "delta must be above 0 and below 1, got 0.0"),
        ((5, 10, 1.0), "delta must be above 0 and below 1, got 1.0"),
    ],
)
def test_complexity_rejects_what_has_no_bound(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        hoeffding_complexity(*arguments)


# --- least squares ---


@pytest.mark.parametrize("W", [3, 8, 20])
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_fit_is_a_minimum(W, lam, generator):
    features = torch.randn(5, 8, W, generator=generator)
    targets = torch.randn(5, 8, 2, generator=generator)
    w = minimum_norm_fit(features, targets, lam).requires_grad_()
    risk = (0.5 * (features @ w - targets).square().mean(1) + 0.5 * lam * w.square().sum(1)).sum()
    (slope,) = torch.autograd.grad(risk, w)
    assert slope.abs().max() < 1e-12


def test_fit_is_the_shortest_one_even_if_the_features_are_dependent(generator):
    features = torch.randn(8, 3, generator=generator) @ torch.randn(3, 12, generator=generator)
    targets = torch.randn(8, 1, generator=generator)
    expected = torch.linalg.lstsq(features, targets, driver="gelsd", rcond=1e-12).solution
    torch.testing.assert_close(minimum_norm_fit(features, targets), expected)


def test_fit_keeps_the_dtype():
    ones = torch.ones(3, 1, dtype=torch.float32)
    assert minimum_norm_fit(ones, ones, 0.5).dtype == torch.float32


@pytest.mark.parametrize("lam", [0.0, 0.05])
@pytest.mark.parametrize("W", [4, 10, 25])
def test_bias_and_variance_are_those_of_repeated_fits(W, lam, generator):
    features, new = (torch.randn(n, W, generator=generator) for n in (10, 7))
    truth, new_truth = (torch.randn(n, 1, generator=generator) for n in (10, 7))
    bias, variance = bias_variance(features, truth, new, new_truth, noise=0.5, lam=lam)
    nu = 0.5 * torch.randn(10, 40_000, generator=generator)
    answers = new @ minimum_norm_fit(features, truth + nu, lam)  # (7, 40000)
    excess = 0.5 * (answers - new_truth).square().mean(0)
    standard_error = excess.std() / 200
    assert abs(excess.mean() - bias - variance) < 4 * standard_error
    mean_bias = 0.5 * (answers.mean(1, keepdim=True) - new_truth).square().mean()
    assert mean_bias.item() == pytest.approx(bias.item(), rel=0.05)


def test_bias_and_variance_of_many_designs_at_once(generator):
    features, truth = torch.randn(6, 9, 4, generator=generator), torch.zeros(6, 9, 1)
    new, new_truth = torch.eye(4).expand(6, -1, -1), torch.zeros(6, 4, 1)
    bias, variance = bias_variance(features, truth, new, new_truth, noise=2.0)
    assert bias.tolist() == [0.0] * 6
    for row, expected in zip(features, variance, strict=True):
        inverse = torch.linalg.inv(row.T @ row)
        torch.testing.assert_close(0.5 * 4.0 * inverse.trace() / 4, expected)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (
            lambda: minimum_norm_fit(torch.ones(3, 2), torch.ones(4, 1)),
            "targets must have as many rows as its features, got \\(4, 1\\) and \\(3, 2\\)",
        ),
        (lambda: minimum_norm_fit(torch.ones(3, 2), torch.ones(3)), "as many rows"),
        (lambda: minimum_norm_fit(torch.ones(3, 2), torch.ones(3, 1), -1.0), "lam must be >= 0"),
        (
            lambda: minimum_norm_fit(torch.full((3, 2), math.nan), torch.ones(3, 1)),
            "features must be finite",
        ),
        (
            lambda: bias_variance(*[torch.ones(3, 1)] * 3, torch.ones(2, 1), noise=1.0),
            "new_truth must have as many rows",
        ),
        (
            lambda: bias_variance(*[torch.ones(3, 1)] * 4, noise=-1.0),
            "noise must be >= 0 and finite, got -1",
        ),
    ],
)
def test_fits_reject_what_does_not_fit(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


# --- roughness ---


def test_roughness_is_the_integral_of_squared_second_derivatives():
    """Of sin(x) exp(y) on a square, by hand; the mixed derivative counts twice."""
    nodes, weights = gauss_legendre_square(12)
    value = roughness(lambda x: torch.sin(x[0]) * torch.exp(x[1]), nodes, weights)
    # (s² + s² + 2 c²) e^{2y}, and s² + c² = 1
    assert value.item() == pytest.approx(2 * 2.0 * (math.e**2 - math.e**-2) / 2, rel=1e-12)


def test_roughness_can_be_penalized():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    nodes, weights = torch.tensor([[0.2], [0.8]]), torch.tensor([0.5, 0.5])
    value = roughness(lambda x: w[0] * x[0] ** 2 + w[1] * x[0], nodes, weights)
    (slope,) = torch.autograd.grad(value, w)
    assert value.item() == pytest.approx(4.0)
    assert slope.tolist() == pytest.approx([8.0, 0.0])


def test_roughness_rejects_nodes_without_weights():
    with pytest.raises(ValueError, match="nodes must have shape \\(Q, D\\) and weights \\(Q,\\)"):
        roughness(lambda x: x[0], torch.ones(3, 1), torch.ones(2))


def gauss_legendre_square(order):
    """Nodes and weights on [-1, 1] x [-1, 1]: Golub and Welsch's eigenvalue problem."""
    k = torch.arange(1, order, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    x, V = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    weight = 2 * V[0] ** 2
    return torch.cartesian_prod(x, x), (weight[:, None] * weight).flatten()


# --- the table of methods ---


def test_every_section_of_the_lecture_has_its_place():
    assert set(methods()["section"]) == {s for s in SECTIONS if s not in ("8.0", "exam")}


def test_entries_are_complete():
    table = methods()
    assert not table.isna().any().any()
    assert set(table["when"]) <= {"during", "after"}
    assert set(table["kind"]) <= {"smoothing", "number", "precision", "neither"}
    assert not table["name"].duplicated().any()
    assert table["because"].str.endswith(".").all()


def test_table_is_part_of_the_installed_package():
    assert files("regkit").joinpath("methods.yml").is_file()


def test_start_page_shows_every_method_and_its_tag(html):
    page = (html / "book" / "index.html").read_text(encoding="utf-8")
    pages = chapters()
    for method in methods().itertuples():
        inside = f"<b>{method.section}</b> {method.name}"
        tag = f'<small class="{method.kind}">{MethodMap.effects[method.kind]}</small>'
        address = f'href="{pages[method.section]}.html"'
        assert f'<li class="{method.when}"><a {address}>{inside}{tag}' in page, method.name
