"""Which augmentation helps a small network, and on which test digits (Simard et al. 2003).

A 784-128-10 network learns 1,000 digits of MNIST; 1,000 validate and 3,000 test. It minimizes the
lecture's two-term risk: each step takes 100 digits and one transformed copy of each, with fresh
parameters. "none" takes the same digits twice, so all methods make equally many steps on equally
many images. "affine" composes rotation, shear, zoom and shift in one map, "both" bends the images
first. "crops alone" takes crops of one size and leaves the originals out. Each method tries four
strengths and keeps the one that errs least on the *original* validation digits, the weaker one in a
tie. Columns: errors on the original test digits, and on test digits that were transformed with
strength 1, in percent.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regkit.augmentation import METHODS, affine, augment, crop, rotation_matrix, shear_matrix
from regkit.datasets import mnist

BASE = {
    "rotation": 15.0,  # degrees
    "translation": 2.0,  # pixels
    "cropping": 0.2,  # of the sides
    "brightness": 0.3,
    "shearing": 0.3,
    "elastic": 34.0,  # times noise smoothed over four pixels
}
ALL = ("none", *METHODS, "affine", "both", "crops alone")
EPOCHS, BATCH, FACTORS = 40, 100, (0.5, 1.0, 2.0, 3.0)
SETTINGS = [{"seed": seed, "method": method} for seed in range(10) for method in ALL]
# Another processor may keep another factor where two are tied, which moves some columns by points.
TOLERANCE = {"factor": 2.5, "clean": 1.5} | dict.fromkeys(METHODS, 7.0)


def transformed(x: Tensor, method: str, factor: float, generator: torch.Generator) -> Tensor:
    """Copies of images (N, 1, 28, 28), each with its own parameters."""

    def uniform(*shape: int) -> Tensor:
        return factor * (2 * torch.rand(len(x), *shape, generator=generator) - 1)

    if method == "none":
        return x
    if method == "both":
        x = augment(x, "elastic", factor * BASE["elastic"], generator)
    if method in ("affine", "both"):
        zoom = 1 + BASE["cropping"] * uniform(1, 1)
        matrix = (
            zoom
            * rotation_matrix(BASE["rotation"] * uniform())
            @ shear_matrix(BASE["shearing"] * uniform())
        )
        return affine(x, matrix, BASE["translation"] * uniform(2))
    if method == "crops alone":
        side = torch.full((len(x), 2), 28 * (1 - factor * BASE["cropping"]))
        corner = (28 - side) * torch.rand(len(x), 2, generator=generator)
        return crop(x, torch.cat([corner, side], 1))
    return augment(x, method, factor * BASE[method], generator)


def run(seed: int, method: str) -> dict[str, float]:
    """The factor that was kept, and test errors in percent."""
    x, y = mnist()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    images = x[order].float().view(-1, 1, 28, 28)
    x, valid_x, test_x = images.split([1000, 1000, 3000])
    y, valid_y, test_y = y[order].split([1000, 1000, 3000])

    def fit(factor: float) -> nn.Module:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(EPOCHS):
            copies = transformed(x, method, factor, generator)
            for rows in torch.randperm(len(y), generator=generator).split(BATCH):
                optimizer.zero_grad()
                # M = N = 100: the two terms are twice the mean over both.
                originals = copies[rows] if method == "crops alone" else x[rows]
                outputs = model(torch.cat([originals, copies[rows]]))
                (2 * cross_entropy(outputs, y[rows].repeat(2))).backward()
                optimizer.step()
        return model

    def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            return 100 * (model(x).argmax(1) != y).double().mean().item()

    factors = FACTORS if method != "none" else (0.0,)
    models = [fit(factor) for factor in factors]
    errors = [error(model, valid_x, valid_y) for model in models]
    best = errors.index(min(errors))
    results = {"factor": factors[best], "clean": error(models[best], test_x, test_y)}
    for name in METHODS:
        generator = torch.Generator().manual_seed(1000 + seed)
        moved = transformed(test_x, name, 1.0, generator)
        results[name] = error(models[best], moved, test_y)
    return results
