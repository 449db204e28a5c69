"""Measure what each chapter costs: CPU seconds on one thread, peak memory, weight of its page.

Writes ``chapters.csv`` beside this file; the run time in a chapter's text is copied from there.
"""

import csv
import json
import os
import resource
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).parent / "chapters.csv"


def run_cells(path: Path) -> None:
    """Run a chapter's code cells in this process and print what they cost."""
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell

    matplotlib.use("agg")
    os.chdir(path.parent)
    shell = InteractiveShell.instance()
    cells = json.loads(path.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            shell.run_cell("".join(cell["source"]), silent=True).raise_error()
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    print(f"\n{seconds:.0f} {used.ru_maxrss / 1024:.0f}")


def main() -> None:
    rows = []
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        command = [sys.executable, __file__, str(path)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, memory = output.splitlines()[-1].split()
        page = (ROOT / "_build" / "html" / "book" / f"{path.stem}.html").stat().st_size
        rows.append([path.stem, seconds, memory, f"{page / 1e6:.2f}", date.today().isoformat()])
        print(*rows[-1])
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["chapter", "cpu_seconds", "peak_mb", "page_mb", "date"])
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_cells(Path(sys.argv[1]))
    else:
        main()
