"""Sliding-window inference on large slices, for a network trained on windows."""

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.types import ImageBatch, Logits

# Fraction of a window's side, as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).
_SIGMA_FRACTION = 1 / 8
# Relative to the weight at the centre; avoids dividing tiny numbers in corners covered by a single window.
_SMALLEST_WEIGHT = 1e-3


class OverlappingWindows(nn.Module):
    """Sliding-window inference for a network trained on windows.

    In training mode, and for slices with sides of at most `crop_size` pixels, the network is called directly. In
    evaluation mode, larger slices are cut into overlapping windows of min(side, crop_size) pixels. Their logits are
    averaged with Gaussian weights centred on each window (sigma: an eighth of its side), where the context is largest.

    Logits are averaged instead of probabilities, because the caller applies the softmax. This equals the normalised
    geometric mean of the windows' probabilities, in which a confident window counts more than in an arithmetic mean.

    Window positions are processed one after the other, each for all slices of the batch, so that no call needs more
    memory than a training step on as many slices.

    Args:
        network: maps (b, c, h, w) to logits (b, classes, h, w), at least for the window sizes.
            `PadToMultiple` makes it accept all sizes.
        crop_size: side of a window in pixels.
        overlap: fraction of its side that a window shares with the next, 0 to below 1. The last window is
            aligned with the end of the slice and may overlap more.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(self, network: nn.Module, crop_size: int, overlap: float = 0.5) -> None:
        super().__init__()
        if crop_size < 1:
            raise InputError(f"crop_size must be at least 1 pixel; got {crop_size}")
        if not 0 <= overlap < 1:
            raise InputError(f"the window overlap must be at least 0 and below 1; got {overlap}")
        self.network = network
        self.crop_size = crop_size
        self.overlap = overlap

    def forward(self, image: ImageBatch) -> Logits:
        """Logits (b, classes, h, w); float32 if windows were averaged, otherwise the network's data type."""
        if self.training or max(image.shape[-2:]) <= self.crop_size:
            logits: Tensor = self.network(image)
            return logits
        return self._averaged(image)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compile only the network: all windows have the same size, but a graph of the whole loop would be huge."""
        self.network.compile(*args, **kwargs)

    def _averaged(self, image: ImageBatch) -> Logits:
        """The weighted mean over windows, accumulated in float32 whatever the network's precision."""
        size = image.shape[-2:]
        places = window_places(size, (self.crop_size, self.crop_size), self.overlap)
        weights = gaussian_weights([part.stop - part.start for part in places[0]], image.device)
        sum_of_weights = torch.zeros(size, device=image.device)
        sum_of_logits: Tensor | None = None
        for rows, columns in places:
            logits: Tensor = self.network(image[..., rows, columns])
            if sum_of_logits is None:
                sum_of_logits = _zeros((*logits.shape[:2], *size), image.device)
            sum_of_logits[..., rows, columns] += weights * logits
            sum_of_weights[rows, columns] += weights
        assert sum_of_logits is not None  # a slice has at least one window
        return sum_of_logits.div_(sum_of_weights)


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    empty = torch.empty(shape, dtype=torch.float32, device=device, memory_format=torch.channels_last)
    return empty.zero_()


def window_places(size: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Where the windows lie, of min(side, window) pixels or voxels along each side; see `window_starts`."""
    sides = [min(side, full) for side, full in zip(size, window, strict=True)]
    starts = [window_starts(side, part, overlap) for side, part in zip(size, sides, strict=True)]
    return [
        tuple(slice(start, start + part) for start, part in zip(corner, sides, strict=True))
        for corner in product(*starts)
    ]


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Start positions of the windows along a side, in pixels; the last window ends at the end of the side."""
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, side - window, step), side - window]


def gaussian_weights(sides: Sequence[int], device: torch.device) -> Float[Tensor, "*sides"]:
    """Weights of a window's pixels or voxels: a Gaussian with maximum 1 at its centre, clipped below at 0.001."""
    weights = torch.ones((), device=device)
    for side in sides:
        distance = torch.arange(side, device=device) - (side - 1) / 2
        weights = weights.unsqueeze(-1) * torch.exp(-0.5 * (distance / (_SIGMA_FRACTION * side)) ** 2)
    return weights.clamp_min(_SMALLEST_WEIGHT)
