"""How many MC passes match weight scaling? (Srivastava et al. 2014, figure 11)

A 784-512-512-10 ReLU network with dropout learns 4,000 digits of MNIST. On 1,000 others we predict
once with scaled weights (with inverted dropout: the network as it is), and with the mean of S
stochastic passes. The settings were fixed before the test digits were looked at.
"""

import torch
from torch import nn

from regkit.datasets import mnist
from regkit.dropout import Dropout, mc_predict
from regkit.training import train

PASSES = (1, 2, 5, 10, 20, 50, 100)
SETTINGS = [{"seed": seed} for seed in range(10)]
TOLERANCE = {"scaling": 1.5} | {f"mc_{passes}": 1.5 for passes in PASSES}  # percent
TOLERANCE["mc_1"] = 2.5


def run(seed: int) -> dict[str, float]:
    """Test errors in percent: weight scaling, and the mean over S passes."""
    x, y = (data.to(kind) for data, kind in zip(mnist(), (torch.float32, torch.long), strict=True))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    rows, test = order[:4000], order[4000:]
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs, keep_prob in [(784, 512, 0.8), (512, 512, 0.5), (512, 10, 0.5)]:
        layers += [Dropout(keep_prob, generator=generator), nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).float()  # the last layer has no ReLU

    def objective(step: int) -> torch.Tensor:
        batch = rows[torch.randint(4000, (100,), generator=generator)]
        return nn.functional.cross_entropy(model(x[batch]), y[batch])

    train(objective, torch.optim.Adam(model.parameters(), lr=1e-3), steps=1200)  # 30 epochs

    def error(outputs: torch.Tensor) -> float:
        return 100 * (outputs.argmax(1) != y[test]).double().mean().item()

    model.eval()
    with torch.no_grad():
        results = {"scaling": error(model(x[test]))}
    samples = mc_predict(model, x[test], 200, generator).softmax(-1)  # (200, N, 10)
    for passes in PASSES:  # the mean over disjoint groups of passes, at most ten of them
        groups = samples[: passes * min(10, 200 // passes)].unflatten(0, (-1, passes)).mean(1)
        errors = [error(group) for group in groups]
        results[f"mc_{passes}"] = sum(errors) / len(errors)
    return results
