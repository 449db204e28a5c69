"""What an instructor wants to know after grading: a table of points, and what was misunderstood."""

import base64
import html
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from nbformat import NotebookNode

from assignments import course, grader, is_test, source_path, tasks
from regkit.figures import style
from regkit.ledger import claims

CLAIM = re.compile(r"\(((?:\d+\.\d+|exam)-[cp]\d+)\)")
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; }}
body {{ padding: 0 1rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; }} img {{ max-width: 100%; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .3rem .6rem; }}
th, td {{ text-align: left; vertical-align: top; overflow-wrap: normal; }}
</style>
<h1>{title}</h1>
<p>{words}</p>
<img alt="{alt}" src="data:image/png;base64,{figure}">
<h2>Tasks, the most lost first</h2>
<p>Answers that still need points by hand are left out.</p>
{tasks}
<h2>What was misunderstood</h2>
<p>The messages of lost tests, under the statement of the ledger that the tests ask about, the most
frequent first. A student counts once a line.</p>
{misunderstood}
<h2>Remarks</h2>
{remarks}
</html>
"""


def summarize(assignment: str, folder: Path, remarks: dict[str, list[str]]) -> str:
    """Write ``grades.csv`` and ``summary.html`` of an assignment; say in a line what came out.

    All submissions in the gradebook count, also those of earlier runs; points by hand are included.

    Args:
        assignment: its name.
        folder: the course folder.
        remarks: student -> remarks of this run.
    """
    results = folder / "grades" / assignment
    results.mkdir(parents=True, exist_ok=True)
    table, possible = points(assignment, folder)
    said = remembered(results / "grades.csv") | {k: "; ".join(v) for k, v in remarks.items()}
    table["remarks"] = [said.get(student, "") for student in table.index]
    table.to_csv(results / "grades.csv")
    lost = lost_tests(assignment, folder, list(table.index))
    total = table["total"]
    words = (
        f"{len(table)} submissions: {total.mean():.1f} of {sum(possible.values()):g} points on "
        f"average, the median is {total.median():g}. {int(table['by hand'].sum())} still need "
        "points by hand."
    )
    alt = "A histogram of all points, and a bar for each task with the share of points reached."
    page = PAGE.format(
        title=f"Assignment {assignment}",
        words=html.escape(words),
        alt=alt,
        figure=draw(table, possible),
        tasks=task_table(table, possible).to_html(index=False, border=0),
        misunderstood=misunderstood(lost),
        remarks=listed(table["remarks"]),
    )
    (results / "summary.html").write_text(page, encoding="utf-8")
    return f"{assignment}: {words}\n  {results}/grades.csv, summary.html, feedback/"


def points(assignment: str, folder: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """The points of each student in each task and in all, and the points that a task has.

    What still needs points by hand is NaN, and counts as zero in the total.
    """
    source = nbformat.read(source_path(assignment, folder), as_version=4)
    columns = {test: task.solution for task in tasks(source) for test in task.tests}
    rows, possible = {}, {}
    with course(folder).gradebook as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            row: dict[str, float] = {}
            by_hand = False
            for grade in submission.notebooks[0].grades:
                column = columns.get(grade.name, grade.name)
                given = np.nan if grade.needs_manual_grade else grade.score
                row[column] = row.get(column, 0) + given
                by_hand |= bool(grade.needs_manual_grade)
            rows[submission.student.id] = {**row, "total": submission.score, "by hand": by_hand}
        for cell in gradebook.find_notebook(assignment, assignment).grade_cells:
            column = columns.get(cell.name, cell.name)
            possible[column] = possible.get(column, 0) + cell.max_score
    order = [*dict.fromkeys(columns.values())]
    order += [column for column in possible if column not in order]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*order, "total", "by hand"])
    return table.rename_axis("student").sort_index(), {name: possible[name] for name in order}


def remembered(path: Path) -> dict[str, str]:
    """The remarks of earlier runs."""
    if not path.exists():
        return {}
    return pd.read_csv(path, index_col="student", dtype=str)["remarks"].fillna("").to_dict()


def lost_tests(assignment: str, folder: Path, students: list[str]) -> pd.DataFrame:
    """A row for each student and lost test: the claim it asks about, and what it said."""
    source = nbformat.read(source_path(assignment, folder), as_version=4)
    asked = {
        grader(cell)["grade_id"]: cell.metadata["claim"] for cell in source.cells if is_test(cell)
    }
    rows = []
    for student in students:
        path = folder / "autograded" / student / assignment / f"{assignment}.ipynb"
        for cell in nbformat.read(path, as_version=4).cells:
            if is_test(cell) and (message := complaint(cell)):
                test, named = grader(cell)["grade_id"], CLAIM.search(message)
                claim = named.group(1) if named else asked[test]
                rows.append((student, test, claim, CLAIM.sub("", message).strip()))
    return pd.DataFrame(rows, columns=["student", "test", "claim", "message"])


def complaint(cell: NotebookNode) -> str | None:
    """What a lost test said, or None if it passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            kind = "" if output.ename in ("AssertionError", "RuntimeError") else f"{output.ename}: "
            return (kind + output.evalue).strip().splitlines()[0][:200]
        if output.get("name") == "stderr":
            return "it wrote to stderr"
    return None


