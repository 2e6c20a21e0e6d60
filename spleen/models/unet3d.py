"""A 3D U-Net (Çiçek et al. 2016, https://arxiv.org/abs/1606.06650) with kernels and strides for anisotropic voxels.

As in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z), an axis with coarse voxels is neither
convolved nor halved before the other axes have become as coarse.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.models.unet import NEGATIVE_SLOPE, initialise, prior_logits
from spleen.types import PatchBatch, PatchLogits

Sides = tuple[int, int, int]


class UNet3D(nn.Module):
    """Encoder–decoder with skip connections for patches of a volume.

    A level is twice (convolution, instance normalisation, leaky ReLU). Levels are connected by max-pooling on the way
    down and by transposed convolutions on the way up, both with the level's stride.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        kernel_size: of each level, from full resolution down, along depth, height and width; odd numbers.
        strides: of each level, the factor by which it is coarser than the one above; the first is 1.
        filters: channels of each level.
        dropout: probability of dropping a channel between the two convolutions of a level, 0 to below 1.
        foreground_prior: probability of foreground where the untrained network knows nothing, as in `UNet`.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int] | int],
        filters: Sequence[int],
        dropout: float = 0.0,
        foreground_prior: float | None = None,
    ) -> None:
        super().__init__()
        kernels = [_three("kernel_size", kernel) for kernel in kernel_size]
        factors = [_three("strides", stride) for stride in strides]
        _check_arguments(kernels, factors, filters)
        if foreground_prior is not None and not 0 < foreground_prior < 1:
            raise InputError(f"foreground_prior must be above 0 and below 1, or null; got {foreground_prior}")
        self._strides = factors[1:]
        inputs = [in_channels, *filters[:-1]]
        self.encoder = nn.ModuleList(
            _double_convolution(c_in, c_out, kernel, dropout)
            for c_in, c_out, kernel in zip(inputs, filters, kernels, strict=True)
        )
        upwards = range(len(filters) - 2, -1, -1)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(filters[d + 1], filters[d], factors[d + 1], stride=factors[d + 1]) for d in upwards
        )
        self.decoder = nn.ModuleList(
            _double_convolution(2 * filters[d], filters[d], kernels[d], dropout) for d in upwards
        )
        self.head = nn.Conv3d(filters[0], out_channels, 1)
        initialise(self, self.head, prior_logits(out_channels, foreground_prior) if foreground_prior else None)

    def forward(self, image: PatchBatch) -> PatchLogits:
        """Logits (b, out_channels, d, h, w); each side must be a multiple of the product of its strides."""
        features = self.encoder[0](image)
        skips = []
        for stride, level in zip(self._strides, self.encoder[1:], strict=True):
            skips.append(features)
            features = level(F.max_pool3d(features, stride))
        for up, level in zip(self.up, self.decoder, strict=True):
            features = level(torch.cat([skips.pop(), up(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _double_convolution(in_channels: int, out_channels: int, kernel: Sides, dropout: float) -> nn.Sequential:
    """Twice (convolution, normalisation, leaky ReLU). No bias, since the normalisation has one."""
    layers: list[nn.Module] = []
    depth, height, width = kernel
    padding = depth // 2, height // 2, width // 2
    for c_in in (in_channels, out_channels):
        if layers and dropout > 0:
            layers.append(nn.Dropout3d(dropout))
        layers += [
            nn.Conv3d(c_in, out_channels, kernel, padding=padding, bias=False),
            # Of each patch by itself: patches are large and batches of them small.
            nn.InstanceNorm3d(out_channels, affine=True),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


def _three(name: str, sides: Sequence[int] | int) -> Sides:
    given = (sides,) * 3 if isinstance(sides, int) else tuple(sides)
    if len(given) != 3 or any(not isinstance(side, int) or side < 1 for side in given):
        raise InputError(
            f"{name} of the 3D U-Net needs three whole numbers for each level (depth, height, width); got {list(given)}"
        )
    depth, height, width = given
    return depth, height, width


def _check_arguments(kernels: Sequence[Sides], strides: Sequence[Sides], filters: Sequence[int]) -> None:
    if not len(kernels) == len(strides) == len(filters) >= 1:
        raise InputError(
            "kernel_size, strides and filters of the 3D U-Net need one entry for each level; got "
            f"{len(kernels)}, {len(strides)} and {len(filters)}"
        )
    if even := [list(kernel) for kernel in kernels if any(side % 2 == 0 for side in kernel)]:
        raise InputError(f"kernel_size of the 3D U-Net must be odd, to preserve the size; got {even[0]}")
    if strides[0] != (1, 1, 1):
        raise InputError(
            f"the first level of the 3D U-Net has full resolution: its stride must be 1; got {list(strides[0])}"
        )
    if any(count < 1 for count in filters):
        raise InputError(f"filters of the 3D U-Net must be at least 1; got {list(filters)}")
