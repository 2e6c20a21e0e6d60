"""Slices too small for a network are rejected before training, instead of PyTorch failing during training."""

import pytest
import torch
from torch import nn

from spleen.errors import InputError
from spleen.models.trial import check_input_size
from spleen.models.unet import UNet


class Halving(nn.Module):
    """Halves the slice `depth` times, with a normalisation layer each time."""

    def __init__(self, norm: type[nn.Module], depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(2, 2, 3, stride=2, padding=1), norm(2)) for _ in range(depth))
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("size", [(16, 16), (16, 8), (32, 16)])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_sizes_are_rejected_exactly_where_pytorch_fails(
    norm: type[nn.Module], depth: int, size: tuple[int, int], batch_size: int
) -> None:
    network = Halving(norm, depth)
    try:
        for training, count in ((True, batch_size), (False, 1)):
            network.train(training)(torch.zeros(count, 2, *size))
        fails = False
    except ValueError:
        fails = True
    if fails:
        with pytest.raises(InputError, match=rf"slices of {size[0]} × {size[1]} pixels"):
            check_input_size(network, 2, size, batch_size)
    else:
        check_input_size(network, 2, size, batch_size)


def test_the_check_changes_neither_the_network_nor_the_random_state() -> None:
    network = UNet(1, 2, width=4, depth=2, dropout=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_input_size(network, 1, (16, 16), 2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert next(network.parameters()).device.type == "cpu"


def test_a_network_with_value_dependent_control_flow_is_accepted_unchecked() -> None:
    class ValueDependent(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if float(image.max()) > 0 else -image

    check_input_size(ValueDependent(), 1, (16, 16), 1)
