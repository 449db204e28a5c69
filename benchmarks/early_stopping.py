"""What it costs to keep the best weights: our one buffer beside two usual ways.

Writes ``early_stopping.csv`` beside this file. CPU milliseconds on one thread, a network with
535,818 weights, float32; they depend on the machine, and no test looks at them.
"""

import copy
import io

import torch
from timing import milliseconds, write
from torch import nn

from regkit.early_stopping import EarlyStopping

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU())
    model.append(nn.Linear(256, 10))
    stopping = EarlyStopping(model, patience=1000)
    errors = iter(range(10**6, 0, -1))  # always better: a snapshot each time
    ways = {
        "regkit": lambda: stopping.should_stop(next(errors)),
        "copy.deepcopy(state_dict())": lambda: copy.deepcopy(model.state_dict()),
        "torch.save": lambda: torch.save(model.state_dict(), io.BytesIO()),
    }
    write(__file__, [{"way": way, "ms": milliseconds(job, 50)} for way, job in ways.items()])
