from math import log
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from monai.losses import DiceCELoss
from omegaconf import OmegaConf

from spleen.errors import InputError
from spleen.models.losses import DiceCrossEntropyLoss

LOSS_FILES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))


def _batch(classes):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, classes, 5, 7, generator=generator)
    label_map = torch.randint(classes, (4, 1, 5, 7), generator=generator)
    label_map[2] = 0
    return logits, label_map


def test_the_loss_of_a_2_x_3_slice_matches_the_hand_computed_value():
    label_map = torch.tensor([[[[0, 1, 1], [0, 0, 1]]]], dtype=torch.uint8)
    # A difference of ± ln 3 is a foreground probability of 3/4 or 1/4.
    sign = torch.tensor([[-1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    logits = torch.stack([5 - sign * log(3) / 2, 5 + sign * log(3) / 2]).unsqueeze(0)
    dice = 2 * (0.75 + 0.75 + 0.25) / (3.0 + 3)
    cross_entropy = -(4 * log(0.75) + 2 * log(0.25)) / 6
    loss = DiceCrossEntropyLoss(dice_weight=2.0, ce_weight=0.5, smooth=1e-9)(logits, label_map)
    assert loss.item() == pytest.approx(2 * (1 - dice) + 0.5 * cross_entropy, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_value_and_gradient_match_monai(classes, batch_dice, label_smoothing):
    logits, label_map = _batch(classes)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = DiceCrossEntropyLoss(1.5, 0.7, batch_dice, smooth=0.1, label_smoothing=label_smoothing)
    expected = DiceCELoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=batch_dice,
        smooth_nr=0.1,
        smooth_dr=0.1,
        lambda_dice=1.5,
        lambda_ce=0.7,
        label_smoothing=label_smoothing,
    )(theirs, label_map)
    value = loss(ours, label_map)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_loss_and_gradient_are_finite_for_empty_masks_and_extreme_logits(classes, batch_dice):
    logits = torch.zeros(2, classes, 3, 5)
    logits[:, 0] = 200.0
    logits.requires_grad_()
    loss = DiceCrossEntropyLoss(batch_dice=batch_dice)(logits, torch.zeros(2, 1, 3, 5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.isfinite().all()


def test_an_empty_slice_affects_batch_dice_only_through_its_false_positives():
    label_map = torch.tensor([[[[0, 1, 1]]], [[[0, 0, 0]]]])
    logits = torch.full((2, 2, 1, 3), 30.0)
    logits[:, 1] = -30.0
    logits[0, 1, 0, 1:] = 90.0
    loss = DiceCrossEntropyLoss(ce_weight=0.0)
    assert loss(logits, label_map).item() == pytest.approx(0.0, abs=1e-5)
    logits[1, 1, 0, 0] = 90.0
    # Two true positives, one false positive: Dice 2 · 2 / (3 + 2).
    assert loss(logits, label_map).item() == pytest.approx(1 - 4 / 5, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_is_computed_in_float32_under_autocast(classes):
    logits, label_map = _batch(classes)
    halved = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DiceCrossEntropyLoss()(halved, label_map)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, DiceCrossEntropyLoss()(halved.float(), label_map), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dice_weight": -1.0}, "dice_weight .* got -1.0"),
        ({"dice_weight": 0.0, "ce_weight": 0.0}, "and not both 0"),
        ({"smooth": 0.0}, "smooth must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing .* got 1.0"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        DiceCrossEntropyLoss(**arguments)


def test_a_single_class_is_rejected():
    with pytest.raises(InputError, match="at least two classes, background included; got 1"):
        DiceCrossEntropyLoss()(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3, dtype=torch.int64))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("file", LOSS_FILES, ids=lambda file: file.stem)
def test_every_shipped_loss_decreases_from_wrong_to_correct_logits_and_has_a_gradient(file, classes):
    loss = instantiate(OmegaConf.load(file))
    _, label_map = _batch(classes)
    correct = 20 * torch.nn.functional.one_hot(label_map[:, 0], classes).movedim(-1, 1).float() - 10
    undecided = torch.zeros_like(correct).requires_grad_()
    loss(undecided, label_map).backward()
    assert undecided.grad.abs().sum() > 0
    assert loss(correct, label_map) < 0.1 * loss(undecided, label_map)
    assert loss(undecided, label_map) < loss(-correct, label_map)
