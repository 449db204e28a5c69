"""Ullrich, Meeds & Welling 2017: compress LeNet-300-100 by soft weight sharing.

A trained network is retrained with a mixture prior on its weights. One component stays at zero and
holds nearly all of the prior mass. The largest spread that is allowed falls during retraining, so
that the weights gather at the means. Then each weight is replaced by its component's mean.

The settings were chosen on 500 of the training digits: ZERO_SHARE and RETRAINING by hand, STRENGTH
with `choose`. A first version with less retraining had been seen on the test digits.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from regkit.datasets import mnist
from regkit.weight_sharing import MixturePrior, quantize, quantized_size

MEANS = (0.0, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3)  # to start with; the first stays
ZERO_SHARE, STRENGTH = 0.98, 2e-5
SPREADS = (0.04, 0.003)  # the largest spread that is allowed, at the start and at the end
EPOCHS, RETRAINING, BATCH, EVERY = 20, 45, 128, 5
SETTINGS = [{"seed": seed} for seed in range(10)]
TOLERANCE = {
    "error_before": 0.02,
    "error_retrained": 0.02,
    "error_after": 0.02,
    "nonzero": 0.02,
    "times_dense": 0.5,
    "times_sparse": 15.0,
}


def run(seed: int) -> dict[str, float]:
    x, y = mnist()
    x = x.float()
    return compress(seed, x[:4000], y[:4000], x[4000:], y[4000:], STRENGTH)


def choose(strengths: tuple[float, ...] = (5e-6, 1e-5, 2e-5, 4e-5)) -> None:
    """Print what each strength gives on 500 training digits that were held out."""
    x, y = mnist()
    x = x.float()
    for strength in strengths:
        print(strength, compress(100, x[:3500], y[:3500], x[3500:4000], y[3500:4000], strength))


def compress(
    seed: int, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, strength: float
) -> dict[str, float]:
    torch.manual_seed(seed)
    sizes = [784, 300, 100, 10]
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def error() -> float:
        with torch.no_grad():
            return (model(test_x).argmax(1) != test_y).float().mean().item()

    def train(epochs: int, lr: float, prior: MixturePrior | None) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        steps = epochs * (len(y) // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            batch = torch.randint(len(y), (BATCH,))
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            if prior is not None and step % EVERY == 0:
                pull(prior, cap=SPREADS[0] * (SPREADS[1] / SPREADS[0]) ** (step / steps))
            optimizer.step()
            schedule.step()

    def pull(prior: MixturePrior, cap: float) -> None:
        """Add the prior's gradient, for EVERY steps at once, after one step of EM."""
        w = torch.cat([layer.weight.detach().flatten() for layer in layers])
        constrain(prior.em_(w), cap)
        gradients = (EVERY * strength * prior.gradients(w).w).split(
            [layer.weight.numel() for layer in layers]
        )
        for layer, gradient in zip(layers, gradients, strict=True):
            layer.weight.grad += gradient.view_as(layer.weight)

    train(EPOCHS, 1e-3, None)
    before = error()
    prior = MixturePrior(torch.tensor(MEANS), sigma=SPREADS[0], floor=1e-3, zero=True)
    train(RETRAINING, 1e-3, prior)
    retrained = error()

    w = torch.cat([layer.weight.detach().flatten() for layer in layers])
    values, codes = quantize(w, prior)
    for layer, value in zip(
        layers, values.split([layer.weight.numel() for layer in layers]), strict=True
    ):
        layer.weight.data.copy_(value.view_as(layer.weight))
    size = quantized_size(codes, len(MEANS), biases=sum(sizes[1:]))
    return {
        "error_before": round(before, 4),
        "error_retrained": round(retrained, 4),
        "error_after": round(error(), 4),
        "nonzero": round((values != 0).float().mean().item(), 4),
        "times_dense": round(size.plain / size.dense, 2),
        "times_sparse": round(size.plain / size.sparse, 1),
    }


@torch.no_grad()
def constrain(prior: MixturePrior, cap: float) -> None:
    """Keep the spreads below the cap, and the share of the zero component above its bound."""
    prior.log_spreads.clamp_(max=math.log(cap - prior.floor))
    pi = prior.pi.clone()
    pi[0] = pi[0].clamp(min=ZERO_SHARE)
    pi[1:] *= (1 - pi[0]) / pi[1:].sum()
    prior.logits.copy_(pi.log())
