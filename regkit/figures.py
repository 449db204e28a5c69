"""Figures of the book: one style, source code beside the text, and sliders.

A slider works in a notebook through ipywidgets, and in the built page without a kernel.
"""

import ast
import base64
import inspect
import io
import json
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from itertools import product
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image

from regkit._check import require

# Okabe & Ito's colors, which people with any color vision can tell apart. The page uses them too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GRAY, INK = "#CC79A7", "#56B4E9", "#8A8F98", "#1F2A37"


def style() -> None:
    """Set the book's plot style; in a notebook also sharp PNG figures without a time stamp."""
    plt.rcParams.update(
        {
            "figure.figsize": (7, 3.2),
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GRAY,
            "axes.labelcolor": INK,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.grid": True,
            "grid.color": "#E3E6EA",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "font.size": 10,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )
    if get_ipython() is not None:
        set_matplotlib_formats("retina", metadata={"Software": None})


def show(*functions: Callable[..., Any]) -> None:
    """Display the source of functions, without their docstrings, as it stands in the package.

    Raises:
        TypeError: if there is no Python source.
    """
    for function in functions:
        module = inspect.getmodule(function)
        name = module.__name__ if module else "the notebook"
        source, place = _source(function), f"{name}.{function.__qualname__}"
        text = f"```python\n{source}\n```\n\n*The source of* `{place}`"
        display({"text/markdown": text, "text/plain": source}, raw=True)


def _source(function: Callable[..., Any]) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    if not isinstance(definition, ast.FunctionDef | ast.ClassDef):
        raise TypeError(f"show needs a function or a class, got {function}")
    lines = source.rstrip().splitlines()
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)


def explore(
    draw: Callable[..., str], labels: dict[str, str], **grid: Sequence[float | str]
) -> None:
    """Show a figure under sliders, one slider for each argument of ``draw``.

    In a notebook with a kernel each move of a slider calls ``draw`` again. The built page has no
    kernel; it holds one frame for each combination of values, drawn ahead. One output carries both.

    Args:
        draw: takes one value of each slider by name, makes a matplotlib figure, and returns a
            sentence that says what it shows: the readout and the frame's alternative text.
        labels: what stands before each slider, by argument name.
        grid: the values of each slider, by argument name. The sliders start at the first.

    Raises:
        ValueError: if a slider has no label or fewer than two values.
    """
    require(grid.keys() == labels.keys(), f"labels must name {sorted(grid)}", sorted(labels))
    for name, values in grid.items():
        require(len(values) >= 2, f"{name} needs at least two values", len(values))
    frames = [
        _frame(draw, dict(zip(grid, values, strict=True))) for values in product(*grid.values())
    ]
    root = _widget(draw, labels, grid, frames[0])
    bundle = {
        "application/vnd.jupyter.widget-view+json": {
            "model_id": root.model_id,
            "version_major": 2,
            "version_minor": 0,
        },
        "text/html": _page_form(labels, grid, frames),
        "text/plain": f"sliders: {', '.join(labels.values())}",
    }
    display(bundle, raw=True)


def _frame(draw: Callable[..., str], values: dict[str, float | str]) -> tuple[str, bytes]:
    """Draw one frame; return its readout and its picture."""
    readout = draw(**values)
    canvas = FigureCanvasAgg(plt.gcf())
    plt.gcf().set_dpi(92)
    canvas.draw()
    plt.close()
    return readout, small_png(Image.fromarray(np.asarray(canvas.buffer_rgba())), colors=32)


def small_png(image: Image.Image, colors: int) -> bytes:
    """Return a PNG with few colors, a third of the usual size; the corner keeps its exact color."""
    pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
    reduced = Image.fromarray(pixels).quantize(colors, Image.Quantize.FASTOCTREE)
    palette = np.array(reduced.getpalette(), dtype=np.uint8).reshape(-1, 3)
    palette[np.asarray(reduced)[0, 0]] = pixels[0, 0]
    reduced.putpalette(palette.flatten().tolist())
    buffer = io.BytesIO()
    reduced.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _widget(
    draw: Callable[..., str],
    labels: dict[str, str],
    grid: dict[str, Sequence[float | str]],
    frame: tuple[str, bytes],
) -> ipywidgets.VBox:
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=[(_text(value), value) for value in values],
            description=labels[name],
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "95%"},
        )
        for name, values in grid.items()
    }
    readout, picture = frame
    text = ipywidgets.Label(readout)
    image = ipywidgets.Image(value=picture, format="png", layout={"max_width": "740px"})

    def redraw(_: object) -> None:
        text.value, image.value = _frame(draw, {name: s.value for name, s in sliders.items()})

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    return ipywidgets.VBox([*sliders.values(), text, image])


# Shows the frame that the sliders point at: the last slider runs fastest, as in itertools.product.
SCRIPT = """
(root => {
  const sliders = [...root.querySelectorAll("input")];
  const frames = JSON.parse(root.querySelector("script").textContent);
  const update = () => {
    const [text, picture] = frames[sliders.reduce((n, s) => n * (+s.max + 1) + +s.value, 0)];
    root.querySelector("output").textContent = root.querySelector("img").alt = text;
    root.querySelector("img").src = "data:image/png;base64," + picture;
    for (const s of sliders) s.setAttribute("aria-valuetext", s.dataset.values.split("|")[s.value]);
  };
  sliders.forEach(s => s.addEventListener("input", update));
  update();
})(document.currentScript.parentElement);
"""


def _page_form(
    labels: dict[str, str],
    grid: dict[str, Sequence[float | str]],
    frames: list[tuple[str, bytes]],
) -> str:
    sliders = [
        f'<label><span>{escape(labels[name])}</span> <input type="range" min="0" '
        f'max="{len(values) - 1}" value="0" autocomplete="off" '
        f'data-values="{escape("|".join(_text(value) for value in values))}"></label>'
        for name, values in grid.items()
    ]
    pictures = [(readout, base64.b64encode(picture).decode()) for readout, picture in frames]
    readout, picture = pictures[0]
    # Only one picture is an element: where scripts do not run it is what one sees.
    return "\n".join(
        [
            '<div class="explore">',
            *sliders,
            f'<output aria-live="polite">{escape(readout)}</output>',
            f'<img src="data:image/png;base64,{picture}" alt="{escape(readout)}">',
            f'<script type="application/json">{_json(pictures)}</script>',
            f"<script>{SCRIPT}</script>",
            "</div>",
        ]
    )


def _json(value: object) -> str:
    """JSON that may stand in a page."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
