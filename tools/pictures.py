"""Draw the book's pictures: logo, icons, and the page that the README shows.

The logo is the path of a minimum that weight decay moves to zero. The icons are those of Font
Awesome (OFL) that the pages use, cut out of the theme's fonts: 4 kB instead of 270.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pydata_sphinx_theme
import torch
from fontTools import subset
from playwright.sync_api import sync_playwright

from regkit.figures import BLUE, RED
from regkit.weight_decay import shifted_minimum

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "book" / "images"
STATIC = ROOT / "book" / "static"
THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
H = torch.tensor([[2.4, 1.9], [1.9, 2.4]], dtype=torch.float64)  # steep along the diagonal
W_STAR = torch.tensor([1.55, 0.15], dtype=torch.float64)
SCALE, ORIGIN = 34.0, np.array([10.0, 54.0])  # 64 x 64 pixels, zero at the lower left


def pixels(w: torch.Tensor) -> str:
    x, y = (ORIGIN + SCALE * w.numpy() * [0.9, -1]).round(1)
    return f"{x:g},{y:g}"


def contour(level: float) -> str:
    """Points where the quadratic risk around the minimum has the given value."""
    h, Q = torch.linalg.eigh(H)
    angles = torch.linspace(0, 2 * torch.pi, 49, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()])  # (2, 49)
    points = W_STAR[:, None] + Q @ (circle * (2 * level / h).sqrt()[:, None])
    return " ".join(pixels(point) for point in points.T)


def mark() -> str:
    lines = [
        f'<polyline points="{contour(level)}" fill="none" stroke="{BLUE}" stroke-width="2.2" '
        f'stroke-opacity="{opacity}"/>'
        for level, opacity in [(0.02, 1), (0.09, 0.8), (0.22, 0.6)]
    ]
    path = [shifted_minimum(H, W_STAR, lam) for lam in np.geomspace(1e-3, 300, 40)]
    points = " ".join(pixels(point) for point in path)
    lines.append(f'<polyline points="{points}" fill="none" stroke="{RED}" stroke-width="3.2"/>')
    for point, radius in [(W_STAR, 3.4), (torch.zeros(2), 4.6)]:
        x, y = pixels(point).split(",")
        lines.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{RED}"/>')
    return "\n".join(lines)


def svg(width: int, content: str, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 64" role="img">\n'
        f"<title>{title}</title>\n{content}\n</svg>\n"
    )


def cut_icons() -> None:
    """Keep the glyphs whose class or code point occurs in the built pages and their styles."""
    styles = (THEME / "styles" / "pydata-sphinx-theme.css").read_text()
    rules = re.findall(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\(\w+)"', styles)
    codes = {name: code for names, code in rules for name in re.findall(r"fa-[\w-]+", names)}
    pages = "".join(path.read_text() for path in (ROOT / "_build" / "html").rglob("*.html"))
    wanted = {codes[name] for name in set(re.findall(r"\bfa-[\w-]+", pages)) if name in codes}
    wanted |= {f"{ord(icon):x}" for icon in re.findall("[\ue000-\uf8ff]", styles)}  # admonitions
    for style in (ROOT / "_build" / "html" / "_static").glob("*.css"):
        wanted |= set(re.findall(r'content: *"\\(f[0-9a-f]{3})"', style.read_text()))
    for font in ("fa-solid-900", "fa-brands-400"):
        options = subset.Options(flavor="woff", ignore_missing_unicodes=True)
        source = THEME / "vendor" / "fontawesome" / "webfonts" / f"{font}.ttf"
        face = subset.load_font(str(source), options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=[int(code, 16) for code in wanted])
        cutter.subset(face)
        subset.save_font(face, str(STATIC / f"{font}.woff"), options)


def photograph() -> None:
    """A slider and a verified claim, as the README shows them."""
    page_file = ROOT / "_build" / "html" / "book" / "08_01_weight_decay.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(page_file.as_uri())
        page.wait_for_load_state("networkidle")
        page.locator(".predict").nth(2).evaluate("e => e.scrollIntoView()")
        page.evaluate("window.scrollBy(0, -90)")
        page.locator(".explore input").nth(2).focus(timeout=5000)
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        page.locator(".explore input").nth(2).blur()
        page.wait_for_timeout(500)
        page.screenshot(path=IMAGES / "page.png")
        browser.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "favicon.svg").write_text(svg(64, mark(), "A minimum on its way to zero"))
    font = 'font-family="Palatino, Palatino Linotype, Noto Serif, Georgia, serif"'
    name = (
        f'<g {font} fill="#5b87a8"><text x="76" y="34" font-size="25">Regularization</text>'
        '<text x="77" y="53" font-size="13.5">an executable companion</text></g>'
    )
    title = "Regularization: an executable companion"
    (IMAGES / "logo.svg").write_text(svg(250, mark() + "\n" + name, title))
    cut_icons()
    photograph()


if __name__ == "__main__":
    main()
