"""The ledger of claims: what the lecture states, and the check that settles each statement.

A chapter calls ``verify`` with two values that were computed independently of each other, or with
the outcome of a counted experiment. The call fails when the result is not the outcome on record in
``claims.yml``.
"""

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import torch
import yaml
from IPython import get_ipython
from IPython.display import display

from regkit._check import require

SECTIONS = {
    "8.0": "Risk and complexity",
    "8.1": "Weight decay",
    "8.2": "Neuron and weight noise",
    "8.3": "Weight sharing",
    "8.4": "Dropout",
    "8.5": "Multi-task learning",
    "8.6": "Growing",
    "8.7": "Pruning",
    "8.8": "Early stopping",
    "8.9": "Flat minimum search",
    "8.10": "Data augmentation",
    "8.11": "Self-regularization by SGD",
    "exam": "Exam questions",
}


@dataclass(frozen=True)
class Claim:
    """One statement of the lecture, or of a paper that it cites.

    Attributes:
        id: never changes its meaning.
        section: a key of ``SECTIONS``.
        kind: formula, derivation, definition, method, figure, pseudo-code, empirical claim.
        status: "ok"; "needs-condition", true under what the statement adds; or "erratum", read as
            written the lecture gives a wrong result, and the statement is the corrected one.
        statement: Markdown with mathematics.
        verify: how code settles it.
        outcome: "holds"; "not reproduced", our data do not bear it out; or "open", not settled yet.
        exam: False where the lecture marks the slide as not relevant for the exam.
        condition: what a statement that is not "ok" lacks: a "hypothesis"; clear "notation"; or,
            "empirical", the data and sizes for which a trend is one.
        slide: for such a statement of the lecture, what the slide says, in our words.
        reason: for an erratum, why the slide cannot be right as written.
        found: for what was not reproduced, what we saw instead.
    """

    id: str
    section: str
    kind: str
    status: Literal["ok", "needs-condition", "erratum"]
    statement: str
    verify: str
    outcome: Literal["holds", "not reproduced", "open"]
    exam: bool = True
    condition: Literal["hypothesis", "notation", "empirical"] | None = None
    slide: str = ""
    reason: str = ""
    found: str = ""


class ClaimFailed(AssertionError):
    """A check came out differently from the outcome on record."""


@cache
def claims() -> dict[str, Claim]:
    """Return all claims by id, in the order of the lecture.

    Example:
        >>> claims()["8.1-c5"].section
        '8.1'
    """
    entries = yaml.safe_load(files("regkit").joinpath("claims.yml").read_text(encoding="utf-8"))
    return {entry["id"]: Claim(**entry) for entry in entries}


def verify(
    id: str,
    *,
    close: tuple[Any, Any] | None = None,
    differs: tuple[Any, Any] | None = None,
    holds: bool | None = None,
    rule: str | None = None,
    atol: float | None = None,
    rtol: float | None = None,
) -> None:
    """Check a claim, compare with the outcome on record, and show one line about it.

    Give exactly one of ``close``, ``differs`` and ``holds``. Two values agree when no entry of
    ``left - right`` is larger in size than ``atol + rtol * max|right|``.

    Args:
        id: of a claim in the ledger.
        close: two values of equal shape, computed independently, that must agree.
        differs: two values that must not agree: a wrong reading, or a claim without its condition.
        holds: whether a counted or measured rule is kept. For a claim that was not reproduced
            this is the check that must fail; ``close`` and ``differs`` must always succeed.
        rule: what was compared, in words that do not depend on the machine; needed for
            ``holds`` and ``differs``.
        atol: absolute tolerance. ``close`` and ``differs`` need one of the two tolerances.
        rtol: tolerance relative to the largest entry on the right.

    Raises:
        ClaimFailed: if the result is not the outcome on record; says the measured difference.
        ValueError: if the call makes no sense: an unknown id, no or two checks, no tolerance,
            shapes that differ, empty or infinite values, NaN, or one object on both sides.

    Example:
        >>> verify("8.1-c6", close=(0.5**10, 1 / 1024), atol=1e-15, rule="one half, ten times")
        ✓ 8.1-c6 · one half, ten times; agree to $10^{-15}$
    """
    require(id in claims(), "id must be in the ledger", repr(id))
    claim = claims()[id]
    checks = {"close": close, "differs": differs, "holds": holds}
    given = [name for name, check in checks.items() if check is not None]
    require(len(given) == 1, "give exactly one of close, differs and holds", given or "none")
    if given != ["close"]:
        require(bool(rule and rule.strip()), f"{given[0]} needs a rule in words", repr(rule))

    if holds is not None:
        require(isinstance(holds, bool | np.bool_), "holds must be True or False", repr(holds))
        require(atol is None and rtol is None, "holds takes no tolerance", (atol, rtol))
        came_out, measured, evidence = bool(holds), "the rule is not kept", ""
    else:
        sides = close if close is not None else differs
        difference, bound = _compare(sides, atol, rtol)
        within = _tolerance(atol, rtol)
        measured = f"largest difference {difference:.3g}, allowed {bound:.3g}"
        if close is not None:
            came_out, evidence = difference <= bound, f"agree to {within}"
        else:
            came_out, evidence = difference > bound, f"differ by more than {within}"

    # A statement that was not reproduced may still have cells that prepare its check.
    expected = claim.outcome == "holds" or given != ["holds"]
    if claim.outcome == "open" or came_out != expected:
        result = "holds" if came_out else f"fails: {measured}"
        raise ClaimFailed(
            f"{id}: on record as {claim.outcome!r}, but this check {result}. "
            f"{'Rule: ' + rule + '. ' if rule else ''}Statement: {claim.statement}"
        )
    _show(claim, given[0], "; ".join(part for part in (rule, evidence) if part))


