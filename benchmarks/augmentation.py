"""Random affine maps, crops, brightness and elastic distortions of 1,000 images, beside peers.

All get the same parameters, own ones for each image, and must give the same images. Writes
``augmentation.csv`` beside this file: milliseconds of CPU on one thread. Run it with
OMP_NUM_THREADS=1. It needs kornia, which is in the extra ``peers``.
"""

import kornia
import numpy as np
import torch
from scipy import ndimage
from timing import milliseconds, write
from torch import Tensor
from torch.nn.functional import interpolate

from regkit.augmentation import affine, brighten, crop, elastic, rotation_matrix, smooth_field

N, SIZE = 1000, 28
CENTER = (SIZE - 1) / 2


def scipy_affine(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    inverses, center = torch.linalg.inv(matrix).numpy(), np.array([CENTER, CENTER])
    images = []
    for image, inverse, move in zip(x[:, 0].numpy(), inverses, shift.numpy(), strict=True):
        inverse = inverse[::-1, ::-1]  # rows before columns
        offset = center - inverse @ (center + move[::-1])
        images.append(
            ndimage.affine_transform(image, inverse, offset, order=1, mode="grid-constant")
        )
    return torch.from_numpy(np.stack(images))[:, None]


def scipy_elastic(x: Tensor, displacement: Tensor) -> Tensor:
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    images = [
        ndimage.map_coordinates(
            image, [rows + move[..., 1], columns + move[..., 0]], order=1, mode="grid-constant"
        )
        for image, move in zip(x[:, 0].numpy(), displacement.numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(images))[:, None]


def kornia_affine(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    center = x.new_full((2,), CENTER)
    move = shift + center - matrix @ center  # kornia's origin is the first pixel
    full = torch.cat([matrix, move[..., None]], 2)
    return kornia.geometry.warp_affine(x, full, (SIZE, SIZE), align_corners=True)


def kornia_elastic(x: Tensor, displacement: Tensor) -> Tensor:
    place = torch.arange(SIZE, dtype=x.dtype)
    column, row = (place + displacement[..., 0]), (place[:, None] + displacement[..., 1])
    return kornia.geometry.remap(x, column, row, align_corners=True)


def sliced_crop(x: Tensor, box: Tensor) -> Tensor:
    parts = [
        interpolate(
            image[None, :, top : top + height, left : left + width],
            (SIZE, SIZE),
            mode="bilinear",
            align_corners=False,
        )
        for image, (left, top, width, height) in zip(x, box.int().tolist(), strict=True)
    ]
    return torch.cat(parts)


def kornia_brightness(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    scaled = kornia.enhance.adjust_brightness_accumulative(x, gain, clip_output=False)
    return kornia.enhance.adjust_brightness(scaled, offset)


def numpy_brightness(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    images = [
        np.clip(a * image + b, 0, 1)
        for image, a, b in zip(x.numpy(), gain.numpy(), offset.numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(images))


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(N, *shape, generator=generator) - 1

    x = torch.rand(N, 1, SIZE, SIZE, generator=generator)
    matrix, shift = rotation_matrix(30 * uniform()), 3 * uniform(2)
    box = torch.tensor([2.0, 1.0, 20.0, 22.0]) + torch.randint(3, (N, 4), generator=generator)
    gain, offset = 1 + 0.3 * uniform(), 0.3 * uniform()
    bend = 34 * smooth_field(uniform(SIZE, SIZE, 2), 4.0)
    jobs = {
        "affine": ((matrix, shift), affine, kornia_affine, scipy_affine),
        "crop": ((box,), crop, None, sliced_crop),
        "brightness": ((gain, offset), brighten, kornia_brightness, numpy_brightness),
        "elastic": ((bend,), elastic, kornia_elastic, scipy_elastic),
    }
    rows = []
    for name, (parameters, ours, kornias, loop) in jobs.items():
        row: dict[str, object] = {"method": name}
        expected = ours(x, *parameters)
        for way, function in (("regkit", ours), ("kornia", kornias), ("loop", loop)):
            row[way] = ""
            if function is not None:
                gap = (function(x, *parameters) - expected).abs().max().item()
                assert gap < 1e-4, (name, way, gap)
                row[way] = milliseconds(lambda f=function, p=parameters: f(x, *p))
        rows.append(row)
    write(__file__, rows)


if __name__ == "__main__":
    main()
