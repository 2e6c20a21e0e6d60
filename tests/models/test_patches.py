"""3D networks: sliding windows over a volume, padded patches, and the 3D U-Net."""

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from spleen.errors import InputError
from spleen.models.patches import PatchWindows
from spleen.models.unet3d import UNet3D

ISOTROPIC = {"kernel_size": [[3, 3, 3]] * 3, "strides": [1, 2, 2], "filters": [2, 3, 4]}


class _Recorder(nn.Module):
    """Records the sizes of its input, which is also its output."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(patch.shape))
        return patch


def _convolutions() -> nn.Sequential:
    """A small network that sees 2 voxels in each direction and pads with zeros, so that window borders matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 5, 3, padding=1), nn.Tanh(), nn.Conv3d(5, 3, 3, padding=1)).eval()


def _slices(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(11, 20, 9), (8, 17, 12), (5, 12, 30)])
def test_averaged_windows_of_a_volume_match_monai(size: tuple[int, int, int]) -> None:
    network, patch = _convolutions(), (5, 12, 9)
    slices = _slices(size[0], 2, *size[1:])
    volume = slices.movedim(1, 0)[None]
    with torch.no_grad():
        expected = sliding_window_inference(volume, patch, 1, network, 0.5, mode="gaussian", sigma_scale=0.125)
        found = PatchWindows(network, patch)(slices)
        assert (expected - network(volume)).abs().max() > 1e-3  # window borders do have an effect
    torch.testing.assert_close(found, expected[0].movedim(1, 0), rtol=1e-5, atol=1e-5)


def test_a_network_only_sees_whole_patches_and_the_padding_is_cropped() -> None:
    network = _Recorder()
    windows = PatchWindows(network, (4, 8, 6))
    patch = _slices(2, 1, 3, 8, 5)
    assert torch.equal(windows(patch), patch)
    slices = _slices(3, 1, 20, 5)  # shorter than a patch along two axes, longer along the third
    torch.testing.assert_close(windows(slices), slices)
    assert set(network.sizes) == {(2, 1, 4, 8, 6), (1, 1, 4, 8, 6)}


def test_missing_voxels_repeat_the_last_ones() -> None:
    class Last(nn.Module):
        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            return patch.flip(-3)

    slices = torch.arange(3.0).view(3, 1, 1, 1)
    # Padded to 0 1 2 2, mirrored to 2 2 1 0, and cropped.
    assert PatchWindows(Last(), (4, 1, 1))(slices).flatten().tolist() == [2.0, 2.0, 1.0]


def test_a_larger_patch_than_that_of_the_training_is_refused() -> None:
    with pytest.raises(InputError, match=r"patch of \(5, 8, 6\) is larger than .* \(4, 8, 6\)"):
        PatchWindows(_Recorder(), (4, 8, 6))(torch.zeros(1, 1, 5, 8, 6))


def test_a_network_that_changes_the_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"MaxPool3d returned \(1, 1, 2, 4, 3\)"):
        PatchWindows(nn.MaxPool3d(2), (4, 8, 6))(torch.zeros(1, 1, 4, 8, 6))


def test_the_unet_keeps_the_size_of_a_patch_and_starts_at_the_prior() -> None:
    torch.manual_seed(0)
    network = UNet3D(2, 3, **ISOTROPIC, foreground_prior=0.02).eval()
    logits = network(torch.zeros(1, 2, 8, 12, 4))
    assert logits.shape == (1, 3, 8, 12, 4)
    # Of a constant patch, instance normalisation leaves nothing but the head's bias: the prior.
    torch.testing.assert_close(logits.softmax(1)[:, 1:].sum(1), torch.full((1, 8, 12, 4), 0.02))


def test_kernels_of_one_keep_slices_apart() -> None:
    torch.manual_seed(0)
    network = UNet3D(1, 2, kernel_size=[[1, 3, 3]] * 2, strides=[1, [1, 2, 2]], filters=[2, 4])
    for layer in network.modules():  # which would mix the slices through its mean
        if isinstance(layer, nn.InstanceNorm3d):
            layer.forward = lambda features: features  # type: ignore[method-assign]
    patch = _slices(1, 1, 3, 8, 8)
    changed = patch.clone()
    changed[:, :, 1] += 1
    difference = (network(patch) - network(changed)).abs().amax((0, 1, 3, 4))
    assert difference[0] == difference[2] == 0
    assert difference[1] > 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"filters": [2, 3]}, "need one entry for each level; got 3, 3 and 2"),
        ({"kernel_size": [[3, 3, 3], [3, 2, 3], [3, 3, 3]]}, r"must be odd.*; got \[3, 2, 3\]"),
        ({"kernel_size": [[3, 3, 3], [3, 3], [3, 3, 3]]}, r"three whole numbers .*; got \[3, 3\]"),
        ({"strides": [2, 2, 2]}, r"stride must be 1; got \[2, 2, 2\]"),
        ({"filters": [2, 0, 4]}, r"filters .* at least 1; got \[2, 0, 4\]"),
        ({"foreground_prior": 1.0}, "foreground_prior must be above 0 and below 1, or null; got 1.0"),
    ],
)
def test_wrong_arguments_of_the_unet_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UNet3D(1, 2, **{**ISOTROPIC, **wrong})  # type: ignore[arg-type]
