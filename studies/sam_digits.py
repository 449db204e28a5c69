"""Sharpness-aware minimization on digits, beside gradient descent (Foret et al. 2021).

A 784-128-10 network learns 1,000 digits of MNIST in minibatches of 100 with momentum. Plain descent
tries four learning rates and keeps the one that is best on 1,000 validation digits; SAM tries four
radii at that rate and keeps one in the same way. 3,000 digits test. Both take the same number of
gradients: plain descent 800 steps, SAM 400 of two gradients each. Sharpness is the largest
eigenvalue of the Hessian of the training risk, by power iteration.
"""

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import cross_entropy

from regkit.curvature import hvp, ravel_parameters
from regkit.datasets import mnist
from regkit.flat_minimum import sharpness_aware_gradient

BATCH, GRADIENTS, MOMENTUM = 100, 800, 0.9
RATES, RADII = (0.03, 0.1, 0.3, 0.5), (0.05, 0.1, 0.2, 0.5)
SETTINGS = [{"seed": seed} for seed in range(20)]
TOLERANCE = {
    f"{method}_{what}": tolerance
    for method in ("plain", "sam")
    for what, tolerance in (
        ("accuracy", 0.03),
        ("sharpness", 2.0),
        ("risk", 0.1),
        ("setting", 0.5),
    )
}


def run(seed: int) -> dict[str, float]:
    """Test accuracy, sharpness and training risk of what each method keeps."""
    torch.manual_seed(seed)
    x, y = mnist()
    order = torch.randperm(len(y))
    x, valid_x, test_x = x[order].float().split([1000, 1000, 3000])
    y, valid_y, test_y = y[order].split([1000, 1000, 3000])
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    start, predict = ravel_parameters(model)

    def risk(w: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
        return cross_entropy(predict(w, x), y)

    def accuracy(w: Tensor, x: Tensor, y: Tensor) -> float:
        return (predict(w, x).argmax(1) == y).double().mean().item()

    def descend(lr: float, radius: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        w, velocity = start.clone(), torch.zeros_like(start)
        for _ in range(GRADIENTS if radius == 0 else GRADIENTS // 2):
            rows = torch.randint(len(y), (BATCH,), generator=generator)

            def batch_risk(w: Tensor, rows: Tensor = rows) -> Tensor:
                return risk(w, x[rows], y[rows])

            if radius == 0:
                slope = grad(batch_risk)(w)
            else:
                slope = sharpness_aware_gradient(batch_risk, w, radius)
            velocity = MOMENTUM * velocity + slope
            w = w - lr * velocity
        return w

    def sharpness(w: Tensor) -> float:
        v = torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
        for _ in range(30):
            v = v / v.norm()
            image = hvp(risk, w, v)
            largest, v = v @ image, image
        return largest.item()

    results = {}

    def keep_best(method: str, candidates: dict[float, Tensor]) -> float:
        """Describe the weights that are best on validation digits; return their setting."""
        setting = max(candidates, key=lambda s: accuracy(candidates[s], valid_x, valid_y))
        w = candidates[setting]
        results[f"{method}_accuracy"] = accuracy(w, test_x, test_y)
        results[f"{method}_sharpness"] = sharpness(w)
        results[f"{method}_risk"] = risk(w).item()
        results[f"{method}_setting"] = setting
        return setting

    lr = keep_best("plain", {lr: descend(lr, 0.0) for lr in RATES})
    keep_best("sam", {radius: descend(lr, radius) for radius in RADII})
    return results
