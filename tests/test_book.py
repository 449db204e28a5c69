"""What is stored and what is built: nothing unexecuted, foreign or dangling."""

import csv
import json
import re
import subprocess
import tomllib
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import notebooks
import pytest
import sandbox
import yaml
from book_extension import (
    NOTES,
    SECTIONS,
    noted,
    reading_minutes,
    stored_checks,
)
from packaging.requirements import Requirement

from conftest import ROOT
from regkit.ledger import Claim, claims

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
FRAMED = [path for path in CHAPTERS if path.stem.startswith("08_")]  # the exam page is not
by_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
by_framed_chapter = pytest.mark.parametrize("path", FRAMED, ids=lambda path: path.stem)
MACHINE_PATH = re.compile(r"(/root/|/tmp/|/home/|/work/|/Users/|[A-Z]:\\)")


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def is_figure(cell: nbformat.NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


# --- the stored notebooks ---


def test_text_and_notebook_are_in_step():
    assert notebooks.out_of_step() == []
    assert CHAPTERS


@by_chapter
def test_every_cell_was_executed_in_order_without_error(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


@by_chapter
def test_nothing_of_this_machine_is_stored(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert "version" not in notebook.metadata.language_info
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts.append(output.get("text", ""))
            texts += [text for kind, text in output.get("data", {}).items() if "text/" in kind]
        for text in texts:
            assert not MACHINE_PATH.search(re.sub(r"base64,[\w+/=]+", "", text)), cell.id


@by_chapter
def test_cells_are_fit_for_validation(path):
    for cell in code_cells(path):
        assert not cell.source.rstrip().endswith(";"), "nbval compares what a semicolon hides"
        if "verify(" in cell.source:
            assert "nbval-ignore-output" not in notebooks.tags(cell), cell.source


@by_chapter
def test_every_figure_has_a_number_a_caption_and_a_description(path):
    for cell in code_cells(path):
        if is_figure(cell):
            figure = cell.metadata["mystnb"]["figure"]
            assert figure["name"].startswith("fig-")
            assert figure["caption"].endswith(".")
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


@by_framed_chapter
def test_solutions_pass_their_checks(path):
    """Each exercise has a stub that asks for an answer and a solution that is right."""
    said = [
        output.text.strip()
        for cell in code_cells(path)
        if "check(" in cell.source
        for output in cell.outputs
    ]
    assert 3 <= len(said) / 2 <= 4
    assert all(text.startswith("Your turn: ") for text in said[::2])
    assert all(text == "Right." for text in said[1::2])


@by_framed_chapter
def test_a_chapter_has_all_parts_of_the_frame(path):
    text = (notebooks.SOURCE / f"{path.stem}.md").read_text()
    parts = ["## From the papers", "## In practice", "## Exercises", "## Quiz", "## Summary"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert 3 <= text.split(":class: goals")[1].split("**You need**")[0].count("\n- ") <= 5
    questions = text.split(":class: quiz")[1:]
    assert len(questions) >= 3
    for question in questions:
        answers = question.split("::::\n")[0]
        assert answers.count(":class-container: right") == 1
        assert answers.count(":class-container: wrong") == 3
    assert "glue" not in text
    assert "{eval" not in text


@by_chapter
def test_run_time_in_the_text_is_the_measured_one(path):
    table = (ROOT / "benchmarks" / "chapters.csv").read_text().splitlines()
    measured = {row["chapter"]: row for row in csv.DictReader(table)}[path.stem]
    text = (notebooks.SOURCE / f"{path.stem}.md").read_text()
    assert f"{measured['cpu_seconds']} s of CPU" in text


# --- the locks and the settings ---


def lock(name: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-e")):
            requirement = Requirement(line)
            assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), line
            pins.setdefault(requirement.name, set()).add(str(requirement.specifier))
    return pins


def test_locks_hold_what_is_asked_for_and_agree():
    book, dev = lock("requirements.txt"), lock("requirements-dev.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted, pins in [
        (project["dependencies"] + extras["book"], book),
        (extras["dev"], dev),
    ]:
        for requirement in map(Requirement, wanted):
            versions = {pin.removeprefix("==") for pin in pins[requirement.name]}
            assert all(requirement.specifier.contains(version) for version in versions)
    assert {"jupyter-book", "numpy", "matplotlib", "torch", "ipywidgets", "nbval"} <= set(book)
    assert book.items() <= dev.items()
    assert not any(re.match("nvidia-|cuda-|triton", name) for name in dev)
    assert "nbgrader" not in book  # it would put teachers' buttons into every student's Lab


def test_no_registry_host_is_named():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    hosts = re.compile(
        r"py" r"pi\.org|python" r"hosted|download\.pytorch|npm" r"js\.(org|com)|deb\.debian"
    )
    for name in files.stdout.splitlines():
        content = (ROOT / name).read_bytes()
        assert not hosts.search(content.decode("utf-8", errors="ignore")), name


# --- the built pages ---


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images_without_alt = 0
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if "id" in found:
            self.ids.append(found["id"])
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.append(found["href"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "img" and not found.get("alt"):
            self.images_without_alt += 1


@pytest.fixture(scope="module")
def pages(html) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted((html / "book").glob("*.html"))}


@by_chapter
def test_the_page_is_built_from_the_notebook_that_stands_here(path, html):
    """Guards the tests below against an old build."""
    built = (html / "book" / f"{path.stem}.html").stat().st_mtime
    assert built >= path.stat().st_mtime, "run `make book`"


def test_pages_load_nothing_from_elsewhere(pages):
    for path, page in pages.items():
        for address in page.loads:
            scheme = urlparse(address).scheme
            assert scheme in ("", "data"), f"{path.name} loads {address}"


def test_links_and_files_inside_the_book_exist(pages):
    for path, page in pages.items():
        for address in page.links + page.loads:
            parts = urlparse(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.name} links to {address}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: {address}"


def test_every_image_has_a_description(pages):
    for path, page in pages.items():
        assert page.images_without_alt == 0, path.name


def test_ids_are_unique(pages):
    for path, page in pages.items():
        repeated = {id for id in page.ids if page.ids.count(id) > 1}
        # The theme puts its search dialog and its sidebar buttons on a page twice.
        repeated -= {id for id in repeated if id.startswith(("search", "pst-", "rtd-"))}
        repeated -= {"exercise-content"}  # sphinx-exercise gives it to every exercise
        assert not repeated, f"{path.name}: {repeated}"


def test_ledger_lists_every_claim_and_links_to_every_check(html, pages):
    text = (html / "book" / "ledger.html").read_text()
    links = pages[html / "book" / "ledger.html"].links
    # The counts stand before the first section and add up.
    before = text[: text.index('8.0 Risk and complexity<a class="headerlink"')]
    counts = [int(number) for number in re.findall(r"<p>(\d+)</p></td>", before)]
    assert counts[0] == len(claims()) == sum(counts[1:3]) == sum(counts[3:6])
    for claim in claims().values():
        assert f"<strong>{claim.id}</strong>" in text, claim.id
        assert any(link.endswith(f"#claim-{claim.id}") for link in links), claim.id


def note_group(claim: Claim) -> str | None:
    """Where a claim belongs in the reading notes."""
    if claim.outcome == "not reproduced":
        return "not-reproduced"
    return {"ok": None, "erratum": "errata", "needs-condition": claim.condition}[claim.status]


def test_reading_notes_list_what_is_not_as_stated_once_and_in_its_place(html, pages):
    path = html / "book" / "reading_notes.html"
    text = path.read_text()
    places = [text.index(f"<h2>{title}<") for title, _ in NOTES.values()] + [len(text)]
    assert places == sorted(places)
    checks = [check for chapter in CHAPTERS for check in stored_checks(chapter.stem)]
    parts = dict(zip(NOTES, pairwise(places), strict=True))
    for claim in claims().values():
        group, name = note_group(claim), f"<p><strong>{claim.id}</strong>"
        assert text.count(name) == (group is not None), claim.id
        if group is None:
            continue
        begin, end = parts[group]
        assert begin < text.index(name) < end, f"{claim.id} is not in {group}"
        note = text[text.index(name) :].split("</details>")[0]
        different = {(mark, rule) for mark, id, rule in checks if id == claim.id}
        assert note.count("<li>") == len(different) > 0, claim.id
        assert ("✗" in note) == (group == "not-reproduced"), claim.id
        assert f'#claim-{claim.id}"' in note, claim.id
        assert f"note-{claim.id.replace('.', '-')}" in pages[path].ids


def table(text: str, after: str) -> list[list[str]]:
    """The rows of the first table after a text of a page, without tags."""
    rows = text[text.index(after) :].split("<table")[1].split("</table>")[0].split("<tr")[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub("<.*?>", "", cell).strip() for cell in row] for row in cells]


def test_table_of_the_reading_notes_counts_them(html):
    rows = table((html / "book" / "reading_notes.html").read_text(), "Reading notes")
    names = [f"{s} {t}" if s[0].isdigit() else t for s, t in SECTIONS.items()]
    for row in rows[1:-1]:
        section = list(SECTIONS)[names.index(row[0])]
        assert [int(n or 0) for n in row[1:]] == [len(noted(group, section)) for group in NOTES]
    sums = [sum(int(n or 0) for n in column) for column in list(zip(*rows[1:-1], strict=True))[1:]]
    assert [int(n) for n in rows[-1][1:]] == sums
    assert sum(sums) == sum(note_group(claim) is not None for claim in claims().values())


def test_lecture_takes_90_minutes(html):
    rows = table((html / "book" / "paths.html").read_text(), "A lecture of 90 minutes")
    assert sum(int(row[-1]) for row in rows[1:]) + 4 == 90  # and 4 for the map


def test_table_of_run_times_is_the_measured_one(html):
    text = (html / "book" / "paths.html").read_text()
    rows = table(text, "Seconds of CPU on one thread")[1:]
    measured = csv.DictReader((ROOT / "benchmarks" / "chapters.csv").read_text().splitlines())
    for row, wanted in zip(rows[:-1], measured, strict=True):
        chapter = wanted["chapter"]
        source = (notebooks.SOURCE / f"{chapter}.md").read_text()
        assert f"# {row[0]}\n" in source
        assert row[1:3] == [wanted["cpu_seconds"], wanted["peak_mb"]]
        assert int(row[3]) == reading_minutes(chapter) > 0
        assert int(row[4]) == len({claim for _, claim, _ in stored_checks(chapter)})
        assert int(row[5]) == source.count("```{exercise}")
    for column in (1, 3, 4, 5):
        assert int(rows[-1][column]) == sum(int(row[column]) for row in rows[:-1])


def test_table_of_assignments(html):
    text = (html / "book" / "assignments.html").read_text()
    rows = table(text, "One graded assignment")[1:]
    stored = sorted((ROOT / "assignments").glob("*.ipynb"))
    for row, path in zip(rows, stored, strict=True):
        notebook = json.loads(path.read_text())
        facts = notebook["metadata"]["assignment"]
        assert "".join(notebook["cells"][0]["source"]).startswith(f"# Assignment {row[0]}\n")
        assert row[2:4] == [str(facts["points"]), str(facts["minutes"])]
        assert unescape(row[4]).endswith(facts["prerequisites"].replace("'", "’"))
        repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
        name = repository.removeprefix("https://github.com/")
        assert f"/v2/gh/{name}/main?urlpath=lab/tree/assignments/{path.name}" in text
        assert f"colab.research.google.com/github/{name}/blob/main/assignments/{path.name}" in text
        downloads = list((html / "_downloads").rglob(path.name))
        assert [one.read_bytes() for one in downloads] == [path.read_bytes()]


def test_teachers_page_names_the_limits_of_the_sandbox():
    text = " ".join((ROOT / "book" / "teaching.md").read_text().split())
    sizes = f"{sandbox.MEMORY >> 30} GB of memory a process and {sandbox.TOGETHER >> 30} GB for all"
    assert f"{sizes}, {sandbox.PROCESSES} processes and threads" in text
    assert f"and {sandbox.DISK >> 20} MB of disk" in text
    assert f"at most {sandbox.SECONDS} seconds a cell" in text
    students = (ROOT / "book" / "assignments.md").read_text()
    assert f"needs more than {sandbox.SECONDS} seconds is stopped" in students


def test_goals_of_all_chapters_are_on_the_page_for_teachers(html):
    text = (html / "book" / "teaching.html").read_text()
    boxes = [box.split("</details>")[0] for box in text.split("<details")[1:]]
    sources = {path.stem: path.read_text() for path in sorted(notebooks.SOURCE.glob("*.md"))}
    with_goals = {name: text for name, text in sources.items() if ":class: goals" in text}
    for box, (name, source) in zip(boxes, with_goals.items(), strict=True):
        goals = source.split(":class: goals")[1].split("**You need**")[0].count("\n- ")
        assert f'href="{name}.html"' in box
        assert box.count("<li>") == goals


@by_chapter
def test_launch_and_edit_buttons_lead_to_the_chapter(path, html, pages):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    repository = config["repository"]["url"]
    name = repository.removeprefix("https://github.com/")
    links = pages[html / "book" / f"{path.stem}.html"].links
    for wanted in (
        f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/book/{path.name}",
        f"https://colab.research.google.com/github/{name}/blob/main/book/{path.name}",
        f"{repository}/edit/main/book/source/{path.stem}.md",
    ):
        assert wanted in links


def test_every_chapter_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text()
    for path in CHAPTERS:
        assert f"book/{path.stem}" in toc
