"""Intensity transforms of a batch of slices; labels are unaffected.

Images are (b, c, h, w) with normalised intensities, about -1 to 1. The channels of a slice are its neighbours in a
scan, so all channels share one draw. Every function returns a new tensor (or its input, if no slice was chosen) and
does not modify its input. For `everywhere` see `choose`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spleen.data.augmentation.chosen import choose
from spleen.types import ImageBatch


def change_brightness_and_contrast(
    image: ImageBatch,
    brightness: Float[Tensor, " n"] | None,
    contrast: Float[Tensor, " n"] | None,
    everywhere: bool,
) -> ImageBatch:
    """Brightness, a shift in normalised intensity, and contrast, a factor about the slice's mean, in one pass."""
    drawn = brightness if contrast is None else contrast
    if drawn is None:
        return image
    shift = torch.zeros_like(drawn) if brightness is None else brightness
    factor = torch.ones_like(drawn) if contrast is None else contrast
    if not everywhere and not (shift != 0).any() and not (factor != 1).any():
        return image
    shift, factor = (values.to(image).view(-1, 1, 1, 1) for values in (shift, factor))
    mean = image.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(shift + mean * (1 - factor), image, factor)


def change_gamma(
    image: ImageBatch, chosen: Bool[Tensor, " n"], exponent: Float[Tensor, " n"], everywhere: bool
) -> ImageBatch:
    """Gamma correction: intensity, as a fraction of the slice's range, raised to a power.

    The smallest and the largest intensity of the slice are unchanged.
    """
    rows = choose(chosen, image, everywhere)
    if rows.are_none:
        return image
    part = rows.of(image)
    low, high = part.amin((1, 2, 3), keepdim=True), part.amax((1, 2, 3), keepdim=True)
    # A constant image has no range; the lower bound leaves it unchanged.
    span = (high - low).clamp_min(1e-6)
    fraction = ((part - low) / span).clamp_(0.0, 1.0)
    return rows.put(low + span * fraction.pow(rows.per_slice(exponent)), image)


def add_noise(
    image: ImageBatch,
    chosen: Bool[Tensor, " n"],
    std: Float[Tensor, " n"],
    noise: Float[Tensor, "noisy c h w"] | None,
    everywhere: bool,
) -> ImageBatch:
    """White Gaussian noise; `noise` is standard normal, without it the image's device draws some."""
    rows = choose(chosen, image, everywhere)
    if rows.are_none:
        return image
    part = rows.of(image)
    drawn = torch.randn_like(part) if noise is None else noise.to(part)
    if noise is not None and everywhere:
        drawn = torch.zeros_like(part)
        drawn[chosen] = noise.to(part)
    return rows.put(torch.addcmul(part, drawn, rows.per_slice(std)), image)


def simulate_low_resolution(
    image: ImageBatch, chosen: Bool[Tensor, " n"], coarse_size: Int64[Tensor, "n 2"], everywhere: bool
) -> ImageBatch:
    """Simulated low resolution: averaged to `coarse_size`, then interpolated back."""
    rows = choose(chosen, image, everywhere)
    if rows.are_none:
        return image
    part, sizes = rows.of(image), coarse_size if rows.index is None else coarse_size[rows.index]
    height, width = part.shape[-2:]
    if everywhere:
        along_h, along_w = blur_matrix(height, sizes[:, 0]), blur_matrix(width, sizes[:, 1])
        return rows.put(along_h.unsqueeze(1) @ part @ along_w.unsqueeze(1).mT, image)
    coarse = []
    for one, size in zip(part.split(1), sizes.tolist(), strict=True):
        averaged = F.interpolate(one, size=tuple(size), mode="area")
        coarse.append(F.interpolate(averaged, size=(height, width), mode="bilinear", align_corners=False))
    return rows.put(torch.cat(coarse), image)


def blur_matrix(side: int, coarse_side: Int64[Tensor, " n"]) -> Float[Tensor, "n side side"]:
    """What averaging a line of `side` pixels to `coarse_side` and linear interpolation back does, as a matrix.

    The same as `F.interpolate` with mode "area", then "bilinear" without aligned corners, but without a size that
    depends on the data.
    """
    pixel = torch.arange(side, device=coarse_side.device)
    coarse = coarse_side.view(-1, 1)
    place = ((pixel + 0.5) * (coarse / side) - 0.5).clamp_min(0.0)
    first = place.floor().long()
    second = torch.minimum(first + 1, coarse - 1)
    towards_second = (place - first).unsqueeze(2)

    def average(row: Int64[Tensor, "n side"]) -> Float[Tensor, "n side side"]:
        start = row * side // coarse
        end = -(-(row + 1) * side // coarse)
        inside = (pixel >= start.unsqueeze(2)) & (pixel < end.unsqueeze(2))
        return inside / (end - start).unsqueeze(2)

    return (1 - towards_second) * average(first) + towards_second * average(second)
