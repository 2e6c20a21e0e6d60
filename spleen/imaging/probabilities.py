"""From network output to label maps on the native planes."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spleen.imaging.slicing import InPlaneGrid, restore_planes
from spleen.types import Logits


def foreground_probabilities(logits: Logits, grid: InPlaneGrid) -> Float[Tensor, "b organ H W"]:
    """Foreground probabilities on the native planes, float32; the background is 1 minus their sum."""
    return restore_planes(torch.softmax(logits.float(), dim=1)[:, 1:], grid)


def most_probable_class(foreground: Float[Tensor, "b organ *voxels"]) -> Integer[Tensor, "b *voxels"]:
    """Class indices: the most probable class of each voxel, including background; ties go to the background."""
    if foreground.shape[1] == 1:
        return (foreground[:, 0] > 0.5).to(torch.uint8)
    highest, index = foreground.max(dim=1)
    return torch.where(highest > 1 - foreground.sum(dim=1), index + 1, 0).to(torch.uint8)


def native_prediction(logits: Logits, grid: InPlaneGrid) -> Integer[Tensor, "b H W"]:
    """Class indices on the native planes: probabilities are resampled first, then the class is decided."""
    return most_probable_class(foreground_probabilities(logits, grid))
