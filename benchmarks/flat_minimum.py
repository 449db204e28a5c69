"""The gradient of flat minimum search: the factored form beside three other ways and the floor.

Writes ``flat_minimum.csv`` beside this file. CPU milliseconds on one thread, float32; they depend
on the machine, and no test looks at them. No package has the method, so the peers are what a user
would write with torch: autograd through ``vmap(jacrev)``, and a loop over samples.
"""

import torch
from timing import milliseconds, write
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap
from torch.nn.functional import cross_entropy

from regkit.curvature import ravel_parameters
from regkit.flat_minimum import flatness_penalty, layered_penalty, penalty_gradient

SIZES = {936: (49, 16, 8, 64), 5110: (64, 68, 10, 256), 50890: (784, 64, 10, 256)}


def rows(weights: int) -> list[dict[str, object]]:
    """Milliseconds of each way for one network with one hidden layer."""
    D, M, K, N = SIZES[weights]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, M), nn.Tanh(), nn.Linear(M, K))
    x, y = torch.randn(N, D), torch.randint(K, (N,))
    w, predict = ravel_parameters(model)

    def loss() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    def factored() -> Tensor:
        model.zero_grad()
        layered_penalty(model, x, 0.01).sum().backward()
        gradients = [p.grad for p in model.parameters()]
        zero = torch.zeros(K)  # the output biases have no gradient
        return torch.cat([zero if g is None else g.flatten() for g in gradients])

    def naive() -> Tensor:
        derivative = vmap(jacrev(lambda w, sample: predict(w, sample[None])[0]), (None, 0))
        return grad(lambda w: flatness_penalty(derivative(w, x), 0.01).sum())(w)

    def loop() -> Tensor:
        def of_sample(w: Tensor, sample: Tensor) -> Tensor:
            J = jacrev(lambda w: predict(w, sample[None])[0])(w)
            return flatness_penalty(J[None], 0.01)[0]

        return torch.stack([grad(of_sample)(w, sample) for sample in x]).sum(0)

    ways = {"loss": loss, "factored": factored}
    if weights < 50_000:
        ways |= {"products": lambda: penalty_gradient(model, x), "naive": naive, "loop": loop}
        for way in (naive, loop):
            assert (way() - factored()).norm() < 1e-2 * factored().norm()  # float32, near zeros
    result = []
    for name, job in ways.items():
        runs = 30 if name in ("loss", "factored") else 3
        result.append({"weights": weights, "gradient": name, "ms": milliseconds(job, runs)})
    for row in result:
        row["times the loss"] = row["ms"] / result[0]["ms"]
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(__file__, [row for weights in SIZES for row in rows(weights)])
