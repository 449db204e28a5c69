"""The built book in a real browser: from a server and from disk, light, dark, wide, narrow."""

import functools
import http.server
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from conftest import ROOT

CHAPTER = "book/08_01_weight_decay.html"
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
PAGES = [
    *("index", *CHAPTERS, "paths", "assignments", "teaching"),
    *("reading_notes", "ledger", "notation", "api", "references"),
]
MEGABYTES = 2.5  # what a reader's first chapter may load
by_chapter = pytest.mark.parametrize("name", CHAPTERS)
by_framed_chapter = pytest.mark.parametrize(
    "name", [name for name in CHAPTERS if name.startswith("08_")]
)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(html) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


class Visit:
    """A page that keeps what it asked for and what it complained about."""

    def __init__(self, browser: Browser, address: str, width: int = 1280, scheme: str = "light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.failures: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.failures.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.listen)
        self.page.goto(address)
        self.page.wait_for_load_state("networkidle")
        if self.page.locator(".math").count():
            self.page.wait_for_selector("mjx-container", state="attached")

    def listen(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def visit(browser):
    open_visits = []

    def make(*arguments, **options) -> Visit:
        open_visits.append(Visit(browser, *arguments, **options))
        return open_visits[-1]

    yield make
    for one in open_visits:
        one.context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("place", ["server", "disk"])
def test_page_is_complete_without_the_outside(name, place, visit, server, html):
    base = server if place == "server" else html.as_uri()
    seen = visit(f"{base}/book/{name}.html")
    outside = [url for url in seen.requests if not url.startswith((base, "data:", "blob:"))]
    assert outside == []
    assert seen.failures == []
    assert seen.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_rendered(name, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html").page
    # MathJax marks a formula that it cannot read with merror.
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    formulas = page.locator("span.math, div.math").count()
    assert page.locator("mjx-container").count() == formulas
    text = page.locator("main").inner_text()
    assert "$$" not in text
    assert "\\mathbf" not in text


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_does_not_scroll_sideways(name, scheme, width, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html", width=width, scheme=scheme).page
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing that is not itself in a scrolling box reaches over the edge.
    over = page.evaluate("""() => [...document.querySelectorAll(
            "article p, article li, article img, .explore")]
        .filter(e => e.checkVisibility() && !e.closest("pre, table, mjx-container, .math"))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))""")
    assert over == []


@by_framed_chapter
def test_figures_keep_their_shape_on_a_phone(name, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html", width=390).page
    shapes = page.evaluate("""() => [...document.querySelectorAll("figure img, .explore img")]
        .map(i => (i.clientWidth / i.clientHeight) / (i.naturalWidth / i.naturalHeight))""")
    assert len(shapes) >= 4
    assert all(0.97 < shape < 1.03 for shape in shapes), shapes


@by_framed_chapter
def test_sliders_move_by_keyboard_and_change_figure_and_readout(name, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html").page
    sliders = page.locator(".explore")
    assert sliders.count() >= 1
    for number in range(sliders.count()):
        box = sliders.nth(number)
        picture, readout = box.locator("img"), box.locator("output")
        for slider in box.locator("input").all():  # the others stay where they are
            slider.focus()
            seen = []
            page.keyboard.press("Home")
            for _ in range(int(slider.get_attribute("max")) + 1):
                assert picture.get_attribute("alt") == readout.inner_text()
                assert slider.get_attribute("aria-valuetext") in readout.inner_text()
                assert picture.evaluate("image => image.naturalWidth") > 300
                seen.append((readout.inner_text(), picture.get_attribute("src")))
                page.keyboard.press("ArrowRight")
            assert len({text for text, _ in seen}) == len(seen)
            assert len({picture for _, picture in seen}) == len(seen)


def test_slider_shows_the_regimes_of_decay(visit, html):
    page = visit(f"{html.as_uri()}/{CHAPTER}").page
    box = page.locator(".explore").first
    for key, word in [("Home", "decays"), ("End", "diverges")]:
        box.locator("input").focus()
        page.keyboard.press(key)
        assert word in box.locator("output").inner_text()


@by_framed_chapter
def test_quiz_answers_by_keyboard(name, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html").page
    questions = page.locator(".quiz")
    assert questions.count() >= 3
    for number in range(questions.count()):
        answers = questions.nth(number).locator("details")
        assert answers.count() == 4
        for choice in range(4):
            answer = answers.nth(choice)
            explanation = answer.locator(".sd-summary-content")
            assert not explanation.is_visible()
            answer.locator("summary").focus()
            page.keyboard.press("Enter")
            assert explanation.is_visible()
            assert len(explanation.inner_text()) > 30
        assert questions.nth(number).locator("details.right").count() == 1


@by_framed_chapter
def test_proofs_and_solutions_are_closed_and_open(name, visit, html):
    page = visit(f"{html.as_uri()}/book/{name}.html").page
    for boxes, at_least in (
        (page.locator("details.sd-dropdown:has-text('Proof')"), 1),
        (page.locator("details:has-text('Show the solution')"), 3),
    ):
        assert boxes.count() >= at_least
        for number in range(boxes.count()):
            box = boxes.nth(number)
            assert box.get_attribute("open") is None
            box.locator("summary").first.click()
            assert box.get_attribute("open") is not None


def contrast(page: Page, selector: str) -> float:
    """Contrast of an element's text with what lies behind it (WCAG 2.1)."""
    return page.evaluate(
        """selector => {
          const canvas = document.createElement("canvas").getContext("2d");
          const mix = colors => {  // painted over each other, from the back to the front
            canvas.clearRect(0, 0, 1, 1);
            for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const luminance = rgb => rgb.map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const element = document.querySelector(selector);
          const behind = ["white"];
          const chain = [];
          for (let e = element; e; e = e.parentElement) chain.unshift(e);
          for (const e of chain) behind.push(getComputedStyle(e).backgroundColor);
          const [a, b] = [mix([...behind, getComputedStyle(element).color]), mix(behind)]
            .map(luminance).sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }""",
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme, visit, html):
    page = visit(f"{html.as_uri()}/{CHAPTER}", scheme=scheme).page
    for selector in (
        "main p",
        "main p a.reference",
        "main code",
        ".goals .admonition-title",
        ".predict .admonition-title",
        ".quiz .admonition-title",
        ".quiz summary",
        ".claim p",
        ".claim strong",
        ".explore label span",
        ".explore output",
        "figcaption .caption-text",
        ".cell_input .k",
        ".cell_input .kn",
        ".cell_input .s2",
        ".cell_input .c1",
        ".cell_input .mf",
    ):
        assert contrast(page, selector) >= 4.5, selector
    page.goto(f"{html.as_uri()}/book/ledger.html")
    for selector in (".badge.ok", ".badge.needs-condition", ".badge.erratum", ".badge.no-exam"):
        assert contrast(page, selector) >= 4.5, selector
    page.goto(f"{html.as_uri()}/book/index.html")
    for selector in (".method-map b", ".method-map .after b", ".method-map section p"):
        assert contrast(page, selector) >= 4.5, selector


def test_ledger_leads_to_the_verifying_cell(visit, html):
    page = visit(f"{html.as_uri()}/book/ledger.html").page
    entry = page.locator(".ledger-entry", has_text="8.1-c5")
    entry.get_by_role("link", name="See the check").click()
    assert page.url.endswith("08_01_weight_decay.html#claim-8.1-c5")
    cell = page.locator("[id='claim-8.1-c5'] + .cell, [id='claim-8.1-c5'] ~ .cell").first
    assert "8.1-c5" in cell.inner_text()
    assert page.locator("[id='claim-8.1-c5']").evaluate(
        "e => Math.abs(e.getBoundingClientRect().top) < 300"
    )


def test_reading_notes_open_their_evidence_and_lead_to_the_cell(visit, html):
    page = visit(f"{html.as_uri()}/book/reading_notes.html").page
    page.locator("table a[href='#notes-notation-8-3']").click()
    note = page.locator(".note", has_text="8.3-c5")
    assert note.evaluate("e => e.getBoundingClientRect().top < innerHeight")
    assert not note.locator("li").first.is_visible()
    note.locator("summary").focus()
    page.keyboard.press("Enter")
    assert note.locator("li").first.is_visible()
    note.get_by_role("link", name="To the code").click()
    assert page.url.endswith("08_03_weight_sharing.html#claim-8.3-c5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reading_notes_have_contrast(scheme, visit, html):
    page = visit(f"{html.as_uri()}/book/reading_notes.html", scheme=scheme).page
    for selector in (".note .slide", ".note summary", ".note li", ".note strong", "main td a"):
        assert contrast(page, selector) >= 4.5, selector


def test_ledger_leads_to_the_reading_note(visit, html):
    page = visit(f"{html.as_uri()}/book/ledger.html").page
    entry = page.locator(".ledger-entry", has_text="8.6-c11")
    entry.get_by_role("link", name="Reading note").click()
    assert page.url.endswith("reading_notes.html#note-8-6-c11")


def test_cards_of_the_start_page_lead_to_the_ways(visit, html):
    page = visit(f"{html.as_uri()}/book/index.html").page
    page.locator(".sd-card", has_text="two weeks").click()
    assert page.url.endswith("paths.html#path-unit")


def test_map_of_the_start_page_leads_to_the_chapter(visit, html):
    page = visit(f"{html.as_uri()}/index.html").page
    page.wait_for_url("**/book/index.html")
    page.locator(".method-map a", has_text="Weight decay").click()
    assert page.url.endswith("08_01_weight_decay.html")


@pytest.mark.parametrize("place", ["server", "disk"])
def test_search_box_finds_a_chapter(place, visit, server, html):
    base = server if place == "server" else html.as_uri()
    page = visit(f"{base}/{CHAPTER}").page
    page.keyboard.press("Control+k")
    page.keyboard.type("soft threshold")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=soft*")
    found = page.locator("#search-results a", has_text="8.1 Weight decay").first
    found.wait_for(timeout=10_000)
    found.click()
    assert "08_01_weight_decay.html" in page.url


def test_theme_switch_changes_page_and_figures(visit, html):
    page = visit(f"{html.as_uri()}/{CHAPTER}").page
    before = page.locator("figure img").first.evaluate("e => getComputedStyle(e).filter")
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    after = page.locator("figure img").first.evaluate("e => getComputedStyle(e).filter")
    assert before == "none"
    assert "invert" in after


@by_chapter
def test_weight_of_the_chapter(name, visit, server):
    """What a first visit loads, uncompressed."""
    seen = visit(f"{server}/book/{name}.html")
    sizes = {}
    for url in {url.split("?")[0] for url in seen.requests if url.startswith("http")}:
        response = seen.page.request.get(url)
        sizes[url] = len(response.body()) / 1e6
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    assert sum(sizes.values()) <= MEGABYTES, heaviest
