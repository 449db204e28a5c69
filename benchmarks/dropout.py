"""MC dropout: ``mc_predict`` beside a Python loop of passes with ``nn.Dropout``.

Writes ``dropout.csv`` beside this file. Times are milliseconds of CPU on one thread, the least of
several runs; they depend on the machine, and no test looks at them.
"""

from collections.abc import Callable

import torch
from timing import milliseconds, write
from torch import Tensor, nn

from regkit.dropout import Dropout, mc_predict

PASSES = 100


def network(inputs: int, hidden: int, kind: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), kind(),
        nn.Linear(hidden, hidden), nn.ReLU(), kind(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


def loop(model: nn.Module, x: Tensor) -> Tensor:
    model.train()
    with torch.no_grad():
        return torch.stack([model(x) for _ in range(PASSES)])


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for samples, inputs, hidden in [(1, 64, 64), (10, 64, 64), (100, 64, 128), (1000, 784, 512)]:
        x = torch.randn(samples, inputs)
        torchs = network(inputs, hidden, lambda: nn.Dropout(0.5))
        ours = network(inputs, hidden, lambda: Dropout(0.5))
        one, other = loop(torchs, x), mc_predict(ours, x, PASSES)  # (S, N, 10)
        error = ((one.var(0) + other.var(0)) / PASSES).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() < 6 * error).all(), "not the same expectation"
        masks = torch.empty(PASSES * samples, hidden)
        row = {
            "samples": samples,
            "network": f"{inputs}-{hidden}-{hidden}-10",
            "loop of nn.Dropout": milliseconds(lambda m=torchs, x=x: loop(m, x)),
            "mc_predict": milliseconds(lambda m=ours, x=x: mc_predict(m, x, PASSES)),
            "drawing the masks (floor)": 2 * milliseconds(lambda d=masks: d.bernoulli_(0.5)),
        }
        rows.append(row)
    write(__file__, rows)


if __name__ == "__main__":
    main()
