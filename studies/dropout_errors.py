"""Test error without a penalty, with L2, and with dropout (after Srivastava et al. 2014, table 9).

Networks 784-256-256-10 with ReLU learn 3,500 digits of MNIST and are tested on 1,000 others. The
strength of L2 is the best of three on 500 validation digits, for each seed. Dropout keeps 0.8 of
the inputs and 0.5 of the hidden units; these are the usual values, nothing is tuned.
"""

import torch
from torch import nn

from regkit.datasets import mnist
from regkit.dropout import Dropout
from regkit.training import train

STRENGTHS = (1e-5, 1e-4, 1e-3)
SETTINGS = [{"seed": seed} for seed in range(20)]
# Errors in percent; the loss, with masks, shows whether units were dropped.
TOLERANCE = {"none": 1.0, "l2": 1.0, "dropout": 1.0, "dropout_loss": 0.02}


def fit(seed: int, keep_input: float, keep_hidden: float, strength: float) -> list[float]:
    """Errors in percent on validation and test digits, and the loss of the last 200 steps."""
    x, y = (data.to(kind) for data, kind in zip(mnist(), (torch.float32, torch.long), strict=True))
    generator = torch.Generator().manual_seed(seed)
    rows, validation, test = torch.randperm(len(x), generator=generator).split([3500, 500, 1000])
    torch.manual_seed(seed)  # of the first weights: the same for all methods
    layers = []
    for inputs, outputs, keep in [
        (784, 256, keep_input),
        (256, 256, keep_hidden),
        (256, 10, keep_hidden),
    ]:
        layers += [Dropout(keep, generator=generator), nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).float()  # the last layer has no ReLU

    def objective(step: int) -> torch.Tensor:
        batch = rows[torch.randint(3500, (100,), generator=generator)]
        return nn.functional.cross_entropy(model(x[batch]), y[batch])

    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=strength)
    losses = train(objective, adam, steps=1000)
    model.eval()
    with torch.no_grad():
        wrong = [model(x[part]).argmax(1) != y[part] for part in (validation, test)]
    return [100 * part.double().mean().item() for part in wrong] + [losses[-200:].mean().item()]


def run(seed: int) -> dict[str, float]:
    """Test errors in percent of the three methods, and the training loss with dropout."""
    decayed = [fit(seed, 1.0, 1.0, strength) for strength in STRENGTHS]
    dropped = fit(seed, 0.8, 0.5, 0.0)
    return {
        "none": fit(seed, 1.0, 1.0, 0.0)[1],
        "l2": min(decayed, key=lambda found: found[0])[1],  # least error on validation digits
        "dropout": dropped[1],
        "dropout_loss": dropped[2],
    }
