"""Optimal brain surgeon, one layer at a time, on LeNet-300-100: 266,200 weights.

A 784-300-100-10 network learns 4,000 digits; 1,000 test. Each weight matrix loses the same fraction
of its weights: by magnitude in each layer or in all layers together, or by OBS with the Hessian of
each layer's inputs. Test accuracy before retraining, and after 100 steps of it. The damping is the
default of SparseGPT, 1% of the mean diagonal; nothing was tuned.
"""

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from regkit.datasets import mnist
from regkit.pruning import Masks, apply_masks_, magnitude_masks, obs_layer

LR, BATCH, STEPS, RETRAINING = 1e-3, 100, 800, 100
AMOUNTS = (0.5, 0.8, 0.9, 0.95)
SETTINGS = [{"amount": amount, "seed": seed} for amount in AMOUNTS for seed in range(10)]
TOLERANCE = {"dense": 0.02, "dense_tuned": 0.02} | {
    f"{method}{when}": tolerance
    for method in ("layer", "global", "obs")
    for when, tolerance in (("", 0.2), ("_tuned", 0.03))
}


def run(amount: float, seed: int) -> dict[str, float]:
    """Test accuracy of the full network and of the three pruned ones."""
    torch.manual_seed(seed)
    x, y = mnist()
    order = torch.randperm(len(y))
    x, test_x = x[order].float().split([4000, 1000])
    y, test_y = y[order].split([4000, 1000])
    layers = [nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def fit(steps: int, masks: Masks) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        for _ in range(steps):
            rows = torch.randint(len(y), (BATCH,))
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            apply_masks_(model, masks)

    @torch.no_grad()
    def accuracy() -> float:
        return (model(test_x).argmax(1) == test_y).double().mean().item()

    fit(STEPS, {})
    trained = copy.deepcopy(model.state_dict())
    results = {}

    def record(method: str, masks: Masks) -> None:
        results[method] = accuracy()
        fit(RETRAINING, masks)
        results[f"{method}_tuned"] = accuracy()
        model.load_state_dict(trained)

    record("dense", {})
    for scope in ("layer", "global"):
        masks = magnitude_masks(model, amount, scope)
        apply_masks_(model, masks)
        record(scope, masks)
    with torch.no_grad():
        inputs = [x, model[:2](x), model[:4](x)]
        for layer, a in zip(layers, inputs, strict=True):
            layer.weight.copy_(obs_layer(layer.weight, a, amount))
    masks = {name: p != 0 for name, p in model.named_parameters() if name.endswith("weight")}
    record("obs", masks)
    return results
