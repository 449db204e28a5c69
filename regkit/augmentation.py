"""Data augmentation (section 8.10): transformed copies of images, and the risk that counts them.

Images are tensors of shape (N, C, H, W) with values in [0, 1]: N images, C channels, H rows, W
columns. Each transformation is a plain function of the images and of N parameters, one for each
image; ``augment`` draws the parameters. All lengths are in pixels, x to the right and y *down*, and
matrices act around the center of the image. So a rotation is a rotation in pixels, also where
H != W. Values between pixels are interpolated bilinearly; outside the image there are zeros.
Outputs are differentiable with respect to images and parameters wherever the interpolation is: it
has kinks where a point crosses the center of a pixel, and there torch takes one side.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from regkit._check import require, require_nonnegative, require_weights


def affine(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    r"""Move what is at the point q, seen from the center, to :math:`\mathbf{A}q + b`.

    The output at p is the image at :math:`\mathbf{A}^{-1}(p - b)`.

    Args:
        x: images of shape (N, C, H, W).
        matrix: invertible matrices A of shape (N, 2, 2), acting on (x right, y down).
        shift: b of shape (N, 2), pixels to the right and down.

    Returns:
        Images of the shape of x.

    Raises:
        ValueError: if a shape does not fit, or a matrix is singular.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> affine(x, torch.eye(2)[None], torch.tensor([[1.0, 0.0]])).round()
        tensor([[[[0., 1., 2.]]]])
    """
    N = _require_images(x)
    _require_parameters(x, "matrix", matrix, (N, 2, 2))
    _require_parameters(x, "shift", shift, (N, 2))
    smallest = torch.linalg.det(matrix.detach()).abs().min().item()
    require(smallest > 1e-12, "every matrix must be invertible", f"determinant {smallest:.3g}")
    pixel, center = _pixels(x)  # (H, W, 2), (2,)
    inverse = torch.linalg.inv(matrix)
    back = center - (inverse @ shift[..., None])[..., 0]  # (N, 2)
    source = torch.einsum("nij,hwj->nhwi", inverse, pixel - center)  # (N, H, W, 2)
    return _sample(x, source + back[:, None, None])


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image around its center, counterclockwise where the angle is positive.

    Args:
        x: images of shape (N, C, H, W).
        degrees: angles of shape (N,).

    Returns:
        Images of the shape of x. What leaves the frame is lost; corners are filled with zeros.

    Example:
        >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([90.0])).round()
        tensor([[[[2., 4.],
                  [1., 3.]]]])
    """
    _require_parameters(x, "degrees", degrees, (_require_images(x),))
    return affine(x, rotation_matrix(degrees), degrees.new_zeros(len(x), 2))


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Orthogonal matrices (N, 2, 2) of counterclockwise rotations, where y points down."""
    angle = torch.deg2rad(degrees)
    sin, cos = angle.sin(), angle.cos()
    return torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))


def translate(x: Tensor, shift: Tensor) -> Tensor:
    """Move each image by (right, down) pixels, of shape (N, 2); zeros come in.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> translate(x, torch.tensor([[-0.5, 0.0]]))
        tensor([[[[1.5000, 2.5000, 1.5000]]]])
    """
    N = _require_images(x)
    return affine(x, torch.eye(2, dtype=x.dtype, device=x.device).expand(N, 2, 2), shift)


def shear(x: Tensor, factor: Tensor) -> Tensor:
    """Push rows sideways: a point y pixels below the center moves to the right by factor * y.

    Args:
        x: images of shape (N, C, H, W).
        factor: of shape (N,), the tangent of the angle.

    Returns:
        Images of the shape of x.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> shear(x, torch.tensor([2.0]))  # the upper row to the left, the lower to the right
        tensor([[[[2., 0.],
                  [0., 3.]]]])
    """
    _require_parameters(x, "factor", factor, (_require_images(x),))
    return affine(x, shear_matrix(factor), factor.new_zeros(len(x), 2))


def shear_matrix(factor: Tensor) -> Tensor:
    """Matrices (N, 2, 2) of shears along x; their determinant is 1."""
    one, zero = torch.ones_like(factor), torch.zeros_like(factor)
    return torch.stack([one, factor, zero, one], -1).unflatten(-1, (2, 2))


def crop(x: Tensor, box: Tensor) -> Tensor:
    """Cut a box out of each image and stretch it to the size of the image.

    Only pixels of the box are used: near its border the outermost ones are repeated.

    Args:
        x: images of shape (N, C, H, W).
        box: left, top, width and height in pixels, of shape (N, 4); the pixel in the first row and
            column has left = top = 0.

    Returns:
        Images of the shape of x.

    Raises:
        ValueError: if a box is smaller than a pixel or reaches out of its image.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> crop(x, torch.tensor([[2.0, 0.0, 2.0, 1.0]]))
        tensor([[[[3.0000, 3.2500, 3.7500, 4.0000]]]])
    """
    _require_parameters(x, "box", box, (_require_images(x), 4))
    smallest, rounding = box.detach()[:, 2:].min().item(), 1e-4
    require(smallest >= 1, "a box must be at least one pixel wide and high", smallest)

    def along(first: Tensor, length: Tensor, size: int) -> Tensor:
        """Where the pixels of one axis come from, (N, size)."""
        inside = (first >= -rounding).all() and (first + length <= size + rounding).all()
        require(bool(inside), "every box must lie in its image", box.tolist()[:3])
        middle = (torch.arange(size, dtype=x.dtype, device=x.device) + 0.5) / size
        point = first + middle * length - 0.5
        return torch.maximum(torch.minimum(point, first + length - 1), first)

    left, top, width, height = box[..., None].unbind(1)  # (N, 1) each
    column, row = along(left, width, x.shape[3]), along(top, height, x.shape[2])
    both = torch.broadcast_tensors(column[:, None], row[:, :, None])  # (N, H, W) each
    return _sample(x, torch.stack(both, -1))


def brighten(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    r"""Change the brightness, :math:`\mathrm{clip}(\mathrm{gain}\cdot x + \mathrm{offset}, 0, 1)`.

    Where the value is clipped the derivative is zero.

    Args:
        x: images of shape (N, C, H, W) with values in [0, 1].
        gain: factors of shape (N,), not negative; 1 changes nothing.
        offset: of shape (N,); 0 changes nothing.

    Returns:
        Images of the shape of x with values in [0, 1].

    Raises:
        ValueError: if a value of x is not in [0, 1], or a gain is negative.

    Example:
        >>> brighten(torch.tensor([[[[0.2, 0.9]]]]), torch.tensor([2.0]), torch.tensor([0.1]))
        tensor([[[[0.5000, 1.0000]]]])
    """
    N = _require_images(x)
    _require_parameters(x, "gain", gain, (N,))
    _require_parameters(x, "offset", offset, (N,))
    low, high = x.detach().min().item(), x.detach().max().item()
    require(low >= -1e-6 and high <= 1 + 1e-6, "values must be in [0, 1]", (low, high))
    require(bool((gain >= 0).all()), "gain must be >= 0", gain.min().item())
    return (gain.view(N, 1, 1, 1) * x + offset.view(N, 1, 1, 1)).clamp(0, 1)


def elastic(x: Tensor, displacement: Tensor) -> Tensor:
    """Bend each image: the output at pixel p is the image at p + displacement(p).

    Args:
        x: images of shape (N, C, H, W).
        displacement: pixels to the right and down, of shape (N, H, W, 2).

    Returns:
        Images of the shape of x.

    Reference:
        Simard, Steinkraus & Platt (2003), Best practices for convolutional neural networks applied
        to visual document analysis, section 2.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> to_the_right = torch.tensor([0.0, -0.5, -1.0]).view(1, 1, 3)
        >>> elastic(x, torch.stack([to_the_right, torch.zeros(1, 1, 3)], -1))
        tensor([[[[1.0000, 1.5000, 2.0000]]]])
    """
    N = _require_images(x)
    _require_parameters(x, "displacement", displacement, (N, *x.shape[2:], 2))
    return _sample(x, _pixels(x)[0] + displacement)


def smooth_field(noise: Tensor, sigma: float) -> Tensor:
    """Smooth noise with a Gaussian of ``sigma`` pixels; outside the image the noise counts as zero.

    Args:
        noise: of shape (N, H, W, 2).
        sigma: standard deviation, positive; the Gaussian ends at four times that.

    Returns:
        Field of the shape of noise.

    Raises:
        ValueError: if sigma is not positive.

    Reference:
        Simard, Steinkraus & Platt (2003), section 2: uniform noise in [-1, 1], smoothed and times
        a strength, is a displacement; they recommend 4 pixels and a strength of 34 for digits.
    """
    require(noise.ndim == 4, "noise must have shape (N, H, W, 2)", tuple(noise.shape))
    require(0 < sigma < math.inf, "sigma must be positive and finite", sigma)
    radius = int(4 * sigma + 0.5)
    step = torch.arange(-radius, radius + 1, dtype=noise.dtype, device=noise.device)
    total = torch.exp(-0.5 * (step / sigma) ** 2).sum()

    def blur(size: int) -> Tensor:
        place = torch.arange(size, dtype=noise.dtype, device=noise.device)
        gap = (place[:, None] - place).abs()
        return torch.exp(-0.5 * (gap / sigma) ** 2) * (gap <= radius) / total  # (size, size)

    return torch.einsum("hi,nijk,wj->nhwk", blur(noise.shape[1]), noise, blur(noise.shape[2]))


METHODS = ("rotation", "translation", "cropping", "brightness", "shearing", "elastic")


def augment(
    x: Tensor, method: str, strength: float, generator: torch.Generator | None = None
) -> Tensor:
    """Transform each image with its own random parameters, up to a strength.

    The strength is the largest size of a uniform draw: the angle in degrees, both ways (rotation);
    the shift in pixels, all ways (translation); the share of width and height that is cut off, the
    same for both, at a uniform place (cropping); the change of the gain, and independently of the
    offset (brightness); the factor (shearing). For "elastic" it multiplies smoothed noise, with
    sigma a seventh of the shorter side.

    Args:
        x: images of shape (N, C, H, W) with values in [0, 1].
        method: one of ``METHODS``.
        strength: not negative; below 1 for cropping, at most 1 for brightness.
        generator: where the parameters come from; torch's own if None.

    Returns:
        Images of the shape of x. With strength 0 they are x, up to rounding.

    Raises:
        ValueError: if the method is unknown or the strength out of range.

    Example:
        >>> x = torch.rand(5, 1, 8, 8)
        >>> augment(x, "rotation", 15.0, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 1, 8, 8])
    """
    N, (H, W) = _require_images(x), x.shape[2:]
    require(method in METHODS, f"method must be one of {METHODS}", repr(method))
    require_nonnegative("strength", strength)
    require(method != "cropping" or strength < 1, "strength must be < 1", strength)
    require(method != "brightness" or strength <= 1, "strength must be <= 1", strength)

    def uniform(*shape: int) -> Tensor:
        draw = torch.rand(N, *shape, dtype=x.dtype, device=x.device, generator=generator)
        return 2 * draw - 1  # in [-1, 1]

    if method == "rotation":
        return rotate(x, strength * uniform())
    if method == "translation":
        return translate(x, strength * uniform(2))
    if method == "shearing":
        return shear(x, strength * uniform())
    if method == "brightness":
        return brighten(x, 1 + strength * uniform(), strength * uniform())
    if method == "elastic":
        return elastic(x, strength * smooth_field(uniform(H, W, 2), min(H, W) / 7))
    size = torch.tensor([W, H], dtype=x.dtype, device=x.device)
    side = ((1 - strength * (uniform(1) + 1) / 2) * size).clamp(min=1)  # (N, 2)
    corner = (size - side) * (uniform(2) + 1) / 2
    return crop(x, torch.cat([corner, side], 1))


def two_term_risk(losses: Tensor, augmented_losses: Tensor) -> Tensor:
    r"""The lecture's risk: :math:`\frac1N\sum_n \ell^n + \frac1M\sum_m \tilde\ell^m`.

    Two means of equal weight. For M = N it is twice the mean over all; in general it is not a
    multiple of it.

    Args:
        losses: of the N original samples, shape (N,).
        augmented_losses: of the M augmented samples, shape (M,).

    Returns:
        A scalar.

    Raises:
        ValueError: if one of them is empty or not a vector.

    Example:
        >>> two_term_risk(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
        tensor(7.)
    """
    for name, part in (("losses", losses), ("augmented_losses", augmented_losses)):
        filled = part.ndim == 1 and len(part) > 0
        require(filled, f"{name} must be a vector with an entry", f"shape {tuple(part.shape)}")
    return losses.mean() + augmented_losses.mean()


def _sample(x: Tensor, point: Tensor) -> Tensor:
    """The images (N, C, H, W) at points (N, H, W, 2), x right and y down from the first pixel."""
    size = torch.tensor([x.shape[3], x.shape[2]], dtype=x.dtype, device=x.device)
    # grid_sample wants -1 and 1 at the outer edges of the image (align_corners=False).
    grid = point * (2 / size) + (1 / size - 1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates of all pixels, (H, W, 2), and of the center, (2,)."""
    H, W = x.shape[2:]
    row = torch.arange(H, dtype=x.dtype, device=x.device)
    column = torch.arange(W, dtype=x.dtype, device=x.device)
    pixel = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)
    return pixel, pixel[-1, -1] / 2


def _require_images(x: Tensor) -> int:
    """Require (N, C, H, W) without empty axes; return N."""
    require_weights("x", x)
    kept = x.ndim == 4 and x.numel() > 0
    require(kept, "x must have shape (N, C, H, W)", f"shape {tuple(x.shape)}")
    return len(x)


def _require_parameters(x: Tensor, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    require_weights(name, value)
    require(value.dtype == x.dtype, f"{name} must have the dtype {x.dtype} of x", value.dtype)
    require(value.shape == shape, f"{name} must have shape {shape}", tuple(value.shape))
