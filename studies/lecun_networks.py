"""LeCun 1989: five networks for digits, from no constraint to shared weights, and what shifts do.

Net-1 is linear, Net-2 has a hidden layer, Net-3 local receptive fields, Net-4 shares the weights of
its first hidden layer, Net-5 of both. Images are 16 x 16 pixels, and each is shifted at random by
up to ``shift`` pixels in both directions. All networks of one row see the same images.

LeCun (1989), Generalization and network design strategies.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from regkit.datasets import mnist

TRAIN, TEST, STEPS = 1500, 1500, 700
SETTINGS = [{"shift": shift, "seed": seed} for shift in (0, 2) for seed in range(20)]
TOLERANCE = {f"net{number}": 0.03 for number in range(1, 6)}  # accuracies between 0 and 1

# kind, feature maps, size of the field, stride; then a full layer to the ten outputs
NETWORKS = {
    1: [],
    2: [("full", 12, 16, 1)],
    3: [("local", 1, 3, 2), ("local", 1, 5, 2)],
    4: [("shared", 2, 3, 2), ("local", 1, 5, 2)],
    5: [("shared", 2, 3, 2), ("shared", 4, 5, 2)],
}


def layer(x: Tensor, w: Tensor, b: Tensor, field: int, stride: int) -> Tensor:
    """Units with a field on all maps (N, C, H, H); w has one row for each place, or one for all."""
    pad = (field - 1) // 2 if field < x.shape[-1] else 0
    patches = functional.unfold(x, field, padding=pad, stride=stride)  # (N, C field^2, P)
    sums = torch.einsum("ncp,pmc->nmp", patches, w.expand(patches.shape[-1], -1, -1))
    return (sums + b).unflatten(-1, [math.isqrt(b.shape[-1])] * 2)  # (N, M, side, side)


def start(layers: list[tuple], generator: torch.Generator) -> list[Tensor]:
    """Weights and biases, layer by layer; every unit has a bias of its own, as in the paper."""
    parameters, maps, side = [], 1, 16
    for kind, new_maps, field, stride in layers:
        fan_in, side = maps * field**2, 1 if kind == "full" else side // stride
        rows = 1 if kind == "shared" else side**2
        w = torch.randn(rows, new_maps, fan_in, generator=generator) / fan_in**0.5
        parameters += [w, torch.zeros(new_maps, side**2)]
        maps = new_maps
    fan_in = maps * side**2
    w = torch.randn(1, 10, fan_in, generator=generator) / fan_in**0.5
    return [*parameters, w, torch.zeros(10, 1)]


def predict(parameters: list[Tensor], layers: list[tuple], x: Tensor) -> Tensor:
    """Ten outputs for images (N, 1, 16, 16)."""
    for number, (_, _, field, stride) in enumerate(layers):
        x = torch.tanh(layer(x, *parameters[2 * number : 2 * number + 2], field, stride))
    return layer(x, *parameters[-2:], x.shape[-1], 1).flatten(1)


def digits(shift: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """3,000 digits of 16 x 16 pixels, each moved by up to ``shift`` pixels."""
    images, labels = mnist()
    order = torch.randperm(len(labels), generator=generator)[: TRAIN + TEST]
    small = functional.interpolate(
        images[order].float().view(-1, 1, 28, 28)[:, :, 2:26, 2:26], size=16, mode="area"
    )
    wide = functional.pad(small, [shift] * 4)
    corner = torch.randint(0, 2 * shift + 1, (len(order), 2, 1), generator=generator)
    rows, columns = (corner + torch.arange(16)).unbind(1)  # (N, 16) each
    moved = wide[torch.arange(len(order))[:, None, None], 0, rows[:, :, None], columns[:, None]]
    return 2 * moved[:, None] - 1, labels[order]


def accuracy(number: int, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
    """Train one network on the first images, and return its accuracy on the others."""
    layers = NETWORKS[number]
    parameters = [p.requires_grad_() for p in start(layers, generator)]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        batch = torch.randint(TRAIN, (250,), generator=generator)
        functional.cross_entropy(predict(parameters, layers, x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        guess = predict(parameters, layers, x[TRAIN:]).argmax(1)
    return (guess == y[TRAIN:]).float().mean().item()


def run(shift: int, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(shift, generator)
    return {f"net{number}": round(accuracy(number, x, y, generator), 4) for number in NETWORKS}
