"""Measure the mixture prior of section 8.3 beside its peers, in CPU time on one thread.

The gradient of the penalty for 100,000 weights and 8 components, against
``torch.distributions``; and 20 steps of EM on the same weights, against scikit-learn. Writes
``weight_sharing.csv`` beside this file. Set OMP_NUM_THREADS=1 before Python starts.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from timing import milliseconds, write
from torch.distributions import Categorical, MixtureSameFamily, Normal

from regkit.weight_sharing import MixturePrior


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    w = torch.randn(100_000)
    means = torch.linspace(-2, 2, 8)
    prior = MixturePrior(means, sigma=0.3)
    leaf = w.clone().requires_grad_()

    def of_torch() -> torch.Tensor:
        mixture = MixtureSameFamily(Categorical(logits=prior.logits), Normal(prior.mu, prior.sigma))
        parameters = [leaf, prior.means, prior.log_spreads, prior.logits]
        return torch.autograd.grad(-mixture.log_prob(leaf).sum(), parameters)[0]

    def by_autograd() -> torch.Tensor:
        return torch.autograd.grad(prior.penalty(leaf), [leaf, *prior.parameters()])[0]

    def em_of_sklearn() -> GaussianMixture:
        mixture = GaussianMixture(
            8,
            tol=0.0,
            max_iter=20,
            means_init=means[:, None].numpy(),
            weights_init=np.full(8, 1 / 8),
            precisions_init=np.full((8, 1, 1), 0.3**-2),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return mixture.fit(w[:, None].numpy())

    # First see that they agree.
    torch.testing.assert_close(prior.gradients(w).w, of_torch(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(by_autograd(), of_torch(), rtol=1e-3, atol=1e-3)
    ours, theirs = MixturePrior(means, sigma=0.3).em_(w, steps=20), em_of_sklearn()
    torch.testing.assert_close(
        ours.mu.detach(), torch.tensor(theirs.means_[:, 0]).float(), rtol=0.01, atol=0.01
    )
    rows = [
        ("gradient of the penalty", "MixturePrior.gradients", lambda: prior.gradients(w), 20),
        ("gradient of the penalty", "MixturePrior.penalty, autograd", by_autograd, 20),
        ("gradient of the penalty", "torch MixtureSameFamily, autograd", of_torch, 20),
        ("20 steps of EM", "MixturePrior.em_", lambda: prior.em_(w, steps=20), 3),
        ("20 steps of EM", "scikit-learn GaussianMixture", em_of_sklearn, 3),
    ]
    write(
        __file__,
        [
            {"job": job, "method": method, "cpu_milliseconds": milliseconds(run, runs)}
            for job, method, run, runs in rows
        ],
    )


if __name__ == "__main__":
    main()
