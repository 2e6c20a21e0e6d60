"""Random windows of training slices, for slices that are too large to train on whole.

Windows are cut after augmentation, not before: a rotated or shrunk window then shows real image content at its borders
instead of replicated edge pixels; shifts and deformations, which are fractions of the side, mean the same with and
without windows; and a foreground window is guaranteed to contain foreground. The cost is augmenting the whole slice.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Generator, Tensor

from spleen.imaging.classes import MOST_CLASSES
from spleen.types import ImageBatch, LabelBatch

# Much larger than any side or count, so that a remainder is practically uniform (bias below 2**-40).
_DRAW_LIMIT = 2**62


@dataclass(frozen=True)
class CropSettings:
    """Training windows: side, or height and width, in pixels; the fraction drawn around the organ if a slice has it."""

    size: int | tuple[int, int]
    foreground_fraction: float
    n_classes: int = MOST_CLASSES
    """Larger values of a label map are neither background nor foreground."""


@dataclass(frozen=True)
class WindowDraws:
    """The random numbers for a window of each of n slices."""

    around_pixel: Bool[Tensor, " n"]
    """Whether the window shall contain a foreground pixel, if the slice has one."""
    numbers: Int64[Tensor, "4 n"]
    """For the pixel's row and column, and for the window's top and left."""


def draw_windows(count: int, foreground_fraction: float, random: Generator) -> WindowDraws:
    """Draw for `count` slices; the pixels are not needed."""
    around_pixel = torch.rand(count, generator=random) < foreground_fraction
    return WindowDraws(around_pixel, torch.randint(_DRAW_LIMIT, (4, count), generator=random))


def window_size(size: tuple[int, int], crop_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of the windows of slices of this size."""
    height, width = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    return min(size[0], height), min(size[1], width)


def crop_batch(
    image: ImageBatch,
    label: LabelBatch,
    crop_size: int | tuple[int, int],
    foreground_fraction: float,
    random: Generator,
    n_classes: int = MOST_CLASSES,
) -> tuple[Float[Tensor, "b c window_h window_w"], Integer[Tensor, "b d window_h window_w"]]:
    """A random window of each slice, at the same position in image and label; the input is never modified.

    A window is min(side, crop_size) pixels high and wide. A slice with foreground gets, with probability
    `foreground_fraction`, a window with foreground: first a foreground pixel is drawn uniformly, then a window among
    all that contain it, so that the organ may be anywhere in the window. All other windows are drawn uniformly
    among all positions in the slice. Slices no larger than a window are returned as they are.

    Args:
        image: slices (b, c, h, w), after the augmentation.
        label: label maps (b, d, h, w), one for a slice or d for a patch of d slices, of which any may have the
            foreground pixel; 0 is the background, 1 to `n_classes` the foreground, and what is above neither.
        crop_size: side of a window, or its height and width, in pixels, at least 1.
        foreground_fraction: probability from 0 to 1.
        random: source of all randomness: the same state gives the same windows on every device. A CPU generator
            is best even for a batch on a GPU, because nothing then waits for the GPU.
    """
    size = (image.shape[-2], image.shape[-1])
    if window_size(size, crop_size) == size:
        return image, label
    return crop_drawn(image, label, crop_size, draw_windows(len(image), foreground_fraction, random), n_classes)


@torch.no_grad()
def crop_drawn(
    image: ImageBatch,
    label: LabelBatch,
    crop_size: int | tuple[int, int],
    draws: WindowDraws,
    n_classes: int = MOST_CLASSES,
) -> tuple[Float[Tensor, "b c window_h window_w"], Integer[Tensor, "b d window_h window_w"]]:
    """The windows of `crop_batch` with random numbers that are drawn already."""
    height, width = image.shape[-2:]
    window = window_size((height, width), crop_size)
    numbers = draws.numbers.to(label.device)
    foreground = ((label > 0) & (label <= n_classes)).any(1)
    around_pixel = draws.around_pixel.to(label.device) & foreground.any(2).any(1)
    pixel_row = _draw_by_count(foreground.sum(2), numbers[0])
    in_row = foreground[torch.arange(len(label), device=label.device), pixel_row]
    pixel_column = _draw_by_count(in_row.long(), numbers[1])
    top = _draw_start(height, window[0], pixel_row, around_pixel, numbers[2])
    left = _draw_start(width, window[1], pixel_column, around_pixel, numbers[3])
    return _windows(image, top, left, window), _windows(label, top, left, window)


def _draw_by_count(counts: Int64[Tensor, "b n"], draw: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
    """For each sample an index drawn with probability proportional to its count; the last one if all are 0."""
    up_to = counts.cumsum(1)
    rank = draw.unsqueeze(1) % up_to[:, -1:].clamp_min(1)
    return (up_to <= rank).sum(1).clamp_max(counts.shape[1] - 1)


def _draw_start(
    side: int, window: int, pixel: Int64[Tensor, " b"], around_pixel: Bool[Tensor, " b"], draw: Int64[Tensor, " b"]
) -> Int64[Tensor, " b"]:
    """Start of windows of `window` pixels along a side, uniform over those that contain the pixel if required."""
    last = side - window
    lowest = torch.where(around_pixel, (pixel - window + 1).clamp_min(0), 0)
    highest = torch.where(around_pixel, pixel.clamp_max(last), last)
    return lowest + draw % (highest - lowest + 1)


def _windows(planes: Tensor, top: Int64[Tensor, " b"], left: Int64[Tensor, " b"], window: tuple[int, int]) -> Tensor:
    """The windows (b, c, window_h, window_w) of planes (b, c, h, w), each at its own position."""
    device = planes.device
    sample = torch.arange(planes.shape[0], device=device).view(-1, 1, 1, 1)
    channel = torch.arange(planes.shape[1], device=device).view(1, -1, 1, 1)
    row = top.view(-1, 1, 1, 1) + torch.arange(window[0], device=device).view(1, 1, -1, 1)
    column = left.view(-1, 1, 1, 1) + torch.arange(window[1], device=device)
    return planes[sample, channel, row, column]
