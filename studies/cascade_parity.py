"""Parity by cascade-correlation (after Fahlman & Lebiere 1990): units, and half a table.

A row of kind "all" learns all of the 2^N patterns; "half" and "quarter" learn a random part of the
1,024 patterns of ten bits and are tested on the others. Bits are -1/2 and 1/2. Settings as in
``cascade_spirals``; nothing is tuned. Rounding decides the path of a run there and here.
"""

import torch

from regkit.growing import CascadeCorrelation

PARTS = {"all": 1.0, "half": 0.5, "quarter": 0.25}
SETTINGS = [
    {"bits": bits, "part": "all", "seed": seed} for bits in range(2, 9) for seed in range(20)
] + [{"bits": 10, "part": part, "seed": seed} for part in ("half", "quarter") for seed in range(50)]
TOLERANCE = {"units": 5, "epochs": 700, "learned": 0, "tested": 0.3}


def run(bits: int, part: str, seed: int) -> dict[str, float]:
    """Units, epochs, and how much is right of the learned and of other patterns (1 if none)."""
    x = ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1).double() - 0.5  # (N, bits)
    y = (x > 0).sum(1) % 2
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    learn = order[: int(PARTS[part] * len(x))]
    model = CascadeCorrelation("sigmoid", max_units=40, tolerance=0.4, generator=generator)
    right = model.fit(x[learn], y[learn]).predict(x) == y
    others = torch.ones_like(right)
    others[learn] = False
    return {
        "units": model.units_,
        "epochs": sum(len(phase.values) for phase in model.history_),
        "learned": right[learn].double().mean().item(),
        "tested": right[others].double().mean().item() if others.any() else 1.0,
    }
