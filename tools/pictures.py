"""Draw the book's logo and favicon: the path of a minimum that weight decay moves to zero."""

from pathlib import Path

import numpy as np
import torch

from regkit.figures import BLUE, RED
from regkit.weight_decay import shifted_minimum

IMAGES = Path(__file__).parent.parent / "book" / "images"
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


if __name__ == "__main__":
    main()
