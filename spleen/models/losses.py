"""The losses. Any other one with the signature (logits, label_map), such as MONAI's, needs only a YAML file.

The convention is MONAI's: ``loss(logits, label_map)`` with logits (b, classes, h, w), background as class 0,
and an integer label map (b, 1, h, w). A loss that also takes ``absorbed`` is told which pixels nobody has labelled.
"""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

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
        if absorbed is None or self.batch_dice:
            dice_loss = 1 - dice.mean()
        else:
            dice_loss = _mean_of_known(1 - dice, _known(absorbed).flatten(1).any(1, keepdim=True))
        return self.dice_weight * dice_loss + self.ce_weight * cross_entropy

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
        return _mean_of_known(of_pixels, _known(absorbed)), probability, reference

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
        cross_entropy = of_pixels.mean() if absorbed is None else _mean_of_known(of_pixels, _known(absorbed))
        return cross_entropy, log_probability[:, 1:].exp(), reference[:, 1:]

    def _smooth_labels(self, reference: Tensor, classes: int) -> Tensor:
        if self.label_smoothing == 0:
            return reference
        return reference * (1 - self.label_smoothing) + self.label_smoothing / classes


class DiceFocalLoss(nn.Module):
    """MONAI's DiceFocalLoss, whose means are those of what is known; of known pixels alone it is bit by bit MONAI's.

    The focal loss (Lin et al. 2017) has a sigmoid for each class, and the Dice the softmax. The arguments are those of
    ``monai.losses.DiceFocalLoss``.

    Raises:
        InputError: a reduction other than the mean.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        softmax: bool = False,
        batch: bool = False,
        gamma: float = 2.0,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        reduction: str = "mean",
        **others: Any,
    ) -> None:
        from monai import losses  # an extra, and slow to import

        super().__init__()
        if reduction != "mean":
            raise InputError(f"reduction must be mean, since a training minimises one number; got {reduction}")
        of_monai = losses.DiceFocalLoss(
            include_background=include_background, softmax=softmax, batch=batch, gamma=gamma, lambda_dice=lambda_dice,
            lambda_focal=lambda_focal, smooth_nr=smooth_nr, smooth_dr=smooth_dr, reduction="none", **others,
        )  # fmt: skip
        self.dice, self.focal = of_monai.dice, of_monai.focal
        self.lambda_dice, self.lambda_focal = lambda_dice, lambda_focal
        self.to_onehot_y, self.batch = to_onehot_y, batch

    def forward(self, logits: Logits, label_map: LabelBatch, absorbed: Absorbed | None = None) -> Float[Tensor, ""]:
        """The loss of a batch, with `absorbed` as in `DiceCrossEntropyLoss`."""
        from monai.networks import one_hot

        reference = one_hot(label_map, num_classes=logits.shape[1]) if self.to_onehot_y else label_map
        dice, focal = self.dice(logits, reference), self.focal(logits, reference)
        if absorbed is None:
            dice_loss, focal_loss = dice.mean(), focal.mean()
        else:
            known = _known(absorbed)
            focal_loss = _mean_of_known(focal, known)
            dice_loss = dice.mean() if self.batch else _mean_of_known(dice, known.any(3, True).any(2, True))
        loss: Tensor = self.lambda_dice * dice_loss + self.lambda_focal * focal_loss
        return loss


def _known(absorbed: Absorbed) -> Bool[Tensor, "b 1 h w"]:
    """The pixels whose background does not stand for all classes."""
    return ~absorbed[:, 1:].all(1, keepdim=True)


def _mean_of_known(values: Float[Tensor, "b ..."], known: Bool[Tensor, "b ..."]) -> Float[Tensor, ""]:
    """The mean over the known values; 0 if there are none. `known` is broadcast to the values."""
    return (values * known).sum() / known.expand_as(values).sum().clamp_min(1)


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
    of probabilities, as in Dice and Tversky, they then add nothing. A loss whose `forward` takes `absorbed` is told of
    them, and leaves ignored pixels out of its means, as `DiceCrossEntropyLoss` and `DiceFocalLoss` do. In any other
    loss that is a mean over all pixels, unknown pixels count as solved.
    """

    _absorbed: Tensor

    def __init__(self, loss: nn.Module, unlabelled: Mapping[int, Collection[int]] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self._is_told = "absorbed" in inspect.signature(loss.forward).parameters
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
        if self._is_told:
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
