"""What the book needs from Sphinx beyond its settings.

- every cell that verifies a claim can be linked to: ``[](#claim-8.1-c5)``;
- the directives ``claims-counts`` and ``claims-ledger`` (the ledger page) and ``method-map`` (the
  picture of the start page);
- "edit this page" leads to the text of a chapter, not to its notebook;
- scripts that no page uses are not loaded.
"""

import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regkit.ledger import SECTIONS, Claim, claims

VERIFY = re.compile(r'verify\(\s*"([^"]+)"')
ROOT = Path(__file__).parent.parent


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
    """The page of each section that has a chapter."""
    found = {}
    for path in sorted((ROOT / "book" / "source").glob("*.md")):
        number = re.match(r"(\d+)_(\d+)_", path.name)
        if number:
            found[f"{int(number[1])}.{int(number[2])}"] = path.stem
    return found


class ClaimsPart(SphinxDirective):
    """What the two directives of the ledger page share: Markdown made from the claims."""

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
            "| claims | settled: holds | settled: not reproduced | open |",
            "|--:|--:|--:|--:|",
            f"| {len(claims())} | {outcomes['holds']} | {outcomes['not reproduced']} "
            f"| {outcomes['open']} |",
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
        name = f"{section} {title}" if section[0].isdigit() else title
        page = chapters().get(section)
        body = [line for claim in entries for line in self.entry(claim)]
        settled = sum(claim.outcome != "open" for claim in entries)
        lines = ["", f"## {name}", "", f"{settled} of {len(entries)} settled.", ""]
        if page:
            return [*lines, *body]
        return [
            *lines,
            f"::::::{{dropdown}} {len(entries)} open claims",
            *body,
            "::::::",
            "",
        ]

    def entry(self, claim: Claim) -> list[str]:
        words = {
            "ok": "as stated",
            "needs-condition": "needs a condition",
            "erratum": "erratum",
        }
        badges = [f"[{words[claim.status]}]{{.badge .{claim.status}}}"]
        badges += [] if claim.exam else ["[not for the exam]{.badge .no-exam}"]
        if claim.outcome == "open":
            settled = f"Open. Plan: {claim.verify}"
        else:
            settled = f"[{claim.outcome}]{{.badge .{claim.outcome.replace(' ', '-')}}} "
            settled += f"[See the check](#claim-{claim.id})"
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
            f'<li class="{method["when"]}"><a href="{pages.get(method["section"])}.html">'
            f"<b>{method['section']}</b> {escape(method['name'])}"
            f'<small class="{kind}">{self.effects[kind]}</small></a></li>'
        )


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
    app.add_directive("method-map", MethodMap)
    app.connect("doctree-read", label_claims)
    app.connect("html-page-context", mend_page, priority=900)
    app.connect("config-inited", use_small_mathjax)
    app.connect("build-finished", slim_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
