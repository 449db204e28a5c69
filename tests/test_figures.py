"""Source as it stands, and sliders whose two forms show the same."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import notebooks
import pytest
from PIL import Image

from regkit import figures
from regkit.weight_decay import l2


@pytest.fixture
def shown(monkeypatch):
    """What a call displays, as a list of mime bundles."""
    bundles = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def draw(a, b="x"):
    plt.figure(figsize=(2, 1))
    plt.plot([0, a])
    return f"a = {a}, b <{b}>"


def test_show_leaves_out_the_docstring_and_nothing_else(shown):
    figures.show(l2)
    text = shown[0]["text/markdown"]
    assert text.startswith(
        "```python\ndef l2(w: Tensor) -> Tensor:\n"
        '    require_weights("w", w)\n    return 0.5 * (w**2).sum()\n```'
    )
    assert "`regkit.weight_decay.l2`" in text


def test_explore_draws_every_combination_for_the_page(shown):
    figures.explore(draw, {"a": "length", "b": "kind"}, a=[1.0, 2.0, 3.0], b=["x", "y"])
    page = shown[0]["text/html"]
    frames = json.loads(re.search(r'<script type="application/json">(.*)</script>', page)[1])
    readouts, pictures = zip(*frames, strict=True)
    assert list(readouts) == [f"a = {a}, b <{b}>" for a in (1.0, 2.0, 3.0) for b in "xy"]
    assert "<y>" not in page  # a readout is text, not markup
    first = "a = 1.0, b &lt;x&gt;"
    assert re.findall(r'<img src="data:image/png;base64,(.*)" alt="(.*)">', page) == [
        (pictures[0], first)
    ]
    assert f'<output aria-live="polite">{first}</output>' in page
    assert re.findall(r'max="(\d)" value="(\d)"', page) == [("2", "0"), ("1", "0")]
    assert plt.get_fignums() == []
    images = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in pictures]
    assert {image.size for image in images} == {(184, 92)}
    assert all(image.convert("RGB").getpixel((0, 0)) == (255, 255, 255) for image in images)
    assert len(set(pictures)) == 3  # b is in the readout only


def test_explore_recomputes_in_a_kernel(monkeypatch, shown):
    kept = {}
    make = figures._widget

    def keep(*arguments):
        kept["root"] = make(*arguments)
        return kept["root"]

    monkeypatch.setattr(figures, "_widget", keep)
    calls = []

    def counted(a):
        calls.append(a)
        return draw(a)

    figures.explore(counted, {"a": "length"}, a=[1.0, 2.0, 3.0])
    slider, readout, image = kept["root"].children
    assert shown[0][notebooks.WIDGET]["model_id"] == kept["root"].model_id
    before = image.value
    slider.index = 2
    assert calls == [1.0, 2.0, 3.0, 3.0]
    assert readout.value.startswith("a = 3.0")
    assert image.value != before


def test_running_a_slider_cell_again_gives_a_live_slider(monkeypatch, shown):
    """The first widget goes when its cell runs again; it must not take the second along."""
    roots = []
    make = figures._widget
    monkeypatch.setattr(figures, "_widget", lambda *a: roots.append(make(*a)) or roots[-1])
    for _ in range(2):
        figures.explore(draw, {"a": "length"}, a=[1.0, 2.0])
    first, second = roots
    assert first.model_id != second.model_id
    first.close()
    assert second.comm is not None


def test_explore_rejects_bad_sliders():
    with pytest.raises(ValueError, match=r"labels must name \['a'\], got \['b'\]"):
        figures.explore(draw, {"b": "length"}, a=[1.0, 2.0])
    with pytest.raises(ValueError, match="a needs at least two values, got 1"):
        figures.explore(draw, {"a": "length"}, a=[1.0])
