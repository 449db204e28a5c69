"""The graded assignments: right answers get all points, wrong ones lose some, nothing leaks."""

import ast
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import nbformat
import publish
import pytest

import assignments
from assignments import POINTS, grader, is_test, outcome, points, read, stubs, tasks
from conftest import ROOT
from regkit.ledger import claims

TEXTS = assignments.texts()
by_text = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
WRONG = [
    pytest.param(text, task.solution, why, id=f"{text.stem}-{task.solution}-{why}")
    for text in TEXTS
    for task in tasks(read(text))
    for why in task.wrong
]
notebook = cache(read)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The students' notebooks and the build folder, made anew."""
    folder = tmp_path_factory.mktemp("made")
    build, students = assignments.BUILD, assignments.STUDENTS
    assignments.BUILD, assignments.STUDENTS = folder / "build", folder / "assignments"
    assignments.make()
    yield folder
    assignments.BUILD, assignments.STUDENTS = build, students


@cache
def lost(text: Path, solution: str, why: str) -> dict[str, str]:
    """The tests that a wrong answer loses, and what they say."""
    task = next(task for task in tasks(notebook(text)) if task.solution == solution)
    said = outcome(notebook(text), {solution: task.wrong[why]}, task.tests)
    return {name: said[name] for name in task.tests if said[name]}


def automatic(text: Path) -> float:
    return sum(grader(cell)["points"] for cell in notebook(text).cells if is_test(cell))


def test_each_section_has_an_assignment():
    covered = [
        chapter for text in TEXTS for chapter in notebook(text).metadata["assignment"]["chapters"]
    ]
    assert covered == sorted(path.stem for path in (ROOT / "book" / "source").glob("08_*.md"))
    assert all(text.stem in covered for text in TEXTS)


@by_text
def test_assignment_is_complete(text):
    cells = notebook(text).cells
    coding = tasks(notebook(text))
    words = [
        cell for cell in cells if grader(cell).get("solution") and cell.cell_type == "markdown"
    ]
    assert 2 <= len(coding) <= 4
    assert len(words) == 1
    assert "**Points.**" in words[0].source
    assert automatic(text) + grader(words[0])["points"] == POINTS
    assert 30 <= notebook(text).metadata["assignment"]["minutes"] <= 60
    names = [grader(cell)["grade_id"] for cell in cells if grader(cell)]
    assert len(names) == len(set(names))


@by_text
def test_headings_say_the_points(text):
    cells = notebook(text).cells
    said, given = [], []
    for cell in cells:
        heading = re.search(r"^## Task (\d+)\. .* \((\d+) points?\)$", cell.source, re.MULTILINE)
        if heading:
            assert int(heading[1]) == len(said) + 1
            said.append(int(heading[2]))
            given.append(0)
        elif "points" in grader(cell):
            given[-1] += grader(cell)["points"]
    assert 3 <= len(said) <= 5
    assert said == given


@by_text
def test_tests_are_visible_and_hidden_and_ask_about_a_claim(text):
    tests = {grader(cell)["grade_id"]: cell for cell in notebook(text).cells if is_test(cell)}
    assert all(cell.metadata["claim"] in claims() for cell in tests.values())
    for task in tasks(notebook(text)):
        hidden = [name for name in task.tests if "### BEGIN HIDDEN TESTS" in tests[name].source]
        assert 0 < len(hidden) < len(task.tests), task.solution
        worth = {name: grader(tests[name])["points"] for name in task.tests}
        assert 2 * sum(worth[name] for name in hidden) >= sum(worth.values()), task.solution


@by_text
def test_solutions_get_all_points(text):
    said = outcome(notebook(text), {})
    assert {name: words for name, words in said.items() if words} == {}
    assert points(notebook(text), said) == automatic(text)


@by_text
def test_tests_do_not_need_each_other(text):
    """A cell that had to be stopped costs no points of others."""
    for task in tasks(notebook(text)):
        for name in task.tests:
            assert outcome(notebook(text), {}, [name]) == {name: None}


@by_text
def test_stubs_get_nothing_and_say_what_to_do(text):
    said = outcome(notebook(text), stubs(notebook(text)))
    assert points(notebook(text), said) == 0
    assert all("your code is missing" in words for words in said.values())


@by_text
def test_a_solution_does_not_need_the_others(text):
    """Who solves one task gets its points."""
    handed_out = stubs(notebook(text))
    for task in tasks(notebook(text)):
        others = {name: stub for name, stub in handed_out.items() if name != task.solution}
        said = outcome(notebook(text), others, task.tests)
        assert {name: said[name] for name in task.tests if said[name]} == {}


@pytest.mark.parametrize(("text", "solution", "why"), WRONG)
def test_wrong_answer_loses_points(text, solution, why):
    messages = lost(text, solution, why)
    assert messages
    assert all(words.startswith("AssertionError: ") for words in messages.values()), messages


@by_text
def test_each_test_catches_a_wrong_answer(text):
    for task in tasks(notebook(text)):
        assert len(task.wrong) >= 2
        assert {name for why in task.wrong for name in lost(text, task.solution, why)} == set(
            task.tests
        )


