"""What the parts of cascade-correlation are worth on two spirals: one thing changed at a time.

A row is the mean over ten seeds; an unsolved run counts with the 40 units at which it was stopped.
The rows "paper" are the ten seeds of the same number in ``cascade_spirals``. Nothing is tuned.
"""

import torch

from regkit.datasets import two_spirals
from regkit.growing import CascadeCorrelation, error_drop

VARIANTS = {
    "paper": {},
    "raw error": {"raw_error": True},
    "no offset": {"offset": 0.0},
    "offset 0.02": {"offset": 0.02},
    "offset 0.5": {"offset": 0.5},
    "offset 1": {"offset": 1.0},
    "Adam": {"optimizer": "adam"},
    "largest drop": {"criterion": error_drop},
    "largest drop, Adam": {"criterion": error_drop, "optimizer": "adam"},
    "pool of 1": {"pool": 1},
    "pool of 2": {"pool": 2},
    "pool of 4": {"pool": 4},
    "pool of 16": {"pool": 16},
}
SETTINGS = [{"variant": name, "block": block} for name in VARIANTS for block in range(10)]
TOLERANCE = {"units": 8, "epochs": 1500, "solved": 6}  # see cascade_spirals on rounding


def run(variant: str, block: int) -> dict[str, float]:
    """Mean units and epochs of ten seeds, and how many of them are solved within 40 units."""
    x, y = two_spirals()
    models = [
        CascadeCorrelation(
            "sigmoid",
            max_units=40,
            tolerance=0.4,
            generator=torch.Generator().manual_seed(seed),
            **VARIANTS[variant],
        ).fit(x, y)
        for seed in range(10 * block, 10 * block + 10)
    ]
    epochs = [sum(len(phase.values) for phase in model.history_) for model in models]
    errors = [model.outputs(x)[:, 0] - (y - 0.5) for model in models]
    return {
        "units": sum(model.units_ for model in models) / 10,
        "epochs": sum(epochs) / 10,
        "solved": sum(int(error.abs().max() < 0.4) for error in errors),
    }
