"""The gradient of the curvature penalty, with and without full input Hessians.

Writes ``noise.csv`` beside this file: milliseconds of CPU on one thread. Run it with
OMP_NUM_THREADS=1.
"""

import torch
from timing import milliseconds, write
from torch import Tensor, nn
from torch.func import hessian, vmap

from regkit.noise import curvature_penalty


def by_full_hessians(model: nn.Module, x: Tensor) -> Tensor:
    full = vmap(hessian(model))(x)  # (N, K, D, D)
    return 0.5 * full.diagonal(dim1=2, dim2=3).square().sum((1, 2)).mean()


def by_hand(model: nn.Sequential, x: Tensor) -> Tensor:
    """For one tanh layer: the second derivative is -2 sum_m v_m t_m (1 - t_m^2) W_mi^2."""
    t = model[:2](x)  # (N, M)
    second = (-2 * t * (1 - t**2))[:, None] * model[2].weight @ model[0].weight ** 2  # (N, K, D)
    return 0.5 * second.square().sum((1, 2)).mean()


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for inputs in (1, 10, 50):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 3))
        x = torch.randn(200, inputs)
        ways = {
            "full Hessians": lambda m=model, x=x: by_full_hessians(m, x).backward(),
            "curvature_penalty": lambda m=model, x=x: curvature_penalty(m, x).backward(),
            "closed form": lambda m=model, x=x: by_hand(m, x).backward(),
        }
        gradients = []
        for way in ways.values():
            model.zero_grad()
            way()
            gradients.append(model[0].weight.grad.clone())
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-6)
        rows.append({"inputs": inputs} | {name: milliseconds(way) for name, way in ways.items()})
    write(__file__, rows)


if __name__ == "__main__":
    main()
