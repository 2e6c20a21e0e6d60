"""Random mirroring and deformation of slices and their label maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from spleen.data.augmentation.chosen import choose
from spleen.types import ImageBatch, LabelBatch


def mirror(
    image: Float[Tensor, "b ... h w"],
    label: LabelBatch,
    chosen: Bool[Tensor, " n"],
    dim: int,
    swapped: Sequence[int],
    everywhere: bool,
) -> tuple[Float[Tensor, "b ... h w"], LabelBatch]:
    """The chosen slices mirrored along a dimension of both, their classes exchanged by `swapped` if there are any."""

    rows = choose(chosen, image, everywhere)
    if rows.are_none:
        return image, label
    mirrored = exchanged = rows.of(label).flip(dim)
    for old, new in enumerate(swapped):
        if old != new:
            exchanged = torch.where(mirrored == old, new, exchanged)
    return rows.put(rows.of(image).flip(dim), image), rows.put(exchanged, label)


def deform(
    image: ImageBatch,
    label: LabelBatch,
    chosen: Bool[Tensor, " n"],
    matrix: Float[Tensor, "n 2 2"],
    shift: Float[Tensor, "n 2"],
    control_points: Float[Tensor, "n 2 rows columns"] | None,
    spacing_fraction: float,
    everywhere: bool,
) -> tuple[ImageBatch, LabelBatch]:
    """Affine and elastic deformation of the chosen slices in one resampling.

    Linear for the image, nearest for the label. Control points lie `spacing_fraction` of the longer side apart.
    """
    rows = choose(chosen, image, everywhere)
    if rows.are_none:
        return image, label
    size, displacement = (image.shape[-2], image.shape[-1]), None
    if control_points is not None:
        displacement = spline_displacement(rows.of(control_points), size, spacing_fraction * max(size))
    grid = sampling_grid(rows.of(matrix), rows.of(shift), displacement, size)
    moved = F.grid_sample(rows.of(image), grid.to(image.dtype), "bilinear", "border", align_corners=False)
    labels = F.grid_sample(rows.of(label).float(), grid, "nearest", "border", align_corners=False)
    return rows.put(moved, image), rows.put(labels, label)


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
