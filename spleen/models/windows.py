"""Prediction of large slices by overlapping windows, for a network that was trained on windows."""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.types import ImageBatch, Logits

# Share of a window's side, as in nnU-Net (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).
_SIGMA_SHARE = 1 / 8
# Of the weight in the centre. A corner that one window alone covers is then not the quotient of two tiny numbers.
_SMALLEST_WEIGHT = 1e-3


class OverlappingWindows(nn.Module):
    """A network that, once trained, sees slices no larger than its windows in training were.

    In training mode, and for slices of at most `crop_size` pixels a side, the network is called as it is. In evaluation
    mode, larger slices are cut into overlapping windows of min(side, crop_size) pixels; the logits of each are weighted
    by a Gaussian about its centre (sigma: an eighth of its side), where the network sees most, and averaged.

    Logits are averaged, not probabilities, since the caller applies the softmax. That is the normalised geometric mean
    of the windows' probabilities: one window that is sure counts for more than it would in an arithmetic mean.

    All slices of the batch go through the network together, one place after the other: no call takes more memory than a
    training step on as many slices did.

    Args:
        network: maps (b, c, h, w) to logits (b, classes, h, w), at least for the sizes of the windows.
            `PadToMultiple` makes it accept all.
        crop_size: side of a window in pixels.
        overlap: share of its side that a window has in common with the next, 0 to below 1. The last window ends
            with the slice and may overlap more.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(self, network: nn.Module, crop_size: int, overlap: float = 0.5) -> None:
        super().__init__()
        if crop_size < 1:
            raise InputError(f"crop_size must be at least 1 pixel; got {crop_size}")
        if not 0 <= overlap < 1:
            raise InputError(f"overlap of the windows must be at least 0 and below 1; got {overlap}")
        self.network = network
        self.crop_size = crop_size
        self.overlap = overlap

    def forward(self, image: ImageBatch) -> Logits:
        """Logits (b, classes, h, w); float32 where windows were averaged, else what the network returns."""
        if self.training or max(image.shape[-2:]) <= self.crop_size:
            logits: Tensor = self.network(image)
            return logits
        return self._averaged(image)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compile the network alone: the windows have one size, but a graph of all of them would have no end."""
        self.network.compile(*args, **kwargs)

    def _averaged(self, image: ImageBatch) -> Logits:
        """The windows' weighted mean, summed in float32 whatever the network computes in."""
        size = image.shape[-2:]
        height, width = (min(side, self.crop_size) for side in size)
        weights = gaussian_weights(height, width, image.device)
        sum_of_weights = torch.zeros(size, device=image.device)
        sum_of_logits: Tensor | None = None
        for top, left in product(
            window_starts(size[0], height, self.overlap), window_starts(size[1], width, self.overlap)
        ):
            place = (..., slice(top, top + height), slice(left, left + width))
            logits: Tensor = self.network(image[place])
            if sum_of_logits is None:
                sum_of_logits = _zeros((*logits.shape[:2], *size), image.device)
            sum_of_logits[place] += weights * logits
            sum_of_weights[place] += weights
        assert sum_of_logits is not None  # a slice has at least one window
        return sum_of_logits.div_(sum_of_weights)


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    empty = torch.empty(shape, dtype=torch.float32, device=device, memory_format=torch.channels_last)
    return empty.zero_()


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Where the windows along a side begin, in pixels; the last one ends with the side."""
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, side - window, step), side - window]


def gaussian_weights(height: int, width: int, device: torch.device) -> Float[Tensor, "h w"]:
    """Weights of a window's pixels: a Gaussian about its centre, 1 there, nowhere below a thousandth."""
    along = []
    for side in (height, width):
        distance = torch.arange(side, device=device) - (side - 1) / 2
        along.append(torch.exp(-0.5 * (distance / (_SIGMA_SHARE * side)) ** 2))
    return torch.outer(*along).clamp_min(_SMALLEST_WEIGHT)
