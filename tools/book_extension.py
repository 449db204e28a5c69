"""What the book needs from Sphinx beyond its settings.

- every cell that verifies a claim can be linked to: ``[](#claim-8.1-c5)``;
- directives that make Markdown from the ledger, the chapters and their stored outputs:
  ``claims-counts`` and ``claims-ledger``; ``notes-table`` and ``reading-notes``; ``run-times``,
  ``chapter-goals`` and ``not-for-exam``;
- ``method-map``, the picture of the start page, and ``exam-controls``, the switch and the timed set
  of the exam page;
- "edit this page" leads to the text of a chapter, not to its notebook;
- scripts that no page uses are not loaded.
"""

import csv
import json
import re
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import yaml
from address import launch_links
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regkit.ledger import SECTIONS, Claim, claims

VERIFY = re.compile(r'verify\(\s*"([^"]+)"')
ROOT = Path(__file__).parent.parent
WORDS_PER_MINUTE = 100  # a guess: prose with formulas, read with a pencil


def label_claims(app: Sphinx, doctree: nodes.document) -> None:
    """Put a target before the first cell of a page that verifies a claim."""
    standard = app.env.get_domain("std")
    labels = standard.data["labels"], standard.data["anonlabels"]
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") != "cell_code":
            continue
        source = cell.children[0].astext() if cell.children else ""
        for claim in VERIFY.findall(source):
            label = f"claim-{claim}"
            if label in doctree.ids:
                continue
            target = nodes.target("", "", ids=[label], names=[label])
            doctree.ids[label] = target
            cell.parent.insert(cell.parent.index(cell), target)
            labels[0][label] = app.env.docname, label, claim
            labels[1][label] = app.env.docname, label


def chapters() -> dict[str, str]:
    """The page of each section that has one."""
    found = {}
    for path in sorted((ROOT / "book" / "source").glob("*.md")):
        number = re.match(r"(\d+)_(\d+)_", path.name)
        if number:
            found[f"{int(number[1])}.{int(number[2])}"] = path.stem
        elif path.stem in SECTIONS:  # the exam page
            found[path.stem] = path.stem
    return found


def cells(chapter: str) -> list[dict[str, Any]]:
    """The cells of a stored notebook, with their outputs."""
    path = ROOT / "book" / f"{chapter}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def stored_checks(chapter: str) -> list[tuple[str, str, str]]:
    """The lines of ``verify`` in a notebook's stored outputs: mark, claim, what was compared."""
    texts = [
        "".join(output.get("data", {}).get("text/plain", ""))
        for cell in cells(chapter)
        for output in cell.get("outputs", [])
    ]
    found = [re.fullmatch(r"([✓✗]) (\S+) · (.*)", text) for text in texts]
    return [(match[1], match[2], match[3]) for match in found if match]


@cache
def evidence() -> dict[str, list[tuple[str, str]]]:
    """Mark and rule of each check that the chapters have stored, by claim."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        for mark, claim, rule in stored_checks(path.stem):
            if (mark, rule) not in found.setdefault(claim, []):
                found[claim].append((mark, rule))
    return found


class ClaimsPart(SphinxDirective):
    """What the directives share: Markdown made from the claims and the chapters."""

    def parse(self, lines: list[str]) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "regkit" / "claims.yml"))
        self.env.note_reread()  # a new chapter changes this page
        container = nodes.section()
        container.document = self.state.document
        self.state.nested_parse(StringList(lines, "ledger"), 0, container, match_titles=True)
        return container.children


class ClaimsCounts(ClaimsPart):
    """How many claims there are, by outcome and by status."""

    def run(self) -> list[nodes.Node]:
        outcomes = Counter(claim.outcome for claim in claims().values())
        status = Counter(claim.status for claim in claims().values())
        lines = [
            "| claims | holds | not reproduced |",
            "|--:|--:|--:|",
            f"| {len(claims())} | {outcomes['holds']} | {outcomes['not reproduced']} |",
            "",
            "| as stated | needs a condition | erratum |",
            "|--:|--:|--:|",
            f"| {status['ok']} | {status['needs-condition']} | {status['erratum']} |",
        ]
        return self.parse(lines)


class ClaimsLedger(ClaimsPart):
    """All claims by section, with status, outcome and a link to the verifying cell."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for section, title in SECTIONS.items():
            lines += self.section(section, title)
        return self.parse(lines)

    def section(self, section: str, title: str) -> list[str]:
        entries = [claim for claim in claims().values() if claim.section == section]
        lines = ["", f"## {section_name(section, title)}", "", f"{len(entries)} claims.", ""]
        return lines + [line for claim in entries for line in self.entry(claim)]

    def entry(self, claim: Claim) -> list[str]:
        words = {
            "ok": "as stated",
            "needs-condition": "needs a condition",
            "erratum": "erratum",
        }
        badges = [f"[{words[claim.status]}]{{.badge .{claim.status}}}"]
        badges += [] if claim.exam else ["[not for the exam]{.badge .no-exam}"]
        settled = f"[{claim.outcome}]{{.badge .{claim.outcome.replace(' ', '-')}}} "
        settled += f"[See the check](#claim-{claim.id})"
        settled += f" · [Reading note](#note-{claim.id})" if note_group(claim) else ""
        return [
            ":::::{div} ledger-entry",
            f"**{claim.id}** {' '.join(badges)}",
            "",
            claim.statement,
            "",
            settled,
            ":::::",
            "",
        ]


