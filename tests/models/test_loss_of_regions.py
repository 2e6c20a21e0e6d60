"""The loss of overlapping classes, against PyTorch's binary cross-entropy and values worked by hand."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from spleen.imaging.classes import parse_label_values
from spleen.imaging.labels import IGNORED
from spleen.models.losses import DiceCrossEntropyLoss, LossOfKnown, LossOfRegions

LOSSES = Path(__file__).parents[2] / "conf" / "loss"
REGIONS = parse_label_values({"whole": [1, 2], "core": [2]}, "organ", [1, 2]).regions
assert REGIONS is not None
LABELS = torch.tensor([0, 1, 2], dtype=torch.uint8).view(1, 1, 1, 3)
INSIDE = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
"""Of the whole and of the core, in the three pixels."""


def logits(requires_grad: bool = False) -> torch.Tensor:
    return (
        torch.tensor([[0.0, 0.3, -0.2], [1.0, -0.4, 2.0], [-1.0, 0.6, 0.5]])
        .view(1, 3, 1, 3)
        .requires_grad_(requires_grad)
    )


def test_cross_entropy_is_the_mean_binary_one_of_the_regions() -> None:
    z = logits()
    loss = LossOfRegions(DiceCrossEntropyLoss(dice_weight=0.0), REGIONS)(z, LABELS)
    difference = (z[:, 1:] - z[:, :1]).view(2, 3)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(difference, INSIDE))


def test_dice_is_the_mean_of_the_regions() -> None:
    z = logits()
    loss = LossOfRegions(DiceCrossEntropyLoss(ce_weight=0.0, smooth=1e-9), REGIONS)(z, LABELS)
    p = (z[:, 1:] - z[:, :1]).view(2, 3).sigmoid()
    dice = 2 * (p * INSIDE).sum(1) / (p.sum(1) + INSIDE.sum(1))
    assert loss.item() == pytest.approx(1 - dice.mean().item(), abs=1e-6)


@pytest.mark.parametrize("name", sorted(path.stem for path in LOSSES.glob("*.yaml")))
def test_each_shipped_loss_has_a_form_for_regions_that_leaves_ignored_pixels_out(name: str) -> None:
    loss = LossOfRegions(LossOfKnown(instantiate(OmegaConf.load(LOSSES / f"{name}.yaml"))), REGIONS)
    label = LABELS.clone()
    label[..., 2] = IGNORED
    z = logits(requires_grad=True)
    loss(z, label).backward()
    assert z.grad is not None
    assert not z.grad[..., 2].any()
    assert z.grad[..., :2].any()


def test_the_losses_lowest_value_is_at_the_right_regions() -> None:
    certain = torch.zeros(1, 3, 1, 3)
    certain[:, 1:] = 60 * INSIDE.view(1, 2, 1, 3) - 30
    assert LossOfRegions(DiceCrossEntropyLoss(), REGIONS)(certain, LABELS).item() == pytest.approx(0.0, abs=1e-5)
