"""MC dropout: ``mc_predict`` beside a Python loop of passes with ``nn.Dropout``.

Writes ``dropout.csv`` beside this file. Times are milliseconds of CPU on one thread, the least of
several runs; they depend on the machine, and no test looks at them.
"""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from regkit.dropout import Dropout, mc_predict

TABLE = Path(__file__).parent / "dropout.csv"
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


def milliseconds(call: Callable[[], object], runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for samples, inputs, hidden in [(1, 64, 64), (10, 64, 64), (100, 64, 128), (1000, 784, 512)]:
        x = torch.randn(samples, inputs)
        torchs = network(inputs, hidden, lambda: nn.Dropout(0.5))
        ours = network(inputs, hidden, lambda: Dropout(0.5))
        spread = (loop(torchs, x).mean(0) - mc_predict(ours, x, PASSES).mean(0)).abs().max()
        assert spread < 0.5, "the two do not compute the same expectation"
        masks = torch.empty(PASSES * samples, hidden)
        row = {
            "samples": samples,
            "network": f"{inputs}-{hidden}-{hidden}-10",
            "loop of nn.Dropout": milliseconds(lambda m=torchs, x=x: loop(m, x)),
            "mc_predict": milliseconds(lambda m=ours, x=x: mc_predict(m, x, PASSES)),
            "drawing the masks (floor)": 2 * milliseconds(lambda d=masks: d.bernoulli_(0.5)),
        }
        rows.append({name: round(v, 2) if isinstance(v, float) else v for name, v in row.items()})
        print(rows[-1])
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
