"""How the scripts of this folder measure, and how they write what they measured."""

import csv
import time
from collections.abc import Callable
from pathlib import Path


def milliseconds(job: Callable[[], object], runs: int = 7) -> float:
    """Smallest CPU time of some runs of a job, on however many threads torch has."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        job()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def write(script: str, rows: list[dict[str, object]]) -> None:
    """Print the rows, and write them to the table beside a script; numbers with three digits."""
    for row in rows:
        for name, value in row.items():
            row[name] = float(f"{value:.3g}") if isinstance(value, float) else value
        print(row)
    with Path(script).with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
