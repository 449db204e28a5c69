"""Grading with nbgrader as an instructor does it: real notebooks, a real sandbox, hostile code."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import grade
import nbformat
import pandas as pd
import pytest
import sandbox
import submissions

import assignments
from assignments import POINTS, grader, is_task, is_test, tasks
from conftest import ROOT

NAMES = [text.stem for text in assignments.texts()]
HOSTILE = "08_11_sgd"
SECONDS = 8  # that a cell may take in these tests


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "grade.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def released(name: str, folder: Path) -> nbformat.NotebookNode:
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)


def solved(name: str, folder: Path) -> nbformat.NotebookNode:
    """What the best student hands in."""
    source = nbformat.read(folder / "source" / name / f"{name}.ipynb", as_version=4)
    answers = {grader(cell)["grade_id"]: cell.source for cell in source.cells if grader(cell)}
    notebook = released(name, folder)
    for cell in notebook.cells:
        if grader(cell).get("solution"):
            cell.source = answers[grader(cell)["grade_id"]]
    return notebook


def first_task(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if is_task(cell))


def hand_in(notebook: nbformat.NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def grades(folder: Path, name: str) -> pd.DataFrame:
    path = folder / "grades" / name / "grades.csv"
    return pd.read_csv(path, index_col="student", keep_default_na=False)


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course folder, as `make assignments` writes it."""
    folder = tmp_path_factory.mktemp("course")
    for text in assignments.texts():
        assignments.add(text, folder)
    return folder


# A full round for every assignment


@pytest.fixture(scope="module")
def graded(course, tmp_path_factory) -> Path:
    handed_in = tmp_path_factory.mktemp("submitted")
    for name in NAMES:
        hand_in(solved(name, course), handed_in / "best" / f"{name}.ipynb")
        hand_in(released(name, course), handed_in / "stub" / f"{name}.ipynb")
    result = run(handed_in, "--course", course)
    assert result.returncode == 0, result.stderr[-3000:]
    return course


@pytest.mark.parametrize("name", NAMES)
def test_round_of_nbgrader(name, graded):
    table = grades(graded, name)
    source = nbformat.read(graded / "source" / name / f"{name}.ipynb", as_version=4)
    worth = {
        grader(cell)["grade_id"]: grader(cell)["points"] for cell in source.cells if is_test(cell)
    }
    for task in tasks(source):
        assert table.loc["best", task.solution] == sum(worth[test] for test in task.tests)
        assert table.loc["stub", task.solution] == 0
    assert table.loc["best", "total"] == sum(worth.values())
    assert table.loc["stub", "total"] == 0
    assert table.loc["best", "by hand"]
    assert not table.loc["stub", "by hand"]
    assert list(table["remarks"]) == ["", ""]
    results = graded / "grades" / name
    assert {path.name for path in (results / "feedback").iterdir()} == {"best.html", "stub.html"}
    assert "your code is missing" in (results / "summary.html").read_text()


def test_points_by_hand_reach_the_table(graded):
    """What the formgrader does when an instructor gives points to the answer in words."""
    name = NAMES[0]
    with assignments.course(graded).gradebook as gradebook:
        marks = gradebook.find_submission_notebook(name, name, "best").grades
        words = next(mark for mark in marks if mark.needs_manual_grade)
        words.manual_score, words.needs_manual_grade = words.max_score, False
        gradebook.db.commit()
    result = run("--feedback", "--assignment", name, "--course", graded)
    assert result.returncode == 0, result.stderr
    table = grades(graded, name)
    assert table.loc["best", "total"] == POINTS
    assert not table["by hand"].any()


def test_a_text_that_changed_later_accuses_nobody(course, tmp_path):
    """Wrong answers that tests catch today, held against the tests that were handed out."""
    lenient = tmp_path / "source" / HOSTILE / f"{HOSTILE}.ipynb"
    source = nbformat.read(course / "source" / HOSTILE / f"{HOSTILE}.ipynb", as_version=4)
    for cell in source.cells:
        if is_test(cell):
            cell.source = "pass"
    hand_in(source, lenient)
    assert grade.probes(HOSTILE, tmp_path) == {}
    tests = {grader(cell)["grade_id"] for cell in source.cells if is_test(cell)}
    assert set(grade.probes(HOSTILE, course)) == tests


