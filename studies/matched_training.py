"""Small and large batches at the same training loss, and at the same epochs (Keskar et al. 2017).

A 196-64-10 network learns 1,000 digits of MNIST, halved to 14 x 14 pixels, by plain SGD. Batches
are drawn with replacement. We describe it after 20 epochs, and where the training loss first is
0.01 or less (looked at every 20 steps). Two pairs of settings share a temperature lr / (2 batch).
"""

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy

from regkit.curvature import hvp, ravel_parameters
from regkit.datasets import mnist
from regkit.sgd import batches

LEVEL, EPOCHS, LIMIT = 0.01, 20, 30_000
SETTINGS = [
    {"lr": lr, "batch": batch, "seed": seed}
    for lr, batch in ((0.5, 10), (0.1, 2), (0.1, 10), (0.5, 500), (0.1, 100))
    for seed in range(20)
]
TOLERANCE = {
    "epochs_risk": 0.3,
    "epochs_sharpness": 1.5,
    "epochs_test": 0.03,
    "risk": 0.004,
    "sharpness": 0.2,
    "test": 0.03,
    "steps": 1000,
}


def run(lr: float, batch: int, seed: int) -> dict[str, float]:
    """Training risk, sharpness and test accuracy at both moments, and the steps to the level."""
    x, y = mnist()
    x = avg_pool2d(x.reshape(-1, 1, 28, 28), 2).reshape(-1, 196)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    x, test_x = x[order].split([1000, 4000])
    y, test_y = y[order].split([1000, 4000])
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    _, predict = ravel_parameters(model)

    def risk(w: torch.Tensor) -> torch.Tensor:
        return cross_entropy(predict(w, x), y)

    def describe() -> tuple[float, float, float]:
        """Training risk, largest eigenvalue of its Hessian, and test accuracy."""
        w = ravel_parameters(model)[0]
        v = torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(0))
        for _ in range(30):
            v = v / v.norm()
            image = hvp(risk, w, v)
            largest, v = v @ image, image
        accuracy = (predict(w, test_x).argmax(1) == test_y).double().mean()
        return risk(w).item(), largest.item(), accuracy.item()

    def risk_is_low() -> bool:
        with torch.no_grad():
            return cross_entropy(model(x), y).item() <= LEVEL

    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    rows = batches(len(y), batch, 1, "with replacement", generator)
    results: dict[str, float] = {}
    names = ("risk", "sharpness", "test")
    for step in range(LIMIT):
        if step * batch == EPOCHS * len(y):
            results |= zip((f"epochs_{name}" for name in names), describe(), strict=True)
        if "steps" not in results and step % 20 == 0 and risk_is_low():
            results |= zip(names, describe(), strict=True)
            results["steps"] = step
        if len(results) == 7:
            return results
        drawn = next(rows)[0]
        optimizer.zero_grad()
        cross_entropy(model(x[drawn]), y[drawn]).backward()
        optimizer.step()
    raise RuntimeError(f"the training loss is above {LEVEL} after {LIMIT} steps")
