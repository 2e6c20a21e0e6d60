"""The default loss. Any other loss with the signature (logits, label_map), such as MONAI's, needs only a YAML file.

The convention is MONAI's: ``loss(logits, label_map)`` with logits (b, classes, h, w), background as class 0,
and an integer label map (b, 1, h, w).
"""

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.classes import Regions
from spleen.imaging.labels import IGNORED
from spleen.types import LabelBatch, Logits

Absorbed = Bool[Tensor, "b classes h w"]
"""In which pixels the background, class 0, stands for which other classes too."""

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

    def forward(self, logits: Logits, label_map: LabelBatch, absorbed: Absorbed | None = None) -> Float[Tensor, ""]:
        """The loss of a batch. ``label_map`` must contain values from 0 to classes - 1.

        Where the background stands for other classes too, ``absorbed`` marks these, the logits are those of
        ``absorb``, and pixels in which it stands for all classes take no part.
        """
        classes = logits.shape[1]
        if classes < 2:
            raise InputError(f"logits need at least two classes, background included; got {classes}")
        logits = logits.float()
        terms = self._binary if classes == 2 else self._multi_class
        # An absorbed class has probability 0 and no reference, so it adds nothing to the sums of Dice.
        cross_entropy, probability, reference = terms(logits, label_map, absorbed)
        overlap = (probability * reference).sum((2, 3))
        total = probability.sum((2, 3)) + reference.sum((2, 3))
        if self.batch_dice:
            overlap, total = overlap.sum(0), total.sum(0)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return self.dice_weight * (1 - dice.mean()) + self.ce_weight * cross_entropy

    # Both return the mean cross-entropy, and probabilities and one-hot labels of the foreground classes.

    def _binary(self, logits: Tensor, label_map: Tensor, absorbed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # A softmax over two classes is a sigmoid of their difference: half the memory traffic, and no one-hot
        # labels.
        difference = logits[:, 1:] - logits[:, :1]
        reference = label_map.float()
        probability = difference.sigmoid()
        smoothed = self._smooth_labels(reference, classes=2)
        if absorbed is None:
            return F.binary_cross_entropy_with_logits(difference, smoothed), probability, reference
        of_pixels = F.binary_cross_entropy_with_logits(difference, smoothed, reduction="none")
        return _mean_of_known(of_pixels, absorbed), probability, reference

    def _multi_class(self, logits: Tensor, label_map: Tensor, absorbed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # F.cross_entropy is avoided: on images it has no deterministic CUDA kernel.
        classes = logits.shape[1]
        index = torch.arange(classes, device=logits.device).view(1, -1, 1, 1)
        reference = (label_map == index).float()
        log_probability = logits.log_softmax(1)
        smoothed = self._smooth_labels(reference, classes)
        if absorbed is not None and self.label_smoothing:  # the background takes the shares of what it stands for
            share = self.label_smoothing / classes
            smoothed = smoothed.masked_fill(absorbed, 0)
            smoothed[:, :1] += share * absorbed.sum(1, keepdim=True)
        of_pixels = -(smoothed * log_probability).sum(1, keepdim=True)
        cross_entropy = of_pixels.mean() if absorbed is None else _mean_of_known(of_pixels, absorbed)
        return cross_entropy, log_probability[:, 1:].exp(), reference[:, 1:]

    def _smooth_labels(self, reference: Tensor, classes: int) -> Tensor:
        if self.label_smoothing == 0:
            return reference
        return reference * (1 - self.label_smoothing) + self.label_smoothing / classes


def _mean_of_known(values: Float[Tensor, "b 1 h w"], absorbed: Absorbed) -> Float[Tensor, ""]:
    """The mean over the pixels whose background does not stand for all classes; 0 if there are none."""
    known = ~absorbed[:, 1:].all(1, keepdim=True)
    return (values * known).sum() / known.sum().clamp_min(1)


def absorb(logits: Logits, absorbed: Absorbed) -> Logits:
    """Logits in which the background also stands for the absorbed classes of each pixel.

    Under a softmax its probability is the sum of theirs, and theirs is 0: cross-entropy with label 0 is then the
    marginal loss of Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation", Medical Image Analysis 70:101979. If it stands for all classes, it is certain, without a gradient.
    """
    logits = logits.float()
    foreground = absorbed[:, 1:]
    pooled = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(~foreground, -torch.inf)], 1)
    background = pooled.logsumexp(1, keepdim=True).masked_fill(foreground.all(1, keepdim=True), _CERTAIN)
    return torch.cat([background, logits[:, 1:].masked_fill(foreground, -_CERTAIN)], 1)


class LossOfKnown(nn.Module):
    """Any loss, of what is known of each pixel.

    `unlabelled` are the classes that the background may also be, by the code of such a background in the label map; in
    pixels whose label is `IGNORED` it may be any. These classes are absorbed by the background (see `absorb`). To sums
    of probabilities, as in Dice and Tversky, they then add nothing; `DiceCrossEntropyLoss` leaves ignored pixels out.
    In any other loss that is a mean over all pixels, as the focal term, unknown pixels count as solved.
    """

    _absorbed: Tensor

    def __init__(self, loss: nn.Module, unlabelled: Mapping[int, Collection[int]] | None = None) -> None:
        super().__init__()
        self.loss = loss
        table = torch.zeros(IGNORED + 1, IGNORED + 1, dtype=torch.bool)
        table[IGNORED, 1:] = True
        for code, classes in (unlabelled or {}).items():
            table[code, list(classes)] = True
        self._lowest_code = min(unlabelled or {IGNORED: ()})
        self.register_buffer("_absorbed", table, persistent=False)

    def forward(self, logits: Logits, label_map: LabelBatch) -> Float[Tensor, ""]:
        """The loss of a batch."""
        absorbed = self._absorbed[:, : logits.shape[1]][label_map[:, 0].long()].movedim(-1, 1)
        logits, label_map = absorb(logits, absorbed), label_map.masked_fill(label_map >= self._lowest_code, 0)
        if isinstance(self.loss, DiceCrossEntropyLoss):
            return self.loss(logits, label_map, absorbed)  # type: ignore[no-any-return]
        return self.loss(logits, label_map)  # type: ignore[no-any-return]


class LossOfRegions(nn.Module):
    """The mean over overlapping classes of any loss, each of the class against the background alone.

    Under a softmax of two that is the sigmoid of their difference: with cross-entropy it is the binary cross-entropy of
    each region, with Dice the Dice of each. The label map has the indices of `Regions`, and may have `IGNORED`.
    """

    _in_class: Tensor

    def __init__(self, loss: nn.Module, regions: Regions) -> None:
        super().__init__()
        self.loss = loss
        n_classes = len(frozenset().union(*regions.of_index))
        table = torch.zeros(n_classes, IGNORED + 1, dtype=torch.uint8)
        for number in range(1, 1 + n_classes):
            table[number - 1, list(regions.indices(number))] = 1
        table[:, IGNORED] = IGNORED
        self.register_buffer("_in_class", table, persistent=False)

    def forward(self, logits: Logits, label_map: LabelBatch) -> Float[Tensor, ""]:
        """The loss of a batch."""
        label_map = label_map.long()
        losses = [
            self.loss(torch.cat([logits[:, :1], logits[:, number : number + 1]], 1), in_class[label_map])
            for number, in_class in enumerate(self._in_class, start=1)
        ]
        return torch.stack(losses).mean()
