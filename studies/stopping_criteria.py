"""Stopping criteria: what does a slower one gain, and what does it cost? (Prechelt 1998)

Twelve real tables with classes, two sizes of network, ten splits: half of the examples train, a
quarter validates, a quarter tests. RPROP minimizes the squared error of one-hot outputs. A strip is
five epochs; validation and test errors are measured at its end. All criteria look at the same 3,000
epochs, and each gives the epoch at which it stops and the test error of the network with the
smallest validation error until then. Nothing was tuned.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss, one_hot

from regkit import datasets
from regkit.early_stopping import (
    first_stop,
    generalization_loss,
    progress_quotient,
    successive_rises,
)

TABLES = (
    "australian", "bupa", "heart", "ionosphere", "mammographic", "pima",
    "sonar", "vehicle", "vowel", "wdbc", "wine", "wisconsin",
)  # fmt: skip
STRIP, STRIPS, START = 5, 600, 0.1
SETTINGS = [
    {"table": table, "hidden": hidden, "split": split}
    for table in TABLES
    for hidden in (8, 24)
    for split in range(10)
]
GL, PQ, UP = (1, 2, 3, 5), (0.5, 0.75, 1, 2, 3), (2, 3, 4, 6, 8)
NAMES = [f"GL{a}" for a in GL] + [f"PQ{a}" for a in PQ] + [f"UP{s}" for s in UP]
TOLERANCE = {f"{name}_epoch": 300 for name in NAMES} | {f"{name}_error": 0.02 for name in NAMES}


def run(table: str, hidden: int, split: int) -> dict[str, float]:
    """Epoch at which each criterion stops, and the test error of what it keeps."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(split)
    x, y = datasets.table(table)
    y = one_hot(y).to(x)
    parts = torch.randperm(len(x)).tensor_split([len(x) // 2, 3 * len(x) // 4])
    x, valid_x, test_x = (x[rows] for rows in parts)
    y, valid_y, test_y = (y[rows] for rows in parts)
    model = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, y.shape[1]))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -START, START)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.1)
    training = torch.zeros(STRIPS, STRIP)
    validation, test = torch.zeros(STRIPS), torch.zeros(STRIPS)
    for strip in range(STRIPS):
        for epoch in range(STRIP):
            optimizer.zero_grad()
            error = mse_loss(model(x), y)
            training[strip, epoch] = error.detach()
            error.backward()
            optimizer.step()
        with torch.no_grad():
            validation[strip] = mse_loss(model(valid_x), valid_y)
            test[strip] = mse_loss(model(test_x), test_y)

    loss, rises = generalization_loss(validation), successive_rises(validation)
    quotient = progress_quotient(validation, training)
    stops = [first_stop(loss > a) for a in GL]
    stops += [first_stop(quotient > a) for a in PQ]
    stops += [first_stop(rises >= s) for s in UP]
    results = {}
    for name, stop in zip(NAMES, stops, strict=True):
        kept = validation[: stop + 1].argmin()
        results[f"{name}_epoch"] = STRIP * (int(stop) + 1)
        results[f"{name}_error"] = test[kept].item()
    return results
