"""The random numbers of an augmentation, drawn before any pixel is touched.

A draw needs the number and the size of the slices, not their content, so that it can be made for many steps in advance
on the CPU while a GPU is still busy with earlier ones.
"""

from dataclasses import dataclass, fields
from math import ceil

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from spleen.data.augmentation.settings import AugmentSettings
from spleen.imaging.slicing import IN_PLANE_DIRECTIONS
from spleen.types import AxisName


@dataclass(frozen=True)
class Draws:
    """What happens to each of n slices; None for a transform that the settings switch off.

    Slices that a transform does not choose have values that change nothing.
    """

    mirrored_h: Bool[Tensor, " n"] | None
    mirrored_w: Bool[Tensor, " n"] | None
    deformed: Bool[Tensor, " n"] | None
    matrix: Float[Tensor, "n 2 2"] | None
    """Of the affine map from output to input, in pixels from the centre; components ordered (w, h)."""
    shift: Float[Tensor, "n 2"] | None
    """In pixels, ordered (w, h)."""
    control_points: Float[Tensor, "n 2 rows columns"] | None
    """Shifts of the control points of the elastic deformation, in pixels."""
    coarse: Bool[Tensor, " n"] | None
    coarse_size: Int64[Tensor, "n 2"] | None
    """Height and width of the simulated low resolution."""
    noisy: Bool[Tensor, " n"] | None
    noise_std: Float[Tensor, " n"] | None
    noise: Float[Tensor, "noisy c h w"] | None
    """Standard normal, only of the noisy slices; None if it is to be drawn on the GPU."""
    brightness: Float[Tensor, " n"] | None
    contrast: Float[Tensor, " n"] | None
    curved: Bool[Tensor, " n"] | None
    exponent: Float[Tensor, " n"] | None
    """Of the gamma correction."""

    def tensors(self) -> dict[str, Tensor]:
        """The values that there are, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Draws":
        """The reverse of `tensors`."""
        return cls(**{field.name: tensors.get(field.name) for field in fields(cls)})


def draw_augmentation(
    shape: tuple[int, int, int, int],
    settings: AugmentSettings,
    axis: AxisName,
    generator: Generator,
    with_noise: bool = True,
) -> Draws:
    """Draw for a batch of this shape (b, c, h, w); the order of the draws is part of what a seed means.

    Args:
        shape: of the batch.
        settings: strengths and probabilities.
        axis: the slicing axis, which determines the image dimension of a flip.
        generator: source of all randomness, on the CPU.
        with_noise: whether to draw the noise here, pixel by pixel; otherwise it is drawn where it is added.
    """
    count, _, height, width = shape
    s = settings
    mirrored_h, mirrored_w = (
        draw_chosen(count, s.flip_probability, generator) if direction in s.flips else None
        for direction in IN_PLANE_DIRECTIONS[axis]
    )
    deformed, matrix, shift, control_points = _draw_deformation(count, (height, width), s, generator)
    coarse = draw_chosen(count, s.low_resolution_probability, generator)
    coarse_size = noise_std = noise = exponent = None
    if coarse is not None:
        coarse_size = _draw_coarse_size(coarse, (height, width), s, generator)
    if (noisy := draw_chosen(count, s.noise_probability, generator)) is not None:
        noise_std = _scattered(noisy, uniform(int(noisy.sum()), 0.0, s.noise_std, generator), 0.0)
        noise = torch.randn(int(noisy.sum()), *shape[1:], generator=generator) if with_noise else None
    brightness, contrast = _draw_brightness_and_contrast(count, s, generator)
    if (curved := draw_chosen(count, s.gamma_probability, generator)) is not None:
        exponent = _scattered(curved, symmetric_factor(int(curved.sum()), s.gamma, generator), 1.0)
    return Draws(
        mirrored_h, mirrored_w, deformed, matrix, shift, control_points, coarse, coarse_size, noisy, noise_std, noise,
        brightness, contrast, curved, exponent,
    )  # fmt: skip


def _draw_deformation(
    count: int, size: tuple[int, int], settings: AugmentSettings, generator: Generator
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    affine = draw_chosen(count, settings.affine_probability, generator)
    elastic = draw_chosen(count, settings.elastic_probability, generator)
    if affine is None and elastic is None:
        return None, None, None, None
    nowhere = torch.zeros(count, dtype=torch.bool)
    matrix, shift = _draw_affine(nowhere if affine is None else affine, size, settings, generator)
    control_points = None if elastic is None else _draw_control_points(elastic, size, settings, generator)
    moved = (nowhere if affine is None else affine) | (nowhere if elastic is None else elastic)
    return moved, matrix, shift, control_points


def _draw_affine(
    chosen: Bool[Tensor, " n"], size: tuple[int, int], settings: AugmentSettings, generator: Generator
) -> tuple[Float[Tensor, "n 2 2"], Float[Tensor, "n 2"]]:
    """Matrix and shift of every slice, identity if not chosen."""
    n = int(chosen.sum())
    matrix = torch.eye(2).repeat(len(chosen), 1, 1)
    shift = torch.zeros(len(chosen), 2)
    angle = torch.deg2rad(uniform(n, -settings.rotation_deg, settings.rotation_deg, generator))
    scale = symmetric_factor(n, settings.scale, generator)
    shear = uniform(n, -settings.shear, settings.shear, generator)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    # Rotation times shear, divided by the scale: a finer sampling grid shows a larger organ.
    matrix[chosen] = torch.stack([cosine, shear * cosine - sine, sine, shear * sine + cosine], dim=1).view(n, 2, 2)
    height, width = size
    sides = torch.tensor([width, height])
    shift[chosen] = sides * settings.translation * uniform(2 * n, -1.0, 1.0, generator).view(n, 2)
    return matrix, shift


def _draw_control_points(
    chosen: Bool[Tensor, " n"], size: tuple[int, int], settings: AugmentSettings, generator: Generator
) -> Float[Tensor, "n 2 rows columns"]:
    """Shifts of the control points in pixels, 0 for slices not chosen."""
    n, side = int(chosen.sum()), max(size)
    spacing_px, amplitude_px = settings.elastic_spacing * side, settings.elastic_amplitude * side
    rows, columns = (ceil(length / spacing_px) + 3 for length in size)
    points = torch.zeros(len(chosen), 2, rows, columns)
    draws = uniform(n * 2 * rows * columns, -amplitude_px, amplitude_px, generator)
    points[chosen] = draws.view(-1, 2, rows, columns)
    return points


def _draw_coarse_size(
    chosen: Bool[Tensor, " n"], size: tuple[int, int], settings: AugmentSettings, generator: Generator
) -> Int64[Tensor, "n 2"]:
    sizes = torch.tensor(size).repeat(len(chosen), 1)
    factors = uniform(int(chosen.sum()), 1.0, settings.low_resolution_factor, generator).tolist()
    drawn = [[max(1, round(side / factor)) for side in size] for factor in factors]
    sizes[chosen] = torch.tensor(drawn, dtype=torch.int64).view(-1, 2)
    return sizes


def _draw_brightness_and_contrast(
    count: int, settings: AugmentSettings, generator: Generator
) -> tuple[Tensor | None, Tensor | None]:
    brighter = draw_chosen(count, settings.brightness_probability, generator)
    stretched = draw_chosen(count, settings.contrast_probability, generator)
    brightness = contrast = None
    if brighter is not None:
        drawn = uniform(int(brighter.sum()), -settings.brightness, settings.brightness, generator)
        brightness = _scattered(brighter, drawn, 0.0)
    if stretched is not None:
        contrast = _scattered(stretched, symmetric_factor(int(stretched.sum()), settings.contrast, generator), 1.0)
    return brightness, contrast


def draw_chosen(count: int, probability: float, generator: Generator) -> Bool[Tensor, " n"] | None:
    """Which of ``count`` slices are chosen, each with the given probability; None if none ever is."""
    if probability <= 0:
        return None
    return torch.rand(count, generator=generator) < probability


def _scattered(chosen: Bool[Tensor, " n"], values: Float[Tensor, " m"], otherwise: float) -> Float[Tensor, " n"]:
    everywhere = torch.full((len(chosen),), otherwise)
    everywhere[chosen] = values
    return everywhere


def uniform(count: int, low: float, high: float, generator: Generator) -> Float[Tensor, " n"]:
    """``count`` numbers between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(count, generator=generator)


def symmetric_factor(count: int, strength: float, generator: Generator) -> Float[Tensor, " n"]:
    """``count`` factors between ``1 / (1 + strength)`` and ``1 + strength``, log-uniform."""
    return (1 + strength) ** uniform(count, -1.0, 1.0, generator)
