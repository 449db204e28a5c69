"""Test accuracy by batch size and learning rate (Smith & Le 2018).

A 196-64-10 network learns 1,000 digits of MNIST, halved to 14 x 14 pixels, with momentum 0.9:
four learning rates in 1,000 steps, and three of them for the same time, steps times learning rate.
Batches are drawn with replacement. 1,000 digits validate, 3,000 test.
"""

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy

from regkit.datasets import mnist
from regkit.sgd import batches

MOMENTUM = 0.9
RUNS = ((0.03, 1000), (0.06, 1000), (0.12, 1000), (0.24, 1000), (0.06, 4000), (0.12, 2000))
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SETTINGS = [
    {"lr": lr, "steps": steps, "batch": batch, "seed": seed}
    for lr, steps in RUNS
    for batch in BATCHES
    for seed in range(20)
]
# Where single batches throw the weights about, a last bit decides how far training comes; the first
# twenty steps agree on all processors.
TOLERANCE = {"early_risk": 1e-6, "risk": 1.5, "test_risk": 1.5, "valid": 0.4, "test": 0.4}


def run(lr: float, steps: int, batch: int, seed: int) -> dict[str, float]:
    """Training risk after 20 steps and in the end; test risk, and accuracies, in the end."""
    x, y = mnist()
    x = avg_pool2d(x.reshape(-1, 1, 28, 28), 2).reshape(-1, 196)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    x, valid_x, test_x = x[order].split([1000, 1000, 3000])
    y, valid_y, test_y = y[order].split([1000, 1000, 3000])
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    rows = batches(len(y), batch, 1, "with replacement", generator)
    for step in range(steps):
        if step == 20:
            early_risk = cross_entropy(model(x), y).item()
        drawn = next(rows)[0]
        optimizer.zero_grad()
        cross_entropy(model(x[drawn]), y[drawn]).backward()
        optimizer.step()
    with torch.no_grad():
        return {
            "early_risk": early_risk,
            "risk": cross_entropy(model(x), y).item(),
            "test_risk": cross_entropy(model(test_x), test_y).item(),
            "valid": (model(valid_x).argmax(1) == valid_y).double().mean().item(),
            "test": (model(test_x).argmax(1) == test_y).double().mean().item(),
        }