# Hostile and unlucky submissions, all at once


def tampered(name: str, course: Path) -> dict[str, nbformat.NotebookNode | bytes]:
    """Student -> what they hand in as the notebook."""
    handed_in: dict[str, nbformat.NotebookNode | bytes] = {"honest": solved(name, course)}

    def with_first_task(student: str, code: str, answered: bool) -> None:
        notebook = solved(name, course) if answered else released(name, course)
        cell = first_task(notebook)
        cell.source = f"{cell.source}\n{code}" if answered else code
        handed_in[student] = notebook

    with_first_task("loop", "while True:\n    pass", True)
    greedy = solved(name, course)
    cell = first_task(greedy)
    cell.source = f"hoard = [bytearray(10**7) for _ in range(1000)]\n{cell.source}"
    handed_in["memory"] = greedy
    with_first_task("exit", "exit()", True)
    with_first_task("killer", "import os\nos._exit(1)", True)
    with_first_task("printer", "print('x' * 50_000_000)", True)
    with_first_task(
        "overwriter",
        "import regkit.exercise\n"
        f"{function(name, course)} = lambda *a, **k: 0.0\n"
        "expect = regkit.exercise.expect = lambda *a, **k: None",
        False,
    )
    with_first_task("silencer", "get_ipython().showtraceback = lambda *a, **k: None", False)
    with_first_task(
        "rewriter", "get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])", False
    )
    for student, notebook in (("deleter", released(name, course)), ("tidy", solved(name, course))):
        notebook.cells = [cell for cell in notebook.cells if not is_test(cell)]
        handed_in[student] = notebook
    changed = released(name, course)
    for cell in changed.cells:
        if is_test(cell):
            cell.source = "pass"
            cell.metadata["nbgrader"]["points"] = 100
    handed_in["changer"] = changed
    stored = solved(name, course)
    first_task(stored).outputs = [nbformat.v4.new_output("stream", text="y" * 50_000_000)]
    handed_in["hoarder"] = stored
    fiddled = solved(name, course)
    for cell in fiddled.cells:
        if is_test(cell):
            cell.metadata["nbgrader"]["grade_id"] = ["no", "text"]
    handed_in["fiddler"] = fiddled
    handed_in["long" * 50] = solved(name, course)
    handed_in["invalid"] = b'{"cells": ['
    handed_in["strange"] = b'{"cells": 7, "metadata": [], "nbformat": 4}'
    handed_in["empty"] = b""
    return handed_in


def function(name: str, course: Path) -> str:
    """The name of the function that the first task asks for."""
    return first_task(released(name, course)).source.split("def ")[1].split("(")[0]


@pytest.fixture(scope="module")
def survived(course, tmp_path_factory) -> tuple[Path, Path]:
    submitted = tmp_path_factory.mktemp("hostile")
    for student, content in tampered(HOSTILE, course).items():
        path = submitted / student / f"{HOSTILE}.ipynb"
        path.parent.mkdir()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            nbformat.write(content, path)
    hand_in(solved(HOSTILE, course), submitted / "renamer" / "final (2).ipynb")
    (submitted / "renamer" / "notes.txt").write_text("mine")
    os.mkfifo(submitted / "renamer" / "pipe.ipynb")
    (submitted / "renamer" / "folder.ipynb").mkdir()
    (submitted / "renamer" / "stolen.ipynb").symlink_to(course / "source" / HOSTILE)
    (submitted / "nothing").mkdir()
    (submitted / "archive.zip").write_bytes(b"PK")
    (submitted / "linker").symlink_to(course / "source")
    result = run(submitted, "--assignment", HOSTILE, "--course", course, "--seconds", SECONDS)
    assert result.returncode == 0, result.stderr[-3000:]
    return course, submitted


