"""Grade a folder of submissions: nbgrader, in parallel, with students' code shut in.

The folder has one folder or one notebook a student, named after the student. All results go to a
course folder that nbgrader's formgrader can open: what was handed in, the graded notebooks, the
gradebook, and in ``grades/<assignment>/`` a table, a page of feedback a student, and a summary.
"""

import argparse
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import sandbox
from joblib import Parallel, delayed, parallel_config
from nbformat import NotebookNode
from nbgrader.converters import Autograde
from nbgrader.preprocessors import Execute, SaveAutoGrades
from submissions import Submission, collect, load, restore
from summary import summarize
from tqdm import tqdm

from assignments import (
    EXERCISES,
    ROOT,
    add,
    course,
    grader,
    is_test,
    outcome,
    read,
    source_path,
    tasks,
)

Limits = dict[str, Any]  # seconds and shut_in of sandbox.execute
DISABLED = "this test passes with a wrong answer too: something in the notebook disables it"


def probes(assignment: str, folder: Path) -> dict[str, str]:
    """For each cell of tests a wrong answer that it catches: what must fail in every notebook.

    The wrong answers are those of the text today, the tests those that were handed out.
    """
    handed_out = nbformat.read(source_path(assignment, folder), as_version=4)
    found: dict[str, str] = {}
    for task in tasks(read(EXERCISES / f"{assignment}.md")):
        for code in task.wrong.values():
            said = outcome(handed_out, {task.solution: code}, task.tests)
            found |= {test: code for test in task.tests if said.get(test) and test not in found}
    return found


def run(notebook: NotebookNode, wrong: dict[str, str], limits: Limits) -> None:
    """Execute a notebook in the sandbox, and then its tests once more, with wrong answers.

    A test that passes in spite of a wrong answer has been disabled, and counts as failed.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tests = [cell for cell in cells if is_test(cell) and grader(cell)["grade_id"] in wrong]
    probing = [f"{wrong[grader(cell)['grade_id']]}\n\n{cell.source}" for cell in tests]
    outputs = sandbox.execute([*(cell.source for cell in cells), *probing], **limits)
    for number, (cell, given) in enumerate(zip(cells, outputs, strict=False), start=1):
        cell.outputs = [nbformat.from_dict(output) for output in given]
        cell.execution_count = number
    for cell, probed in zip(tests, outputs[len(cells) :], strict=True):
        if not failed(cell.outputs) and not failed(probed):
            cell.outputs.append(nbformat.from_dict(sandbox.error(DISABLED)))


def failed(outputs: Iterable[dict[str, Any]]) -> bool:
    """Whether nbgrader gives no points for these outputs."""
    return any(
        output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs
    )


def grade(
    submission: Submission, folder: Path, wrong: dict[str, str], limits: Limits
) -> tuple[Submission, NotebookNode]:
    """Grade a submission in a course folder of its own; return it with the graded notebook.

    What cannot be read is graded as if nothing had been answered.
    """
    name = submission.assignment
    released = nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
    notebook = copy.deepcopy(released)
    if submission.notebook is not None:
        try:
            notebook = load(submission.notebook)
            submission.remarks += restore(notebook, released)
        except ValueError as error:
            submission.remarks.append(str(error))
    try:
        return submission, autograde(submission, notebook, folder, wrong, limits)
    except Exception as error:  # whatever a notebook may lead to: the others must not suffer
        submission.remarks.append(f"nbgrader cannot grade this notebook: {error}")
        return submission, autograde(submission, released, folder, wrong, limits)


def autograde(
    submission: Submission,
    notebook: NotebookNode,
    folder: Path,
    wrong: dict[str, str],
    limits: Limits,
) -> NotebookNode:
    """Run nbgrader's autograde on one notebook, beside nobody else's."""

    def execute(notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        run(notebook, wrong, limits)
        return notebook, resources

    steps = Autograde.autograde_preprocessors.default_args[0]
    steps = [execute if step is Execute else step for step in steps]
    name, student = submission.assignment, submission.student
    with tempfile.TemporaryDirectory() as own:
        place = Path(own, "submitted", student, name, f"{name}.ipynb")
        place.parent.mkdir(parents=True)
        nbformat.write(with_remarks(notebook, submission.remarks), place)
        shutil.copy(folder / "gradebook.db", own)
        api = course(Path(own), Autograde={"autograde_preprocessors": steps})
        result = api.autograde(name, student)
        if not result["success"]:
            raise RuntimeError(result.get("log") or result["error"])
        return nbformat.read(Path(own, "autograded", student, name, place.name), as_version=4)


def with_remarks(notebook: NotebookNode, remarks: list[str]) -> NotebookNode:
    """A copy that begins with our remarks."""
    notebook = copy.deepcopy(notebook)
    if remarks:
        words = "\n".join(["**Remarks on this submission**", "", *(f"- {it}" for it in remarks)])
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(words))
    return notebook


def save(submission: Submission, graded: NotebookNode, folder: Path) -> None:
    """Put a submission, its graded notebook and its scores into the course folder."""
    name, student = submission.assignment, submission.student
    try:
        keep(submission, folder / "submitted" / student / name)
    except OSError as error:  # no right to read, a full disk
        submission.remarks.append(f"not all files could be copied: {error}")
    place = folder / "autograded" / student / name / f"{name}.ipynb"
    place.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(graded, place)
    api = course(folder)
    with api.gradebook as gradebook:
        gradebook.update_or_create_student(student)
        gradebook.update_or_create_submission(name, student)
    names = {"notebook": name, "assignment": name, "student": student}
    SaveAutoGrades().preprocess(graded, {"nbgrader": {**names, "db_url": api.coursedir.db_url}})


def keep(submission: Submission, place: Path) -> None:
    """Copy all that was handed in, and the notebook also under the name that nbgrader expects."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if submission.handed.is_dir() and not submission.handed.is_symlink():
        shutil.copytree(submission.handed, place, symlinks=True, ignore=special, dirs_exist_ok=True)
    else:
        shutil.copy(submission.handed, place, follow_symlinks=False)
    expected = place / f"{submission.assignment}.ipynb"
    if submission.notebook is not None and not expected.exists():
        shutil.copy(submission.notebook, expected)