NOTES = {
    "errata": (
        "Errata",
        "Read as written, the slide gives a wrong result. The idea behind it stands.",
    ),
    "hypothesis": (
        "Assumptions",
        "The statement is right under an assumption that it does not spell out.",
    ),
    "notation": (
        "Notation",
        "The statement is right in one reading of its symbols, indices, factors or words.",
    ),
    "empirical": (
        "Trends",
        "The statement is about what often happens. It shows for some data and sizes, "
        "and not for others.",
    ),
    "not-reproduced": (
        "What did not reproduce",
        "Results that our data, at our size, do not bear out. This refutes no paper: the "
        "experiments there were larger, or differ in ways that we could not look up.",
    ),
}


def note_group(claim: Claim) -> str | None:
    """The part of the reading notes that a claim belongs to, if any."""
    if claim.outcome == "not reproduced":
        return "not-reproduced"
    return "errata" if claim.status == "erratum" else claim.condition


def noted(group: str, section: str) -> list[Claim]:
    """The claims of a section that stand in a part of the reading notes."""
    return [
        claim
        for claim in claims().values()
        if claim.section == section and note_group(claim) == group
    ]


class NotesTable(ClaimsPart):
    """How many reading notes there are; each number leads to them."""

    def run(self) -> list[nodes.Node]:
        titles = " | ".join(f"[{title}](#notes-{group})" for group, (title, _) in NOTES.items())
        lines = [f"| section | {titles} |", "|:--|" + "--:|" * len(NOTES)]
        for section, title in SECTIONS.items():
            counts = [(group, len(noted(group, section))) for group in NOTES]
            if any(count for _, count in counts):
                row = [f"[{n}](#notes-{group}-{section})" if n else "" for group, n in counts]
                lines.append(f"| {section_name(section, title)} | {' | '.join(row)} |")
        sums = [sum(note_group(claim) == group for claim in claims().values()) for group in NOTES]
        return self.parse([*lines, f"| **all** | {' | '.join(f'**{n}**' for n in sums)} |"])


