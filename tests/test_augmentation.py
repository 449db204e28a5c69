"""The transformations against whole pixels, torch, scipy and geometry, and the two-term risk."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample, interpolate

from regkit.augmentation import (
    METHODS,
    affine,
    augment,
    brighten,
    crop,
    elastic,
    rotate,
    rotation_matrix,
    shear,
    shear_matrix,
    smooth_field,
    translate,
    two_term_risk,
)

STRENGTHS = {
    "rotation": 30.0,
    "translation": 2.5,
    "cropping": 0.4,
    "brightness": 0.5,
    "shearing": 0.4,
    "elastic": 8.0,
}


@pytest.fixture
def x(generator):
    return torch.rand(6, 2, 9, 14, generator=generator)  # not square, odd and even


def uniform(generator, *shape):
    return 2 * torch.rand(*shape, generator=generator) - 1


# --- geometry ---


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (-3, 4), (20, 0)])
def test_whole_pixels_are_a_roll_with_zeros(right, down, x):
    expected = torch.zeros_like(x)
    for row in range(9):
        for column in range(14):
            if 0 <= row - down < 9 and 0 <= column - right < 14:
                expected[:, :, row, column] = x[:, :, row - down, column - right]
    shift = torch.tensor([[right, down]], dtype=x.dtype).expand(6, 2)
    torch.testing.assert_close(translate(x, shift), expected, rtol=0, atol=1e-12)


def test_right_angles_are_rot90():
    square = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    for turns in range(-2, 4):
        turned = rotate(square, torch.full((4,), 90.0 * turns))
        torch.testing.assert_close(turned, torch.rot90(square, turns, (2, 3)), rtol=0, atol=1e-12)


def test_half_a_turn_of_a_rectangle_flips_both_axes(x):
    turned = rotate(x, torch.full((6,), 180.0))
    torch.testing.assert_close(turned, x.flip(2, 3), rtol=0, atol=1e-12)


def test_a_rotation_is_one_in_pixels_also_of_a_rectangle():
    image = torch.zeros(1, 1, 41, 81)
    image[0, 0, 20, 55:66] = 1.0  # a bar to the right of the center, 15 to 25 pixels away
    turned = rotate(image, torch.tensor([30.0]))[0, 0]
    row, column = torch.meshgrid(torch.arange(41.0), torch.arange(81.0), indexing="ij")
    mass = turned.sum()
    right, down = (turned * (column - 40)).sum() / mass, (turned * (row - 20)).sum() / mass
    assert math.hypot(right, down) == pytest.approx(20, abs=0.1)
    assert math.degrees(math.atan2(-down, right)) == pytest.approx(30, abs=0.5)  # up: minus y


def test_affine_is_scipys(x, generator):
    matrix = torch.eye(2) + 0.4 * uniform(generator, 6, 2, 2)
    shift = 3 * uniform(generator, 6, 2)
    ours = affine(x, matrix, shift)
    center = np.array([4.0, 6.5])
    for n in range(6):
        inverse = np.linalg.inv(matrix[n].numpy())[::-1, ::-1]  # scipy: rows before columns
        offset = center - inverse @ (center + shift[n].numpy()[::-1])
        for channel in range(2):
            theirs = ndimage.affine_transform(
                x[n, channel].numpy(), inverse, offset, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(ours[n, channel], theirs, rtol=0, atol=1e-12)


def test_affine_is_torchs_affine_grid(x, generator):
    matrix = torch.eye(2) + 0.4 * uniform(generator, 6, 2, 2)
    shift = 3 * uniform(generator, 6, 2)
    half = torch.tensor([7.0, 4.5])  # half the width and height
    inverse = torch.linalg.inv(matrix)
    normal = inverse * half / half[:, None]
    theta = torch.cat([normal, -(inverse @ shift[..., None]) / half[:, None]], 2)
    grid = affine_grid(theta, x.shape, align_corners=False)
    expected = grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(affine(x, matrix, shift), expected, rtol=0, atol=1e-12)


def test_elastic_is_scipys_map_coordinates(x, generator):
    displacement = 3 * uniform(generator, 6, 9, 14, 2)
    ours = elastic(x, displacement)
    rows, columns = np.meshgrid(np.arange(9), np.arange(14), indexing="ij")
    for n in range(6):
        right, down = displacement[n].numpy().transpose(2, 0, 1)
        for channel in range(2):
            theirs = ndimage.map_coordinates(
                x[n, channel].numpy(), [rows + down, columns + right], order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(ours[n, channel], theirs, rtol=0, atol=1e-12)


def test_smooth_field_is_scipys_gaussian_filter(generator):
    noise = uniform(generator, 3, 28, 17, 2)
    for sigma in (0.7, 2.0, 4.0):
        ours = smooth_field(noise, sigma)
        for n in range(3):
            for axis in range(2):
                theirs = ndimage.gaussian_filter(
                    noise[n, :, :, axis].numpy(), sigma, mode="constant"
                )
                np.testing.assert_allclose(ours[n, :, :, axis], theirs, rtol=0, atol=1e-12)


def test_crop_is_a_sub_array_that_is_interpolated(x):
    boxes = [(0, 0, 14, 9), (3, 2, 7, 5), (13, 8, 1, 1), (0, 4, 14, 5), (5, 0, 4, 9), (1, 1, 2, 3)]
    ours = crop(x, torch.tensor(boxes, dtype=x.dtype))
    for n, (left, top, width, height) in enumerate(boxes):
        window = x[n : n + 1, :, top : top + height, left : left + width]
        expected = interpolate(window, (9, 14), mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours[n : n + 1], expected, rtol=0, atol=1e-12)


def test_shear_preserves_area_and_pushes_the_lower_half_to_the_right():
    image = torch.zeros(2, 1, 31, 31)
    image[:, :, 8:23, 12:19] = 1.0
    factor = torch.tensor([0.4, -0.4])
    torch.testing.assert_close(torch.linalg.det(shear_matrix(factor)), torch.ones(2))
    pushed = shear(image, factor)
    torch.testing.assert_close(pushed.sum((1, 2, 3)), image.sum((1, 2, 3)), rtol=1e-9, atol=0)
    column = torch.arange(31.0)
    for n, sign in enumerate((1, -1)):
        lower = pushed[n, 0, 22]
        mean = (lower * column).sum() / lower.sum()
        assert mean == pytest.approx(15 + sign * 0.4 * 7, abs=1e-9)


def test_matrices_are_orthogonal_and_turn_x_up(generator):
    matrix = rotation_matrix(180 * uniform(generator, 50))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2).expand(50, 2, 2))
    quarter = rotation_matrix(torch.tensor([90.0]))[0] @ torch.tensor([1.0, 0.0])
    torch.testing.assert_close(quarter, torch.tensor([0.0, -1.0]))  # up


def test_brightness_is_clipped(x):
    gain, offset = torch.linspace(0, 2, 6), torch.linspace(0.6, -0.6, 6)
    ours = brighten(x, gain, offset)
    for n in range(6):
        expected = np.clip(gain[n].item() * x[n].numpy() + offset[n].item(), 0, 1)
        np.testing.assert_allclose(ours[n], expected, rtol=0, atol=1e-15)


# --- derivatives ---


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (rotate, ()),
        (translate, (2,)),
        (shear, ()),
        (lambda x, p: affine(x, torch.eye(2) + p[:, :4].view(-1, 2, 2), p[:, 4:]), (6,)),
        (lambda x, p: crop(x, torch.tensor([1.3, 1.1, 2.6, 1.7]) + p), (4,)),
        (lambda x, p: brighten(x, 0.9 + p[:, 0], p[:, 1]), (2,)),
        (elastic, (4, 5, 2)),
    ],
)
def test_gradients_to_images_and_parameters(transform, shape, generator):
    x = 0.3 + 0.4 * torch.rand(2, 1, 4, 5, generator=generator)
    parameter = 0.137 + 0.1 * torch.rand(2, *shape, generator=generator)
    x.requires_grad_()
    parameter.requires_grad_()
    assert torch.autograd.gradcheck(transform, (x, parameter), eps=1e-7, atol=1e-5)


def test_where_brightness_is_clipped_the_derivative_is_zero():
    x = torch.tensor([[[[0.1, 0.5, 0.9]]]], requires_grad=True)
    brighten(x, torch.tensor([2.0]), torch.tensor([-0.5])).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 2.0, 0.0]


# --- random draws ---


@pytest.mark.parametrize("method", METHODS)
def test_each_image_has_its_own_parameters(method):
    image = torch.rand(1, 1, 9, 14, generator=torch.Generator().manual_seed(5)).expand(4, 1, 9, 14)
    changed = augment(image, method, STRENGTHS[method], torch.Generator().manual_seed(0))
    for n in range(4):
        for m in range(n):
            assert (changed[n] - changed[m]).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_draws_keep_range_dtype_and_seed(method):
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(50, 1, 8, 11, dtype=dtype)
        draws = [
            augment(x, method, STRENGTHS[method], torch.Generator().manual_seed(s))
            for s in (3, 3, 4)
        ]
        assert draws[0].dtype == dtype
        assert draws[0].shape == x.shape
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        assert draws[0].min() >= 0
        assert draws[0].max() <= 1 + 1e-6
        torch.testing.assert_close(augment(x, method, 0.0), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_draws_fill_the_range_of_the_strength(method, monkeypatch):
    """Looks at the parameters that the deterministic maps receive."""
    seen = {}

    def spy(name):
        def record(x, *parameters):
            seen[name] = parameters
            return x

        return record

    from regkit import augmentation

    for name in ("rotate", "translate", "shear", "brighten", "crop", "elastic"):
        monkeypatch.setattr(augmentation, name, spy(name))
    N, s = 20_000, STRENGTHS[method]
    augment(torch.zeros(N, 1, 2, 4), method, s, torch.Generator().manual_seed(0))
    ((name, parameters),) = seen.items()
    if name == "elastic":
        noise = 2 * torch.rand(N, 2, 4, 2, generator=torch.Generator().manual_seed(0)) - 1
        torch.testing.assert_close(parameters[0], s * smooth_field(noise, 2 / 7))
        return
    if name == "crop":
        left, top, width, height = parameters[0].unbind(1)
        assert width.min() == pytest.approx(4 * (1 - s), abs=0.01)
        assert width.max() == pytest.approx(4, abs=0.01)
        torch.testing.assert_close(height, (width / 2).clamp(min=1))
        assert torch.stack([left, top]).min() >= 0
        share = left / (4 - width)
        assert share.min() < 0.01
        assert share.max() > 0.99
        assert abs(torch.corrcoef(torch.stack([left / (4 - width), width]))[0, 1]) < 0.03
        return
    if name == "translate":
        assert abs(torch.corrcoef(parameters[0].T)[0, 1]) < 0.03
    expected_middle = {"brighten": (1.0, 0.0)}.get(name, (0.0,))
    for parameter, middle in zip(parameters, expected_middle, strict=True):
        assert (parameter - middle).abs().max() == pytest.approx(s, rel=0.01)
        assert (parameter - middle).std() == pytest.approx(s / 3**0.5, rel=0.02)
        assert (parameter - middle).mean() == pytest.approx(0, abs=0.03 * s)


def test_strong_crops_keep_a_pixel():
    x = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert augment(x, "cropping", 0.999, torch.Generator().manual_seed(0)).shape == x.shape


# --- the risk ---


def test_two_term_risk_is_two_means(generator):
    losses, more = torch.rand(7, generator=generator), torch.rand(30, generator=generator)
    by_hand = math.fsum(losses.tolist()) / 7 + math.fsum(more.tolist()) / 30
    assert two_term_risk(losses, more).item() == pytest.approx(by_hand, rel=1e-14)
    twice = two_term_risk(losses, torch.cat([more, more]))
    assert twice.item() == pytest.approx(by_hand, rel=1e-14)


# --- bad input ---

IMAGES = torch.full((2, 1, 4, 6), 0.5, dtype=torch.float64)
TWO = torch.zeros(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (
            lambda: rotate(IMAGES[0], TWO),
            r"x must have shape \(N, C, H, W\), got shape \(1, 4, 6\)",
        ),
        (lambda: rotate(IMAGES[:0], TWO[:0]), r"x must have shape \(N, C, H, W\), got shape \(0,"),
        (lambda: rotate(IMAGES, torch.zeros(3)), r"degrees must have shape \(2,\), got \(3,\)"),
        (lambda: rotate(IMAGES, torch.zeros(1)), r"degrees must have shape \(2,\), got \(1,\)"),
        (lambda: rotate(IMAGES, TWO.long()), "degrees must have a floating-point dtype"),
        (lambda: rotate(IMAGES * math.nan, TWO), "x must be finite"),
        (lambda: translate(IMAGES, TWO), r"shift must have shape \(2, 2\), got \(2,\)"),
        (lambda: shear(IMAGES, TWO + math.inf), "factor must be finite"),
        (
            lambda: affine(IMAGES, torch.zeros(2, 2, 2), torch.zeros(2, 2)),
            "must be invertible, got",
        ),
        (lambda: affine(IMAGES, torch.eye(2), torch.zeros(2, 2)), r"matrix must have shape"),
        (lambda: rotate(IMAGES.float(), TWO), "degrees must have the dtype torch.float32 of x"),
        (lambda: crop(IMAGES, torch.tensor([[0, 0, 0.5, 4]] * 2)), "at least one pixel .* got 0.5"),
        (
            lambda: crop(IMAGES, torch.tensor([[3.0, 0, 4, 4]] * 2)),
            "every box must lie in its image",
        ),
        (lambda: crop(IMAGES, torch.tensor([[-1.0, 0, 4, 4]] * 2)), "must lie in its image"),
        (lambda: crop(IMAGES, torch.zeros(2, 2)), r"box must have shape \(2, 4\), got \(2, 2\)"),
        (lambda: brighten(255 * IMAGES, TWO + 1, TWO), r"values must be in \[0, 1\], got \(127.5"),
        (lambda: brighten(3 * IMAGES, TWO + 1, TWO), r"values must be in \[0, 1\], got \(1.5"),
        (lambda: brighten(-IMAGES, TWO + 1, TWO), r"values must be in \[0, 1\], got \(-0.5"),
        (lambda: brighten(IMAGES, TWO - 1, TWO), "gain must be >= 0, got -1.0"),
        (
            lambda: elastic(IMAGES, torch.zeros(2, 6, 4, 2)),
            r"displacement must have shape \(2, 4, 6,",
        ),
        (lambda: smooth_field(torch.zeros(4, 6, 2), 1.0), r"noise must have shape \(N, H, W, 2\)"),
        (lambda: smooth_field(torch.zeros(1, 4, 6, 2), 0.0), "sigma must be positive and finite"),
        (lambda: augment(IMAGES, "flip", 1.0), "method must be one of .* got 'flip'"),
        (lambda: augment(IMAGES, "rotation", -1.0), "strength must be >= 0 and finite, got -1.0"),
        (lambda: augment(IMAGES, "cropping", 1.0), "strength must be < 1, got 1.0"),
        (lambda: augment(IMAGES, "brightness", 1.5), "strength must be <= 1, got 1.5"),
        (lambda: two_term_risk(torch.zeros(0), TWO), r"losses must be a vector .* shape \(0,\)"),
        (lambda: two_term_risk(TWO, torch.ones(2, 2)), "augmented_losses must be a vector"),
    ],
)
def test_bad_input_is_rejected(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
