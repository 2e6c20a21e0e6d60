"""The 2D U-Net of Ronneberger, Fischer and Brox (2015, https://arxiv.org/abs/1505.04597).

Differences from the paper, all common today: convolutions preserve the size (padding 1), each is followed by a
normalisation, and the width is a parameter.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.types import ImageBatch, Logits

# Instance normalisation as group normalisation with one channel per group: unlike nn.InstanceNorm2d, this preserves
# channels_last and accepts a 1 × 1 feature map.
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
}

NEGATIVE_SLOPE = 0.01


class UNet(nn.Module):
    """Encoder–decoder with skip connections for 2D slices.

    Level d has ``min(width * 2**d, max_channels)`` channels. A level is twice (3 × 3 convolution,
    normalisation, leaky ReLU). Levels are connected by max-pooling on the way down and by 2 × 2 transposed
    convolutions on the way up, whose gradient is deterministic on a GPU (unlike bilinear upsampling).

    Args:
        in_channels: channels of the image; ``2 * context_slices + 1``.
        out_channels: classes, background included.
        width: channels of the first level.
        depth: number of times the resolution is halved.
        norm: "batch", "instance" or "group" (8 channels or fewer groups).
        dropout: probability of dropping a channel between the two convolutions of a level, 0 to below 1.
        max_channels: upper bound of the channels of a level.
        unshuffle: pixels per side that become channels before the first level and are put back after the last (space to
            depth, Shi et al. 2016): the network then works at 1/unshuffle of the resolution, with wider layers in the
            same time; 1 does nothing.
        foreground_prior: probability of all classes but the first, the background, together where the untrained
            network knows nothing (Lin et al. 2017, section 4.1); None: all classes are equally likely. With
            cross-entropy in the loss, a small prior saves the first hundred steps or more, which else only teach that
            foreground is rare.

    Attributes:
        size_multiple: height and width of the input must be multiples of this, ``2**depth`` pixels
            (``PadToMultiple`` takes care of it); with ``unshuffle`` so many times more.

    Raises:
        InputError: an argument outside its range, or an input size that is not a multiple of ``size_multiple``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 16,
        depth: int = 4,
        norm: str = "batch",
        dropout: float = 0.0,
        max_channels: int = 512,
        foreground_prior: float | None = None,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        _check_arguments(in_channels, out_channels, width, depth, norm, dropout, max_channels, unshuffle)
        if foreground_prior is not None and not 0 < foreground_prior < 1:
            raise InputError(f"foreground_prior must be above 0 and below 1, or null; got {foreground_prior}")
        self.size_multiple = unshuffle * 2**depth
        self._unshuffle = unshuffle
        channels = [min(width * 2**level, max_channels) for level in range(depth + 1)]
        inputs = [in_channels * unshuffle**2, *channels[:-1]]
        self.encoder = nn.ModuleList(
            _double_convolution(c_in, c_out, norm, dropout) for c_in, c_out in zip(inputs, channels, strict=True)
        )
        upwards = range(depth - 1, -1, -1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(channels[d + 1], channels[d], 2, stride=2) for d in upwards)
        self.decoder = nn.ModuleList(_double_convolution(2 * channels[d], channels[d], norm, dropout) for d in upwards)
        self.head = nn.Conv2d(channels[0], out_channels * unshuffle**2, 1)
        prior = None if foreground_prior is None else prior_logits(out_channels, foreground_prior)
        initialise(self, self.head, None if prior is None else prior.repeat_interleave(unshuffle**2))

    def forward(self, image: ImageBatch) -> Logits:
        """Logits (b, out_channels, h, w); h and w must be multiples of ``size_multiple``."""
        height, width = image.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise InputError(
                f"height and width must be multiples of {self.size_multiple} pixels; got {height} × {width}. "
                f"Set model.size_multiple={self.size_multiple}, or a smaller model.network.depth; "
                f"in Python, PadToMultiple(network, {self.size_multiple})"
            )
        if self._unshuffle > 1:
            image = F.pixel_unshuffle(image, self._unshuffle).contiguous(memory_format=torch.channels_last)
        features = self.encoder[0](image)
        skips = []
        for level in self.encoder[1:]:
            skips.append(features)
            features = level(F.max_pool2d(features, 2))
        for up, level in zip(self.up, self.decoder, strict=True):
            features = level(torch.cat([skips.pop(), up(features)], dim=1))
        logits: Logits = self.head(features)
        return logits if self._unshuffle == 1 else F.pixel_shuffle(logits, self._unshuffle)


def initialise(network: nn.Module, head: nn.Conv2d | nn.Conv3d, bias: Tensor | None) -> None:
    """He et al. (2015) initialisation, which preserves the variance through rectified layers.

    The head starts with full-size weights of both signs, and with this bias, or zero. With small initial weights, the
    many background pixels of the first steps can turn all of them against the organ, and with non-negative features
    they never recover.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE)
        elif isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
            # Each output pixel gets one tap of the kernel, as large as the stride, so the fan-in is the number of input
            # channels. No ReLU follows, hence the variance 1 / fan-in.
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
            _zero_bias(layer)
    nn.init.normal_(head.weight, std=head.in_channels**-0.5)
    _zero_bias(head)
    if bias is not None:
        head.bias = nn.Parameter(bias)


def prior_logits(n_classes: int, foreground_prior: float) -> Tensor:
    """Logits (classes,) with which all classes but the first have this probability together, each the same."""
    logits = torch.zeros(n_classes)
    if n_classes > 1:
        logits[0] = math.log((n_classes - 1) * (1 - foreground_prior) / foreground_prior)
    return logits


def _zero_bias(layer: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _double_convolution(in_channels: int, out_channels: int, norm: str, dropout: float) -> nn.Sequential:
    """Twice (convolution, normalisation, leaky ReLU). No bias, since the normalisation has one."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        NORMS[norm](out_channels),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
    ]
    if dropout > 0:
        layers.append(nn.Dropout2d(dropout))
    layers += [
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        NORMS[norm](out_channels),
        nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
    ]
    return nn.Sequential(*layers)


def _check_arguments(
    in_channels: int,
    out_channels: int,
    width: int,
    depth: int,
    norm: str,
    dropout: float,
    max_channels: int,
    unshuffle: int,
) -> None:
    counts = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "width": width,
        "depth": depth,
        "max_channels": max_channels,
        "unshuffle": unshuffle,
    }
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} of the U-Net must be at least 1; got {value}")
    if norm not in NORMS:
        raise InputError(f"norm of the U-Net must be one of {', '.join(NORMS)}; got {norm!r}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout of the U-Net must be at least 0 and below 1; got {dropout}")