def misunderstood(lost: pd.DataFrame) -> str:
    """For each claim its statement and the messages of lost tests."""
    known = claims()
    parts = []
    for claim in lost.groupby("claim")["student"].nunique().sort_values(ascending=False).index:
        groups = lost[lost["claim"] == claim].groupby("message")
        table = groups.agg(students=("student", "nunique"), tests=("test", names))
        table = table.sort_values("students", ascending=False, kind="stable").reset_index()
        statement = html.escape(known[claim].statement)
        parts.append(
            f"<h3>{claim}</h3>\n<details><summary>Statement</summary>{statement}</details>"
        )
        parts.append(table[["students", "message", "tests"]].to_html(index=False, border=0))
    return "\n".join(parts) or "<p>Nothing: no test was lost.</p>"


def names(column: pd.Series) -> str:
    return ", ".join(sorted(set(column)))


def task_table(table: pd.DataFrame, possible: dict[str, float]) -> pd.DataFrame:
    """Points possible, mean, and the shares of full and no points, the worst task first."""
    rows = []
    for task, most in possible.items():
        given = table[task].dropna()
        share = given.mean() / most if len(given) else 2.0  # not graded yet: last
        rows.append(
            {
                "task": task,
                "points": f"{most:g}",
                "mean": f"{given.mean():.2f}" if len(given) else "by hand",
                "all points": f"{(given >= most).mean():.0%}" if len(given) else "",
                "no points": f"{(given == 0).mean():.0%}" if len(given) else "",
                "share": share,
            }
        )
    return pd.DataFrame(rows).sort_values("share", kind="stable").drop(columns="share")


def draw(table: pd.DataFrame, possible: dict[str, float]) -> str:
    """A histogram of the totals and the share of points reached in each task, as base64."""
    with plt.rc_context():
        style()
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
        left.hist(table["total"], bins=np.arange(-0.5, sum(possible.values()) + 1), rwidth=0.9)
        left.set(xlabel="points", ylabel="students")
        shares = [table[task].mean() / most for task, most in possible.items()]
        right.barh(list(possible), shares)
        right.invert_yaxis()
        right.set(xlim=(0, 1), xlabel="share of points reached")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        plt.close(figure)
    return base64.b64encode(picture.getvalue()).decode()


def listed(remarks: pd.Series) -> str:
    """The remarks as a list."""
    items = [
        f"<li>{html.escape(student)}: {html.escape(words)}</li>"
        for student, words in remarks.items()
        if words
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>None.</p>"
