"""From network output to label maps on the native planes."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spleen.imaging.classes import Regions
from spleen.imaging.labels import IGNORED
from spleen.imaging.slicing import InPlaneGrid, restore_planes
from spleen.types import LabelPlanes, Logits


def probabilities(
    logits: Float[Tensor, "b classes *size"], regions: Regions | None = None
) -> Float[Tensor, "b classes *size"]:
    """Probabilities of background and classes.

    Of classes that do not overlap, by a softmax, so that they add up to 1. Of regions each by itself, by a softmax of
    it and the background: the sigmoid of their difference; the background is 1 minus the largest.
    """
    if regions is None:
        return torch.softmax(logits, dim=1)
    foreground = torch.sigmoid(logits[:, 1:] - logits[:, :1])
    return torch.cat([1 - foreground.amax(1, keepdim=True), foreground], dim=1)


def foreground_probabilities(
    logits: Logits, grid: InPlaneGrid, regions: Regions | None = None
) -> Float[Tensor, "b organ H W"]:
    """Foreground probabilities on the native planes, float32; without regions, the background is 1 minus their sum."""
    return restore_planes(probabilities(logits.float(), regions)[:, 1:], grid)


def most_probable_class(
    foreground: Float[Tensor, "b organ *voxels"], regions: Regions | None = None
) -> Integer[Tensor, "b *voxels"]:
    """Class indices: the most probable class of each voxel, including background; ties go to the background.

    Of regions, the last one with a probability above 0.5, as nnU-Net's regions_class_order means it.
    """
    if regions is not None:
        numbers = torch.arange(1, 1 + foreground.shape[1], device=foreground.device)
        numbers = numbers.view(-1, *[1] * (foreground.ndim - 2))
        return ((foreground > 0.5) * numbers).amax(1).to(torch.uint8)
    if foreground.shape[1] == 1:
        return (foreground[:, 0] > 0.5).to(torch.uint8)
    highest, index = foreground.max(dim=1)
    return torch.where(highest > 1 - foreground.sum(dim=1), index + 1, 0).to(torch.uint8)


def native_prediction(logits: Logits, grid: InPlaneGrid, regions: Regions | None = None) -> Integer[Tensor, "b H W"]:
    """Class indices on the native planes: probabilities are resampled first, then the class is decided."""
    return most_probable_class(foreground_probabilities(logits, grid, regions), regions)


def with_regions_on_top(reference: LabelPlanes, regions: Regions | None) -> LabelPlanes:
    """A reference as a prediction of the same regions would be: the last region of each voxel."""
    if regions is None:
        return reference
    on_top = torch.arange(IGNORED + 1, dtype=reference.dtype)
    on_top[1 : 1 + len(regions.of_index)] = torch.tensor([max(classes) for classes in regions.of_index])
    return on_top.to(reference.device)[reference.long()]
