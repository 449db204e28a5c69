"""Run a study, ``studies/<name>.py``, and write its table, ``studies/<name>.csv``.

A study is an experiment that takes longer than a chapter may. Its script has

- ``SETTINGS``: one dict of settings a row of the table, the seed among them;
- ``run(**settings)``: one row's results, a dict of numbers;
- ``TOLERANCE``: how much each result may differ on another processor. A test runs a row again.
"""

import argparse
import csv
import importlib.util
import os
import platform
from datetime import date
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from regkit.training import replicate

STUDIES = Path(__file__).parent.parent / "studies"


def load(name: str) -> ModuleType:
    """The script of a study, as a module."""
    path = STUDIES / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None or not path.exists():
        names = ", ".join(sorted(script.stem for script in STUDIES.glob("*.py")))
        raise SystemExit(f"there is no study {name!r}; there are: {names}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def row(name: str, number: int) -> dict[str, float]:
    """One row of a study's table: its settings and its results."""
    torch.set_num_threads(1)
    study = load(name)
    settings = study.SETTINGS[number]
    return settings | study.run(**settings)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a study and write its table.")
    parser.add_argument("name")
    name = parser.parse_args().name
    numbers = range(len(load(name).SETTINGS))
    rows = replicate(lambda number: row(name, number), numbers, n_jobs=os.cpu_count() or 1)
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    with (STUDIES / f"{name}.csv").open("w", newline="") as file:
        file.write(f"# `make study NAME={name}` on {date.today()}: ")
        file.write(f"torch {torch.__version__.split('+')[0]}, {versions}\n")
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
