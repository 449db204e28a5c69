"""XOR: which weight does each method delete, and is XOR still solved? (Hassibi & Stork 1993)

A 2-2-1 network with tanh units, a sigmoid output and biases, nine weights, learns XOR to a local
minimum of half the mean squared error plus weight decay. Starts that end without XOR are passed
over. One weight is deleted, without retraining. The right weight is one whose deletion, followed by
retraining, leaves the least risk. Inputs are 0 and 1, or -1 and 1.
"""

import torch
from torch import Tensor, nn

from regkit.curvature import hessian, ravel_parameters
from regkit.pruning import prune_one_by_one
from regkit.training import minimize

METHODS = ("obs", "obd", "magnitude")
SETTINGS = [
    {"low": low, "decay": decay, "seed": seed}
    for low in (0, -1)
    for decay in (1e-3, 1e-4, 1e-5, 1e-6)
    for seed in range(50)
]
TOLERANCE = {f"{method}_{what}": 0 for method in METHODS for what in ("solved", "right")}


def run(low: int, decay: float, seed: int) -> dict[str, float]:
    """For each method: whether it deletes a right weight, and whether XOR is still solved."""
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    x = torch.tensor([[low, low], [low, 1], [1, low], [1, 1]]).double()
    y = torch.tensor([0.0, 1.0, 1.0, 0.0])
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1), nn.Sigmoid())
    _, predict = ravel_parameters(model)

    def risk(w: Tensor) -> Tensor:
        return 0.5 * (predict(w, x)[:, 0] - y).square().mean() + 0.5 * decay * w.square().sum()

    def solved(w: Tensor) -> bool:
        return bool(((predict(w, x)[:, 0] > 0.5) == (y > 0.5)).all())

    while True:
        w = minimize(risk, torch.randn(9, generator=generator), steps=1000)
        if solved(w):
            break
    H = hessian(risk, w)
    retrained = []
    for i in range(9):
        mask = torch.arange(9) != i
        retrained.append(risk(minimize(risk, w * mask, mask, steps=300)).item())
    results: dict[str, float] = {}
    for method in METHODS:
        result = prune_one_by_one(risk, w, method, lambda w: H, deletions=1)
        left = retrained[result.deletions[0].index]
        results[f"{method}_solved"] = int(solved(result.w))
        results[f"{method}_right"] = int(left <= 1.01 * min(retrained))  # symmetric ones are equal
    return results
