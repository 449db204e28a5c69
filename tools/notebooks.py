"""Make the notebooks in ``book/`` from the text in ``book/source/``: one way, with outputs.

Without an option it executes what changed: the text, regkit or the lock. ``--force`` executes all,
and ``--back book/X.ipynb`` writes a notebook that was edited in JupyterLab back to its text.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

from regkit.figures import small_png

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
SOURCE = BOOK / "source"
EXECUTED = SOURCE / "executed.json"  # chapter -> hash of all that its outputs depend on
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}
ENVIRONMENT = {
    "TQDM_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
INSTALL = """\
# On Colab this installs the book's package. Everywhere else it is there already.
import importlib.util

if importlib.util.find_spec("regkit") is None:
    %pip install --quiet git+{address}"""


def address() -> str:
    """The repository's public address, from the one place that holds it."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def sources() -> list[Path]:
    return sorted(SOURCE.glob("*.md"))


def notebook_path(source: Path) -> Path:
    return BOOK / f"{source.stem}.ipynb"


def convert(source: Path) -> NotebookNode:
    """The notebook that a text describes, without outputs; its second cell serves Colab."""
    notebook = jupytext.read(source, fmt="md:myst")
    install = nbformat.v4.new_code_cell(INSTALL.format(address=address()))
    install.metadata["tags"] = ["remove-cell"]
    notebook.cells.insert(1, install)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def revert(notebook: NotebookNode) -> str:
    """The text that a notebook stands for: the inverse of ``convert``."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [cell for cell in notebook.cells if "remove-cell" not in tags(cell)]
    notebook.metadata = nbformat.from_dict({"kernelspec": METADATA["kernelspec"]})
    text = jupytext.writes(notebook, fmt="md:myst")
    return "---\nkernelspec:\n" + text.split("kernelspec:\n", 1)[1]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def fingerprint(source: Path) -> str:
    """Hash of the text, the package, the lock and this tool."""
    package = sorted([*(ROOT / "regkit").glob("*.py"), *(ROOT / "regkit").glob("*.yml")])
    digest = hashlib.sha256()
    for path in [source, *package, ROOT / "requirements.txt", Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def in_step(source: Path) -> str | None:
    """Say what differs between a text and its stored notebook, or return None."""
    path = notebook_path(source)
    if not path.exists():
        return f"{path.name} does not exist"
    stored, wanted = nbformat.read(path, as_version=4), convert(source)
    if len(stored.cells) != len(wanted.cells):
        return f"{path.name} has {len(stored.cells)} cells, the text {len(wanted.cells)}"
    for one, other in zip(stored.cells, wanted.cells, strict=True):
        for field in ("id", "cell_type", "source", "metadata"):
            if one[field] != other[field]:
                return f"{path.name}, {one['id']}: {field} differs from the text"
    return None


def adopt_outputs(source: Path) -> bool:
    """Write the notebook anew around its stored outputs, if only the address has changed."""
    stored, wanted = nbformat.read(notebook_path(source), as_version=4), convert(source)
    if len(stored.cells) != len(wanted.cells):
        return False
    for one, other in zip(stored.cells, wanted.cells, strict=True):
        same = one.cell_type == other.cell_type and one.source == other.source
        if not same and "%pip install" not in other.source:
            return False
        if other.cell_type == "code":
            other.outputs, other.execution_count = one.outputs, one.execution_count
    write(wanted, notebook_path(source))
    return True


def execute(source: Path) -> float:
    """Execute a chapter and store it with its outputs; return the seconds it took."""
    notebook = convert(source)
    codes = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=codes, desc=source.stem, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(BOOK)}},
            on_cell_complete=lambda **_: bar.update(),
        )
        start = time.perf_counter()
        client.execute(env={**os.environ, **ENVIRONMENT})
    notebook.metadata = nbformat.from_dict(METADATA)  # without the state of widgets
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = shrink(data["image/png"])
            if WIDGET in data:  # its id is drawn anew in every run
                data[WIDGET]["model_id"] = cell.id
    write(notebook, notebook_path(source))
    return time.perf_counter() - start


def shrink(picture: str) -> str:
    """A figure in base64 with at most 128 colors."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    return base64.b64encode(small_png(image, colors=128)).decode()


def write(notebook: NotebookNode, path: Path) -> None:
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def stored_fingerprints() -> dict[str, str]:
    return json.loads(EXECUTED.read_text()) if EXECUTED.exists() else {}


def out_of_step() -> list[str]:
    """Everything that ``make notebooks`` would mend, in words."""
    stored, found = stored_fingerprints(), []
    for source in sources():
        difference = in_step(source)
        if difference:
            found.append(difference)
        elif stored.get(source.stem) != fingerprint(source):
            found.append(f"{source.stem}: regkit or the lock changed after it was executed")
    known = {source.stem for source in sources()}
    found += [f"{path.name} has no text" for path in BOOK.glob("*.ipynb") if path.stem not in known]
    return found


def make(force: bool) -> None:
    stored = stored_fingerprints()
    for source in sources():
        current = stored.get(source.stem) == fingerprint(source) and notebook_path(source).exists()
        if current and not force and (in_step(source) is None or adopt_outputs(source)):
            print(f"{source.stem}: unchanged")
            continue
        if current and not force:
            path = notebook_path(source).relative_to(BOOK.parent)
            sys.exit(
                f"{path} was edited, its text was not. Keep the edit with `make text "
                f"NOTEBOOK={path}`, or discard it with `make notebooks FORCE=1`."
            )
        seconds = execute(source)
        stored[source.stem] = fingerprint(source)
        EXECUTED.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
        print(f"{source.stem}: executed in {seconds:.0f} s")


def write_back(path: Path, force: bool) -> None:
    """Write an edited notebook over its text, unless the text was edited too."""
    source = SOURCE / f"{path.stem}.md"
    changed = source.exists() and stored_fingerprints().get(path.stem) != fingerprint(source)
    if changed and not force:
        sys.exit(f"{source.name} changed after {path.name} was executed: FORCE=1 overwrites it.")
    source.write_text(revert(nbformat.read(path, as_version=4)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the book's notebooks from their text.")
    parser.add_argument("--force", action="store_true", help="execute all chapters")
    parser.add_argument("--back", type=Path, metavar="NOTEBOOK", help="write its text from it")
    arguments = parser.parse_args()
    if arguments.back:
        write_back(arguments.back, arguments.force)
    else:
        make(arguments.force)


if __name__ == "__main__":
    main()