class ReadingNotes(ClaimsPart):
    """What is not right as the slide has it, or was not found, by kind and section."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for group, (title, meaning) in NOTES.items():
            lines += ["", f"(notes-{group})=", f"## {title}", "", meaning, ""]
            for section in SECTIONS:
                lines += self.section(group, section)
        return self.parse(lines)

    def section(self, group: str, section: str) -> list[str]:
        notes = noted(group, section)
        if not notes:
            return []
        head = [
            "",
            f"(notes-{group}-{section})=",
            f"### {section_name(section, SECTIONS[section])}",
        ]
        return [*head, "", *(line for claim in notes for line in self.entry(claim))]

    def entry(self, claim: Claim) -> list[str]:
        origin = {"paper": "from a paper"}.get(claim.kind, "ours") if "-p" in claim.id else ""
        badges = [f"[{origin}]{{.badge .no-exam}}"] if origin else []
        badges += [] if claim.exam else ["[not for the exam]{.badge .no-exam}"]
        body = [f"**{claim.id}** {' '.join(badges)}"]
        body += [f"[{claim.slide}]{{.slide}}"] if claim.slide else []
        body += [f"*Why not so:* {claim.reason}"] if claim.reason else []
        body += [f"*What holds:* {claim.statement}" if claim.reason else claim.statement]
        body += [f"*What we saw:* {claim.found}"] if claim.found else []
        lines = [f"(note-{claim.id})=", "::::{div} ledger-entry note"]
        lines += [line for part in body for line in (part, "")]
        return [*lines, *self.checks(claim), "::::", ""]

    def checks(self, claim: Claim) -> list[str]:
        checks = evidence().get(claim.id, [])
        shown = [f"- {mark} {counter_check(rule)}." for mark, rule in checks]
        count = f"{len(checks)} checks" if len(checks) > 1 else "1 check"
        link = f"[To the code](#claim-{claim.id})"
        shown = [":open:", "", *shown] if claim.reason or claim.found else shown
        return [f":::{{dropdown}} Evidence: {count}", *shown, "", link, ":::"]


def section_name(section: str, title: str) -> str:
    return f"{section} {title}" if section[0].isdigit() else title


def counter_check(rule: str) -> str:
    """Say of what must differ that it is a counter-check, as ``verify`` does on the page."""
    differs = "; differ by more than " in rule and not rule.startswith("counter-check: ")
    return f"counter-check: {rule}" if differs else rule


class RunTimes(ClaimsPart):
    """What each chapter costs and holds; times and memory are those of benchmarks/chapters.csv."""

    def run(self) -> list[nodes.Node]:
        table = ROOT / "benchmarks" / "chapters.csv"
        self.env.note_dependency(str(table))
        lines = [
            "| chapter | run, s | memory, MB | reading, min | claims | exercises |",
            "|:--|--:|--:|--:|--:|--:|",
        ]
        total = [0] * 4
        for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
            chapter = row["chapter"]
            source = source_text(chapter)
            seconds = int(row["cpu_seconds"])
            checked = len({claim for _, claim, _ in stored_checks(chapter)})
            counts = [seconds, reading_minutes(chapter), checked, source.count("```{exercise}")]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            middle = f"{counts[0]} | {row['peak_mb']} | {counts[1]} | {counts[2]} | {counts[3]}"
            lines.append(f"| [{chapter_title(source)}]({chapter}.ipynb) | {middle} |")
        lines.append(f"| **all** | {total[0]} | | {total[1]} | {total[2]} | {total[3]} |")
        rate = f"{WORDS_PER_MINUTE} words a minute, formulas included, code left out"
        return self.parse([*lines, "", f"Reading times are estimates: {rate}."])


def source_text(chapter: str) -> str:
    return (ROOT / "book" / "source" / f"{chapter}.md").read_text(encoding="utf-8")


def chapter_title(source: str) -> str:
    return re.search(r"^# (.+)$", source, re.MULTILINE)[1]


def reading_minutes(chapter: str) -> int:
    """Estimated from the words outside code, formulas included, to five minutes."""
    texts = ["".join(cell["source"]) for cell in cells(chapter) if cell["cell_type"] == "markdown"]
    return 5 * round(len(" ".join(texts).split()) / WORDS_PER_MINUTE / 5)


class AssignmentTable(ClaimsPart):
    """The graded assignments: points, time, prerequisites, and where to get the notebook."""

    def run(self) -> list[nodes.Node]:
        lines = [
            "| notebook to download | or open | points | min | you need |",
            "|:--|:--|--:|--:|:--|",
        ]
        for path in sorted((ROOT / "assignments").glob("*.ipynb")):
            self.env.note_dependency(str(path))
            notebook = json.loads(path.read_text(encoding="utf-8"))
            facts = notebook["metadata"]["assignment"]
            heading = "".join(notebook["cells"][0]["source"]).splitlines()[0]
            chapters = ", ".join(
                f"[{chapter_title(source_text(name))}]({name}.ipynb)" for name in facts["chapters"]
            )
            launch = launch_links(f"assignments/{path.name}")
            name = heading.removeprefix("# Assignment ")
            lines.append(
                f"| {{download}}`{name} <../assignments/{path.name}>` "
                f"| {', '.join(f'[{hub}]({link})' for hub, link in launch.items())} "
                f"| {facts['points']} | {facts['minutes']} "
                f"| {chapters}; {facts['prerequisites']} |"
            )
        return self.parse(lines)


class ChapterGoals(ClaimsPart):
    """The goals of each chapter, from the box at its head."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for path in sorted((ROOT / "book" / "source").glob("*.md")):
            source = source_text(path.stem)
            if ":class: goals" not in source:
                continue
            goals = source.split(":class: goals\n")[1].split("\n:::")[0]
            goals = goals.split("**You need**")[0].strip()
            lines += [f":::{{dropdown}} {chapter_title(source)}", goals, ""]
            lines += [f"[To the chapter]({path.stem}.ipynb)", ":::", ""]
        return self.parse("\n".join(lines).splitlines())


class NotForExam(ClaimsPart):
    """The sections that hold claims which the lecture marks as not relevant for the exam."""

    def run(self) -> list[nodes.Node]:
        left_out = [claim for claim in claims().values() if not claim.exam]
        lines = []
        for section, title in SECTIONS.items():
            ids = [claim.id for claim in left_out if claim.section == section]
            links = ", ".join(f"[{id}](#claim-{id})" for id in ids if "-c" in id)
            if links:
                lines.append(f"- {section_name(section, title)}: {links}.")
        return self.parse(lines)


