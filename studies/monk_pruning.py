"""The MONK's problems: how many weights can be deleted? (Hassibi & Stork 1993)

A network with one hidden tanh layer and a sigmoid output learns a problem to a local minimum of
half the mean squared error plus weight decay. Then one weight after another is deleted, as long as
the training accuracy is not below that of the full network. OBS and OBD use the Gauss-Newton
Hessian.
"Retrained" means to a local minimum after every deletion. Each seed is one network, whatever it has
learned; the test data, all 432 robots, are only looked at in the end.
"""

import torch
from torch import Tensor, nn

from regkit.curvature import jacobian, ravel_parameters
from regkit.datasets import monks
from regkit.pruning import prune_one_by_one
from regkit.training import minimize

HIDDEN = {1: 3, 2: 2, 3: 2}
DECAY = {1: 1e-4, 2: 1e-4, 3: 3e-3}
DAMPING = 1e-6
METHODS = ("obs", "obd", "magnitude")
SETTINGS = [{"problem": problem, "seed": seed} for problem in (1, 2, 3) for seed in range(40)]
TOLERANCE = {"dense_train": 0.02, "dense_test": 0.03} | {
    f"{method}_{when}_{what}": tolerance
    for method in METHODS
    for when in ("retrained", "only")
    for what, tolerance in (("weights", 12), ("train", 0.05), ("test", 0.12))
}


def run(problem: int, seed: int) -> dict[str, float]:
    """Weights left, training and test accuracy, for each method with and without retraining."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    x, y, test_x, test_y = monks(problem)
    hidden, decay = HIDDEN[problem], DECAY[problem]
    model = nn.Sequential(nn.Linear(17, hidden), nn.Tanh(), nn.Linear(hidden, 1), nn.Sigmoid())
    w, predict = ravel_parameters(model)

    def risk(w: Tensor) -> Tensor:
        return 0.5 * (predict(w, x)[:, 0] - y).square().mean() + 0.5 * decay * w.square().sum()

    def curvature(w: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(w, model.parameters())
        J = jacobian(model, x)[:, 0]  # (N, W)
        return J.T @ J / len(x) + decay * torch.eye(len(w))

    def accuracy(w: Tensor, x: Tensor = x, y: Tensor = y) -> float:
        return ((predict(w, x)[:, 0] > 0.5) == y).double().mean().item()

    def retrain(w: Tensor, mask: Tensor) -> Tensor:
        return minimize(risk, w, mask)

    w = minimize(risk, w, steps=2000)
    dense = accuracy(w)
    results = {"dense_train": dense, "dense_test": accuracy(w, test_x, test_y)}
    for method in METHODS:
        for when in ("retrained", "only"):
            result = prune_one_by_one(
                risk,
                w,
                method,
                curvature,
                damping=DAMPING,
                retrain=retrain if when == "retrained" else None,
                accept=lambda w: accuracy(w) >= dense,
            )
            results[f"{method}_{when}_weights"] = int(result.mask.sum())
            results[f"{method}_{when}_train"] = accuracy(result.w)
            results[f"{method}_{when}_test"] = accuracy(result.w, test_x, test_y)
    return results