# student -> points in the first task and in the others; the first word of a remark or message
FIRST, OTHERS = 2, 6
EXPECTED = {
    "honest": (FIRST, OTHERS, None),
    "tidy": (FIRST, OTHERS, "we put tests back that were deleted"),
    "printer": (FIRST, OTHERS, "characters of output, of which we keep"),
    "hoarder": (FIRST, OTHERS, None),
    "renamer": (FIRST, OTHERS, r"final \(2\).ipynb was renamed"),
    "fiddler": (FIRST, OTHERS, "we put tests back that were deleted"),
    f"{'long' * 15}": (FIRST, OTHERS, None),
    "memory": (0, OTHERS, r"MemoryError|it ended the kernel|GB of memory"),
    "loop": (0, OTHERS, f"it took longer than {SECONDS} seconds"),
    "exit": (0, OTHERS, "it ended the kernel"),
    "killer": (0, OTHERS, "it ended the kernel"),
    "overwriter": (0, 0, "something in the notebook disables it"),
    "silencer": (0, 0, "your code is missing"),
    "rewriter": (0, 0, "something in the notebook disables it"),
    "deleter": (0, 0, "we put tests back that were deleted"),
    "changer": (0, 0, "we restored tests that were changed"),
    "invalid": (0, 0, "is not a notebook"),
    "strange": (0, 0, "is not a notebook"),
    "empty": (0, 0, f"{HOSTILE}.ipynb is empty"),
    "nothing": (0, 0, "no notebook in nothing"),
    "archive": (0, 0, "no notebook in archive.zip"),
    "linker": (0, 0, "no notebook in linker"),
}


@pytest.mark.parametrize("student", EXPECTED)
def test_submission_costs_its_points_and_says_why(student, survived):
    course, _ = survived
    first, others, words = EXPECTED[student]
    row = grades(course, HOSTILE).loc[student]
    task = grader(first_task(released(HOSTILE, course)))["grade_id"]
    assert row[task] == first
    assert row["total"] == first + others
    page = course / "grades" / HOSTILE / "feedback" / f"{student}.html"
    assert page.stat().st_size < 5e6
    assert words is None or re.search(words, page.read_text())


def test_nothing_of_a_submission_is_lost(survived):
    course, submitted = survived
    for entry in submitted.iterdir():
        if entry.is_symlink():
            continue
        kept = course / "submitted" / entry.stem[: submissions.LONGEST] / HOSTILE
        for path in [entry] if entry.is_file() else filter(Path.is_file, entry.iterdir()):
            assert (kept / path.name).read_bytes() == path.read_bytes()
    assert (course / "submitted" / "renamer" / HOSTILE / f"{HOSTILE}.ipynb").exists()


def test_links_are_not_followed(survived):
    course, _ = survived
    kept = course / "submitted" / "linker" / HOSTILE
    assert all(path.is_symlink() for path in kept.iterdir())


def test_summary_names_what_was_misunderstood(survived):
    course, _ = survived
    page = (course / "grades" / HOSTILE / "summary.html").read_text()
    assert "your code is missing" in page
    source = nbformat.read(course / "source" / HOSTILE / f"{HOSTILE}.ipynb", as_version=4)
    asked = {cell.metadata["claim"] for cell in source.cells if is_test(cell)}
    assert all(f"<h3>{claim}</h3>" in page for claim in asked)
    assert "we put tests back that were deleted" in page


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "SUBMITTED must be a folder, and nowhere is none"),
        ([], "SUBMITTED must name a folder"),
        ([ROOT / "exercises", "--assignment", "9.9"], "ASSIGNMENT must be one of 08_00_risk"),
        (["--feedback", "--assignment", "9.9"], "ASSIGNMENT must be one that was graded"),
    ],
)
def test_bad_input_is_refused_in_words(arguments, words, tmp_path):
    result = run(*arguments, "--course", tmp_path / "course")
    assert result.returncode == 1
    assert words in result.stderr
    assert not (tmp_path / "course").exists()


