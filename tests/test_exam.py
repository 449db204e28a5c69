"""The exam page: its questions as they are written; switch and timed set in a browser."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import notebooks
import pytest
from playwright.sync_api import Browser, Page
from test_browser import contrast

from regkit.ledger import SECTIONS, claims

TEXT = (notebooks.SOURCE / "exam.md").read_text()
LETTERS = "abcde"


@dataclass
class Option:
    letter: str
    text: str
    right: bool
    explanation: str


@dataclass
class Question:
    section: str
    number: int
    exam: bool
    text: str
    options: list[Option]
    where: str
    check: str  # the cell behind it, "" if there is none

    @property
    def right(self) -> str:
        return "".join(option.letter for option in self.options if option.right)


def read_questions() -> list[Question]:
    questions = []
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        title = section.splitlines()[0]
        for block in section.split("::::{admonition} ")[1:]:
            inside, after = block.split("\n::::\n", 1)
            head, *answers = re.split(r"^:::\{dropdown\} ", inside, flags=re.M)
            options = []
            for answer in answers:
                first, kind, explanation = answer.split("\n", 2)
                letter, text = first.split(") ", 1)
                right = {"right": True, "wrong": False}[kind.split("container: ")[1]]
                options.append(Option(letter, text, right, explanation.split("\n:::")[0]))
            number, classes, text = head.split("\n", 2)
            questions.append(
                Question(
                    section=title,
                    number=int(number.removeprefix("Question ")),
                    exam="no-exam" not in classes,
                    text=text,
                    options=options,
                    where=inside.rsplit("\n:::\n", 1)[1].strip(),
                    check=after if "{code-cell}" in after else "",
                )
            )
    return questions


QUESTIONS = read_questions()
by_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"question {q.number}")


# --- the questions as they are written ---


def test_numbers_run_from_1_to_32():
    assert [question.number for question in QUESTIONS] == list(range(1, 33))


def test_each_section_has_two_or_three_questions_in_the_order_of_the_lecture():
    counts = Counter(question.section for question in QUESTIONS)
    numbers = [section for section in SECTIONS if section != "exam"]
    titles = [f"{number} {SECTIONS[number]}" for number in numbers]
    assert list(counts) == ["The lecture's two questions", *titles]
    assert all(2 <= count <= 3 for count in counts.values())


@by_question
def test_a_question_has_five_options_one_of_them_right_all_explained(question):
    assert [option.letter for option in question.options] == list(LETTERS)
    assert len(question.right) == 1
    assert len({option.text for option in question.options}) == 5
    explanations = [option.explanation for option in question.options]
    assert all(len(explanation) > 30 for explanation in explanations), explanations
    assert len(set(explanations)) == 5
    assert not any("all of the above" in option.text.lower() for option in question.options)


@by_question
def test_a_question_leads_to_its_chapter(question):
    chapter = re.search(r"\[chapter (8\.\d+)(, part 2)?\]\(#ch-[\w-]+\)", question.where)
    assert chapter, question.where
    if question.section[0].isdigit():
        assert chapter[1] == question.section.split()[0]


def test_right_letters_are_spread_evenly():
    counts = Counter(question.right for question in QUESTIONS)
    assert all(5 <= counts[letter] <= 8 for letter in LETTERS), counts


def test_the_lectures_questions_have_the_lectures_answers():
    for question, claim in zip(QUESTIONS[:2], ("exam-c1", "exam-c2"), strict=True):
        assert claims()[claim].statement.endswith(f"answer {question.right}.")
        assert f'"{claim}"' in question.check


def test_length_does_not_give_the_answer_away():
    """The right option is about as often the longest, or the shortest, as any other."""
    in_words = [q for q in QUESTIONS if min(len(option.text) for option in q.options) > 24]
    assert len(in_words) >= 8
    for extreme in (max, min):
        given_away = []
        for question in in_words:
            lengths = [len(option.text) for option in question.options]
            right = lengths[LETTERS.index(question.right)]
            given_away.append(right == extreme(lengths))
            assert max(lengths) <= 1.5 * min(lengths), question.number
        assert sum(given_away) <= 0.4 * len(given_away)


def test_computations_are_checked_against_what_the_options_say():
    """The numbers in a check are those that the reader sees."""
    settled = [question for question in QUESTIONS if "settle(\n" in question.check]
    assert len(settled) >= 8
    for question in settled:
        values = re.search(r'settle\(\n    "([^"]+)"', question.check)[1].split()
        for option, value in zip(question.options, values, strict=True):
            number = re.findall(r"-?\d[\d.]*", option.text)
            assert number == [value], (question.number, option.text)
        assert f'right="{question.right}"' in question.check
        mistakes = re.findall(r'"([a-e])": ', question.check.split("mistakes=")[1])
        assert sorted([*mistakes, question.right]) == list(LETTERS)


def test_every_question_for_a_number_has_a_check():
    for question in QUESTIONS:
        if all(re.search(r"\d", option.text) for option in question.options[:2]):
            in_words = "probability" in question.options[0].text
            assert question.check or in_words, question.number


def test_checks_are_closed():
    cells = re.findall(r"```\{code-cell\}\n(.*?)\n```", TEXT, flags=re.S)
    assert len(cells) == 1 + sum(bool(question.check) for question in QUESTIONS)
    assert all("tags: [hide-cell]" in cell for cell in cells)
    shown = sum('code_prompt_show: "Show the check"' in cell for cell in cells)
    assert shown == len(cells) - 1


def test_what_is_not_for_the_exam_is_marked():
    """The ledger says which topics these are: Gaussian processes in 8.4, and penalties in 8.9."""
    outside = [question for question in QUESTIONS if not question.exam]
    assert len(outside) >= 3
    sections = {claim.section for claim in claims().values() if not claim.exam}
    assert {question.section.split()[0] for question in outside} <= sections
    for question in QUESTIONS:
        assert ("{.badge .no-exam}" in question.text) == (not question.exam)


# --- the script ---


def test_script_is_short_and_stands_on_this_page_only(html):
    tool = (notebooks.ROOT / "tools" / "exam.html").read_text()
    script = re.search(r"<script>\n(.*?)\n</script>", tool, flags=re.S)[1]
    assert len(script.splitlines()) <= 150
    # No globals: comments, and one function that is called at once.
    assert re.match(r"(// .*\n)+\(controls => \{\n", script)
    assert script.endswith("})(document.currentScript.previousElementSibling);")
    with_it = [page.name for page in html.rglob("*.html") if "exam-controls" in page.read_text()]
    assert with_it == ["exam.html"]
    for file in (html / "_static").rglob("*.js"):
        assert "exam-controls" not in file.read_text(errors="ignore")


# --- in a browser ---


@pytest.fixture
def address(html) -> str:
    path: Path = html / "book" / "exam.html"
    assert path.stat().st_mtime >= (notebooks.BOOK / "exam.ipynb").stat().st_mtime, "run make book"
    return path.as_uri()


@pytest.fixture
def make_page(browser: Browser) -> Iterator:
    contexts = []

    def make(address: str, width: int = 1280, clock: bool = False, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: listen(page, request.url))
        if clock:
            page.clock.install()
        page.goto(address)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("[name=start]:enabled")  # the formulas are there
        return page

    yield make
    for context in contexts:
        context.close()


def listen(page: Page, url: str) -> None:
    """From disk, a page may ask for its own files and for nothing else."""
    if not url.startswith(("file:", "data:")):
        page.complaints.append(url)


def start(page: Page) -> list[int]:
    """Start a set; return the numbers of its questions."""
    page.get_by_role("button", name="Start a set of 15 questions").click()
    return numbers(page)


def numbers(page: Page) -> list[int]:
    """The numbers of the questions that can be seen."""
    titles = page.locator(".quiz:visible .admonition-title").all_inner_texts()
    return [int(re.search(r"\d+", title)[0]) for title in titles]


def choose(page: Page, number: int, letter: str) -> None:
    group = page.get_by_role("radiogroup", name=re.compile(rf"Question {number}\b"))
    group.get_by_role("radio").nth(LETTERS.index(letter)).check()


def test_switch_leaves_out_what_is_not_for_the_exam(address, make_page):
    page = make_page(address)
    assert numbers(page) == list(range(1, 33))
    switch = page.get_by_role("switch", name="Leave out what is not for the exam")
    cells = page.locator(".cell:visible").count()
    switch.focus()
    page.keyboard.press("Space")
    outside = {question.number for question in QUESTIONS if not question.exam}
    assert set(range(1, 33)) - set(numbers(page)) == outside
    assert page.locator(".cell:visible").count() == cells - len(outside)
    page.keyboard.press("Space")
    assert numbers(page) == list(range(1, 33))


def test_a_seed_draws_the_same_set_for_a_class(address, make_page):
    sets = [start(make_page(f"{address}?seed={seed}")) for seed in (7, 7, 8)]
    assert sets[0] == sets[1] != sets[2]
    for drawn in sets:
        assert len(drawn) == len(set(drawn)) == 15
        assert drawn == sorted(drawn)
        # One question of each of the 13 sections, and a second one of two of them.
        counts = Counter(QUESTIONS[number - 1].section for number in drawn)
        assert sorted(counts.values()) == [1] * 11 + [2] * 2


def test_every_question_is_drawn_sometimes_and_the_switch_is_respected(address, make_page):
    page = make_page(address)
    page.get_by_role("switch").check()
    drawn = [start(page)]
    for _ in range(40):
        page.get_by_role("button", name="Finish").click()
        page.get_by_role("button", name="New set").click()
        drawn.append(numbers(page))
    assert len({tuple(one) for one in drawn}) > 30
    exam = {question.number for question in QUESTIONS if question.exam}
    assert {number for one in drawn for number in one} == exam
    assert all(len(one) == 15 for one in drawn)
    assert page.complaints == []


def test_a_set_hides_everything_but_its_questions(address, make_page):
    page = make_page(f"{address}?seed=7")
    drawn = start(page)
    assert page.locator(".cell:visible, .quiz details:visible").count() == 0
    assert page.locator(".quiz:visible a:visible").count() == 0
    assert page.get_by_role("radiogroup").count() == 15
    assert page.get_by_role("radio").count() == 75
    sections = {QUESTIONS[number - 1].section for number in drawn}
    shown = [title.rstrip("#") for title in page.locator("h2:visible").all_inner_texts()]
    assert {title.replace("’", "'").strip() for title in shown} == sections
    for number in drawn:  # the formulas of the options are there too
        question = page.locator(".quiz", has=page.get_by_text(f"Question {number}", exact=True))
        formulas = question.locator("details .sd-summary-text mjx-container").count()
        assert question.locator(".exam-options mjx-container").count() == formulas


def test_answers_are_chosen_by_keyboard(address, make_page):
    page = make_page(f"{address}?seed=7")
    page.get_by_role("button", name="Start a set of 15 questions").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('.quiz.drawn')")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    first = page.get_by_role("radiogroup").first.get_by_role("radio")
    assert first.nth(0).is_checked()
    page.keyboard.press("ArrowDown")
    assert first.nth(1).is_checked()
    assert not first.nth(0).is_checked()
    assert page.get_by_text("1 of 15 answered").is_visible()
    page.keyboard.press("Tab")  # to the next question
    assert page.evaluate("document.activeElement.name") != first.nth(0).get_attribute("name")
    page.get_by_role("button", name="Finish").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('.exam-result')")


@pytest.mark.parametrize("wrong", [0, 4, 15])
def test_score_is_right_for_known_answers(wrong, address, make_page):
    page = make_page(f"{address}?seed=7")
    drawn = start(page)
    for place, number in enumerate(drawn):
        right = QUESTIONS[number - 1].right
        letter = right if place >= wrong else LETTERS[(LETTERS.index(right) + 1) % 5]
        choose(page, number, letter)
    page.get_by_role("button", name="Finish").click()
    assert page.get_by_text(f"{15 - wrong} of 15 right", exact=True).is_visible()
    expected: dict[str, list[int]] = {}
    for place, number in enumerate(drawn):
        row = expected.setdefault(QUESTIONS[number - 1].section, [0, 0])
        row[0] += place >= wrong
        row[1] += 1
    rows = page.locator(".exam-result tbody tr").all_inner_texts()
    found = [re.split(r"\t+", row.replace("’", "'")) for row in rows]
    assert found == [[name, f"{got} of {of}"] for name, (got, of) in expected.items()]


def test_the_end_marks_answers_and_opens_explanations(address, make_page):
    page = make_page(f"{address}?seed=7")
    drawn = start(page)
    choose(page, drawn[0], "a")
    page.get_by_role("button", name="Finish").click()
    assert page.get_by_role("status").inner_text().endswith("of 15 answers are right.")
    boxes = page.locator(".quiz.drawn")
    assert boxes.locator("details[open]").count() == 75
    assert boxes.locator("details.right[open]").count() == 15
    assert page.get_by_role("radio").count() == 0
    marks = page.locator(".exam-mark").all_inner_texts()
    assert marks == ["← your answer"] + ["not answered"] * 14
    assert boxes.first.locator("details").first.locator(".exam-mark").is_visible()
    assert boxes.locator("> p:last-child a:visible").count() >= 15  # where it is derived
    for kind, mark in (("right", "✓"), ("wrong", "✗")):  # not by color alone
        text = boxes.first.locator(f"details.{kind} .sd-summary-text").first
        before = text.evaluate(
            "e => [getComputedStyle(e, '::before')].map(s => s.content + s.position)[0]"
        )
        assert before == f'"{mark} "static'


def test_back_restores_the_page(address, make_page):
    page = make_page(f"{address}?seed=7")
    before = page.locator("article").inner_text()
    structure = "() => document.querySelectorAll('article *').length"
    elements = page.evaluate(structure)
    drawn = start(page)
    choose(page, drawn[3], "c")
    page.get_by_role("button", name="Finish").click()
    page.get_by_role("button", name="Back to all questions").click()
    assert numbers(page) == list(range(1, 33))
    assert page.locator(".quiz details[open], .exam-options, .exam-mark").count() == 0
    page.locator(".exam-result").evaluate("e => e.replaceChildren()")
    page.get_by_role("status").evaluate("e => e.replaceChildren()")
    assert page.locator("article").inner_text() == before
    assert page.evaluate(structure) == elements
    assert page.evaluate("document.activeElement.name") == "start"
    assert start(page) == drawn  # and again, with nothing chosen
    assert page.locator(".exam-options input:checked").count() == 0


def test_clock_counts_down_and_ends_the_set(address, make_page):
    page = make_page(f"{address}?seed=7", clock=True)
    drawn = start(page)
    choose(page, drawn[0], QUESTIONS[drawn[0] - 1].right)
    timer, status = page.get_by_role("timer"), page.get_by_role("status")
    assert timer.inner_text() == "22:30"
    assert timer.get_attribute("aria-live") == "off"
    begun = status.inner_text()
    assert "22:30 minutes" in begun
    page.clock.fast_forward("10:00")
    page.clock.run_for(1000)
    assert timer.inner_text() == "12:29"
    assert status.inner_text() == begun  # no announcement in between
    page.clock.fast_forward("11:30")
    page.clock.run_for(1000)
    assert status.inner_text() == "One minute left."
    assert page.locator(".quiz details:visible").count() == 0
    page.clock.fast_forward("01:00")
    page.clock.run_for(1000)
    assert status.inner_text() == "The time is up. 1 of 15 answers are right."
    assert page.get_by_text("1 of 15 right", exact=True).is_visible()
    said = status.inner_text()
    page.clock.fast_forward("10:00")
    assert status.inner_text() == said  # the clock has stopped
    page.get_by_role("button", name="New set").click()
    assert timer.inner_text() == "22:30"


def test_clock_can_be_left_out(address, make_page):
    """WCAG 2.2.1: a limit of time can be turned off."""
    page = make_page(f"{address}?seed=7", clock=True)
    page.get_by_label("With a clock").uncheck()
    start(page)
    assert not page.locator("[role=timer]").is_visible()
    page.clock.fast_forward("03:00:00")
    page.clock.run_for(1000)
    assert page.get_by_role("radiogroup").count() == 15


def test_nothing_is_kept_and_nothing_is_global(address, make_page):
    page = make_page(f"{address}?seed=7")
    names = "() => Object.keys(window).length"
    before = page.evaluate(names)
    start(page)
    page.get_by_role("button", name="Finish").click()
    assert page.evaluate(names) == before
    assert page.complaints == []  # no error, and no request to the outside
    page.reload()
    assert numbers(page) == list(range(1, 33))


def test_page_works_without_scripts(address, make_page):
    page = make_page(address, java_script_enabled=False)
    assert page.locator(".quiz:visible").count() == 32
    assert page.get_by_role("button", name="Start").count() == 0
    answer = page.locator(".quiz details").first
    explanation = answer.locator(".sd-summary-content")
    assert not explanation.is_visible()
    answer.locator("summary").click()
    assert explanation.is_visible()
    assert "Both need scripts" in page.locator("article noscript").text_content()


def test_print_shows_all_questions(address, make_page):
    page = make_page(f"{address}?seed=7")
    page.get_by_role("switch").check()
    start(page)
    page.emulate_media(media="print")
    assert numbers(page) == list(range(1, 33))
    assert page.locator(".quiz > details:visible").count() == 160
    assert not page.locator(".exam-controls").is_visible()


def test_quiz_answers_by_keyboard(address, make_page):
    page = make_page(address)
    assert page.locator(".quiz").count() == 32
    answers = page.locator(".quiz details")
    assert answers.count() == 160
    for number in range(0, 160, 7):
        explanation = answers.nth(number).locator(".sd-summary-content")
        assert not explanation.is_visible()
        answers.nth(number).locator("summary").focus()
        page.keyboard.press("Enter")
        assert explanation.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_set_is_readable_and_fits(scheme, width, address, make_page):
    page = make_page(f"{address}?seed=7", width=width, color_scheme=scheme)
    for selector in (".exam-setup label", ".exam-setup button", ".quiz .badge.no-exam"):
        assert contrast(page, selector) >= 4.5, selector
    start(page)
    page.get_by_role("radio").first.check()
    for selector in (".exam-bar [role=timer]", ".exam-answered", ".exam-options label"):
        assert contrast(page, selector) >= 4.5, selector
    over = """() => [...document.querySelectorAll(".exam-controls *, .exam-options label")]
        .filter(e => e.checkVisibility() && !e.closest("mjx-container"))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(over) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("window.scrollTo(0, 3000)")
    bar = page.locator(".exam-controls").bounding_box()
    assert 0 <= bar["y"] <= 60  # the clock stays in sight
    assert bar["height"] <= 110
    in_front = """e => { const box = e.getBoundingClientRect();
        return e.contains(document.elementFromPoint(box.x + box.width / 2, box.y + 8)); }"""
    assert page.locator(".exam-controls").evaluate(in_front)
    focus = "e => { e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle; }"
    assert page.get_by_role("radio").nth(1).evaluate(focus) == "solid"
    assert page.get_by_role("button", name="Finish").evaluate(focus) == "solid"
    page.get_by_role("button", name="Finish").click()
    for selector in (".exam-result td", ".exam-result th", ".exam-mark", ".exam-after button"):
        assert contrast(page, selector) >= 4.5, selector
    assert page.evaluate(over) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
