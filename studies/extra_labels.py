"""Measurements as extra outputs instead of inputs (after Caruana 1997).

Breast cancer: the mean measurements are the inputs, the label is task 1, the worst values are ten
extra tasks. Diabetes: age, sex, body mass index and blood pressure are the inputs, progression is
task 1, the six blood serum values are extra tasks. The control has the extra labels in a shuffled
order, the same for all extra tasks. Networks have 32 tanh units and are trained for 1000 steps.

The results are test losses of task 1, twice. In columns that end in _tuned, strength of decay,
weight of the extra tasks and number of steps are those of the least validation loss of task 1, for
each method and split. In columns that end in _plain there is no decay and no early stop; only the
weight of the extra tasks is picked, on the validation loss at the end.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from regkit.datasets import breast_cancer, diabetes
from regkit.training import train

TRAIN = {"breast cancer": 120, "diabetes": 100}  # rows; as many again validate, the rest test
DECAYS, ALPHAS = (0.0, 0.03, 0.3), (0.03, 0.1, 0.3, 1.0)
SETTINGS = [{"data": data, "seed": seed} for data in TRAIN for seed in range(40)]
METHODS = ("single", "extra", "shuffled")
TOLERANCE = {f"{method}_tuned": 0.05 for method in METHODS} | {
    f"{method}_plain": 0.1 for method in METHODS
}
STEPS, LOOK = 1000, 20


def load(data: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets; the first column of the targets is task 1."""
    x, y = breast_cancer() if data == "breast cancer" else diabetes()
    inputs, extra = (x[:, :10], x[:, 20:]) if data == "breast cancer" else (x[:, :4], x[:, 4:])
    return inputs.float(), torch.cat([y[:, None], extra], dim=1).float()


def run(data: str, seed: int) -> dict[str, float]:
    """Test loss of task 1 at the settings that validation picks, for the three methods."""
    inputs, y = load(data)
    generator = torch.Generator().manual_seed(seed)
    n, order = TRAIN[data], torch.randperm(len(y), generator=generator)
    rows, validation, test = order[:n], order[n : 2 * n], order[2 * n :]
    mixed = torch.cat([y[rows, :1], y[rows, 1:][torch.randperm(n, generator=generator)]], dim=1)
    grid = [("single", decay, 0.0) for decay in DECAYS]
    grid += [(m, d, a) for m in METHODS[1:] for d in DECAYS for a in ALPHAS]
    targets = torch.stack([mixed if m == "shuffled" else y[rows] for m, _, _ in grid])
    tasks = y.shape[1]
    alpha = torch.tensor([[1.0] + [a] * (tasks - 1) for _, _, a in grid])
    decay = torch.tensor([d for _, d, _ in grid])[:, None, None]

    def start(size: int, columns: int) -> torch.Tensor:
        one = torch.randn(size, columns, generator=generator, dtype=torch.float32) / size**0.5
        return one.repeat(len(grid), 1, 1).requires_grad_()

    U, V = start(inputs.shape[1], 32), start(32, tasks)
    b, c = (torch.zeros(len(grid), 1, k, requires_grad=True) for k in (32, tasks))

    def predict(rows: torch.Tensor) -> torch.Tensor:
        return torch.tanh(inputs[rows] @ U + b) @ V + c  # (grid, N, T)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if data == "breast cancer":
            return binary_cross_entropy_with_logits(output, target, reduction="none")
        return (output - target).square()

    def objective(step: int) -> torch.Tensor:
        output = predict(rows)
        main = loss(output[..., 0], targets[..., 0]).mean(1)
        if data == "diabetes":
            main = 0.5 * main  # halved squares, as in the risks of the extra tasks
        extra = 0.5 * (output[..., 1:] - targets[..., 1:]).square().mean(1)
        return main.sum() + (alpha[:, 1:] * extra).sum()

    lr = 0.01
    adam = torch.optim.Adam([U, V, b, c], lr=lr)
    least, found = torch.full((len(grid),), torch.inf), torch.zeros(len(grid))

    def held_out() -> tuple[torch.Tensor, torch.Tensor]:
        """Losses of task 1 on validation and test rows, one for each network."""
        with torch.no_grad():
            outputs = [predict(part)[..., 0] for part in (validation, test)]
        targets = [y[part, 0].expand(len(grid), -1) for part in (validation, test)]
        now, later = (loss(*pair).mean(1) for pair in zip(outputs, targets, strict=True))
        return now, later

    def look(step: int) -> None:
        with torch.no_grad():
            for w in (U, V):
                w -= lr * decay * w  # as AdamW, with a strength for each network
        if step % LOOK == LOOK - 1:
            now, later = held_out()
            found.copy_(torch.where(now < least, later, found))
            least.copy_(torch.minimum(now, least))

    train(objective, adam, STEPS, after_step=look)
    last, at_end = held_out()
    results = {}
    for method in METHODS:
        own = [i for i, (name, _, _) in enumerate(grid) if name == method]
        plain = [i for i in own if grid[i][1] == 0]
        results[f"{method}_tuned"] = found[own[int(least[own].argmin())]].item()
        results[f"{method}_plain"] = at_end[plain[int(last[plain].argmin())]].item()
    return results
