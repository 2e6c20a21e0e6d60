"""Random augmentation of a batch of patches: as of slices, and across the slices too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from spleen.data.augmentation.augment import apply_draws, change_intensity, mirror_in_plane
from spleen.data.augmentation.chosen import choose
from spleen.data.augmentation.draws import Draws, draw_augmentation, draw_chosen, uniform
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.augmentation.spatial import mirror, spline_displacement
from spleen.imaging.slicing import THROUGH_PLANE_DIRECTION
from spleen.types import AxisName, ImageBatch, LabelBatch

MOST_ANISOTROPIC = 3.0
"""From this voxel depth on patches are deformed in the plane only, as in nnU-Net (Isensee et al. 2021)."""


@dataclass(frozen=True)
class Turn:
    """How each of n patches is turned out of the plane, and shifted across it."""

    chosen: Bool[Tensor, " n"]
    rotation: Float[Tensor, "n 3 3"]
    """From output to input; components ordered (w, h, d) and of one length, that of a pixel."""
    shift: Float[Tensor, " n"]
    """Along the depth, in slices."""


def augment_patches(
    image: ImageBatch,
    label: LabelBatch,
    settings: AugmentSettings,
    axis: AxisName,
    generator: Generator,
    swapped: Sequence[int] = (),
) -> tuple[ImageBatch, LabelBatch]:
    """Like `augment_batch`, for patches of d slices: images (b, d * c, h, w), slice by slice, and labels (b, d, h, w).

    A direction of `flips` across the slices mirrors their order. If the voxels are not too long in that direction
    (`voxel_depth`), patches are also turned about the two axes in the plane, scaled alike in all three directions and
    shifted across the slices; the elastic deformation stays in the plane. It is all one resampling.
    """
    depth = label.shape[1]
    shape = (image.shape[0], image.shape[1], image.shape[2], image.shape[3])
    draws = draw_augmentation(shape, settings, axis, generator, with_noise=image.device.type == "cpu")
    direction = THROUGH_PLANE_DIRECTION[axis]
    mirrored = draw_chosen(len(image), settings.flip_probability, generator) if direction in settings.flips else None
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):  # which would round coordinates to bf16
        turn = draw_turn(len(image), (depth, *shape[2:]), settings, generator)
        if mirrored is not None:
            exchanged = swapped if direction == "left_right" else ()
            volume, label = mirror(image.unflatten(1, (depth, -1)), label, mirrored, 1, exchanged, everywhere=False)
            image = volume.flatten(1, 2)
        if turn is None:
            return apply_draws(image, label, draws, settings, axis, swapped)
        image, label = mirror_in_plane(image, label, draws, axis, swapped)
        image, label = deform_patches(image, label, draws, turn, settings)
        return change_intensity(image, draws), label


def draw_turn(count: int, size: tuple[int, int, int], settings: AugmentSettings, generator: Generator) -> Turn | None:
    """Draw for `count` patches of this depth, height and width; None if they are never moved across the slices.

    The angles are such that a voxel at the edge moves by at most a quarter of the depth: a wide, thin patch would
    otherwise be filled with its outermost slices.
    """
    if settings.voxel_depth is None or settings.voxel_depth >= MOST_ANISOTROPIC:
        return None
    chosen = draw_chosen(count, settings.affine_probability, generator)
    if chosen is None:
        return None
    depth, *sides = size
    reach = depth * settings.voxel_depth / 4 / (max(sides) / 2)
    limit = min(settings.rotation_deg, math.degrees(math.asin(min(1.0, reach))))
    angles = torch.deg2rad(uniform(2 * count, -limit, limit, generator)).view(2, count) * chosen
    shift = uniform(count, -1.0, 1.0, generator) * settings.translation * depth * chosen
    about_h, about_w = (_rotation(of_axis, component) for of_axis, component in zip(angles, (0, 1), strict=True))
    return Turn(chosen, about_h @ about_w, shift)


def _rotation(angle: Float[Tensor, " n"], component: int) -> Float[Tensor, "n 3 3"]:
    """Rotation in the plane of the depth and another component: 0 for the width, 1 for the height."""
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, component, component] = matrix[:, 2, 2] = angle.cos()
    matrix[:, component, 2], matrix[:, 2, component] = -angle.sin(), angle.sin()
    return matrix


def deform_patches(
    image: ImageBatch, label: LabelBatch, draws: Draws, turn: Turn, settings: AugmentSettings
) -> tuple[ImageBatch, LabelBatch]:
    """Affine deformation in all directions and elastic deformation in the plane, in one resampling.

    Linear for the image, nearest for the label; beyond the edge of a patch its outermost voxels go on.
    """
    assert draws.deformed is not None
    assert draws.matrix is not None
    assert draws.shift is not None
    assert settings.voxel_depth is not None
    rows = choose(draws.deformed | turn.chosen, image, everywhere=False)
    if rows.are_none:
        return image, label
    displacement = None
    if draws.control_points is not None:
        size = image.shape[-2], image.shape[-1]
        displacement = spline_displacement(rows.of(draws.control_points), size, settings.elastic_spacing * max(size))
    volume = rows.of(image).unflatten(1, (label.shape[1], -1)).transpose(1, 2)
    grid = sampling_grid(
        rows.of(_matrix(draws.matrix, turn.rotation)),
        rows.of(torch.cat([draws.shift, (turn.shift * settings.voxel_depth).unsqueeze(1)], 1)),
        displacement,
        (volume.shape[2], volume.shape[3], volume.shape[4]),
        settings.voxel_depth,
    )
    moved = F.grid_sample(volume, grid.to(image.dtype), "bilinear", "border", align_corners=False)
    labels = F.grid_sample(rows.of(label).float().unsqueeze(1), grid, "nearest", "border", align_corners=False)
    return rows.put(moved.transpose(1, 2).flatten(1, 2), image), rows.put(labels.squeeze(1), label)


def _matrix(in_plane: Float[Tensor, "n 2 2"], rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """The map in the plane, with its scale along the depth too, after the rotation out of the plane."""
    matrix = torch.zeros(len(in_plane), 3, 3)
    matrix[:, :2, :2] = in_plane
    matrix[:, 2, 2] = torch.linalg.det(in_plane).sqrt()
    return matrix @ rotation


def sampling_grid(
    matrix: Float[Tensor, "n 3 3"],
    shift: Float[Tensor, "n 3"],
    displacement: Float[Tensor, "n 2 h w"] | None,
    size: tuple[int, int, int],
    voxel_depth: float,
) -> Float[Tensor, "n d h w 3"]:
    """Where each output voxel reads from, in the coordinates of ``grid_sample(..., align_corners=False)``.

    As in two dimensions, source = matrix · (voxel + displacement) + shift, in pixels from the centre of the patch, so
    that a slice is `voxel_depth` from the next and rotations are rigid. Components are ordered (w, h, d).
    """
    depth, height, width = size
    x, y, z = (
        (torch.arange(length, device=matrix.device) - (length - 1) / 2).view(shape)
        for length, shape in ((width, (1, 1, 1, -1)), (height, (1, 1, -1, 1)), (depth, (1, -1, 1, 1)))
    )
    if displacement is not None:
        x, y = x + displacement[:, :1], y + displacement[:, 1:]
    z = z * voxel_depth
    sources = []
    for component, length in enumerate((width, height, depth * voxel_depth)):
        from_x, from_y, from_z = matrix[:, component].view(-1, 3, 1, 1, 1).unbind(1)
        offset = shift[:, component].view(-1, 1, 1, 1)
        sources.append((from_x * x + (from_y * y + (from_z * z + offset))) * (2 / length))
    return torch.stack(sources, dim=-1)
