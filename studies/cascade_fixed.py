"""Two spirals with a network of fixed size (after Lang & Witbrock 1988), for comparison.

Three hidden layers of five units, and every unit receives all units before it: 138 weights. A row
trains 20 networks from weights in U[-1, 1] for 8,000 epochs. Outputs, loss, offset and the test
for "solved" are those of ``cascade_spirals``. Each method has four learning rates; the chapter
shows the one that solves most, which favors the fixed network. A first range for momentum, ten
times lower, had solved nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from regkit.datasets import two_spirals
from regkit.growing import Quickprop
from regkit.training import train

NETWORKS, EPOCHS = 20, 8000
OPTIMIZERS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "momentum": (lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.9), (0.3, 1.0, 3.0, 10.0)),
    "quickprop": (lambda w, lr: Quickprop(w, lr=lr, mu=1.75), (0.03, 0.1, 0.3, 1.0)),
    "Adam": (lambda w, lr: torch.optim.Adam(w, lr=lr), (0.003, 0.01, 0.03, 0.1)),
}
SETTINGS = [
    {"optimizer": name, "lr": lr, "offset": offset}
    for name, (_, rates) in OPTIMIZERS.items()
    for lr in rates
    for offset in (0.0, 0.1)
]
TOLERANCE = {"solved": 5, "epochs": 2500}


def run(optimizer: str, lr: float, offset: float) -> dict[str, float]:
    """How many networks were solved at some epoch; the median epoch, 8,000 for an unsolved one."""
    x, y = two_spirals()
    x, t = x.float(), y.float() - 0.5
    generator = torch.Generator().manual_seed(0)
    weights = [
        (2 * torch.rand(NETWORKS, inputs, units, generator=generator) - 1).float()
        for inputs, units in [(3, 5), (8, 5), (13, 5), (18, 1)]
    ]
    for w in weights:
        w.requires_grad_()
    ones = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1).expand(NETWORKS, -1, -1)
    solved_at = torch.full((NETWORKS,), torch.inf)

    def objective(epoch: int) -> Tensor:
        z = ones
        for w in weights[:-1]:
            z = torch.cat([z, torch.sigmoid(z @ w) - 0.5], 2)  # (S, N, J)
        s = (z @ weights[-1])[..., 0]  # (S, N)
        errors = torch.sigmoid(s) - 0.5 - t
        new = (errors.detach().abs().amax(1) < 0.4) & solved_at.isinf()
        solved_at[new] = epoch
        entropy = softplus(s) - (t + 0.5) * s  # see the chapter on the offset
        return (0.5 * errors**2 + offset * entropy).mean(1).sum()

    train(objective, OPTIMIZERS[optimizer][0](weights, lr), EPOCHS)
    return {
        "solved": int(solved_at.isfinite().sum()),
        "epochs": solved_at.clamp(max=EPOCHS).median().item(),
    }
