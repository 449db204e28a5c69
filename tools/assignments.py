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
import copy
import io
import os
import shutil
import sys
import time
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import matplotlib.pyplot as plt
import nbformat
from book_extension import chapter_title, source_text
from nbformat import NotebookNode
from nbformat.warnings import MissingIDFieldWarning
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearSolutions
from notebooks import INSTALL, METADATA, ROOT, address
from sqlalchemy.exc import SAWarning
from tqdm import tqdm
from traitlets.config import Config, PyFileConfigLoader

warnings.filterwarnings("ignore", category=SAWarning)  # of nbgrader's queries
warnings.filterwarnings("ignore", category=MissingIDFieldWarning)  # of tests that it puts back

EXERCISES = ROOT / "exercises"
SETTINGS = EXERCISES / "nbgrader_config.py"
STUDENTS = ROOT / "assignments"  # the notebooks that students get, also in the book
BUILD = ROOT / "build" / "assignments"
POINTS = 10
NBGRADER = {
    "grade": False,
    "locked": False,
    "schema_version": 3,
    "solution": False,
    "task": False,
}
INTRODUCTION = """\
**{points} points, about {minutes} minutes.** You need {chapters}: {prerequisites}.

Replace each line `raise NotImplementedError(...)` by your code, and run the cell of tests below it.
A test that fails says what is wrong. Hidden tests check the same functions on other data when the
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


def outcome(
    notebook: NotebookNode, answers: dict[str, str], tests: list[str] | None = None
) -> dict[str, str | None]:
    """Run the cells in one namespace, with ``answers`` in place of cells (grade id -> source).

    Returns:
        For each cell of tests, or for those asked for, what it said when it failed, or None if it
        passed; and what other cells said that failed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    said: dict[str, str | None] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "wrong" in cell.metadata:
            continue
        name = grader(cell).get("grade_id", cell.id)
        if is_test(cell) and tests is not None and name not in tests:
            continue
        error, stderr = None, io.StringIO()
        try:
            code = compile(answers.get(name, cell.source), f"<{name}>", "exec")
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(stderr),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("default")  # what they write costs points, as in a kernel,
                warnings.simplefilter("ignore", DeprecationWarning)  # which does not show these
                exec(code, namespace)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        if is_test(cell):  # nbgrader gives no points where something is written to stderr
            said[name] = error or stderr.getvalue() or None
        elif error:
            said[name] = error
    plt.close("all")
    return said


def stubs(notebook: NotebookNode) -> dict[str, str]:
    """For each task the cell that a student gets."""
    clear = ClearSolutions(config=settings()).preprocess_cell
    cells = [copy.deepcopy(cell) for cell in notebook.cells if is_task(cell)]
    return {
        grader(cell)["grade_id"]: clear(cell, {"language": "python"}, 0)[0].source for cell in cells
    }


def points(notebook: NotebookNode, said: dict[str, str | None]) -> float:
    """The points of all tests that passed."""
    return sum(
        grader(cell)["points"]
        for cell in notebook.cells
        if is_test(cell) and said[grader(cell)["grade_id"]] is None
    )


def source(text: Path) -> NotebookNode:
    """The instructor's notebook: with solutions and hidden tests, without wrong answers."""
    notebook = read(text)
    facts = dict(notebook.metadata["assignment"], name=text.stem, points=POINTS)
    chapters = " and ".join(
        f"[{chapter_title(source_text(name))}](../book/{name}.ipynb)" for name in facts["chapters"]
    )
    introduction = nbformat.v4.new_markdown_cell(
        INTRODUCTION.format(**{**facts, "chapters": chapters})
    )
    install = nbformat.v4.new_code_cell(INSTALL.format(address=address()))
    cells = [cell for cell in notebook.cells if "wrong" not in cell.metadata]
    notebook.cells = [cells[0], introduction, install, *cells[1:]]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
    notebook.metadata = nbformat.from_dict({**METADATA, "assignment": facts})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def settings() -> Config:
    """What the course folder's ``nbgrader_config.py`` says."""
    return PyFileConfigLoader(str(SETTINGS)).load_config()


def course(folder: Path, **more: Any) -> NbGraderAPI:
    """nbgrader for a course folder, with our settings and more."""
    programs = str(Path(sys.executable).parent)  # nbgrader calls alembic, by its name
    if programs not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([programs, os.environ["PATH"]])
    config = settings()
    config.merge(Config(more))
    config.CourseDirectory.root = str(folder.absolute())
    api = NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)
    api.log.setLevel("ERROR")
    return api


def source_path(name: str, folder: Path) -> Path:
    """Where a course folder has the instructor's notebook of an assignment."""
    return folder / "source" / name / f"{name}.ipynb"


def add(text: Path, folder: Path) -> Path:
    """Put an assignment into a course folder, for nbgrader; return the students' notebook."""
    name = text.stem
    path = source_path(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(source(text), path)
    shutil.copy(SETTINGS, folder)
    result = course(folder).generate_assignment(name)
    if not result["success"]:
        raise RuntimeError(f"nbgrader cannot make {name}: {result.get('log')}\n{result['error']}")
    return folder / "release" / name / f"{name}.ipynb"


def archive(folder: Path, path: Path) -> None:
    """A zip of all notebooks below a folder, the same bytes each time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for notebook in sorted(folder.rglob("*.ipynb")):
            bundle.writestr(zipfile.ZipInfo(notebook.name), notebook.read_bytes())


def make() -> None:
    """The students' notebooks, the course folder, and the two archives."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.rmtree(STUDENTS, ignore_errors=True)
    STUDENTS.mkdir()
    for text in tqdm(texts(), desc="assignments"):
        released = add(text, BUILD / "course")
        notebook = nbformat.read(released, as_version=4)
        (STUDENTS / released.name).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    archive(STUDENTS, BUILD / "students.zip")
    archive(BUILD / "course" / "source", BUILD / "instructors.zip")
    print(f"{len(texts())} assignments are in {STUDENTS} and {BUILD}")


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
            said = outcome(notebook, {task.solution: code}, task.tests)
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
    else:
        make()


if __name__ == "__main__":
    main()
