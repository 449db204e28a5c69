"""Lottery tickets on digits and on MNIST-1D: after Frankle & Carbin (2019), LeNet-300-100.

Iterative magnitude pruning with rewinding: train, remove 36% of the weights that are left in each
layer (half as many of the last layer, as in the paper), set the rest back to the start, again. A
ticket is compared with two controls of the same size: its mask with freshly drawn weights, and a
random mask with the original weights. 3,500 examples train, 500 validate, 1,000 test; digits are
cropped to 20 x 20 pixels, MNIST-1D has 40 inputs. Adam with the paper's learning rate and batch
size. A network is judged as in the paper, at the step with the least validation loss. The controls
learn more slowly and get more steps. Nothing was tuned but the numbers of steps, after a first run.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regkit.datasets import mnist, mnist_1d
from regkit.pruning import Masks, apply_masks_, iterative_pruning, rewind_, shuffled_masks

LR, BATCH, EVERY = 1.2e-3, 60, 20
ROUNDS, RATE, EARLY = 7, 0.36, 100
CONTROL = 4  # after which round
STEPS = {"ticket": 1200, "redrawn": 3000, "shuffled": 3000}
SETTINGS = [{"data": data, "seed": seed} for data in ("digits", "mnist1d") for seed in range(20)]


def kept(round: int) -> str:
    """Percentage of the weights that is left in all but the last layer, as a column's name."""
    return f"{100 * (1 - RATE) ** round:.1f}"


KINDS = [("ticket", round) for round in range(ROUNDS + 1)]
KINDS += [("redrawn", CONTROL), ("shuffled", CONTROL)]
TOLERANCE = {
    f"{kind}_{kept(round)}_{what}": tolerance
    for kind, round in KINDS
    for what, tolerance in (("stop", 1000), ("accuracy", 0.07), ("early", 0.1))
}


def network(inputs: int) -> nn.Sequential:
    """LeNet-300-100, with Glorot's weights and zero biases at the start."""
    layers = [nn.Linear(inputs, 300), nn.Linear(300, 100), nn.Linear(100, 10)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def load(data: str) -> tuple[Tensor, Tensor]:
    """5,000 examples, shuffled by the current seed."""
    if data == "digits":
        x, y = mnist()
        x = x.view(-1, 28, 28)[:, 4:24, 4:24].flatten(1)
    else:
        train_x, train_y, test_x, test_y = mnist_1d()
        x, y = torch.cat([train_x, test_x]), torch.cat([train_y, test_y])
    order = torch.randperm(len(y))
    return x[order].float(), y[order]


def run(data: str, seed: int) -> dict[str, float]:
    """For each network: its stopping step, test accuracy there, and test accuracy at step 100."""
    torch.manual_seed(seed)
    x, y = load(data)
    (train_x, validation_x, test_x), (train_y, validation_y, test_y) = (
        part.split([3500, 500, 1000]) for part in (x, y)
    )
    results: dict[str, float] = {}

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return (model(test_x).argmax(1) == test_y).double().mean().item()

    def fit(model: nn.Module, masks: Masks, name: str) -> None:
        """Train, and record the step with the least validation loss."""
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        apply_masks_(model, masks)
        best, stop = float("inf"), 0
        for step in range(1, STEPS[name.split("_")[0]] + 1):
            rows = torch.randint(len(train_y), (BATCH,))
            optimizer.zero_grad()
            cross_entropy(model(train_x[rows]), train_y[rows]).backward()
            optimizer.step()
            apply_masks_(model, masks)
            if step % EVERY == 0:
                with torch.no_grad():
                    loss = cross_entropy(model(validation_x), validation_y).item()
                if loss < best:
                    best, stop, at_stop = loss, step, accuracy(model)
            if step == EARLY:
                early = accuracy(model)
        results.update({f"{name}_stop": stop, f"{name}_accuracy": at_stop, f"{name}_early": early})

    model = network(x.shape[1])
    start = copy.deepcopy(model.state_dict())
    rounds = iterative_pruning(
        model,
        lambda model, masks: fit(model, masks, f"ticket_{kept(len(results) // 3)}"),
        [amounts(round) for round in range(1, ROUNDS + 1)],
        start,
    )
    fit(model, rounds[-1], f"ticket_{kept(ROUNDS)}")
    masks = rounds[CONTROL - 1]
    rewind_(model, network(x.shape[1]).state_dict(), masks)
    fit(model, masks, f"redrawn_{kept(CONTROL)}")
    masks = shuffled_masks(masks)
    rewind_(model, start, masks)
    fit(model, masks, f"shuffled_{kept(CONTROL)}")
    return results


def amounts(round: int) -> dict[str, float]:
    """Fractions removed after a round; the last layer loses half as much each time."""
    all_but_last = 1 - (1 - RATE) ** round
    return dict.fromkeys(("0.weight", "2.weight"), all_but_last) | {
        "4.weight": 1 - (1 - RATE / 2) ** round
    }
