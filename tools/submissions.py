"""Read what students handed in, whatever its state, and say in words what is wrong with it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from assignments import grader, is_test, texts

LARGEST = 200 * 2**20  # bytes of a notebook that we read
LONGEST = 60  # characters of a student's name, in names of files


@dataclass
class Submission:
    """What a student handed in for an assignment.

    Attributes:
        student: beginning of the name of the folder or file, with other characters than letters,
            digits and ``_ . @ -`` replaced.
        assignment: its name.
        handed: the folder or file as it came.
        notebook: the notebook that we grade, or None if there is none.
        remarks: what the student and the instructor should know.
    """

    student: str
    assignment: str
    handed: Path
    notebook: Path | None = None
    remarks: list[str] = field(default_factory=list)


def collect(folder: Path, wanted: str | None = None) -> list[Submission]:
    """Find the notebooks of every student, whatever they are called.

    Args:
        folder: has one folder or one notebook a student.
        wanted: the assignment; without it, all that are there.

    Raises:
        ValueError: if there is no such folder or assignment, or nothing to grade.
    """
    known = [text.stem for text in texts()]
    if wanted is not None and wanted not in known:
        raise ValueError(f"ASSIGNMENT must be one of {', '.join(known)}, not {wanted}")
    if not folder.is_dir():
        raise ValueError(f"SUBMITTED must be a folder, and {folder} is none")
    found: dict[tuple[str, str], Submission] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        for submission in of_student(entry, known, wanted):
            while (submission.student, submission.assignment) in found:
                submission.student += "_"  # two names became one
            found[submission.student, submission.assignment] = submission
    if not found:
        raise ValueError(f"SUBMITTED must hold a folder or notebook a student, {folder} has none")
    return list(found.values())


def of_student(entry: Path, known: list[str], wanted: str | None) -> list[Submission]:
    """The submissions in one entry of the folder; at least one if an assignment is wanted."""
    student = re.sub(r"[^\w.@-]", "_", entry.name if entry.is_dir() else entry.stem)[:LONGEST]
    candidates: dict[str, list[Path]] = {}
    for path in notebooks(entry):
        name = recognize(path, known) or wanted
        if name and wanted in (None, name):
            candidates.setdefault(name, []).append(path)
    found = []
    for name, paths in candidates.items():
        best = max(paths, key=lambda path: (path.stem == name, path.stat().st_mtime))
        found.append(Submission(student, name, entry, best))
        if len(paths) > 1:
            found[-1].remarks.append(
                f"{len(paths)} notebooks were handed in; {shown(best)} is graded"
            )
        elif best.stem != name and entry.is_dir():
            found[-1].remarks.append(f"{shown(best)} was renamed; it should be {name}.ipynb")
    if wanted and not found:
        found.append(Submission(student, wanted, entry, remarks=[f"no notebook in {shown(entry)}"]))
    return found


def shown(path: Path) -> str:
    """The name of a file as text, also where its bytes are none."""
    return path.name.encode("utf-8", "replace").decode()


def notebooks(entry: Path) -> list[Path]:
    """All notebooks of an entry. We follow no link: it may lead to somebody else's files."""
    if entry.is_symlink():
        return []
    paths = [entry] if entry.is_file() else sorted(entry.rglob("*.ipynb"))
    return [
        path
        for path in paths
        if path.is_file()
        and path.suffix == ".ipynb"
        and path.resolve() == entry.resolve() / path.relative_to(entry)
        and ".ipynb_checkpoints" not in path.parts
    ]


def recognize(path: Path, known: list[str]) -> str | None:
    """The assignment that a notebook belongs to, by its metadata or else its name."""
    try:
        name = load(path).metadata["assignment"]["name"]
    except (ValueError, KeyError, TypeError):
        name = path.stem
    return name if name in known else None


def load(path: Path) -> NotebookNode:
    """Read a notebook, without outputs and without anything that could steer its execution.

    Raises:
        ValueError: if it is not a notebook, in words for the student.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{shown(path)} is empty")
    if size > LARGEST:
        raise ValueError(f"{shown(path)} has {size / 2**20:.0f} MB, more than we read")
    try:
        raw = nbformat.reader.reads(path.read_text(encoding="utf-8-sig"))
        cells = [plain(cell) for cell in nbformat.convert(raw, 4).cells]
        notebook = nbformat.v4.new_notebook(
            cells=cells, metadata={"assignment": raw["metadata"].get("assignment")}
        )
        nbformat.validate(notebook)
    except Exception as error:  # whatever a damaged file may lead to
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{shown(path)} is not a notebook: {reason}") from error
    return notebook


def plain(cell: NotebookNode) -> NotebookNode:
    """A cell with nothing but its source and the id that nbgrader gave it."""
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }[cell.cell_type]
    given = cell.metadata.get("nbgrader")
    name = given.get("grade_id") if isinstance(given, dict) else None
    metadata = {"nbgrader": {"grade_id": name}} if isinstance(name, str) else {}
    return make("".join(cell.source), metadata=metadata)


def restore(notebook: NotebookNode, released: NotebookNode) -> list[str]:
    """Give the cells that we handed out their metadata back; say which tests were tampered with."""
    originals = {grader(cell)["grade_id"]: cell for cell in released.cells if grader(cell)}
    seen, changed = set(), []
    for cell in reversed(notebook.cells):  # of two copies of a cell, the last one counts
        name = cell.metadata.pop("nbgrader", {}).get("grade_id")
        original = originals.get(name)
        if original is None or name in seen or original.cell_type != cell.cell_type:
            continue
        seen.add(name)
        cell.metadata["nbgrader"] = original.metadata["nbgrader"]
        if is_test(original) and cell.source.strip() != original.source.strip():
            changed.append(name)
    notebook.metadata = released.metadata
    deleted = [name for name, cell in originals.items() if is_test(cell) and name not in seen]
    remarks = []
    if changed:
        remarks.append(f"we restored tests that were changed: {', '.join(reversed(changed))}")
    if deleted:
        remarks.append(f"we put tests back that were deleted: {', '.join(deleted)}")
    return remarks
