"""Losses of slices in which some pixels are ignored."""

from math import log
from pathlib import Path

import monai.losses
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from spleen.errors import InputError
from spleen.imaging.labels import IGNORED
from spleen.models.losses import DiceCrossEntropyLoss, DiceFocalLoss, LossOfKnown

LOSSES = Path(__file__).parents[2] / "conf" / "loss"
SHIPPED = sorted(path.stem for path in LOSSES.glob("*.yaml"))


def shipped(name):
    return instantiate(OmegaConf.load(LOSSES / f"{name}.yaml"))


def batch(classes):
    """Logits (2, classes, 4, 6) whose last two columns are ignored, and the same without these columns."""
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(2, classes, 4, 6, generator=generator)
    labels = torch.randint(classes, (2, 1, 4, 6), generator=generator).to(torch.uint8)
    whole = labels.clone()
    whole[..., 4:] = IGNORED
    return logits, whole, logits[..., :4], labels[..., :4]


def test_dice_and_cross_entropy_of_a_slice_with_two_ignored_pixels_match_the_hand_computed_values():
    label_map = torch.tensor([[[[0, 1, IGNORED], [IGNORED, 0, 1]]]], dtype=torch.uint8)
    # Differences of ± ln 3 are foreground probabilities of 3/4 and 1/4; of the ignored pixels they would be 3/4.
    sign = torch.tensor([[-1.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    logits = torch.stack([-sign * log(3) / 2, sign * log(3) / 2]).unsqueeze(0)
    dice = 2 * (3 / 4 + 1 / 4) / ((1 / 4 + 3 / 4 + 3 / 4 + 1 / 4) + 2)
    cross_entropy = -(2 * log(3 / 4) + 2 * log(1 / 4)) / 4
    loss = LossOfKnown(DiceCrossEntropyLoss(dice_weight=2.0, ce_weight=0.5, smooth=1e-9))(logits, label_map)
    assert loss.item() == pytest.approx(2 * (1 - dice) + 0.5 * cross_entropy, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_loss_is_that_of_the_remaining_pixels(name, classes):
    logits, whole, known_logits, known = batch(classes)
    torch.testing.assert_close(LossOfKnown(shipped(name))(logits, whole), shipped(name)(known_logits, known))


@pytest.mark.parametrize("half", ["columns", "slice"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_loss_of_a_half_is_that_of_the_other_half_alone(name, half):
    generator = torch.Generator().manual_seed(8)
    logits = 3 * torch.randn(2, 3, 4, 6, generator=generator)
    labels = torch.randint(3, (2, 1, 4, 6), generator=generator).to(torch.uint8)
    known = (slice(None), slice(None), slice(None), slice(3)) if half == "columns" else slice(1)
    whole = torch.full_like(labels, IGNORED)
    whole[known] = labels[known]
    loss = shipped(name)
    torch.testing.assert_close(LossOfKnown(loss)(logits, whole), loss(logits[known], labels[known]))


def test_focal_loss_of_a_slice_with_two_ignored_pixels_matches_the_hand_computed_value():
    """Sigmoids of the foreground's logits ± ln 3 are 3/4 and 1/4; (1 - p)² · -ln p of the label's p."""
    label_map = torch.tensor([[[[0, 1, IGNORED], [IGNORED, 0, 1]]]], dtype=torch.uint8)
    sign = torch.tensor([[-1.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    logits = torch.stack([torch.zeros(2, 3), sign * log(3)]).unsqueeze(0)
    focal = -(2 * (1 / 4) ** 2 * log(3 / 4) + 2 * (3 / 4) ** 2 * log(1 / 4)) / 4
    loss = DiceFocalLoss(include_background=False, to_onehot_y=True, softmax=True, lambda_dice=0.0, lambda_focal=0.5)
    assert LossOfKnown(loss)(logits, label_map).item() == pytest.approx(0.5 * focal, abs=1e-6)


@pytest.mark.parametrize("loss", [DiceCrossEntropyLoss(batch_dice=False), *(
    DiceFocalLoss(include, to_onehot_y=True, softmax=True, batch=False) for include in (False, True)
)])  # fmt: skip
def test_slices_without_a_known_pixel_do_not_count_in_a_mean_over_slices(loss):
    *_, logits, labels = batch(3)
    whole = labels.clone()
    whole[1] = IGNORED
    torch.testing.assert_close(LossOfKnown(loss)(logits, whole), loss(logits[:1], labels[:1]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"include_background": False, "batch": True},
        {"gamma": 1.5, "lambda_focal": 0.3, "smooth_nr": 0.1},
        {"alpha": 0.4, "weight": [1.0, 2.0, 0.5], "squared_pred": True},
    ],
)
def test_without_ignored_pixels_dice_focal_is_bit_by_bit_that_of_monai(arguments):
    *_, logits, labels = batch(3)
    settings = {"to_onehot_y": True, "softmax": True, **arguments}
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = DiceFocalLoss(**settings)(ours, labels), monai.losses.DiceFocalLoss(**settings)(theirs, labels)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, theirs.grad)


def test_a_reduction_other_than_the_mean_is_an_error():
    with pytest.raises(InputError, match="reduction must be mean, since a training minimises one number; got sum"):
        DiceFocalLoss(reduction="sum")


def test_any_loss_that_takes_absorbed_is_told_of_ignored_pixels():
    class KnownPixels(torch.nn.Module):
        def forward(self, logits, label_map, absorbed=None):
            return (~absorbed[:, 1:].all(1)).sum().float()

    logits, whole, *_ = batch(3)
    assert LossOfKnown(KnownPixels())(logits, whole) == 2 * 4 * 4


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
def test_each_option_of_the_default_loss_leaves_ignored_pixels_out(classes, batch_dice, label_smoothing):
    logits, whole, known_logits, known = batch(classes)
    loss = DiceCrossEntropyLoss(batch_dice=batch_dice, label_smoothing=label_smoothing)
    torch.testing.assert_close(LossOfKnown(loss)(logits, whole), loss(known_logits, known))


@pytest.mark.parametrize("name", SHIPPED)
def test_ignored_pixels_have_no_gradient_and_no_influence(name):
    logits, whole, *_ = batch(3)
    logits.requires_grad_()
    loss = LossOfKnown(shipped(name))
    value = loss(logits, whole)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[..., 4:].any()
    assert logits.grad[..., :4].any()
    other = logits.detach().clone()
    other[..., 4:] = 7.0
    assert loss(other, whole) == value


@pytest.mark.parametrize("name", SHIPPED)
def test_a_batch_without_ignored_pixels_has_the_loss_that_it_always_had(name):
    *_, logits, labels = batch(3)
    torch.testing.assert_close(LossOfKnown(shipped(name))(logits, labels), shipped(name)(logits, labels))


def test_a_batch_of_ignored_pixels_only_teaches_nothing():
    logits = torch.randn(2, 2, 4, 6, requires_grad=True)
    LossOfKnown(DiceCrossEntropyLoss())(logits, torch.full((2, 1, 4, 6), IGNORED, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad.any()
