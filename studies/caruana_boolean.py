"""Four boolean tasks learned alone and together (after Caruana 1997).

The inputs are all patterns of eight bits B1 ... B8; P is the parity of B2 ... B6. Task 1 is
B1 or P; the extra tasks are (not B1) or P, B1 and P, (not B1) and P. Of the 256 patterns 64 train,
64 validate and 128 test. Networks with one hidden tanh layer learn task 1 alone, two tasks, all
four, and all four with the extra labels of the training patterns shuffled. All have the same first
weights. Each method takes the strength of decay with the least validation loss of task 1; the
chapter picks the width in the same way. The columns that end in _plain are without decay.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from regkit.training import train

METHODS = {"single": [1, 0, 0, 0], "two": [1, 1, 0, 0], "four": [1, 1, 1, 1], "shuffled": [1] * 4}
DECAYS = (0.0, 0.03, 0.1, 0.3, 1.0)
SETTINGS = [{"hidden": hidden, "seed": seed} for hidden in (16, 64, 256) for seed in range(100)]
TOLERANCE = (
    {f"{method}_accuracy": 0.1 for method in METHODS}
    | {f"{method}_validation": 0.1 for method in METHODS}
    | {f"{method}_plain": 0.1 for method in METHODS}
)
LR = 0.01


def run(hidden: int, seed: int) -> dict[str, float]:
    """Test accuracy and validation loss of task 1 for each method."""
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    bits = bits[torch.randperm(256, generator=generator)]
    b1, p = bits[:, 0] == 1, bits[:, 1:6].sum(1) % 2 == 1
    x = 2 * bits.float() - 1  # (256, 8)
    y = torch.stack([b1 | p, ~b1 | p, b1 & p, ~b1 & p], dim=1).float()  # (256, 4)
    targets = y.repeat(len(METHODS), 1, 1)  # (methods, 256, T)
    targets[3, :64, 1:] = y[torch.randperm(64, generator=generator), 1:]
    networks = (len(DECAYS), len(METHODS))  # the leading indices of all weights

    def start(rows: int, columns: int) -> torch.Tensor:
        one = 2 * torch.rand(rows, columns, generator=generator, dtype=torch.float32) - 1
        return (one / rows**0.5).repeat(*networks, 1, 1).requires_grad_()  # the same for all

    U, V = start(8, hidden), start(hidden, 4)
    b, c = (torch.zeros(*networks, 1, k, requires_grad=True) for k in (hidden, 4))
    alpha = torch.tensor(list(METHODS.values()), dtype=torch.float32)  # (methods, T)
    decay = torch.tensor(DECAYS)[:, None, None, None]

    def logits(rows: slice) -> torch.Tensor:
        return torch.tanh(x[rows] @ U + b) @ V + c  # (decays, methods, N, T)

    def losses(rows: slice) -> torch.Tensor:
        output = logits(rows)
        target = targets[:, rows].expand_as(output)
        return binary_cross_entropy_with_logits(output, target, reduction="none").mean(2)

    def decay_weights(step: int) -> None:
        with torch.no_grad():
            for w in (U, V):
                w -= LR * decay * w  # as AdamW, with a strength for each network

    adam = torch.optim.Adam([U, V, b, c], lr=LR)
    train(lambda step: (alpha * losses(slice(0, 64))).sum(), adam, 2000, after_step=decay_weights)
    with torch.no_grad():
        validation = losses(slice(64, 128))[..., 0]  # (decays, methods)
        right = (logits(slice(128, 256))[..., 0] > 0) == (y[128:, 0] > 0.5)
        accuracy = right.double().mean(2)
    best = validation.argmin(0)
    results = {}
    for i, method in enumerate(METHODS):
        results[f"{method}_accuracy"] = accuracy[best[i], i].item()
        results[f"{method}_validation"] = validation[best[i], i].item()
        results[f"{method}_plain"] = accuracy[0, i].item()
    return results
