"""1,000 chains of SGD on a quadratic, 5,000 steps: our loop over steps beside usual ways.

Writes ``sgd.csv`` beside this file. CPU milliseconds on one thread, two weights, float32. All ways
draw as many normal numbers; variances in the long run agree within 10%. The peer torchsde is in the
extra ``peers``.
"""

import torch
from timing import milliseconds, write
from torch import Tensor, nn

from regkit.sgd import simulate, stationary_covariance

CHAINS, STEPS, LR = 1000, 5000, 0.05
H = torch.tensor([1.0, 4.0])  # curvatures; the noise has variance 1 in each direction


def batched() -> Tensor:
    return simulate(lambda w: H * w + torch.randn(CHAINS, 2), torch.zeros(CHAINS, 2), LR, STEPS)


def one_by_one() -> Tensor:
    """A Python loop over the chains, 10 of them."""
    chains = [
        simulate(lambda w: H * w + torch.randn(1, 2), torch.zeros(1, 2), LR, STEPS)
        for _ in range(10)
    ]
    return torch.cat(chains, 1)


class Diffusion(nn.Module):
    """The limit of small steps, for torchsde."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, w: Tensor) -> Tensor:
        return -H * w

    def g(self, t: Tensor, w: Tensor) -> Tensor:
        return torch.full_like(w, LR**0.5)


def by_torchsde() -> Tensor:
    import torchsde

    times = LR * torch.arange(1.0, STEPS + 1)
    return torchsde.sdeint(Diffusion(), torch.zeros(CHAINS, 2), times, dt=LR, method="euler")


if __name__ == "__main__":
    torch.set_num_threads(1)
    exact = stationary_covariance(torch.diag(H), torch.eye(2), LR).diagonal()
    rows = []
    for way, job, scale, runs in (
        ("regkit", batched, 1, 5),
        ("one chain after the other", one_by_one, CHAINS / 10, 1),
        ("torchsde, Euler", by_torchsde, 1, 1),
    ):
        spread = job()[500:].var((0, 1)) / exact
        assert (spread - 1).abs().max() < 0.1, (way, spread)
        rows.append({"way": way, "ms": scale * milliseconds(job, runs)})
    write(__file__, rows)