class MethodMap(SphinxDirective):
    """What each method acts on, when, and to what effect; each leads to its chapter."""

    effects: ClassVar[dict[str, str]] = {
        "smoothing": "smoother output",
        "number": "fewer weights",
        "precision": "fewer bits",
        "neither": "another way",
    }

    def run(self) -> list[nodes.Node]:
        source = ROOT / "regkit" / "methods.yml"
        self.env.note_dependency(str(source))
        self.env.note_reread()
        pages = chapters()
        places = []
        for place in yaml.safe_load(source.read_text(encoding="utf-8")):
            items = "".join(self.method(method, pages) for method in place["methods"])
            places.append(
                f'<section><svg viewBox="0 0 48 32" aria-hidden="true">{place["icon"]}</svg>'
                f"<div><h3>{escape(place['acts_on'])}</h3><p>{escape(place['how'])}</p></div>"
                f"<ul>{items}</ul></section>"
            )
        key = (
            '<p class="key"><span class="during">during training</span> '
            '<span class="after">after training</span> '
            f'<a href="{pages["8.0"]}.html#sec-risk-map">why each has its tag</a></p>'
        )
        html = f'<div class="method-map">{"".join(places)}{key}</div>'
        return [nodes.raw("", html, format="html")]

    def method(self, method: dict[str, str], pages: dict[str, str]) -> str:
        kind = method["kind"]
        return (
            f'<li class="{method["when"]}"><a href="{pages[method["section"]]}.html">'
            f"<b>{method['section']}</b> {escape(method['name'])}"
            f'<small class="{kind}">{self.effects[kind]}</small></a></li>'
        )


class ExamControls(SphinxDirective):
    """The switch and the timed set; where scripts do not run, the content stands in for them."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = ROOT / "tools" / "exam.html"
        self.env.note_dependency(str(source))
        instead = f"<noscript><p>{escape(' '.join(self.content))}</p></noscript>"
        return [nodes.raw("", source.read_text(encoding="utf-8") + instead, format="html")]


def mend_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    context["script_files"] = [
        file for file in context.get("script_files", []) if "thebe" not in str(file)
    ]
    source = ROOT / "book" / "source" / f"{Path(pagename).name}.md"
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            url = button.get("url", "")
            if "/edit/" in str(url) and source.exists():
                button["url"] = re.sub(r"/book/(\w+)\.ipynb$", r"/book/source/\1.md", url)


def use_small_mathjax(app: Sphinx, config: Any) -> None:
    """Load MathJax in parts, without its menu, which is a third of it."""
    config.mathjax_path = "mathjax/startup.js"  # sphinx-mathjax-offline would set another


def slim_pages(app: Sphinx, exception: Exception | None) -> None:
    """Leave out what a page loads and does not use.

    Font Awesome's script (1.5 MB) and the names of icons that no page shows: the pages show icons
    by style and font (see tools/pictures.py). And the index for searching, which grows with the
    book: the search box leads to the search page, and only that one needs it.
    """
    icons = re.compile(r"<(script|link)[^>]*fontawesome\.js[^>]*>(</script>)?")
    search = re.compile(
        r'<script src="[^"]*(searchtools|language_data|searchindex)\.js[^>]*></script>'
    )
    shown: set[str] = set()
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        shown |= set(re.findall(r"\bfa-[\w-]+", text))
        lean = icons.sub("", text)
        if path.name != "search.html":
            lean = search.sub("", lean)
        if lean != text:
            path.write_text(lean, encoding="utf-8")
    rule = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"[^"]*"\}')
    style = Path(app.outdir, "_static", "styles", "pydata-sphinx-theme.css")
    if style.exists():
        css = style.read_text(encoding="utf-8")
        kept = rule.sub(
            lambda match: match[0] if shown & set(re.findall(r"fa-[\w-]+", match[1])) else "", css
        )
        style.write_text(kept, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claims-counts", ClaimsCounts)
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_directive("notes-table", NotesTable)
    app.add_directive("reading-notes", ReadingNotes)
    app.add_directive("run-times", RunTimes)
    app.add_directive("assignment-table", AssignmentTable)
    app.add_directive("chapter-goals", ChapterGoals)
    app.add_directive("not-for-exam", NotForExam)
    app.add_directive("method-map", MethodMap)
    app.add_directive("exam-controls", ExamControls)
    app.connect("doctree-read", label_claims)
    app.connect("html-page-context", mend_page, priority=900)
    app.connect("config-inited", use_small_mathjax)
    app.connect("build-finished", slim_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
