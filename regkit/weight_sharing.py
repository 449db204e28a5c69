"""Weight sharing (section 8.3): weights that prefer few values, and weights that are one weight.

Soft sharing puts a mixture of normal densities on the weights and learns it along with them; its
penalty is ``lam * prior.penalty(w)``. Hard sharing writes one number in many places, as a
convolution does.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regkit._check import require, require_positive, require_weights


class Gradients(NamedTuple):
    """Derivatives of a mixture penalty.

    Attributes:
        w: with respect to the weights, of shape (..., W).
        mu: with respect to the means, of shape (..., J).
        sigma: with respect to the spreads, of shape (..., J).
        logits: with respect to the logits of the mixture weights, of shape (..., J).
    """

    w: Tensor
    mu: Tensor
    sigma: Tensor
    logits: Tensor


class MixturePrior(nn.Module):
    r"""A mixture of normal densities, :math:`q(w) = \sum_j \pi_j N(w; \mu_j, \sigma_j)`.

    The parameters are the means, ``log_spreads`` and ``logits``, with spreads
    :math:`\sigma_j = \sigma_{\min} + \exp(s_j)` that stay above a floor for every log spread
    :math:`s_j`, and mixture weights :math:`\pi` = softmax(logits). Leading dimensions are for many
    networks at once, each with a mixture of its own.

    Args:
        mu: means to start with, of shape (..., J).
        sigma: spread of all components to start with, above the floor.
        floor: smallest spread sigma_min, positive: what keeps a component from collapsing.
        zero: whether the first component's mean is 0 and stays there.

    Raises:
        ValueError: if mu is not a finite floating-point tensor with at least one component, the
            floor is not positive, or sigma is not above it.

    Reference:
        Nowlan & Hinton (1992), Simplifying neural networks by soft weight-sharing.

    Example:
        >>> prior = MixturePrior(torch.tensor([-1.0, 0.0, 1.0]), sigma=0.5)
        >>> prior.penalty(torch.tensor([-1.0, 1.0])) < prior.penalty(torch.tensor([-3.0, 3.0]))
        tensor(True)
    """

    free: Tensor

    def __init__(self, mu: Tensor, sigma: float, floor: float = 1e-3, zero: bool = False) -> None:
        super().__init__()
        require_weights("mu", mu)
        require(mu.ndim >= 1 and mu.shape[-1] >= 1, "mu must hold a component", tuple(mu.shape))
        require_positive("floor", floor)
        require_positive("sigma", sigma)
        require(sigma > floor, f"sigma must be above the floor, {floor}", sigma)
        self.floor = floor
        free = torch.ones_like(mu)
        free[..., 0] = 0.0 if zero else 1.0
        self.register_buffer("free", free)  # 0 where a mean stays at 0
        self.means = nn.Parameter(mu.detach() * free)
        self.log_spreads = nn.Parameter(torch.full_like(mu, math.log(sigma - floor)))
        self.logits = nn.Parameter(torch.zeros_like(mu))

    @property
    def mu(self) -> Tensor:
        """Means, of shape (..., J)."""
        return self.means * self.free

    @property
    def sigma(self) -> Tensor:
        """Spreads, of shape (..., J), above the floor."""
        return self.floor + self.log_spreads.exp()

    @property
    def pi(self) -> Tensor:
        """Mixture weights, of shape (..., J); they are positive and sum to 1."""
        return self.logits.softmax(-1)

    def _log_joint(self, w: Tensor) -> Tensor:
        require_weights("w", w)
        z = (w[..., None, :] - self.mu[..., :, None]) / self.sigma[..., :, None]  # (..., J, W)
        log_factor = self.logits.log_softmax(-1) - self.sigma.log() - 0.5 * math.log(2 * math.pi)
        return log_factor[..., :, None] - 0.5 * z**2

    def log_density(self, w: Tensor) -> Tensor:
        r"""Log of the mixture, :math:`\log \sum_j \pi_j N(w_i; \mu_j, \sigma_j)`, by log-sum-exp.

        Args:
            w: weights, of shape (..., W).

        Returns:
            Tensor of shape (..., W).

        Raises:
            ValueError: if w is not a finite floating-point tensor.
        """
        return torch.logsumexp(self._log_joint(w), dim=-2)

    def responsibilities(self, w: Tensor) -> Tensor:
        r"""Which component a weight comes from, :math:`q(j \mid w_i)`; they sum to 1 over j.

        Args:
            w: weights, of shape (..., W).

        Returns:
            Tensor of shape (..., J, W).

        Raises:
            ValueError: if w is not a finite floating-point tensor.
        """
        return self._log_joint(w).softmax(dim=-2)

    def penalty(self, w: Tensor) -> Tensor:
        r"""Minus the log density of all weights, :math:`-\sum_i \log q(w_i)`.

        Args:
            w: weights, of shape (..., W).

        Returns:
            Scalar, or a tensor of the leading shape; gradients flow to w and to the mixture.

        Raises:
            ValueError: if w is not a finite floating-point tensor.
        """
        return -self.log_density(w).sum(-1)

    @torch.no_grad()
    def gradients(self, w: Tensor) -> Gradients:
        r"""Derivatives of the penalty in closed form.

        With :math:`r_{ji} = q(j \mid w_i)` and :math:`z_{ji} = (w_i - \mu_j)/\sigma_j` they are
        :math:`\sum_j r_{ji} z_{ji}/\sigma_j`, :math:`-\sum_i r_{ji} z_{ji}/\sigma_j`,
        :math:`\sum_i r_{ji}(1 - z_{ji}^2)/\sigma_j` and :math:`\sum_i (\pi_j - r_{ji})`.

        Args:
            w: weights, of shape (..., W).

        Returns:
            Derivatives in the weights, means, spreads and logits. That of a mean held at 0 is 0.

        Raises:
            ValueError: if w is not a finite floating-point tensor.
        """
        require_weights("w", w)
        sigma, pi = self.sigma, self.pi
        z = (w[..., None, :] - self.mu[..., :, None]).div_(sigma[..., :, None])  # (..., J, W)
        r = z.square().mul_(-0.5).add_((self.logits.log_softmax(-1) - sigma.log())[..., :, None])
        r = r.sub_(r.amax(-2, keepdim=True)).exp_()  # the largest is 1: no overflow
        r = r.div_(r.sum(-2, keepdim=True))  # responsibilities
        counts = r.sum(-1)  # (..., J)
        rz = r.mul_(z)
        return Gradients(
            w=(rz.mT @ (1 / sigma)[..., None]).squeeze(-1),
            mu=-rz.sum(-1) / sigma * self.free,
            sigma=(counts - rz.mul_(z).sum(-1)) / sigma,
            logits=w.shape[-1] * pi - counts,
        )

    @torch.no_grad()
    def em_(self, w: Tensor, steps: int = 1) -> "MixturePrior":
        r"""Fit the mixture to given weights by expectation-maximization; the penalty never rises.

        Each step computes the responsibilities :math:`r_{ji}`, and from them the shares
        :math:`\pi_j = \frac1{n_w}\sum_i r_{ji}`, the means
        :math:`\mu_j = \sum_i r_{ji} w_i / \sum_i r_{ji}` and the variances
        :math:`\sigma_j^2 = \sum_i r_{ji}(w_i-\mu_j)^2 / \sum_i r_{ji}`, not below the floor.

        Args:
            w: weights, of shape (..., W).
            steps: number of steps, not negative.

        Returns:
            The prior itself.

        Raises:
            ValueError: if w is not a finite floating-point tensor, or steps is negative.

        Reference:
            Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data.

        Example:
            >>> prior = MixturePrior(torch.tensor([-0.5, 0.5]), sigma=1.0, floor=0.1)
            >>> prior.em_(torch.tensor([-2.0, -2.0, -2.0, 2.0]), steps=20).pi.detach()
            tensor([0.7500, 0.2500])
        """
        require(steps >= 0, "steps must be >= 0", steps)
        require_weights("w", w)
        tiny = torch.finfo(w.dtype).tiny
        for _ in range(steps):
            r = self.responsibilities(w)  # (..., J, W)
            counts = r.sum(-1).clamp(min=tiny)  # (..., J)
            mu = (r @ w[..., None]).squeeze(-1) / counts * self.free
            squares = (w[..., None, :] - mu[..., :, None]).square_()
            sigma = (r.mul_(squares).sum(-1) / counts).sqrt()
            self.means.copy_(mu)
            self.log_spreads.copy_((sigma - self.floor).clamp(min=1e-6 * self.floor).log())
            self.logits.copy_(counts.log())
        return self


def quantize(w: Tensor, prior: MixturePrior) -> tuple[Tensor, Tensor]:
    """Replace each weight by the mean of the component that is most responsible for it.

    Args:
        w: weights, of shape (W,).
        prior: the mixture, with J components and no leading dimensions.

    Returns:
        The means, of shape (W,), and which component each weight has, integers of shape (W,).

    Raises:
        ValueError: if w is not a vector, not finite, or the prior is one for many networks.

    Example:
        >>> prior = MixturePrior(torch.tensor([0.0, 1.0]), sigma=0.3)
        >>> quantize(torch.tensor([0.1, 0.8, -0.2]), prior)
        (tensor([0., 1., 0.]), tensor([0, 1, 0]))
    """
    require_weights("w", w)
    require(w.ndim == 1, "w must be a vector", f"shape {tuple(w.shape)}")
    require(prior.means.ndim == 1, "prior must be for one network", tuple(prior.means.shape))
    codes = prior.responsibilities(w).argmax(0).detach()  # (W,)
    return prior.mu.detach()[codes], codes


class Size(NamedTuple):
    """Bits to store a quantized network.

    Attributes:
        plain: 32-bit floats for all weights and biases.
        dense: a code for each weight, the codebook, and the biases.
        sparse: codes and gaps for the weights that are not zero, the codebook, and the biases.
    """

    plain: int
    dense: int
    sparse: int


def quantized_size(codes: Tensor, components: int, biases: int) -> Size:
    r"""Count the bits that a quantized network takes; component 0 is the value zero.

    Dense: :math:`\lceil\log_2 J\rceil` bits a weight. Sparse: each weight that is not zero takes as
    many bits for its component, and b bits for the number of zeros before it; the best b is taken.
    Where more zeros than fit stand in a row, a filler of the same size with component 0 continues
    them. Both forms add 32 bits for each entry of the codebook and for each bias.

    Args:
        codes: component of each weight, integers of shape (W,).
        components: number of components J, at least 2.
        biases: how many parameters stay 32-bit floats, not negative.

    Returns:
        The three sizes, in bits. Nothing is entropy-coded.

    Raises:
        ValueError: if a code is not an integer from 0 to J - 1, or a count is out of range.

    Reference:
        Han, Mao & Dally (2016), Deep compression, section 3.

    Example:
        >>> quantized_size(torch.tensor([0, 0, 0, 2, 1, 0, 0, 0]), components=3, biases=0)
        Size(plain=256, dense=112, sparse=104)
    """
    require(components >= 2, "components must be >= 2", components)
    require(biases >= 0, "biases must be >= 0", biases)
    whole = codes.ndim == 1 and not codes.is_floating_point() and codes.numel() > 0
    require(whole, "codes must be a vector of integers", f"{codes.dtype}, {tuple(codes.shape)}")
    low, high = int(codes.min()), int(codes.max())
    inside = low >= 0 and high < components
    require(inside, f"codes must be in 0..{components - 1}", (low, high))
    fixed = 32 * (components + biases)
    return Size(
        plain=32 * (len(codes) + biases),
        dense=len(codes) * math.ceil(math.log2(components)) + fixed,
        sparse=_sparse_bits(codes, components) + fixed,
    )


def _sparse_bits(codes: Tensor, components: int) -> int:
    """Bits for gaps and codes: b bits skip up to 2^b - 1 zeros, and a filler is one more zero."""
    places = codes.nonzero().flatten()
    zeros = places.diff(prepend=places.new_tensor([-1])) - 1  # zeros before each entry
    code_bits = math.ceil(math.log2(components))  # J - 1 values, and 0 for a filler
    return min(
        int((1 + zeros // 2**gap_bits).sum()) * (gap_bits + code_bits) for gap_bits in range(1, 17)
    )


def circulant(kernel: Tensor, size: int) -> Tensor:
    r"""A convolution on a circle as a matrix, :math:`C_{i,(i+m) \bmod n} = \kappa_m`.

    Like torch, and most of the field, it does not flip the kernel. ``circulant(kernel, n) @ x`` is
    the convolution of x.

    Args:
        kernel: of shape (k,), one number for each offset 0, 1, ..., k - 1.
        size: number of inputs and outputs n, at least k.

    Returns:
        Tensor of shape (size, size). Every row holds the same numbers, each time one place on.

    Raises:
        ValueError: if kernel is not a finite floating-point vector that fits.

    Example:
        >>> circulant(torch.tensor([1.0, 2.0]), 3)
        tensor([[1., 2., 0.],
                [0., 1., 2.],
                [2., 0., 1.]])
    """
    require_weights("kernel", kernel)
    fits = kernel.ndim == 1 and 0 < len(kernel) <= size
    require(fits, f"kernel must be a vector of 1 to {size} numbers", tuple(kernel.shape))
    rows, columns = _tied_places(len(kernel), size)
    matrix = kernel.new_zeros(size, size)
    return matrix.index_put((rows, columns), kernel[:, None].expand(-1, size))


def tied_gradient(matrix_gradient: Tensor, kernel_size: int) -> Tensor:
    r"""Gradient for a kernel: a sum over its places, :math:`\sum_i G_{i,(i+m) \bmod n}`.

    Args:
        matrix_gradient: gradient for the entries of the circulant matrix as if each were a
            weight of its own, of shape (n, n).
        kernel_size: length of the kernel k, from 1 to n.

    Returns:
        Tensor of shape (k,).

    Raises:
        ValueError: if the gradient is not a finite square matrix, or the kernel does not fit.

    Example:
        >>> tied_gradient(torch.eye(3), kernel_size=2)
        tensor([3., 0.])
    """
    require_weights("matrix_gradient", matrix_gradient)
    shape = tuple(matrix_gradient.shape)
    square = len(shape) == 2 and shape[0] == shape[1]
    require(square, "matrix_gradient must be a square matrix", f"shape {shape}")
    require(0 < kernel_size <= shape[0], f"kernel_size must be in 1..{shape[0]}", kernel_size)
    return matrix_gradient[_tied_places(kernel_size, shape[0])].sum(1)


def _tied_places(kernel_size: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, each (k, n), where a circulant matrix repeats each number."""
    rows = torch.arange(size).expand(kernel_size, size)
    return rows, (rows + torch.arange(kernel_size)[:, None]) % size
