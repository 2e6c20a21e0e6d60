"""From the network's output back to label maps on the native planes."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spleen.slicing import InPlaneGrid, restore_planes
from spleen.types import Logits


def foreground_probabilities(logits: Logits, grid: InPlaneGrid) -> Float[Tensor, "b organ H W"]:
    """Probabilities of the foreground classes on the native planes, float32; what is missing to 1 is background."""
    return restore_planes(torch.softmax(logits.float(), dim=1)[:, 1:], grid)


def decide(foreground: Float[Tensor, "b organ *voxels"]) -> Integer[Tensor, "b *voxels"]:
    """Class indices: the likeliest class of each voxel, background included; a tie goes to the background."""
    if foreground.shape[1] == 1:
        return (foreground[:, 0] > 0.5).to(torch.uint8)
    likeliest, index = foreground.max(dim=1)
    return torch.where(likeliest > 1 - foreground.sum(dim=1), index + 1, 0).to(torch.uint8)


def native_prediction(logits: Logits, grid: InPlaneGrid) -> Integer[Tensor, "b H W"]:
    """Class indices on the native planes: probabilities are resampled back, and only then decided."""
    return decide(foreground_probabilities(logits, grid))