def special(folder: str, names: list[str]) -> list[str]:
    """What cannot be copied: pipes, sockets, devices."""
    paths = [Path(folder, name) for name in names]
    return [
        path.name for path in paths if not (path.is_symlink() or path.is_file() or path.is_dir())
    ]


def feedback(student: str, assignment: str, folder: Path) -> str | None:
    """Write a student's page of feedback; say so if nbgrader cannot."""
    result = course(folder).generate_feedback(assignment, student)
    if not result["success"]:
        return f"no feedback for {student}: {result.get('log') or result['error']}"
    pages = folder / "grades" / assignment / "feedback"
    pages.mkdir(parents=True, exist_ok=True)
    page = folder / "feedback" / student / assignment / f"{assignment}.html"
    shutil.copy(page, pages / f"{student}.html")
    return None


def grade_all(
    submitted: Path, folder: Path, assignment: str | None, jobs: int, limits: Limits
) -> None:
    """Grade everything in a folder. Inside ``parallel_config(backend="dask")``, on a cluster.

    Raises:
        ValueError: if there is nothing to grade.
    """
    submissions = collect(submitted, assignment)
    names = sorted({submission.assignment for submission in submissions})
    for name in names:
        if not (folder / "release" / name).exists():
            add(EXERCISES / f"{name}.md", folder)
    wrong = {name: probes(name, folder) for name in tqdm(names, desc="assignments")}
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(grade)(submission, folder, wrong[submission.assignment], limits)
        for submission in submissions
    )
    remarks: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for submission, graded in tqdm(results, total=len(submissions), desc="submissions"):
        save(submission, graded, folder)
        remarks[submission.assignment][submission.student] = submission.remarks
    for name in names:
        report(name, folder, jobs, remarks[name])


def report(assignment: str, folder: Path, jobs: int, remarks: dict[str, list[str]]) -> None:
    """Write feedback, table and summary of an assignment from the gradebook.

    Raises:
        ValueError: if nothing was graded.
    """
    students = sorted(path.parent.name for path in folder.glob(f"autograded/*/{assignment}"))
    if not students:
        raise ValueError(f"ASSIGNMENT must be one that was graded in {folder}, not {assignment}")
    pages = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(feedback)(student, assignment, folder) for student in students
    )
    failures = [said for said in tqdm(pages, total=len(students), desc="feedback") if said]
    for failure in failures:
        print(failure, file=sys.stderr)
    print(summarize(assignment, folder, remarks))


def main() -> None:
    parser = argparse.ArgumentParser(description="Grade a folder of submissions.")
    parser.add_argument("submitted", type=Path, nargs="?", help="one folder or notebook a student")
    parser.add_argument("--assignment", help="only this one")
    parser.add_argument("--course", type=Path, default=ROOT / "course", help="where results go")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler")
    parser.add_argument("--seconds", type=int, default=sandbox.SECONDS, help="of a cell")
    parser.add_argument("--no-sandbox", action="store_true", help="run students' code unprotected")
    parser.add_argument("--feedback", action="store_true", help="anew, with the points by hand")
    arguments = parser.parse_args()
    folder, assignment, jobs = arguments.course, arguments.assignment, arguments.jobs
    try:
        if arguments.feedback:
            report(assignment, folder, jobs, {})
            return
        if arguments.submitted is None:
            raise ValueError("SUBMITTED must name a folder: make grade SUBMITTED=...")
        reason = None if arguments.no_sandbox else sandbox.missing()
        if reason:
            raise ValueError(
                f"Students' code must not run unprotected, and {reason}. If you trust all of it, "
                "say so: make grade SUBMITTED=... UNSAFE=1"
            )
        limits = {"seconds": arguments.seconds, "shut_in": not arguments.no_sandbox}
        with cluster(arguments.cluster):
            grade_all(arguments.submitted, folder, assignment, jobs, limits)
    except ValueError as error:
        sys.exit(str(error))


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Send parallel work to a Dask cluster that sees the same disk, if there is an address."""
    if address is None:
        yield
        return
    from distributed import Client

    with Client(address) as client:
        client.run(find_modules, str(Path(__file__).parent))
        client.run_on_scheduler(find_modules, str(Path(__file__).parent))
        with parallel_config(backend="dask"):
            yield


def find_modules(folder: str) -> None:
    sys.path.insert(0, folder)


if __name__ == "__main__":
    main()