@by_text
def test_text_is_clean_code(text, tmp_path):
    path = tmp_path / "source.ipynb"
    nbformat.write(assignments.source(text), path)
    style = ["--config", str(ROOT / "book" / "ruff.toml"), str(path)]
    # Hidden tests bring imports of their own, hence F811.
    check = ["check", "--output-format", "concise", "--ignore", "F811"]
    for command in (check, ["format", "--diff"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *style], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout


def imported(tree: ast.AST) -> set[str]:
    """The names that imports bind."""
    statements = (ast.Import, ast.ImportFrom)
    names = [it for node in ast.walk(tree) if isinstance(node, statements) for it in node.names]
    return {it.asname or it.name.split(".")[0] for it in names}


def used(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@by_text
def test_hidden_tests_bring_their_imports(text, made):
    """A student may tidy imports that nothing visible uses."""
    released = nbformat.read(made / "assignments" / f"{text.stem}.ipynb", as_version=4)
    codes = [cell.source for cell in released.cells if cell.cell_type == "code"]
    visible = ast.parse("\n\n".join(code for code in codes if "%pip" not in code))
    superfluous = imported(visible) - used(visible)
    for cell in notebook(text).cells:
        if is_test(cell):
            tree = ast.parse(cell.source)
            assert superfluous & used(tree) - imported(tree) == set(), grader(cell)["grade_id"]


# What students get


def test_stored_notebooks_are_those_of_the_texts(made):
    wanted = {path.name: path.read_bytes() for path in (made / "assignments").iterdir()}
    stored = {path.name: path.read_bytes() for path in (ROOT / "assignments").iterdir()}
    assert sorted(stored) == sorted(wanted)
    different = [name for name in wanted if stored[name] != wanted[name]]
    assert different == [], "run `make assignments`, and commit"


def test_archives_hold_what_they_should(made):
    for name, secret in (("students.zip", False), ("instructors.zip", True)):
        with zipfile.ZipFile(made / "build" / name) as bundle:
            assert sorted(bundle.namelist()) == [f"{text.stem}.ipynb" for text in TEXTS]
            content = b"".join(bundle.read(inner) for inner in bundle.namelist())
        assert (b"BEGIN SOLUTION" in content) is secret
        assert (b"BEGIN HIDDEN TESTS" in content) is secret
    assert (made / "build" / "course" / "nbgrader_config.py").exists()


def test_nothing_leaks_to_students(made, html):
    (made / "build" / "instructors.zip").rename(made / "instructors.zip")
    handed_out = made / "handed_out"
    handed_out.mkdir()
    (made / "build" / "students.zip").rename(handed_out / "students.zip")
    assert publish.leaks(handed_out) == []
    assert publish.leaks(made / "build" / "course" / "release") == []
    assert publish.leaks(html) == []


def test_leaks_are_found(made, tmp_path):
    """The search for leaks finds what is in an instructor's notebook, page, archive or index."""
    secret = max(publish.secrets(), key=len)
    (tmp_path / "page.html").write_text(
        f"<p>{secret.replace('<', '&lt;')[:9]}<b></b>{secret.replace('<', '&lt;')[9:]}</p>"
    )
    (tmp_path / "searchindex.js").write_text(f'"one\\n{secret}\\nthree"')
    (tmp_path / "words.md").write_text(f"    {secret}\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as bundle:
        source = next((made / "build" / "course" / "source").rglob("*.ipynb"))
        bundle.write(source, source.name)
    found = {leak.split(":")[0] for leak in publish.leaks(tmp_path)}
    assert found == {"page.html", "searchindex.js", "words.md", "all.zip"}


# The public repository


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "public"
    publish.export(folder)
    return folder


def test_public_tree_has_what_readers_need_and_nothing_else(public):
    there = {str(path.relative_to(public)) for path in publish.files(public)}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in tracked:
        private = name.startswith(("exercises/", "tests/", ".ci/")) or name == "book/teaching.md"
        if private:
            assert name not in there
        elif name.startswith(("book/", "regkit/", "studies/", "binder/", "assignments/")):
            assert name in there
    assert not (public / ".git").exists()
    assert {"README.md", "LICENSE", "Makefile", "requirements.txt", "_toc.yml"} <= there


def test_public_tree_does_not_mention_teachers_files(public):
    for path in publish.files(public):
        if path.suffix in (".md", ".yml", ".toml", "") and path.name != "LICENSE":
            text = path.read_text()
            assert "teachers:" not in text, path
            assert "teaching.md" not in text, path
    assert publish.leaks(public) == []


def test_public_book_builds(public):
    program = Path(sys.executable).with_name("jupyter-book")
    strictly = ["--warningiserror", "--nitpick", "--keep-going", "--quiet"]
    subprocess.run([program, "build", ".", *strictly], cwd=public, check=True)
    pages = public / "_build" / "html"
    assert (pages / "book" / "assignments.html").exists()
    assert not (pages / "book" / "teaching.html").exists()
    assert publish.leaks(pages) == []


def test_export_needs_an_empty_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="FOLDER must be empty"):
        publish.export(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
