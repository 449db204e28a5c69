"""Optimal brain damage on digits: predicted and true error (LeCun et al. 1990).

A 196-12-10 tanh network learns digits of 14 x 14 pixels by half the squared error, a mean over the
samples, with a little weight decay, and is trained to a minimum. Weights are deleted in the order
of their saliencies, computed once from the exact diagonal of the Hessian; of their magnitudes in
the whole network; or of their magnitudes in each matrix, all biases kept. The prediction is the sum
of the saliencies. Retraining, for OBD and magnitude in each matrix, is by 200 steps of L-BFGS after
every step from one amount to the next; saliencies are then computed anew. 2,000 digits train, 3,000
test.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, one_hot

from regkit.curvature import layered_hessian_diagonal, ravel_parameters
from regkit.datasets import mnist
from regkit.pruning import keep_largest, obd_saliency
from regkit.training import minimize

DECAY, STEPS = 1e-4, 200
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RETRAINED = (0.5, 0.8, 0.9, 0.94)
METHODS = ("obd", "global", "layer")
SETTINGS = [{"seed": seed} for seed in range(20)]
SPREAD = {"obd": 1, "global": 3, "layer": 3}  # rounding decides more where more is lost
TOLERANCE = (
    {"dense_risk": 0.003, "dense_test": 0.02, "dense_gradient": 0.01}
    | {f"predicted_{amount}": 0.02 for amount in AMOUNTS}
    | {f"{method}_risk_{amount}": 0.15 * k for method, k in SPREAD.items() for amount in AMOUNTS}
    | {f"{method}_test_{amount}": 0.06 * k for method, k in SPREAD.items() for amount in AMOUNTS}
    | {f"obd_retrained_{amount}": 0.06 for amount in RETRAINED}
    | {f"layer_retrained_{amount}": 0.2 for amount in RETRAINED}
)


def half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error, summed over the outputs, a mean over the samples."""
    return 0.5 * (outputs - targets).square().sum(1).mean()


def run(seed: int) -> dict[str, float]:
    """Increase of the training risk, predicted and true, and test errors as fractions."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    x, labels = mnist()
    order = torch.randperm(len(labels))
    x = avg_pool2d(x[order].view(-1, 1, 28, 28), 2).flatten(1)
    x, test_x = x.split([2000, 3000])
    labels, test_labels = labels[order].split([2000, 3000])
    targets = one_hot(labels, 10).double()
    model = nn.Sequential(nn.Linear(196, 12), nn.Tanh(), nn.Linear(12, 10))
    w, predict = ravel_parameters(model)

    def objective(w: Tensor) -> Tensor:
        return half_squares(predict(w, x), targets) + 0.5 * DECAY * w.square().sum()

    def risk(w: Tensor) -> float:
        return half_squares(predict(w, x), targets).item()

    def error(w: Tensor) -> float:
        return (predict(w, test_x).argmax(1) != test_labels).double().mean().item()

    def scores(w: Tensor, method: str) -> Tensor:
        if method == "global":
            return w.abs()
        if method == "layer":
            pieces = w.abs().split([parameter.numel() for parameter in model.parameters()])
            ranks = [piece.argsort().argsort() / len(piece) for piece in pieces]
            return torch.cat([ranks[0], ranks[1] + 1, ranks[2], ranks[3] + 1])
        torch.nn.utils.vector_to_parameters(w, model.parameters())
        h = layered_hessian_diagonal(model, x, targets, half_squares)
        return obd_saliency(w, (h + DECAY).clamp_min(0.0))

    w = minimize(objective, w, steps=1500)
    slope = torch.func.grad(objective)(w).norm().item()
    results = {"dense_risk": risk(w), "dense_test": error(w), "dense_gradient": slope}
    for method in METHODS:
        score = scores(w, method)
        for amount in AMOUNTS:
            mask = keep_largest(score, amount)
            if method == "obd":
                results[f"predicted_{amount}"] = score[~mask].sum().item()
            increase = objective(w * mask) - objective(w)
            results[f"{method}_risk_{amount}"] = increase.item()
            results[f"{method}_test_{amount}"] = error(w * mask)
        smaller = w
        for amount in RETRAINED if method != "global" else ():
            mask = keep_largest(scores(smaller, method).masked_fill(smaller == 0, -1.0), amount)
            smaller = minimize(objective, smaller * mask, mask, steps=STEPS)
            results[f"{method}_retrained_{amount}"] = error(smaller)
    return results