def _compare(sides: Any, atol: float | None, rtol: float | None) -> tuple[float, float]:
    """Return the largest difference of the two sides, and what is allowed."""
    require(
        isinstance(sides, tuple) and len(sides) == 2,
        "give two sides as a tuple",
        repr(sides),
    )
    tolerances = [tolerance for tolerance in (atol, rtol) if tolerance is not None]
    require(len(tolerances) > 0, "give atol or rtol", "none")
    kept = all(0 <= tolerance < 1 for tolerance in tolerances)
    require(kept, "tolerances must be in [0, 1)", tolerances)
    left, right = (_as_array(side) for side in sides)
    same = left.shape == right.shape
    require(same, "both sides must have the same shape", f"{left.shape} and {right.shape}")
    require(left.size > 0, "the sides must not be empty", f"shape {left.shape}")
    finite = bool(np.isfinite(left).all() and np.isfinite(right).all())
    require(finite, "the sides must be finite", "NaN or infinity")
    shared = np.shares_memory(left, right)
    require(not shared, "the sides must be two computations", "the same memory twice")
    bound = (atol or 0.0) + (rtol or 0.0) * float(np.abs(right).max())
    return float(np.abs(left - right).max()), bound


def _as_array(side: Any) -> np.ndarray:
    if isinstance(side, torch.Tensor):
        side = side.detach().cpu()
    return np.asarray(side, dtype=np.float64)


def _tolerance(atol: float | None, rtol: float | None) -> str:
    def text(value: float) -> str:
        mantissa, e, exponent = f"{value:g}".partition("e")
        if not e:
            return mantissa
        factor = "" if mantissa == "1" else rf"{mantissa}\cdot "
        return f"${factor}10^{{{int(exponent)}}}$"

    if not rtol:
        return text(atol or 0.0)
    relative = f"{100 * rtol:g}%" if rtol >= 0.001 else text(rtol)
    return f"{relative} of the largest entry" + (f" plus {text(atol)}" if atol else "")


_shown: set[tuple[str, str]] = set()  # (run of a cell, claim) whose statement was shown


def _show(claim: Claim, check: str, evidence: str) -> None:
    mark = "✓" if claim.outcome == "holds" else "✗"
    key = (_running_cell(), claim.id)
    head = f"{mark} {claim.id}"
    if check == "differs":
        lines = [(f"✓ {claim.id}", f"counter-check: {evidence}.")]
    elif check == "close" and claim.outcome == "not reproduced":
        lines = [(f"✓ {claim.id}", f"on the way: {evidence}.")]
    elif key in _shown:
        lines = [(head, f"and: {evidence}.")]
    else:
        notes = [] if claim.outcome == "holds" else ["(not reproduced here)"]
        notes += [] if claim.exam else ["(not for the exam)"]
        label = "Evidence:" if claim.outcome == "holds" else "Not found:"
        lines = [(head, " ".join([*notes, claim.statement])), (label, f"{evidence}.")]
        _shown.add(key)
    display(_Line(f"{head} · {evidence}", lines, reproduced=lines[0][0].startswith("✓")))


def _running_cell() -> str:
    """What tells one run of a cell from the next; in a script all is one run."""
    shell = get_ipython()
    if not hasattr(shell, "get_parent"):
        return ""
    return shell.get_parent().get("header", {}).get("msg_id", "")


@dataclass
class _Line:
    """A checked claim, for a terminal, for the page, and for a notebook."""

    plain: str
    lines: list[tuple[str, str]]  # what is bold, and the rest
    reproduced: bool

    def __repr__(self) -> str:
        return self.plain

    def _repr_markdown_(self) -> str:
        body = "\n\n".join(f"**{head}** {text}" for head, text in self.lines)
        kind = "claim" if self.reproduced else "claim not-reproduced"
        return f'<div class="{kind}">\n\n{body}\n\n</div>'

    def _repr_html_(self) -> str:
        # JupyterLab renders mathematics in HTML, but not in a Markdown output.
        color = "#009E73" if self.reproduced else "#D55E00"
        style = f"border-left: 4px solid {color}; padding: 0.1em 0.8em"
        texts = [(head, re.sub("`(.*?)`", r"<code>\1</code>", escape(t))) for head, t in self.lines]
        body = "".join(f"<p><b>{head}</b> {text}</p>" for head, text in texts)
        return f'<div class="claim" style="{style}">{body}</div>'
