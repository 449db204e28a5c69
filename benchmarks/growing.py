"""Cascade-correlation: ours beside pycascor on two spirals, with the same settings.

Writes ``growing.csv`` beside this file. Seconds of CPU on one thread, a mean over some runs; they
depend on the machine, and no test looks at them. pycascor is plain Python, a loop over samples,
candidates and connections; its settings are set to those of the authors' program, as ours are.
"""

import logging
import random
import time

import numpy as np
import torch
from pycascor.activation_functions import Sigmoid
from pycascor.network import CCNetwork
from pycascor.trainer import Trainer
from timing import write
from torch import Tensor

from regkit.datasets import two_spirals
from regkit.growing import CascadeCorrelation


def ours(seed: int, x: Tensor, y: Tensor) -> tuple[int, int, bool]:
    """Units, epochs, and whether the run was solved."""
    generator = torch.Generator().manual_seed(seed)
    model = CascadeCorrelation("sigmoid", tolerance=0.4, generator=generator).fit(x, y)
    errors = model.outputs(x)[:, 0] - (y - 0.5)
    epochs = sum(len(phase.values) for phase in model.history_)
    return model.units_, epochs, bool(errors.abs().max() < 0.4)


def pycascor(seed: int, x: Tensor, y: Tensor) -> tuple[int, int, bool]:
    """The same for pycascor."""
    random.seed(seed)
    trainer = Trainer([(8, Sigmoid())])
    trainer.output_epsilon, trainer.input_epsilon, trainer.output_patience = 1.0, 100.0, 12
    network = CCNetwork(2, 1, Sigmoid())
    targets = (y - 0.5)[:, None].tolist()
    trainer.train_network(x.tolist(), targets, network, rounds=26)
    errors = []
    for inputs, (target,) in zip(x.tolist(), targets, strict=True):
        network.full_forward_pass(inputs)
        errors.append(abs(network.outputs[0] - target))
    return network.number_of_hidden_nodes, trainer.epoch, max(errors) < 0.4


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    logging.disable(logging.CRITICAL)
    x, y = two_spirals()
    ours(0, x, y)  # torch imports parts of itself at the first call
    rows = []
    for name, run, seeds in [("regkit", ours, range(20)), ("pycascor", pycascor, range(3))]:
        start = time.process_time()
        results = [run(seed, x, y) for seed in seeds]
        seconds = time.process_time() - start
        units, epochs, solved = (np.array(column) for column in zip(*results, strict=True))
        row = {
            "library": name,
            "runs": len(seeds),
            "solved": int(solved.sum()),
            "units": float(units.mean()),
            "epochs": float(epochs.mean()),
            "seconds a run": seconds / len(seeds),
            "milliseconds an epoch": 1000 * seconds / epochs.sum(),
        }
        rows.append(row)
    write(__file__, rows)


if __name__ == "__main__":
    main()