def test_refuses_without_a_sandbox(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(ROOT / "exercises")
    assert result.returncode == 1
    assert "bubblewrap is not installed" in result.stderr
    assert "UNSAFE=1" in result.stderr


def test_of_two_copies_of_a_cell_the_last_one_counts(course):
    notebook = solved(HOSTILE, course)
    early = [copy.deepcopy(cell) for cell in notebook.cells if is_test(cell)]
    notebook.cells = [*early, *notebook.cells]
    remarks = submissions.restore(notebook, released(HOSTILE, course))
    assert remarks == []
    assert not any(grader(cell) for cell in notebook.cells[: len(early)])


def test_a_byte_order_mark_does_no_harm(course, tmp_path):
    path = tmp_path / "marked.ipynb"
    nbformat.write(solved(HOSTILE, course), path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert submissions.load(path).metadata["assignment"]["name"] == HOSTILE


def test_two_students_whose_names_become_one(course, tmp_path):
    for student in ("a b", "a_b", "a*b"):
        hand_in(released(HOSTILE, course), tmp_path / student / f"{HOSTILE}.ipynb")
    found = submissions.collect(tmp_path)
    assert len({one.student for one in found}) == 3
    assert {one.assignment for one in found} == {HOSTILE}


# The sandbox itself


def said(cells: list[str], seconds: int = 20) -> list[str]:
    """For each cell its printed text, or the error that it raised."""
    words = []
    for outputs in sandbox.execute(cells, seconds):
        texts = [
            output.get("text") or f"{output['ename']}: {output['evalue']}" for output in outputs
        ]
        words.append("".join(texts).strip())
    return words


def test_sandbox_hides_files_and_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "of the instructor")
    (tmp_path / "secret.txt").write_text("secret")
    reads = [
        f"print(open({str(path)!r}).read(9))"
        for path in (tmp_path / "secret.txt", ROOT / "exercises" / "08_11_sgd.md", "/etc/passwd")
    ]
    lists = [f"import os\nprint(os.listdir({str(ROOT)!r}))", "print(sorted(os.environ))"]
    connects = [
        "import socket\nsocket.create_connection(('127.0.0.1', 22), 2)",
        "socket.create_connection(('192.0.2.1', 80), 2)",
    ]
    writes = [
        f"open({str(ROOT / 'regkit' / 'x')!r}, 'w')",
        "open('/x', 'w')",
        "open('/dev/x', 'w')",
    ]
    answers = said([*reads, *lists, *connects, *writes, "print('still here')"])
    assert all("FileNotFoundError" in answer for answer in answers[:3])
    assert "exercises" not in answers[3]
    assert "tests" not in answers[3]
    assert not [
        name for name in os.environ if name.startswith(("PIP", "AWS")) and name in answers[4]
    ]
    assert "Error" in answers[5]
    assert "Network is unreachable" in answers[6]
    assert all("Read-only file system" in answer for answer in answers[7:10])
    assert answers[-1] == "still here"


def test_sandbox_limits_processes_memory_and_disk():
    answers = said(
        [
            "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(100)",
            "hoard = bytearray(3 * 2**30)",
            "open('/tmp/x', 'wb').write(bytes(2 * 10**8))",
            "disk = open('/dev/shm/y', 'wb')\nfor _ in range(300): disk.write(bytes(10**6))",
            "print('still here')",
        ]
    )
    assert "Resource temporarily unavailable" in answers[0]
    assert answers[1].startswith("MemoryError")
    assert "File too large" in answers[2] or "No space left" in answers[2]
    assert "No space left" in answers[3] or "File too large" in answers[3]
    assert answers[-1] == "still here"


def test_sandbox_stops_the_cell_that_is_to_blame():
    stubborn = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    answers = said(["a = 1", stubborn, "print(a)"], seconds=3)
    assert "it took longer than 3 seconds" in answers[1]
    assert answers[2] == "1"


def test_sandbox_limits_the_memory_of_all_processes_together():
    many = "import os, time\nos.fork(), os.fork()\nhoard = b'x' * 10**9\ntime.sleep(50)"
    answers = said(["a = 1", many, "print(a)"], seconds=40)
    assert "it used more than 3 GB of memory" in answers[1]
    assert answers[2] == "1"


def test_sandbox_gives_up_on_a_broken_kernel():
    broken = "get_ipython().run_cell_async = None\nget_ipython().run_cell = None"
    answers = said(["print(1)", broken, *["print(2)"] * 6], seconds=3)
    assert answers[0] == "1"
    assert "2" not in answers[2:]
