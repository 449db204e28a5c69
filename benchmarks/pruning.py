"""Pruning: masks, diagonals, Hessians and inverses beside their peers, and the cost of surgery.

Writes ``pruning.csv`` beside this file. CPU milliseconds on one thread, float32 but for the
inverses; they depend on the machine, and no test looks at them. The peers are not in the lock:
``.venv/bin/pip install -e .[peers]`` first.
"""

import copy

import torch
from backpack import backpack, extend
from backpack.extensions import DiagHessian
from curvlinops import HessianLinearOperator
from timing import milliseconds, write
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

from regkit.curvature import (
    hessian,
    hessian_diagonal,
    layered_hessian_diagonal,
    ravel_parameters,
)
from regkit.pruning import (
    downdate,
    inverse_hessian,
    magnitude_masks,
    obs_layer,
    recursive_inverse,
)

SIZES = {936: (49, 16, 8, 256), 5110: (64, 68, 10, 256), 50890: (784, 64, 10, 256)}


def masks() -> list[tuple[str, str, int, float]]:
    """Global magnitude masks for a million weights."""
    model = nn.Sequential(nn.Linear(1000, 500), nn.Linear(500, 1000))

    def of_torch() -> nn.Module:
        other = copy.deepcopy(model)
        layers = [(other[0], "weight"), (other[1], "weight")]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.8)
        return other

    ours, theirs = magnitude_masks(model, 0.8, "global"), of_torch()
    assert torch.equal(ours["1.weight"], theirs[1].weight_mask.bool())
    return [
        (
            "global mask",
            "regkit",
            10**6,
            milliseconds(lambda: magnitude_masks(model, 0.8, "global")),
        ),
        ("global mask", "torch.nn.utils.prune", 10**6, milliseconds(of_torch)),
    ]


def curvature(weights: int) -> list[tuple[str, str, int, float]]:
    """Diagonal and whole of the Hessian of a network with one hidden layer."""
    D, M, K, N = SIZES[weights]
    model = nn.Sequential(nn.Linear(D, M), nn.Tanh(), nn.Linear(M, K))
    x, y = torch.randn(N, D), torch.randint(K, (N,))
    w, predict = ravel_parameters(model)
    extended, loss = extend(copy.deepcopy(model)), extend(nn.CrossEntropyLoss())

    def risk(w: torch.Tensor) -> torch.Tensor:
        return cross_entropy(predict(w, x), y)

    def of_backpack() -> torch.Tensor:
        extended.zero_grad()
        with backpack(DiagHessian()):
            loss(extended(x), y).backward()
        return torch.cat([p.diag_h.flatten() for p in extended.parameters()])

    def of_curvlinops() -> torch.Tensor:
        parameters = list(model.parameters())
        operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, [(x, y)])
        columns = torch.eye(weights).split(64, dim=1)
        return torch.cat([operator @ part for part in columns], dim=1)

    def layered() -> torch.Tensor:
        return layered_hessian_diagonal(model, x, y, cross_entropy)

    torch.testing.assert_close(layered(), of_backpack(), rtol=1e-3, atol=1e-6)
    rows = [
        ("gradient", "torch", milliseconds(lambda: torch.func.grad(risk)(w))),
        ("diagonal", "regkit layered_hessian_diagonal", milliseconds(layered)),
        ("diagonal", "BackPACK DiagHessian", milliseconds(of_backpack)),
    ]
    if weights < 10_000:
        torch.testing.assert_close(hessian(risk, w), of_curvlinops(), rtol=1e-3, atol=1e-5)
        rows += [
            (
                "diagonal",
                "regkit hessian_diagonal",
                milliseconds(lambda: hessian_diagonal(risk, w), 2),
            ),
            ("Hessian", "regkit hessian", milliseconds(lambda: hessian(risk, w), 2)),
            ("Hessian", "torch.func.hessian", milliseconds(lambda: torch.func.hessian(risk)(w), 2)),
            ("Hessian", "curvlinops, 64 columns", milliseconds(of_curvlinops, 2)),
        ]
    return [(job, method, weights, time) for job, method, time in rows]


def inverses() -> list[tuple[str, str, int, float]]:
    """The inverse from 8,000 gradients, and one down-date of it, in float64."""
    J = torch.randn(1000, 8, 936, dtype=torch.float64)

    def direct() -> torch.Tensor:
        flat = J.flatten(0, 1)
        return inverse_hessian(flat.T @ flat / len(J), 0.1)

    B = direct()
    torch.testing.assert_close(B, recursive_inverse(J, 0.1))
    return [
        ("inverse from 8,000 gradients", "regkit, direct", 936, milliseconds(direct, 3)),
        (
            "inverse from 8,000 gradients",
            "regkit recursive_inverse",
            936,
            milliseconds(lambda: recursive_inverse(J, 0.1), 1),
        ),
        ("one down-date", "regkit downdate", 936, milliseconds(lambda: downdate(B, 0))),
    ]


def layers() -> list[tuple[str, str, int, float]]:
    """OBS for the matrices of LeNet-300-100, half and nine tenths of each row."""
    rows = []
    for K, D in ((300, 784), (100, 300), (10, 100)):
        W, x = torch.randn(K, D), torch.randn(4000, D)
        for amount in (0.5, 0.9):
            time = milliseconds(lambda W=W, x=x, amount=amount: obs_layer(W, x, amount), 1)
            rows.append(
                (f"{K} x {D} matrix, {amount:.0%} removed", "regkit obs_layer", K * D, time)
            )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = masks()
    for weights in SIZES:
        found += curvature(weights)
    found += inverses() + layers()
    write(
        __file__,
        [
            {"job": job, "method": method, "weights": weights, "cpu_milliseconds": time}
            for job, method, weights, time in found
        ],
    )


if __name__ == "__main__":
    main()
