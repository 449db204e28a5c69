"""Resolve ``pyproject.toml`` into the three requirements files.

uv resolves for every platform and Python from 3.11 on. We leave out what torch's Linux build
wants from NVIDIA: pip fetches those itself beside a CUDA build, and a CPU build needs none.
"""

import re
import subprocess
import sys
from pathlib import Path

HEADER = """\
# Made by `make lock` from pyproject.toml and constraints.txt; do not edit.
# {purpose}
# Left out on purpose: the pins nvidia-*, cuda-* and triton, which only torch's CUDA build needs.
"""
OUTPUTS = {
    "requirements.txt": ("book", "Reading, running and building the book."),
    "requirements-grading.txt": (
        "book,grading",
        "All of requirements.txt, and what an instructor needs to grade.",
    ),
    "requirements-dev.txt": (
        "book,grading,dev",
        "All of requirements-grading.txt, and what tests and tools need.",
    ),
}
ACCELERATOR = re.compile(r"^(nvidia-|cuda-|triton\b)")


def resolve(extras: str, constraints: list[str]) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "-",
        "--quiet",
        "--universal",
        "--python-version",
        "3.11",
    ]
    command += ["--no-header", "--no-annotate"]
    for file in constraints:
        command += ["--constraint", file]
    result = subprocess.run(
        command, input=f"-e .[{extras}]\n", check=True, capture_output=True, text=True
    )
    pins = [line for line in result.stdout.splitlines() if not ACCELERATOR.match(line)]
    return [f"-e .[{extras}]" if pin == "-e ." else pin for pin in pins]


def main() -> None:
    constraints = ["constraints.txt"]
    for name, (extras, purpose) in OUTPUTS.items():
        pins = resolve(extras, constraints)
        Path(name).write_text(HEADER.format(purpose=purpose) + "\n".join(pins) + "\n")
        # Each lock keeps every version of the one before. A constraint cannot be editable.
        Path("build").mkdir(exist_ok=True)
        pinned = Path("build/constraints.txt")
        pinned.write_text("\n".join(pin for pin in pins if not pin.startswith("-e")) + "\n")
        constraints.append(str(pinned))


if __name__ == "__main__":
    main()
