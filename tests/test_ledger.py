"""The record is complete, every claim of a chapter is verified, and verify fails when it should."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from book_extension import VERIFY, chapters, stored_checks

from conftest import ROOT
from regkit import ledger
from regkit.ledger import SECTIONS, Claim, ClaimFailed, claims, verify


@pytest.fixture
def recorded(monkeypatch):
    """A ledger with one claim of each outcome; returns what verify shows."""
    entries = {
        outcome: Claim(outcome, "8.1", "formula", "ok", "It is so.", "", outcome)
        for outcome in ("holds", "not reproduced", "open")
    }
    monkeypatch.setattr(ledger, "claims", lambda: entries)
    monkeypatch.setattr(ledger, "_shown", set())
    lines = []
    monkeypatch.setattr(ledger, "display", lines.append)
    return lines


# --- the record ---


def test_every_entry_is_complete():
    for claim in claims().values():
        assert claim.section in SECTIONS, claim.id
        assert re.fullmatch(rf"{re.escape(claim.section)}-[cp][1-9]\d*", claim.id)
        assert claim.status in {"ok", "needs-condition", "erratum"}, claim.id
        assert claim.outcome in {"holds", "not reproduced", "open"}, claim.id
        assert claim.statement.endswith("."), claim.id
        assert claim.verify.endswith("."), claim.id


def test_no_id_was_dropped():
    """claim_ids.txt only grows: a new claim is added there, and none is ever taken out."""
    known = (ROOT / "tests" / "claim_ids.txt").read_text().split()
    assert list(claims()) == known


def test_mathematics_stands_between_dollars():
    texts = {
        (claim.id, field): getattr(claim, field)
        for claim in claims().values()
        for field in ("statement", "slide", "reason", "found")
    }
    for name, text in texts.items():
        parts = text.split("$")
        assert len(parts) % 2 == 1, name
        assert not re.search(r"[\\^_*<>\[]", re.sub("`.*?`", "", "".join(parts[::2]))), name
        for formula in parts[1::2]:
            assert formula.count("{") == formula.count("}"), name


def test_what_is_not_as_stated_says_what_it_needs():
    """What the reading notes are made of is there, and nowhere else."""
    for claim in claims().values():
        noted, of_the_lecture = claim.status != "ok", "-c" in claim.id
        assert claim.condition in ({"hypothesis", "notation", "empirical"} if noted else {None}), (
            claim.id
        )
        assert bool(claim.slide) == (noted and of_the_lecture), claim.id
        assert bool(claim.reason) == (claim.status == "erratum"), claim.id
        assert bool(claim.found) == (claim.outcome == "not reproduced"), claim.id
        for text in filter(None, (claim.slide, claim.reason, claim.found)):
            assert text.endswith("."), claim.id
        assert not re.search('["“”„«»]', claim.slide), f"{claim.id}: no quotations"


def test_every_section_has_a_chapter_and_every_claim_is_settled():
    assert set(SECTIONS) == set(chapters())
    assert all(claim.outcome != "open" for claim in claims().values())


def shown_checks(path: Path) -> list[str]:
    """The claims whose checks stand in a notebook's stored outputs."""
    texts = [
        output.get("data", {}).get("text/plain", "")
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    return [match[1] for text in texts if (match := re.match(r"[✓✗] (\S+) · ", text))]


def test_every_claim_of_a_chapter_is_verified_in_it():
    for section, page in chapters().items():
        verified, named = set(), set()
        for source in sorted((ROOT / "book" / "source").glob(f"{page[:5]}*.md")):  # 08_07, 08_07b
            verified |= set(shown_checks(ROOT / "book" / f"{source.stem}.ipynb"))
            named |= set(VERIFY.findall(source.read_text()))
        assert named == verified, "a claim is named that no cell has checked"
        recorded = {claim.id for claim in claims().values() if claim.section == section}
        assert recorded <= verified, f"{section} does not verify {recorded - verified}"
        assert verified <= set(claims()), f"{section} names unknown {verified - set(claims())}"


def test_evidence_of_the_pages_is_what_the_notebooks_store():
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        checks = stored_checks(path.stem)
        assert [claim for _, claim, _ in checks] == shown_checks(path)
        assert all(rule for _, _, rule in checks)


# --- verify passes ---


@pytest.mark.parametrize(
    "check",
    [
        {"close": (torch.ones(3), np.ones(3)), "atol": 0.0},
        {"close": (1.0, 1.0 + 1e-9), "atol": 1e-8},
        {"close": (torch.tensor([100.0, 1e-3]), torch.tensor([100.1, 0.0])), "rtol": 0.01},
        {"differs": (1.0, 2.0), "rtol": 0.1, "rule": "one is not two"},
        {"holds": True, "rule": "so it is"},
        {"holds": np.bool_(True), "rule": "so it is"},
    ],
)
def test_verify_accepts(check, recorded):
    verify("holds", **check)
    assert "✓ holds" in recorded[0].plain


def test_verify_takes_gradients_along(recorded):
    w = torch.ones(2, requires_grad=True)
    verify("holds", close=(2 * w, torch.full((2,), 2.0)), atol=0.0)


def test_verify_of_what_was_not_reproduced(recorded):
    verify("not reproduced", holds=False, rule="at least 17 of 20 seeds")
    assert "✗" in recorded[0].plain
    assert "not reproduced here" in recorded[0]._repr_markdown_()
    with pytest.raises(ClaimFailed, match="on record as 'not reproduced', but this check holds"):
        verify("not reproduced", holds=True, rule="at least 17 of 20 seeds")


def test_a_claim_that_was_not_reproduced_may_be_prepared(recorded):
    verify("not reproduced", close=(1.0, 1.0), atol=0.0)
    verify("not reproduced", differs=(1.0, 2.0), atol=0.1, rule="one is not two")
    assert all("✓" in line._repr_markdown_() for line in recorded)
    with pytest.raises(ClaimFailed):
        verify("not reproduced", close=(1.0, 2.0), atol=0.0)


@pytest.mark.parametrize(
    ("tolerance", "said"),
    [
        ({"atol": 1e-12}, "$10^{-12}$"),
        ({"atol": 2.1e-5}, r"$2.1\cdot 10^{-5}$"),
        ({"atol": 0.25}, "0.25"),
        ({"rtol": 0.015}, "1.5% of the largest entry"),
        ({"rtol": 1e-9}, "$10^{-9}$ of the largest entry"),
    ],
)
def test_verify_says_the_tolerance(tolerance, said, recorded):
    verify("holds", close=(1.0, 1.0), **tolerance)
    assert recorded[0].plain == f"✓ holds · agree to {said}"


def test_verify_marks_what_was_not_reproduced(recorded):
    verify("not reproduced", close=(1.0, 1.0), atol=0.0)  # on the way
    verify("not reproduced", holds=False, rule="r")
    on_the_way, result = recorded
    assert '<div class="claim">' in on_the_way._repr_markdown_()
    assert '<div class="claim not-reproduced">' in result._repr_markdown_()
    assert "**✗ not reproduced** (not reproduced here) It is so." in result._repr_markdown_()
    assert "**Not found:** r." in result._repr_markdown_()


def test_verify_says_what_is_not_for_the_exam(recorded, monkeypatch):
    entry = Claim("holds", "8.1", "formula", "ok", "It is so.", "", "holds", exam=False)
    monkeypatch.setattr(ledger, "claims", lambda: {"holds": entry})
    verify("holds", holds=True, rule="r")
    assert "**✓ holds** (not for the exam) It is so." in recorded[0]._repr_markdown_()


def test_verify_shows_text_that_does_not_depend_on_the_machine(recorded):
    for noise in (1e-13, 3e-14):
        verify("holds", close=(1.0, 1.0 + noise), atol=1e-12, rule="one, and one")
    assert recorded[0].plain == recorded[1].plain
    assert recorded[0].plain == "✓ holds · one, and one; agree to $10^{-12}$"


def test_verify_states_a_claim_once_a_cell(recorded):
    verify("holds", holds=True, rule="one")
    verify("holds", holds=True, rule="two")
    assert "It is so." in recorded[0]._repr_markdown_()
    assert "It is so." not in recorded[1]._repr_markdown_()


# --- verify fails ---


@pytest.mark.parametrize(
    ("check", "measured"),
    [
        ({"close": (1.0, -1.0), "atol": 1e-3}, "largest difference 2, allowed 0.001"),
        ({"close": (np.zeros(3), np.array([0, 0, 1.0])), "rtol": 0.5}, "largest difference 1"),
        ({"close": (0.0, 1e-300), "atol": 0.0}, "allowed 0"),
        ({"differs": (1.0, 1.0 + 1e-9), "rtol": 1e-6, "rule": "r"}, "largest difference 1e-09"),
        ({"holds": False, "rule": "at least 17 of 20 seeds"}, "at least 17 of 20 seeds"),
    ],
)
def test_verify_fails_with_the_measured_difference(check, measured, recorded):
    with pytest.raises(ClaimFailed, match="on record as 'holds'") as failure:
        verify("holds", **check)
    assert measured in str(failure.value)
    assert "It is so." in str(failure.value)
    assert recorded == []


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        ({}, "exactly one of close, differs and holds, got none"),
        ({"close": (1.0, 1.0), "holds": True, "atol": 0.1}, "exactly one"),
        ({"close": (1.0, 1.0)}, "give atol or rtol, got none"),
        ({"close": (1.0, 1.0), "atol": -1.0}, r"tolerances must be in \[0, 1\)"),
        ({"close": (1.0, 1.0), "atol": float("inf")}, r"tolerances must be in \[0, 1\)"),
        ({"close": (1.0, 1.0), "rtol": 1.0}, r"tolerances must be in \[0, 1\)"),
        ({"close": (1.0, 1.0), "rtol": float("nan")}, r"tolerances must be in \[0, 1\)"),
        ({"close": (float("nan"), float("nan")), "atol": 0.1}, "finite, got NaN or infinity"),
        ({"close": (np.inf, np.inf), "atol": 0.1}, "finite, got NaN or infinity"),
        ({"differs": (float("nan"), 1.0), "atol": 0.1, "rule": "r"}, "finite, got NaN"),
        (
            {"close": (np.ones((3, 1)), np.ones(3)), "atol": 0.1},
            r"same shape, got \(3, 1\) and \(3,\)",
        ),
        ({"close": (np.ones(3), 1.0), "atol": 0.1}, r"same shape, got \(3,\) and \(\)"),
        ({"close": (np.ones(0), np.zeros(0)), "atol": 0.1}, r"not be empty, got shape \(0,\)"),
        ({"close": 1.0, "atol": 0.1}, "two sides as a tuple"),
        ({"close": (1.0, 1.0, 1.0), "atol": 0.1}, "two sides as a tuple"),
        ({"differs": (1.0, 2.0), "atol": 0.1}, "differs needs a rule in words"),
        ({"holds": True}, "holds needs a rule in words"),
        ({"holds": True, "rule": " "}, "holds needs a rule in words"),
        ({"holds": 1, "rule": "r"}, "holds must be True or False, got 1"),
        ({"holds": torch.tensor(True), "rule": "r"}, "holds must be True or False"),
        ({"holds": True, "rule": "r", "atol": 0.1}, "holds takes no tolerance"),
    ],
)
def test_verify_rejects_calls_that_make_no_sense(check, rule, recorded):
    with pytest.raises(ValueError, match=rule):
        verify("holds", **check)
    assert recorded == []


def test_verify_rejects_a_claim_checked_against_itself(recorded):
    w = torch.arange(3.0)
    for other in (w, w.view(3), w.detach(), w.numpy()):
        with pytest.raises(ValueError, match="two computations, got the same memory twice"):
            verify("holds", close=(w, other), atol=0.1)
    verify("holds", close=(w, w.clone()), atol=0.0)  # a copy is not seen: reviewers must


def test_verify_rejects_unknown_and_open_claims(recorded):
    with pytest.raises(ValueError, match="id must be in the ledger, got '8.1-c99'"):
        verify("8.1-c99", holds=True, rule="r")
    for outcome in (True, False):
        with pytest.raises(ClaimFailed, match="on record as 'open'"):
            verify("open", holds=outcome, rule="r")
