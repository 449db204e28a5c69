"""Write the tree of the public repository: what readers need, and nothing that helps to cheat.

It is the last commit without what ``.gitattributes`` marks with ``export-ignore``, and without the
lines between ``teachers:begin`` and ``teachers:end`` of the other files. Before it says that it is
done, it looks for every line of a solution or a hidden test in it.
"""

import argparse
import html
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from assignments import ROOT, grader, is_test, read, stubs, texts

MARKED = re.compile(r"^.*teachers:begin.*\n(?:.*\n)*?.*teachers:end.*\n", re.MULTILINE)
DISTINCTIVE = 25  # characters of a line that is nobody's but ours


def export(folder: Path) -> None:
    """Write the public tree of the last commit into an empty folder.

    Raises:
        ValueError: if the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"FOLDER must be empty, and {folder} is not")
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
        tree.extractall(folder, filter="data")
    for path in files(folder):
        content = path.read_bytes()
        if b"teachers:begin" in content:
            path.write_text(MARKED.sub("", content.decode("utf-8")), encoding="utf-8")


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def secrets() -> set[str]:
    """The distinctive lines of solutions, hidden tests, wrong answers, and answers in words."""
    hidden: set[str] = set()
    visible: set[str] = set()
    for text in texts():
        notebook = read(text)
        handed_out = stubs(notebook)
        for cell in notebook.cells:
            name = grader(cell).get("grade_id")
            if "wrong" in cell.metadata:
                hidden |= lines(cell.source)
            elif name in handed_out:
                hidden |= lines(cell.source)
                visible |= lines(handed_out[name])
            elif grader(cell).get("solution"):
                hidden |= lines(cell.source)
            elif is_test(cell):
                before, _, rest = cell.source.partition("### BEGIN HIDDEN TESTS")
                inside, _, after = rest.partition("### END HIDDEN TESTS")
                hidden |= lines(inside)
                visible |= lines(before + after)
            else:
                visible |= lines(cell.source)
    return {
        line
        for line in hidden - visible
        if len(line) >= DISTINCTIVE
        and not line.startswith(("import ", "from "))
        and not line.endswith("(")  # a call that begins tells nothing
    }


def lines(text: str) -> set[str]:
    return {" ".join(line.split()) for line in text.splitlines()}


def readable(name: str, content: bytes) -> Iterator[str]:
    """The texts in a file: pages without their tags, notebooks cell by cell, archives unpacked."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            for inner in bundle.namelist():
                yield from readable(inner, bundle.read(inner))
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return  # a picture or a font
    yield text
    if name.endswith(".html"):
        yield html.unescape(re.sub(r"<[^>]+>", "", text))
    if name.endswith(".ipynb"):
        yield from (cell.source for cell in nbformat.reads(text, as_version=4).cells)
    if name.endswith(".js"):  # the search index has texts as JSON strings
        yield text.replace("\\n", "\n").replace('\\"', '"')


def leaks(folder: Path) -> list[str]:
    """Every place below a folder that holds a secret line, in words."""
    wanted = secrets()
    found = []
    for path in files(folder):
        for text in readable(path.name, path.read_bytes()):
            shared = wanted & lines(text)
            found += [f"{path.relative_to(folder)}: {line}" for line in sorted(shared)]
    return list(dict.fromkeys(found))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tree of the public repository.")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "public")
    folder = parser.parse_args().folder
    if folder == ROOT / "build" / "public":
        shutil.rmtree(folder, ignore_errors=True)
    try:
        export(folder)
    except ValueError as error:
        sys.exit(str(error))
    found = leaks(folder)
    if found:
        shutil.rmtree(folder)
        sys.exit("Not written, because it would give solutions away:\n" + "\n".join(found))
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    if changed:
        print(f"Note: these changes are not committed, so they are not in it:\n{changed}")
    print(f"{folder} is ready to be pushed as the public repository. No secret line is in it.")


if __name__ == "__main__":
    main()
