"""Steering on one-dimensional road images, alone and with extra tasks (after Caruana 1997).

An image is a row of 32 pixels: background, a road of one or two lanes, and on two lanes a center
line, with noise on every pixel. Task 1 is the steering direction toward the middle of the own lane.
The eight extra tasks are the number of lanes, the places of the center line, the left and the right
edge and the middle of the road, and the intensities of road, background and center line; the two
tasks of the center line have no label on one lane. Single tasks have 2, 4, 8 or 16 tanh units, as
in the paper; all tasks together have 16. The details of the images are ours.

Targets have variance one, so that 1 is the error of predicting the mean. Width (single), weight of
the extra tasks (multi) and number of steps are those of the least validation error of task 1.
"""

import torch

from regkit.training import train

WIDTHS, ALPHAS = (2, 4, 8, 16), (0.03, 0.1, 0.3, 1.0)
SETTINGS = [
    {"images": images, "noise": noise, "seed": seed}
    for images in (50, 100, 200, 400)
    for noise in (0.1, 0.3)
    for seed in range(20)
]
TOLERANCE = {"single": 0.05, "multi": 0.05}
STEPS, LOOK = 1500, 25


def roads(n: int, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 32) and nine targets (n, 9), NaN where there is no center line."""
    u = torch.rand(n, 7, generator=generator, dtype=torch.float32)
    two = u[:, 0] < 0.5
    middle = 0.25 + 0.5 * u[:, 1]
    half = torch.where(two, 0.16, 0.09) + 0.06 * u[:, 2]
    road, background, line = 0.2 + 0.3 * u[:, 3], 0.5 + 0.5 * u[:, 4], 0.7 + 0.6 * u[:, 5]
    left, right = middle - half, middle + half
    place = (torch.arange(32) + 0.5) / 32
    on_road = (place > left[:, None]) & (place < right[:, None])
    on_line = two[:, None] & ((place - middle[:, None]).abs() < 0.025)
    image = torch.where(on_road, road[:, None], background[:, None])
    image = torch.where(on_line, line[:, None], image)
    image += noise * torch.randn(n, 32, generator=generator, dtype=torch.float32)
    own_lane = torch.where(two, middle + half / 2, middle)
    steering = torch.atan2(own_lane - 0.5, torch.tensor(0.3))
    nan = torch.tensor(torch.nan)
    center, brightness = torch.where(two, middle, nan), torch.where(two, line, nan)
    extra = [two.float(), center, left, right, middle, road, background, brightness]
    return image, torch.stack([steering, *extra], dim=1)


def run(images: int, noise: float, seed: int) -> dict[str, float]:
    """Root mean squared test error of steering, in standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    x, y = roads(images + 100 + 1000, noise, generator)
    known = ~y.isnan()
    count = known.sum(0)
    mean = y.nan_to_num().sum(0) / count
    spread = (((y - mean).nan_to_num() ** 2).sum(0) / count).sqrt()
    y, x = ((y - mean) / spread).nan_to_num(), (x - x.mean()) / x.std()
    train_rows, validation, test = torch.arange(len(x)).split([images, 100, 1000])
    grid = [(width, 0.0) for width in WIDTHS] + [(16, alpha) for alpha in ALPHAS]
    units = torch.stack([(torch.arange(16) < width).float() for width, _ in grid])[:, None]
    alpha = torch.tensor([[1.0] + [a] * 8 for _, a in grid])  # (grid, T)

    def start(rows: int, columns: int) -> torch.Tensor:
        one = torch.randn(rows, columns, generator=generator, dtype=torch.float32)
        return (one / rows**0.5).repeat(len(grid), 1, 1).requires_grad_()

    U, V = start(32, 16), start(16, 9)
    b, c = (torch.zeros(len(grid), 1, k, requires_grad=True) for k in (16, 9))

    def predict(rows: torch.Tensor) -> torch.Tensor:
        return (units * torch.tanh(x[rows] @ U + b)) @ V + c  # (grid, N, T)

    def objective(step: int) -> torch.Tensor:
        squares = 0.5 * (predict(train_rows) - y[train_rows]).square() * known[train_rows]
        return (alpha * squares.sum(1) / known[train_rows].sum(0)).sum()

    least, found = torch.full((len(grid),), torch.inf), torch.zeros(len(grid))

    def look(step: int) -> None:
        if step % LOOK == LOOK - 1:
            with torch.no_grad():
                now, later = (
                    (predict(part)[..., 0] - y[part, 0]).square().mean(1).sqrt()
                    for part in (validation, test)
                )
            found.copy_(torch.where(now < least, later, found))
            least.copy_(torch.minimum(now, least))

    train(objective, torch.optim.Adam([U, V, b, c], lr=0.01), STEPS, after_step=look)
    single, multi = slice(0, len(WIDTHS)), slice(len(WIDTHS), len(grid))
    return {
        "single": found[single][least[single].argmin()].item(),
        "multi": found[multi][least[multi].argmin()].item(),
    }
