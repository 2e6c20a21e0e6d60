from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple, pad_to_multiple
from spleen.models.unet import NORMS, UNet
from tests._helpers.smp import models

CONF = Path(__file__).parents[2] / "conf"
MODEL_FILES = [file for file in sorted((CONF / "model").glob("*.yaml")) if not file.stem.endswith("3d")]


def test_the_parameter_count_of_the_smallest_unet_matches_the_hand_computed_one():
    # 3 × 3 convolutions without bias; batch norm has 2 parameters per channel.
    encoder_0 = (9 * 1 * 2 + 4) + (9 * 2 * 2 + 4)
    encoder_1 = (9 * 2 * 4 + 8) + (9 * 4 * 4 + 8)
    up = 4 * 4 * 2 + 2
    decoder = (9 * 4 * 2 + 4) + (9 * 2 * 2 + 4)
    head = 2 * 3 + 3
    network = UNet(in_channels=1, out_channels=3, width=2, depth=1)
    assert sum(p.numel() for p in network.parameters()) == encoder_0 + encoder_1 + up + decoder + head


def test_channels_double_at_each_level_up_to_the_maximum():
    network = UNet(1, 2, width=3, depth=4, max_channels=20)
    assert network.size_multiple == 16
    assert [level[0].out_channels for level in network.encoder] == [3, 6, 12, 20, 20]


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_every_parameter_has_a_gradient_even_if_the_deepest_feature_map_is_one_pixel_wide(norm):
    torch.manual_seed(0)
    network = UNet(3, 2, width=6, depth=3, norm=norm, dropout=0.1).to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 8, 16).to(memory_format=torch.channels_last)
    logits = network(image)
    assert logits.shape == (2, 2, 8, 16)
    assert logits.is_contiguous(memory_format=torch.channels_last)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.encoder[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_where_an_untrained_network_knows_nothing_foreground_is_rare(n_classes):
    network = UNet(1, n_classes, width=4, depth=2, foreground_prior=0.02)
    nn.init.zeros_(network.head.weight)
    probability = network(torch.randn(2, 1, 16, 16)).softmax(1)
    assert probability[:, 1:].sum(1).allclose(torch.tensor(0.02))
    assert probability[:, 1:].allclose(torch.tensor(0.02 / (n_classes - 1)))


def test_an_unshuffled_first_level_sees_each_pixel_and_returns_it_to_its_place():
    torch.manual_seed(0)
    network = UNet(2, 3, width=4, depth=1, norm="instance", unshuffle=2).eval()
    # By hand: 2 · 4 channels into the first level, and 3 · 4 out of the head.
    assert network.encoder[0][0].weight.shape == (4, 8, 3, 3)
    assert network.head.weight.shape == (12, 4, 1, 1)
    assert network.size_multiple == 4
    image = torch.randn(1, 2, 12, 16)
    assert network(image).shape == (1, 3, 12, 16)
    # Swapping the rows of all 2 × 2 blocks in input weights, image and head leaves the answer with swapped rows.
    swapped = image.view(1, 2, 6, 2, 16).flip(3).reshape(1, 2, 12, 16)
    expected = network(image).view(1, 3, 6, 2, 16).flip(3).reshape(1, 3, 12, 16)
    with torch.no_grad():
        first = network.encoder[0][0].weight
        first.copy_(first.view(4, 2, 2, 2, 3, 3).flip(2).reshape(4, 8, 3, 3))
        for values in (network.head.weight, network.head.bias):
            values.copy_(values.view(3, 2, 2, *values.shape[1:]).flip(1).reshape(values.shape))
    torch.testing.assert_close(network(swapped), expected)


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_the_prior_holds_at_every_pixel_of_a_block(unshuffle):
    network = UNet(1, 3, width=2, depth=1, foreground_prior=0.1, unshuffle=unshuffle)
    torch.nn.init.zeros_(network.head.weight)
    probabilities = network(torch.randn(2, 1, 8, 8)).softmax(1)
    torch.testing.assert_close(probabilities[:, 1:].sum(1), torch.full((2, 8, 8), 0.1))


def test_instance_norm_matches_pytorch():
    features = torch.randn(2, 6, 5, 7)
    expected = nn.InstanceNorm2d(6)(features)
    torch.testing.assert_close(NORMS["instance"](6)(features), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width .* at least 1; got 0"),
        ({"depth": 0}, "depth .* at least 1; got 0"),
        ({"norm": "layer"}, "batch, instance, group; got 'layer'"),
        ({"dropout": 1.0}, "dropout .* below 1; got 1.0"),
        ({"foreground_prior": 0.0}, "foreground_prior must be above 0 and below 1, or null; got 0.0"),
        ({"foreground_prior": 1.0}, "foreground_prior must be above 0 and below 1, or null; got 1.0"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        UNet(1, 2, **arguments)


def test_an_unsupported_input_size_is_rejected_with_a_suggested_fix():
    with pytest.raises(InputError, match=r"multiples of 4 pixels; got 5 × 8. .*PadToMultiple\(network, 4\)"):
        UNet(1, 2, width=2, depth=2)(torch.zeros(1, 1, 5, 8))


def test_padding_repeats_the_edge_at_the_bottom_and_on_the_right():
    image = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    expected = torch.tensor([[[[1.0, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]]])
    assert torch.equal(pad_to_multiple(image, 4), expected)


def test_padding_keeps_channels_last_and_does_not_copy_images_that_fit():
    image = torch.randn(2, 3, 5, 8).to(memory_format=torch.channels_last)
    assert pad_to_multiple(image, 4).is_contiguous(memory_format=torch.channels_last)
    fitting = image[:, :, :4]
    assert pad_to_multiple(fitting, 4) is fitting


def test_padding_and_cropping_keep_every_pixel_in_place():
    image = torch.arange(2 * 5 * 7.0).view(1, 2, 5, 7)
    assert torch.equal(PadToMultiple(nn.Identity(), 4)(image), image)


class _TwoOutputs(nn.Module):
    def forward(self, image):
        return image, image


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_TwoOutputs(), "_TwoOutputs returned a tuple"),
        (nn.MaxPool2d(2), r"height and width of its input \(1, 1, 4, 8\); MaxPool2d returned \(1, 1, 2, 4\)"),
    ],
)
def test_a_network_that_does_not_return_logits_of_the_input_size_is_rejected(network, message):
    with pytest.raises(InputError, match=message):
        PadToMultiple(network, 4)(torch.zeros(1, 1, 3, 7))


@pytest.mark.parametrize("file", models(MODEL_FILES), ids=lambda file: file.stem)
def test_every_shipped_network_accepts_odd_sizes_and_context_slices_and_has_gradients(file):
    torch.manual_seed(0)
    config = OmegaConf.load(file)
    assert config.name == file.stem
    channels = {config.in_channels_argument: 3, config.out_channels_argument: 4}
    network = PadToMultiple(instantiate(config.network, **channels), config.size_multiple)
    logits = network(torch.randn(2, 3, 37, 50))
    assert logits.shape == (2, 4, 37, 50)
    logits.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert next(network.parameters()).grad is not None
