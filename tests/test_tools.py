"""The pipeline: one way from text to notebook, the same bytes twice, one address."""

import nbformat
import notebooks
import pytest
from address import mentions, put

SMALL = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

Text with $x^2$.

```{code-cell}
import os
import matplotlib.pyplot as plt
from regkit.figures import explore, style
from regkit.training import replicate

style()
print(os.getcwd().split(os.sep)[-1], replicate(lambda seed: seed, range(3)))
```

```{code-cell}
:tags: [hide-input]

plt.plot([1, 2])
plt.show()
```

```{code-cell}
def draw(a):
    plt.figure(figsize=(1, 1))
    return f"a = {a}"


explore(draw, {"a": "a"}, a=[1, 2])
```
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A book of one small chapter in a folder of its own."""
    book = tmp_path / "book"
    (book / "source").mkdir(parents=True)
    source = book / "source" / "08_99_small.md"
    source.write_text(SMALL)
    monkeypatch.setattr(notebooks, "BOOK", book)
    monkeypatch.setattr(notebooks, "SOURCE", book / "source")
    monkeypatch.setattr(notebooks, "EXECUTED", book / "source" / "executed.json")
    monkeypatch.setattr(notebooks, "fingerprint", lambda source: source.read_text())
    return source


def test_pipeline(small, monkeypatch, capsys):
    assert notebooks.out_of_step() == ["08_99_small.ipynb does not exist"]
    notebooks.make(force=False)
    path = notebooks.notebook_path(small)
    first = path.read_bytes()
    assert notebooks.out_of_step() == []

    stored = nbformat.read(path, as_version=4)
    assert "book [0, 1, 2]" in stored.cells[2].outputs[0].text
    assert "widgets" not in stored.metadata
    assert stored.cells[1].source.startswith("# On Colab")

    # Executing again changes no byte, and without a change nothing is executed.
    notebooks.make(force=True)
    assert path.read_bytes() == first
    capsys.readouterr()
    notebooks.make(force=False)
    assert capsys.readouterr().out == "08_99_small: unchanged\n"

    # Back to text and forth again is the same chapter.
    small.write_text(notebooks.revert(stored))
    assert notebooks.in_step(small) is None

    # A notebook that was edited is not overwritten, nor is a text that was.
    edited = nbformat.read(path, as_version=4)
    edited.cells[3].source = "plt.plot([5])\nplt.show()"
    small.write_text(SMALL)
    notebooks.make(force=True)
    nbformat.write(edited, path)
    with pytest.raises(SystemExit, match="was edited, its text was not"):
        notebooks.make(force=False)
    notebooks.write_back(path, force=False)
    assert "plt.plot([5])" in small.read_text()
    with pytest.raises(SystemExit, match="changed after 08_99_small.ipynb was executed"):
        notebooks.write_back(path, force=False)
    path.write_bytes(first)

    # A new address goes into the notebook without executing it.
    small.write_text(SMALL)
    monkeypatch.setattr(notebooks, "address", lambda: "https://example.org/moved")
    monkeypatch.setattr(notebooks, "execute", lambda source: pytest.fail("executed"))
    assert "source differs" in notebooks.out_of_step()[0]
    notebooks.make(force=False)
    assert notebooks.out_of_step() == []
    assert b"git+https://example.org/moved" in path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("plt.plot([1, 2])", "plt.plot([1, 3])", "cell-003: source differs"),
        ("hide-input", "hide-output", "cell-003: metadata differs"),
        ("Text with", "Words with", "cell-000: source differs"),
        ("\n```{code-cell}\ndef", "\nMore text.\n\n```{code-cell}\ndef", "has 5 cells, the text 6"),
    ],
)
def test_a_changed_text_is_out_of_step(small, old, new, said):
    notebooks.write(notebooks.convert(small), notebooks.notebook_path(small))
    assert notebooks.in_step(small) is None
    small.write_text(SMALL.replace(old, new))
    assert said in notebooks.in_step(small)


def test_changed_package_is_out_of_step(small, monkeypatch):
    notebooks.make(force=False)
    monkeypatch.setattr(notebooks, "fingerprint", lambda source: "another")
    assert "regkit or the lock changed" in notebooks.out_of_step()[0]


def test_a_notebook_without_text_is_found(small):
    notebooks.make(force=False)
    small.unlink()
    assert notebooks.out_of_step() == ["08_99_small.ipynb has no text"]


def test_a_file_without_its_place_for_the_address_is_found():
    with pytest.raises(ValueError, match="expected one place .* found 0"):
        put("https://example.org", r"(?<=repository-code: ).*", "no such line")


def test_every_mention_of_the_address_is_generated():
    for path, text in mentions().items():
        assert path.read_text() == text, f"{path.name}: run `make address`"
