"""The default loss. Any other loss with the signature (logits, label_map), such as MONAI's, needs only a YAML file.

The convention is MONAI's: ``loss(logits, label_map)`` with logits (b, classes, h, w), background as class 0,
and an integer label map (b, 1, h, w).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.types import LabelBatch, Logits


class DiceCrossEntropyLoss(nn.Module):
    """``dice_weight * (1 - soft Dice) + ce_weight * cross-entropy``, computed in 32-bit floating point.

    Soft Dice (Milletari et al. 2016, with the sums of probabilities in the denominator as in Isensee et al.
    2021) is the mean over the foreground classes; cross-entropy is the mean over all pixels and includes the
    background.

    Args:
        dice_weight: weight of the Dice term, at least 0.
        ce_weight: weight of the cross-entropy term, at least 0.
        batch_dice: one Dice over all pixels of the batch, which is robust to slices without the organ;
            otherwise one Dice per slice, averaged.
        smooth: added to the numerator and denominator of Dice, in pixels; above 0 so that empty slices stay
            finite.
        label_smoothing: fraction of each cross-entropy label spread evenly over all classes, 0 to below 1.

    Raises:
        InputError: an argument outside its range, or logits with fewer than two classes.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        batch_dice: bool = True,
        smooth: float = 1e-5,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if dice_weight < 0 or ce_weight < 0 or dice_weight + ce_weight == 0:
            raise InputError(
                f"dice_weight and ce_weight must be at least 0, and not both 0; got {dice_weight} and {ce_weight}"
            )
        if smooth <= 0:
            raise InputError(f"smooth must be above 0; got {smooth}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1; got {label_smoothing}")
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.batch_dice = batch_dice
        self.smooth = smooth
        self.label_smoothing = label_smoothing

    def forward(self, logits: Logits, label_map: LabelBatch) -> Float[Tensor, ""]:
        """The loss of a batch. ``label_map`` must contain values from 0 to classes - 1."""
        classes = logits.shape[1]
        if classes < 2:
            raise InputError(f"logits need at least two classes, background included; got {classes}")
        logits = logits.float()
        parts = self._binary(logits, label_map) if classes == 2 else self._multi_class(logits, label_map)
        cross_entropy, overlap, total = parts
        if self.batch_dice:
            overlap, total = overlap.sum(0), total.sum(0)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return self.dice_weight * (1 - dice.mean()) + self.ce_weight * cross_entropy

    def _binary(self, logits: Tensor, label_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A softmax over two classes is a sigmoid of their difference: half the memory traffic, and no one-hot
        # labels.
        difference = logits[:, 1:] - logits[:, :1]
        reference = label_map.float()
        probability = difference.sigmoid()
        smoothed = self._smooth_labels(reference, classes=2)
        cross_entropy = F.binary_cross_entropy_with_logits(difference, smoothed)
        overlap = (probability * reference).sum((2, 3))
        return cross_entropy, overlap, probability.sum((2, 3)) + reference.sum((2, 3))

    def _multi_class(self, logits: Tensor, label_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # F.cross_entropy is avoided: on images it has no deterministic CUDA kernel.
        classes = logits.shape[1]
        index = torch.arange(classes, device=logits.device).view(1, -1, 1, 1)
        reference = (label_map == index).float()
        log_probability = logits.log_softmax(1)
        smoothed = self._smooth_labels(reference, classes)
        cross_entropy = -(smoothed * log_probability).sum(1).mean()
        probability, reference = log_probability[:, 1:].exp(), reference[:, 1:]
        overlap = (probability * reference).sum((2, 3))
        return cross_entropy, overlap, probability.sum((2, 3)) + reference.sum((2, 3))

    def _smooth_labels(self, reference: Tensor, classes: int) -> Tensor:
        if self.label_smoothing == 0:
            return reference
        return reference * (1 - self.label_smoothing) + self.label_smoothing / classes
