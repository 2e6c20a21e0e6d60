"""The default loss. Any other loss with the signature (logits, label_map), such as MONAI's, needs only a YAML file.

The convention is MONAI's: ``loss(logits, label_map)`` with logits (b, classes, h, w), background as class 0,
and an integer label map (b, 1, h, w).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.labels import IGNORED
from spleen.types import LabelBatch, Logits

KnownPixels = Bool[Tensor, "b 1 h w"]

_CERTAIN = 200.0
"""A difference of logits beyond which a probability is exactly 0 in 32 bits."""


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

    def forward(self, logits: Logits, label_map: LabelBatch, known: KnownPixels | None = None) -> Float[Tensor, ""]:
        """The loss of a batch, or of its `known` pixels. ``label_map`` must contain values from 0 to classes - 1."""
        classes = logits.shape[1]
        if classes < 2:
            raise InputError(f"logits need at least two classes, background included; got {classes}")
        logits = logits.float()
        terms = self._binary if classes == 2 else self._multi_class
        cross_entropy, probability, reference = terms(logits, label_map, known)
        if known is not None:
            probability, reference = probability * known, reference * known
        overlap = (probability * reference).sum((2, 3))
        total = probability.sum((2, 3)) + reference.sum((2, 3))
        if self.batch_dice:
            overlap, total = overlap.sum(0), total.sum(0)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return self.dice_weight * (1 - dice.mean()) + self.ce_weight * cross_entropy

    # Both return the mean cross-entropy, and probabilities and one-hot labels of the foreground classes.

    def _binary(self, logits: Tensor, label_map: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # A softmax over two classes is a sigmoid of their difference: half the memory traffic, and no one-hot
        # labels.
        difference = logits[:, 1:] - logits[:, :1]
        reference = label_map.float()
        probability = difference.sigmoid()
        smoothed = self._smooth_labels(reference, classes=2)
        if known is None:
            return F.binary_cross_entropy_with_logits(difference, smoothed), probability, reference
        of_pixels = F.binary_cross_entropy_with_logits(difference, smoothed, reduction="none")
        return _mean_of_known(of_pixels, known), probability, reference

    def _multi_class(self, logits: Tensor, label_map: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # F.cross_entropy is avoided: on images it has no deterministic CUDA kernel.
        classes = logits.shape[1]
        index = torch.arange(classes, device=logits.device).view(1, -1, 1, 1)
        reference = (label_map == index).float()
        log_probability = logits.log_softmax(1)
        smoothed = self._smooth_labels(reference, classes)
        of_pixels = -(smoothed * log_probability).sum(1, keepdim=True)
        cross_entropy = of_pixels.mean() if known is None else _mean_of_known(of_pixels, known)
        return cross_entropy, log_probability[:, 1:].exp(), reference[:, 1:]

    def _smooth_labels(self, reference: Tensor, classes: int) -> Tensor:
        if self.label_smoothing == 0:
            return reference
        return reference * (1 - self.label_smoothing) + self.label_smoothing / classes


def _mean_of_known(values: Float[Tensor, "b 1 h w"], known: KnownPixels) -> Float[Tensor, ""]:
    """The mean over the known pixels; 0 if there are none."""
    return (values * known).sum() / known.sum().clamp_min(1)


class LossOfKnown(nn.Module):
    """Any loss, without the pixels whose label is `IGNORED`.

    `DiceCrossEntropyLoss` leaves them out. To any other loss they are background predicted with certainty: they add
    nothing to sums of probabilities, as in Dice and Tversky, and no gradient, but count in a mean over all pixels, as
    in the focal term.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Logits, label_map: LabelBatch) -> Float[Tensor, ""]:
        """The loss of a batch."""
        known = label_map != IGNORED
        label_map = label_map.masked_fill(~known, 0)
        if isinstance(self.loss, DiceCrossEntropyLoss):
            return self.loss(logits, label_map, known)  # type: ignore[no-any-return]
        certain = torch.full_like(logits[:1, :, :1, :1], -_CERTAIN)
        certain[:, 0] = _CERTAIN
        return self.loss(torch.where(known, logits, certain), label_map)  # type: ignore[no-any-return]
