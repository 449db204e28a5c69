"""What dropout does to features and activations (Srivastava et al. 2014, figures 7 and 8).

Autoencoders 784-256-784 with a linear output learn 4,000 digits of MNIST: with sigmoid units, with
ReLU, with dropout of the hidden units, and with dropout of the inputs too. The network is then
looked at without masks, on 1,000 other digits.
"""

import torch
from torch import nn

from regkit.datasets import mnist
from regkit.dropout import Dropout, hoyer
from regkit.training import train

KEEP = {"sigmoid": (1.0, 1.0), "relu": (1.0, 1.0), "dropout": (1.0, 0.5), "inputs too": (0.8, 0.5)}
SETTINGS = [{"seed": seed, "units": units} for seed in range(10) for units in KEEP]
TOLERANCE = {
    "mean_activation": 0.05,
    "zeros": 0.05,
    "hoyer_activations": 0.05,
    "hoyer_filters": 0.05,
    "coherence": 0.02,
    "error": 0.002,
}


def run(seed: int, units: str) -> dict[str, float]:
    """Mean, zeros and sparsity of the hidden units; sparsity and coherence of their filters."""
    x = mnist()[0].float()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    rows, test = order[:4000], x[order[4000:]]
    torch.manual_seed(seed)
    keep_input, keep_hidden = KEEP[units]
    encoder = nn.Sequential(
        Dropout(keep_input, generator=generator),
        nn.Linear(784, 256),
        nn.Sigmoid() if units == "sigmoid" else nn.ReLU(),
    ).float()
    decoder = nn.Sequential(Dropout(keep_hidden, generator=generator), nn.Linear(256, 784)).float()

    def objective(step: int) -> torch.Tensor:
        batch = x[rows[torch.randint(4000, (100,), generator=generator)]]
        return 0.5 * (decoder(encoder(batch)) - batch).square().mean()

    parameters = [*encoder.parameters(), *decoder.parameters()]
    train(objective, torch.optim.Adam(parameters, lr=1e-3), steps=800)
    encoder.eval()
    decoder.eval()
    varies = x[rows].std(0) > 0.1  # elsewhere the weights are still those of the start
    with torch.no_grad():
        h = encoder(test)  # (N, 256)
        filters = encoder[1].weight[:, varies]  # (256, pixels)
        unit = filters / filters.norm(dim=1, keepdim=True)
        cosines = (unit @ unit.T - torch.eye(256, dtype=torch.float32)).abs()
        results = {
            "mean_activation": h.mean(),
            "zeros": (h == 0).double().mean(),
            "hoyer_activations": hoyer(h[h.norm(dim=1) > 0]).mean(),
            "hoyer_filters": hoyer(filters).mean(),
            "coherence": cosines.sum() / (256 * 255),
            "error": (decoder(h) - test).square().mean(),
        }
    return {name: value.item() for name, value in results.items()}
