"""Flat minimum search beside back-propagation and weight decay (Hochreiter & Schmidhuber 1997).

Their experiment 1: a 2-20-1 network learns from 200 points on which side of a line they lie. All
methods start at the same weights and take 2,000 full-batch steps of Adam. Weight decay, flat
minimum search with a fixed strength and with an adaptive one try the same number of settings, and
keep the one with the smallest risk on 200 validation points. Early stopping keeps the best weights
of back-propagation on them. The excess error is the probability of a mistake above that of the best
decision, on 20,000 points.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

from regkit.curvature import jacobian, ravel_parameters
from regkit.datasets import noisy_sides
from regkit.flat_minimum import AdaptiveStrength, layered_penalty

STEPS, LR, TOLERATED, FLOOR, LARGEST = 2000, 0.01, 0.01, 1e-6, 30.0
STRENGTHS = {
    "decay": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "flat": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "adaptive": (1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4),  # steps of the strength
}
TARGET = 0.045  # half the squared error that the adaptive strength is content with
TIMES = (100, 300, 1000, 2000)
METHODS = ("plain", "stopped", "decay", "flat", "adaptive")
SETTINGS = [{"seed": seed} for seed in range(20)]
# Paths under the flatness penalty are chaotic: a last bit changes where they end. Others are not.
TOLERANCE = (
    {f"{method}_{time}": 0.1 for method in ("plain", "decay") for time in TIMES}
    | {f"{method}_{time}": 2.0 for method in ("flat", "adaptive") for time in TIMES}
    | {"stopped": 0.1}
    | {
        f"{method}_{what}": steady if method in ("plain", "stopped", "decay") else chaotic
        for method in METHODS
        for what, steady, chaotic in (
            ("units", 1, 20),
            ("useless", 0.05, 1.5),
            ("trace", 0.01, 1.0),
        )
    }
    | {"decay_strength": 0.0, "flat_strength": 0.003, "adaptive_strength": 0.1}
)


class Flatness(nn.Module):
    """The penalty of a network as a module, so that it is a function of its weights."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return layered_penalty(self.model, x, TOLERATED, FLOOR).mean()


def run(seed: int) -> dict[str, float]:
    """Excess error in percent over time, units in use, use of the second input, flatness."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    (x, y), (valid_x, valid_y), (test_x, _) = (noisy_sides(n) for n in (200, 200, 20_000))
    spread = 0.15 * math.sqrt(1 + 0.15**2)  # of the true coordinate times 1 + 0.15², given ours
    certain = 0.9 * (2 * torch.special.ndtr(test_x[:, 0] / spread) - 1).abs()
    model = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 1), nn.Sigmoid())
    start, predict = ravel_parameters(model)
    _, flatness = ravel_parameters(Flatness(model))

    def risk(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (predict(w, x)[:, 0] - y).square().mean()

    def excess(w: Tensor) -> float:
        wrong = (predict(w, test_x)[:, 0] > 0.5) != (test_x[:, 0] > 0)
        return 100 * (wrong * certain).mean().item()

    def objective(w: Tensor, lam: Tensor, flat: bool) -> Tensor:
        penalty = flatness(w, x) if flat else 0.5 * w.square().sum()
        return risk(w, x, y) + lam * penalty

    on_training = vmap(lambda w: risk(w, x, y))
    on_validation = vmap(lambda w: risk(w, valid_x, valid_y))

    def descend(method: str, settings: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Weights at some times, those with the least validation risk on the way, strengths."""
        w = start.repeat(len(settings), 1).requires_grad_()  # (settings, W)
        slope = vmap(grad(objective), in_dims=(0, 0, None))
        optimizer = torch.optim.Adam([w], lr=LR)
        adaptive, lam = [], settings
        if method == "adaptive":
            adaptive = [AdaptiveStrength(step, TARGET) for step in settings.tolist()]
            lam = torch.zeros_like(settings)
        at, best, least = {}, w.detach().clone(), torch.full_like(settings, torch.inf)
        for step in range(1, STEPS + 1):
            w.grad = slope(w.detach(), lam, method in ("flat", "adaptive"))
            optimizer.step()
            with torch.no_grad():
                w.clamp_(-LARGEST, LARGEST)
                if adaptive:
                    errors = on_training(w)
                    pairs = zip(adaptive, errors, strict=True)
                    lam = torch.stack([strength.update(error) for strength, error in pairs])
                if method == "plain":
                    valid = on_validation(w)
                    best = torch.where((valid < least)[:, None], w, best)
                    least = torch.minimum(valid, least)
            if step in TIMES:
                at[step] = w.detach().clone()
        return at, best, lam

    results: dict[str, float] = {}

    def describe(method: str, w: Tensor) -> None:
        nn.utils.vector_to_parameters(w, model.parameters())
        with torch.no_grad():
            influence = model[2].weight[0].abs() * model[:2](x).std(0)
        results[f"{method}_units"] = int((influence > 0.05 * influence.max()).sum())
        slopes = vmap(jacrev(lambda point: model(point)[0]))(x).detach().abs().mean(0)
        results[f"{method}_useless"] = (slopes[1] / slopes[0]).item()
        results[f"{method}_trace"] = jacobian(model, x).square().sum((1, 2)).mean().item()

    for method in ("plain", *STRENGTHS):
        settings = torch.tensor(STRENGTHS.get(method, (0.0,)))
        at, best, lam = descend(method, settings)
        pick = int(on_validation(at[STEPS]).argmin())
        for time in TIMES:
            results[f"{method}_{time}"] = excess(at[time][pick])
        describe(method, at[STEPS][pick])
        if method == "plain":
            results["stopped"] = excess(best[0])
            describe("stopped", best[0])
        else:
            results[f"{method}_strength"] = lam[pick].item()
    return results
