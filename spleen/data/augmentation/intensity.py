"""Random intensity transforms of a batch of slices; labels are unaffected.

Images are (b, c, h, w) with normalised intensities, about -1 to 1. The channels of a sample are neighbouring
slices of one scan, so all channels of a sample share one draw. Every function returns a new tensor (or its
input, if no sample was drawn) and does not modify its input.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from spleen.types import ImageBatch


def chosen_samples(count: int, probability: float, generator: Generator) -> Int64[Tensor, " n"]:
    """Indices of randomly chosen samples out of ``count``, each chosen with the given probability."""
    if probability <= 0:
        return torch.empty(0, dtype=torch.int64, device=generator.device)
    draws = torch.rand(count, generator=generator, device=generator.device)
    return (draws < probability).nonzero().squeeze(1)


def uniform(count: int, low: float, high: float, generator: Generator) -> Float[Tensor, " n"]:
    """``count`` numbers between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def symmetric_factor(count: int, strength: float, generator: Generator) -> Float[Tensor, " n"]:
    """``count`` factors between ``1 / (1 + strength)`` and ``1 + strength``, log-uniform."""
    return (1 + strength) ** uniform(count, -1.0, 1.0, generator)


def replace_samples(batch: Tensor, index: Tensor, samples: Tensor) -> Tensor:
    """A copy of ``batch`` with the samples at ``index`` replaced; the memory format is preserved."""
    replaced = batch.clone()
    replaced[index.to(batch.device)] = samples.to(batch.dtype)
    return replaced


def change_brightness_and_contrast(
    image: ImageBatch,
    brightness: float,
    brightness_probability: float,
    contrast: float,
    contrast_probability: float,
    generator: Generator,
) -> ImageBatch:
    """Brightness and contrast in one pass.

    Brightness is a shift of up to ± ``brightness`` in normalised intensity; contrast scales about the sample's
    mean by a factor between ``1 / (1 + contrast)`` and ``1 + contrast``.
    """
    count = image.shape[0]
    brighter = chosen_samples(count, brightness_probability, generator)
    stretched = chosen_samples(count, contrast_probability, generator)
    if not len(brighter) and not len(stretched):
        return image
    shift = torch.zeros(count, device=generator.device)
    shift[brighter] = uniform(len(brighter), -brightness, brightness, generator)
    factor = torch.ones(count, device=generator.device)
    factor[stretched] = symmetric_factor(len(stretched), contrast, generator)
    shift, factor = _per_sample(shift, image), _per_sample(factor, image)
    mean = image.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(shift + mean * (1 - factor), image, factor)


def change_gamma(image: ImageBatch, gamma: float, probability: float, generator: Generator) -> ImageBatch:
    """Gamma correction: intensity, as a fraction of the sample's range, raised to a power.

    The power is drawn between ``1 / (1 + gamma)`` and ``1 + gamma``. The smallest and the largest intensity
    of the sample are unchanged.
    """
    index = chosen_samples(image.shape[0], probability, generator)
    if not len(index):
        return image
    chosen = image[index.to(image.device)]
    exponent = _per_sample(symmetric_factor(len(index), gamma, generator), image)
    low, high = chosen.amin((1, 2, 3), keepdim=True), chosen.amax((1, 2, 3), keepdim=True)
    # A constant image has no range; the lower bound leaves it unchanged.
    span = (high - low).clamp_min(1e-6)
    fraction = ((chosen - low) / span).clamp_(0.0, 1.0)
    return replace_samples(image, index, low + span * fraction.pow(exponent))


def add_noise(image: ImageBatch, noise_std: float, probability: float, generator: Generator) -> ImageBatch:
    """White Gaussian noise with a standard deviation drawn per sample between 0 and ``noise_std``."""
    index = chosen_samples(image.shape[0], probability, generator)
    if not len(index):
        return image
    chosen = image[index.to(image.device)]
    std = _per_sample(uniform(len(index), 0.0, noise_std, generator), image)
    return replace_samples(image, index, torch.addcmul(chosen, _normal_like(chosen, generator), std))


def simulate_low_resolution(
    image: ImageBatch, largest_factor: float, probability: float, generator: Generator
) -> ImageBatch:
    """Simulated low resolution: downsampled by a factor of 1 to ``largest_factor`` and interpolated back."""
    index = chosen_samples(image.shape[0], probability, generator)
    if not len(index):
        return image
    factors = uniform(len(index), 1.0, largest_factor, generator).tolist()
    height, width = image.shape[-2:]
    coarse = []
    for sample, factor in zip(index.tolist(), factors, strict=True):
        size = (max(1, round(height / factor)), max(1, round(width / factor)))
        averaged = F.interpolate(image[sample : sample + 1], size=size, mode="area")
        coarse.append(F.interpolate(averaged, size=(height, width), mode="bilinear", align_corners=False))
    return replace_samples(image, index, torch.cat(coarse))


def _per_sample(values: Float[Tensor, " n"], image: ImageBatch) -> Float[Tensor, "n 1 1 1"]:
    return values.to(image).view(-1, 1, 1, 1)


def _normal_like(image: Tensor, generator: Generator) -> Tensor:
    """Standard normal noise on the image's device; a generator on another device provides the seed."""
    if generator.device != image.device:
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        generator = Generator(image.device).manual_seed(seed)
    return torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
