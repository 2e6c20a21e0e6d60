"""From the network's output back to label maps on the native planes."""

import torch
from jaxtyping import Integer
from torch import Tensor

from spleen.slicing import InPlaneGrid, restore_planes
from spleen.types import Logits


def native_prediction(logits: Logits, grid: InPlaneGrid) -> Integer[Tensor, "b H W"]:
    """Class indices on the native planes: probabilities are resampled back, and only then decided."""
    probabilities = torch.softmax(logits.float(), dim=1)
    if probabilities.shape[1] == 2:  # one organ: half the resampling, the same decision
        return (restore_planes(probabilities[:, 1:], grid)[:, 0] > 0.5).to(torch.uint8)
    return restore_planes(probabilities, grid).argmax(dim=1).to(torch.uint8)
