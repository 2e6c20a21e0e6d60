"""Losses of slices whose background may be an unlabelled class, against values worked by hand."""

from math import log
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from spleen.imaging.labels import IGNORED
from spleen.models.losses import DiceCrossEntropyLoss, LossOfKnown

LOSSES = Path(__file__).parents[2] / "conf" / "loss"
UNLABELLED_2 = {254: {2}}
"""Background, or class 2 of three."""


def pixels(*probabilities: tuple[float, float, float]) -> torch.Tensor:
    """Logits (1, 3, 1, n) with these probabilities."""
    return torch.tensor(probabilities).log().T[None, :, None]


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(1, 1, 1, -1)


def test_cross_entropy_of_a_set_is_that_of_the_sum_of_its_probabilities() -> None:
    logits = pixels((0.5, 0.2, 0.3), (0.1, 0.7, 0.2), (0.25, 0.25, 0.5))
    loss = LossOfKnown(DiceCrossEntropyLoss(dice_weight=0.0), UNLABELLED_2)(logits, labels(254, 1, IGNORED))
    # Of the first pixel background and class 2 are possible; the third is of no class, and does not count.
    assert loss.item() == pytest.approx(-(log(0.5 + 0.3) + log(0.7)) / 2, abs=1e-6)


def test_dice_of_a_class_counts_the_pixels_in_which_it_is_known() -> None:
    logits = pixels((0.5, 0.2, 0.3), (0.1, 0.7, 0.2), (0.2, 0.2, 0.6))
    loss = LossOfKnown(DiceCrossEntropyLoss(ce_weight=0.0, smooth=1e-9), UNLABELLED_2)(logits, labels(254, 1, 2))
    # Class 1 is known in all three pixels, class 2 in the last two.
    dice = [2 * 0.7 / (0.2 + 0.7 + 0.2 + 1), 2 * 0.6 / (0.2 + 0.6 + 1)]
    assert loss.item() == pytest.approx(1 - sum(dice) / 2, abs=1e-6)


def test_label_smoothing_of_a_set_is_the_sum_of_its_classes_shares() -> None:
    logits = pixels((0.5, 0.2, 0.3))
    loss = LossOfKnown(DiceCrossEntropyLoss(dice_weight=0.0, label_smoothing=0.3), UNLABELLED_2)(logits, labels(254))
    assert loss.item() == pytest.approx(-(0.9 * log(0.8) + 0.1 * log(0.2)), abs=1e-6)


def test_the_gradient_does_not_choose_between_background_and_unlabelled_class() -> None:
    logits = pixels((0.5, 0.2, 0.3)).requires_grad_()
    LossOfKnown(DiceCrossEntropyLoss(dice_weight=0.0), UNLABELLED_2)(logits, labels(254)).backward()
    # d(-ln(p0 + p2)) / dz_k = p_k - p_k / (p0 + p2) for k in the set, and p_1 outside it.
    expected = [0.5 - 0.5 / 0.8, 0.2, 0.3 - 0.3 / 0.8]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor(expected))


def test_torchs_own_cross_entropy_gets_the_same_set() -> None:
    class OfTorch(torch.nn.Module):
        def forward(self, logits: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(logits, label_map[:, 0].long())

    logits = pixels((0.5, 0.2, 0.3), (0.1, 0.7, 0.2))
    loss = LossOfKnown(OfTorch(), UNLABELLED_2)(logits, labels(254, 1))
    assert loss.item() == pytest.approx(-(log(0.8) + log(0.7)) / 2, abs=1e-6)


@pytest.mark.parametrize("name", sorted(path.stem for path in LOSSES.glob("*.yaml")))
def test_each_loss_leaves_an_unlabelled_class_alone(name: str) -> None:
    """Moving probability between background and class 2 in an unlabelled background changes no shipped loss.

    MONAI's focal term has a sigmoid for each class, and none for the background here, so that class 1 stays as it is.
    """
    loss = LossOfKnown(instantiate(OmegaConf.load(LOSSES / f"{name}.yaml")), UNLABELLED_2)
    known = (0.1, 0.7, 0.2), (0.2, 0.2, 0.6)
    values = [loss(pixels(unlabelled, *known), labels(254, 1, 2)) for unlabelled in ((0.5, 0.2, 0.3), (0.1, 0.2, 0.7))]
    torch.testing.assert_close(values[0], values[1])
    as_background = loss(pixels((0.1, 0.2, 0.7), *known), labels(0, 1, 2))
    assert as_background > values[1] + 0.01
