"""Make the graded assignments from the text in ``exercises/``.

Without an option: the students' notebooks in ``assignments/``, and in ``build/assignments/`` an
nbgrader course folder and two archives, one for students and one for instructors.
``--check NAME`` runs an assignment with its solutions, its stubs and its wrong answers, and says
how many points each gets.

A text is MyST with nbgrader's metadata on its cells; missing keys mean false. On top of these:

- the header's ``assignment`` holds ``chapters``, ``minutes`` and ``prerequisites``;
- a cell of tests has the ``claim`` of the ledger that it asks about;
- a code cell with ``wrong`` is a plausible wrong answer to the task before it. It says in words
  what is misunderstood, and is in no notebook.
"""

import argparse
import contextlib
import io
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from notebooks import INSTALL, METADATA, ROOT, address

EXERCISES = ROOT / "exercises"
POINTS = 10
STUB = 'raise NotImplementedError("your code is missing: replace this line")'
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
NBGRADER = {
    "grade": False,
    "locked": False,
    "schema_version": 3,
    "solution": False,
    "task": False,
}
INTRODUCTION = """\
**{points} points, about {minutes} minutes.** You need {chapters}: {prerequisites}.

Replace each line `raise NotImplementedError(...)` by your code, and run the cell of tests below it. A
test that fails says what is wrong. Hidden tests check the same functions on other data when the
assignment is graded. Keep the name of this file and the cells of tests as they are. Before you hand
in, restart the kernel and run all cells."""


@dataclass
class Task:
    """One function to write: the id of its cell, the ids of its tests, and wrong answers to it."""

    solution: str
    tests: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)  # what is misunderstood -> code


def texts() -> list[Path]:
    return sorted(EXERCISES.glob("*.md"))


def read(text: Path) -> NotebookNode:
    """The cells of a text, with complete nbgrader metadata and stable ids."""
    notebook = jupytext.read(text, fmt="md:myst")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        if "nbgrader" in cell.metadata:
            given = cell.metadata["nbgrader"]
            locked = not given.get("solution", False)
            cell.metadata["nbgrader"] = {
                **NBGRADER,
                "locked": locked,
                "cell_type": cell.cell_type,
                **given,
            }
    return notebook


def grader(cell: NotebookNode) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})


def is_test(cell: NotebookNode) -> bool:
    return bool(grader(cell).get("grade")) and not grader(cell)["solution"]


def is_task(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(grader(cell).get("solution"))


def tasks(notebook: NotebookNode) -> list[Task]:
    """The coding tasks of a text, each with the tests and wrong answers that follow it."""
    found: list[Task] = []
    for cell in notebook.cells:
        if is_task(cell):
            found.append(Task(grader(cell)["grade_id"]))
        elif is_test(cell):
            found[-1].tests.append(grader(cell)["grade_id"])
        elif "wrong" in cell.metadata:
            found[-1].wrong[cell.metadata["wrong"]] = cell.source
    return found


def clear(source: str) -> str:
    """The source of a cell with every solution replaced by the stub."""
    lines, inside = [], False
    for line in source.splitlines():
        if BEGIN in line:
            lines.append(line[: line.index(BEGIN)] + STUB)
        inside = (inside or BEGIN in line) and END not in line
        if not inside and END not in line:
            lines.append(line)
    return "\n".join(lines)


def outcome(notebook: NotebookNode, answers: dict[str, str]) -> dict[str, str | None]:
    """Run the cells in one namespace, with ``answers`` in place of cells (grade id -> source).

    Returns:
        For each cell of tests what it said when it failed, or None if it passed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    said: dict[str, str | None] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "wrong" in cell.metadata:
            continue
        name = grader(cell).get("grade_id", cell.id)
        error, stderr = None, io.StringIO()
        try:
            code = compile(answers.get(name, cell.source), f"<{name}>", "exec")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
                exec(code, namespace)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        if is_test(cell):  # nbgrader gives no points where something is written to stderr
            said[name] = error or stderr.getvalue() or None
    return said


def stubs(notebook: NotebookNode) -> dict[str, str]:
    """For each task the cell that a student gets."""
    return {grader(cell)["grade_id"]: clear(cell.source) for cell in notebook.cells if is_task(cell)}


def points(notebook: NotebookNode, said: dict[str, str | None]) -> float:
    """The points of all tests that passed."""
    return sum(
        grader(cell)["points"]
        for cell in notebook.cells
        if is_test(cell) and said[grader(cell)["grade_id"]] is None
    )


def check(name: str) -> None:
    """Print what solutions, stubs and wrong answers of an assignment get."""
    notebook = read(EXERCISES / f"{name}.md")
    start = time.perf_counter()
    solved = outcome(notebook, {})
    seconds = time.perf_counter() - start
    print(f"solutions: {points(notebook, solved):g} points in {seconds:.1f} s")
    for test, message in solved.items():
        if message:
            print(f"  !!! {test}: {message}")
    print(f"stubs: {points(notebook, outcome(notebook, stubs(notebook))):g} points")
    for task in tasks(notebook):
        missed = set(task.tests)
        for why, code in task.wrong.items():
            said = outcome(notebook, {task.solution: code})
            lost = {test: said[test] for test in task.tests if said[test]}
            missed -= set(lost)
            print(f"\n{task.solution}, wrong: {why}" + ("" if lost else "   !!! LOSES NOTHING"))
            for test, message in lost.items():
                print(f"  {test}: {message}")
        for test in sorted(missed):
            print(f"  !!! no wrong answer fails {test}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the graded assignments from their text.")
    parser.add_argument("--check", metavar="NAME", help="run solutions, stubs and wrong answers")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)


if __name__ == "__main__":
    main()
