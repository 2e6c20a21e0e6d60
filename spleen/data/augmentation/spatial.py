"""Random augmentation of a batch of slices and their label maps, on the batch's device.

All randomness comes from the generator argument: the same generator state gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from spleen.data.augmentation.intensity import (
    add_noise,
    change_brightness_and_contrast,
    change_gamma,
    chosen_samples,
    replace_samples,
    simulate_low_resolution,
    symmetric_factor,
    uniform,
)
from spleen.errors import InputError
from spleen.imaging.slicing import FLIP_DIRECTIONS, IN_PLANE_DIRECTIONS
from spleen.types import AxisName, ImageBatch, LabelBatch

# Control points that move by less than this fraction of their spacing cannot fold the image
# (Choi and Lee 2000, injectivity of 2D cubic B-spline deformations: 0.48).
LARGEST_FOLD_FREE_SHARE = 0.48


@dataclass(frozen=True)
class AugmentSettings:
    """Strength and probability (per sample, 0 to 1) of each transform. The default changes nothing.

    Spatial transforms, of image and label together:
        flips: anatomical directions that may be mirrored: left_right, anterior_posterior, superior_inferior.
            A direction perpendicular to the slice is ignored.
        flip_probability: of each of those directions.
        affine_probability: of rotation, scale, translation and shear together.
        rotation_deg: largest angle in either direction, in degrees.
        scale: 0.1 draws a factor between 1 / 1.1 and 1.1.
        translation: largest shift, as a fraction of the side (height or width).
        shear: largest shift of a row, in pixels per pixel of distance from the centre row.
        elastic_probability: of a smooth random deformation.
        elastic_amplitude: largest shift of a control point along either side, as a fraction of the longer
            side; pixels move by about a third of it.
        elastic_spacing: distance between control points, as a fraction of the longer side.

    Intensity transforms, of the image only (normalised to about -1 to 1):
        low_resolution_probability, low_resolution_factor: largest downsampling factor, at least 1.
        noise_probability, noise_std: largest standard deviation of the noise, in normalised intensity.
        brightness_probability, brightness: largest shift, in normalised intensity.
        contrast_probability, contrast: 0.2 draws a factor between 1 / 1.2 and 1.2, about the mean.
        gamma_probability, gamma: 0.3 draws an exponent between 1 / 1.3 and 1.3.

    Raises:
        InputError: a value outside its range.
    """

    flips: tuple[str, ...] = ()
    flip_probability: float = 0.5
    affine_probability: float = 0.0
    rotation_deg: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    elastic_probability: float = 0.0
    elastic_amplitude: float = 0.0
    elastic_spacing: float = 0.25
    low_resolution_probability: float = 0.0
    low_resolution_factor: float = 1.0
    noise_probability: float = 0.0
    noise_std: float = 0.0
    brightness_probability: float = 0.0
    brightness: float = 0.0
    contrast_probability: float = 0.0
    contrast: float = 0.0
    gamma_probability: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for direction in self.flips:
            if direction not in FLIP_DIRECTIONS:
                raise InputError(f"flips must be among {', '.join(FLIP_DIRECTIONS)}; got {direction!r}")
        for name, value in vars(self).items():
            if name.endswith("probability") and not 0 <= value <= 1:
                raise InputError(f"augment.{name} must be between 0 and 1; got {value}")
            if name != "flips" and not value >= 0:
                raise InputError(f"augment.{name} must be at least 0; got {value}")
        if self.low_resolution_factor < 1:
            raise InputError(f"augment.low_resolution_factor must be at least 1; got {self.low_resolution_factor}")
        if self.elastic_spacing <= 0 or self.elastic_amplitude > LARGEST_FOLD_FREE_SHARE * self.elastic_spacing:
            raise InputError(
                f"augment.elastic_amplitude must be at most {LARGEST_FOLD_FREE_SHARE} × elastic_spacing, otherwise "
                f"the image may fold; got {self.elastic_amplitude} and {self.elastic_spacing}"
            )


@torch.no_grad()
def augment_batch(
    image: ImageBatch,
    label: LabelBatch,
    settings: AugmentSettings,
    axis: AxisName,
    generator: Generator,
    swapped: Sequence[int] = (),
) -> tuple[ImageBatch, LabelBatch]:
    """A randomly augmented copy of a batch; draws are per sample and shared by its channels.

    Affine and elastic deformation are applied in one resampling: linear for the image, nearest for the label,
    so that no new label values appear. Both are extended beyond the edge by replicating edge pixels, so that
    an organ cut by the edge continues in image and label. If nothing is drawn, the tensors are returned as
    they are; the input is never modified.

    Args:
        image: slices (b, c, h, w), normalised to about -1 to 1.
        label: label maps (b, 1, h, w).
        settings: strengths and probabilities.
        axis: the slicing axis, which determines the image dimension of a flip.
        generator: source of all randomness. A CPU generator is best even for a batch on a GPU: decisions then
            do not wait for the GPU, and noise is still generated there.
        swapped: the class of each class index after mirroring along left_right (`swapped_classes`), so that a mirrored
            left kidney becomes a right one; empty if all stay.
    """
    image, label = _flip(image, label, settings, axis, generator, swapped)
    image, label = _deform(image, label, settings, generator)
    s = settings
    image = simulate_low_resolution(image, s.low_resolution_factor, s.low_resolution_probability, generator)
    image = add_noise(image, s.noise_std, s.noise_probability, generator)
    image = change_brightness_and_contrast(
        image, s.brightness, s.brightness_probability, s.contrast, s.contrast_probability, generator
    )
    return change_gamma(image, s.gamma, s.gamma_probability, generator), label


def _flip(
    image: Tensor,
    label: Tensor,
    settings: AugmentSettings,
    axis: AxisName,
    generator: Generator,
    swapped: Sequence[int],
) -> tuple[Tensor, Tensor]:
    for dim, direction in zip((2, 3), IN_PLANE_DIRECTIONS[axis], strict=True):
        if direction not in settings.flips:
            continue
        index = chosen_samples(image.shape[0], settings.flip_probability, generator)
        if len(index):
            here = index.to(image.device)
            image = replace_samples(image, index, image[here].flip(dim))
            mirrored = label[here].flip(dim)
            if swapped and direction == "left_right":
                mirrored = torch.tensor(swapped, dtype=label.dtype, device=label.device)[mirrored.long()]
            label = replace_samples(label, index, mirrored)
    return image, label


def _deform(image: Tensor, label: Tensor, settings: AugmentSettings, generator: Generator) -> tuple[Tensor, Tensor]:
    count, _, height, width = image.shape
    affine = chosen_samples(count, settings.affine_probability, generator)
    elastic = chosen_samples(count, settings.elastic_probability, generator)
    moved = torch.zeros(count, dtype=torch.bool, device=generator.device)
    moved[affine] = moved[elastic] = True
    index = moved.nonzero().squeeze(1)
    if not len(index):
        return image, label
    matrix, shift = _draw_affine(count, affine, (height, width), settings, generator)
    control_points = _draw_control_points(count, elastic, (height, width), settings, generator)
    displacement = None
    if control_points is not None:
        spacing_px = settings.elastic_spacing * max(height, width)
        displacement = spline_displacement(control_points[index].to(image.device), (height, width), spacing_px)
    here = index.to(image.device)
    grid = sampling_grid(matrix[index].to(image.device), shift[index].to(image.device), displacement, (height, width))
    deformed = F.grid_sample(image[here], grid.to(image.dtype), "bilinear", "border", align_corners=False)
    labels = F.grid_sample(label[here].float(), grid, "nearest", "border", align_corners=False)
    return replace_samples(image, index, deformed), replace_samples(label, index, labels)


def _draw_affine(
    count: int,
    chosen: Int64[Tensor, " n"],
    size: tuple[int, int],
    settings: AugmentSettings,
    generator: Generator,
) -> tuple[Float[Tensor, "b 2 2"], Float[Tensor, "b 2"]]:
    """Matrix and shift (pixels) of every sample, identity if not chosen; components ordered (w, h)."""
    n = len(chosen)
    matrix = torch.eye(2, device=generator.device).repeat(count, 1, 1)
    shift = torch.zeros(count, 2, device=generator.device)
    angle = torch.deg2rad(uniform(n, -settings.rotation_deg, settings.rotation_deg, generator))
    scale = symmetric_factor(n, settings.scale, generator)
    shear = uniform(n, -settings.shear, settings.shear, generator)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    # Rotation times shear, divided by the scale: a finer sampling grid shows a larger organ.
    matrix[chosen] = torch.stack([cosine, shear * cosine - sine, sine, shear * sine + cosine], dim=1).view(n, 2, 2)
    height, width = size
    sides = torch.tensor([width, height], device=generator.device)
    shift[chosen] = sides * settings.translation * uniform(2 * n, -1.0, 1.0, generator).view(n, 2)
    return matrix, shift


def _draw_control_points(
    count: int,
    chosen: Int64[Tensor, " n"],
    size: tuple[int, int],
    settings: AugmentSettings,
    generator: Generator,
) -> Float[Tensor, "b 2 rows columns"] | None:
    """Shifts of the control points in pixels, 0 for samples not chosen; None if no sample is chosen."""
    if not len(chosen):
        return None
    side = max(size)
    spacing_px, amplitude_px = settings.elastic_spacing * side, settings.elastic_amplitude * side
    rows, columns = (ceil(length / spacing_px) + 3 for length in size)
    points = torch.zeros(count, 2, rows, columns, device=generator.device)
    draws = uniform(len(chosen) * 2 * rows * columns, -amplitude_px, amplitude_px, generator)
    points[chosen] = draws.view(-1, 2, rows, columns)
    return points


def spline_displacement(
    control_points: Float[Tensor, "n 2 rows columns"], size: tuple[int, int], spacing_px: float
) -> Float[Tensor, "n 2 h w"]:
    """Displacement of every pixel by cubic B-splines (Rueckert et al. 1999), in the unit of the control points.

    Control point (r, c) is at pixel position ((r - 1) * spacing_px, (c - 1) * spacing_px), so each side
    needs ceil(length / spacing_px) + 3 points.
    """
    rows, columns = control_points.shape[-2:]
    along_h = _spline_weights(size[0], rows, spacing_px, control_points.device)
    along_w = _spline_weights(size[1], columns, spacing_px, control_points.device)
    return along_h @ control_points @ along_w.T


def _spline_weights(
    length: int, points: int, spacing_px: float, device: torch.device
) -> Float[Tensor, "length points"]:
    position = torch.arange(length, device=device).unsqueeze(1) / spacing_px
    distance = (position - (torch.arange(points, device=device) - 1)).abs()
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def sampling_grid(
    matrix: Float[Tensor, "n 2 2"],
    shift: Float[Tensor, "n 2"],
    displacement: Float[Tensor, "n 2 h w"] | None,
    size: tuple[int, int],
) -> Float[Tensor, "n h w 2"]:
    """Where each output pixel reads from, in the coordinates of ``grid_sample(..., align_corners=False)``.

    The map is computed in pixels relative to the image centre, source = matrix · (pixel + displacement) +
    shift, so that rotations stay rigid in non-square images and the composition of two fold-free maps is
    fold-free. Components are ordered (w, h).
    """
    height, width = size
    x = (torch.arange(width, device=matrix.device) - (width - 1) / 2).view(1, 1, -1)
    y = (torch.arange(height, device=matrix.device) - (height - 1) / 2).view(1, -1, 1)
    if displacement is not None:
        x, y = x + displacement[:, 0], y + displacement[:, 1]
    sources = []
    for component, length in enumerate((width, height)):
        from_x, from_y = matrix[:, component].view(-1, 2, 1, 1).unbind(1)
        offset = shift[:, component].view(-1, 1, 1)
        sources.append((from_x * x + (from_y * y + offset)) * (2 / length))
    return torch.stack(sources, dim=-1)
