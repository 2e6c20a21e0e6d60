"""Spread slices over a scan: the largest distance from any slice to a chosen one is made as small as possible.

The k-centre problem, solved exactly, as one dimension allows; Sener and Savarese, "Active learning for convolutional
neural networks: a core-set approach", ICLR 2018, choose what to label by it: https://arxiv.org/abs/1708.00489
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Num

from spleen.imaging.slicing import to_slices
from spleen.types import AxisName

# A slice shows the body if it shows at least this fraction of the largest cross-section; a table shows less.
_BODY_FRACTION = 0.05
_CLIPPED_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class _Gap:
    """Unlabelled slices from `first` to `last`, and on which sides a labelled slice follows."""

    first: int
    last: int
    after_labelled: bool
    before_labelled: bool

    @property
    def n_slices(self) -> int:
        return self.last - self.first + 1

    def step(self, n_chosen: int) -> float:
        """Distance between neighbours, of which one may be labelled, if this many slices are spread over the gap."""
        if self.after_labelled and self.before_labelled:
            return (self.n_slices + 1) / (n_chosen + 1)
        if self.after_labelled or self.before_labelled:
            return (self.n_slices + 0.5) / (n_chosen + 0.5)
        return self.n_slices / n_chosen if n_chosen else math.inf

    def chosen(self, n_chosen: int) -> list[int]:
        """The slices that are chosen in this gap."""
        if n_chosen == self.n_slices:
            return list(range(self.first, self.last + 1))
        step = self.step(n_chosen)
        if self.after_labelled:
            return [self.first - 1 + math.floor(step * number + 0.5) for number in range(1, n_chosen + 1)]
        if self.before_labelled:
            return [self.last + 1 - math.floor(step * number + 0.5) for number in range(n_chosen, 0, -1)]
        return [self.first + math.floor(step * (number + 0.5)) for number in range(n_chosen)]


def spread_slices(n_slices: int, span: tuple[int, int], taken: Collection[int]) -> tuple[int, ...]:
    """Choose up to `n_slices` slices of the span, whose ends belong to it, as far from each other and from those taken.

    Fewer where the span has fewer slices that are not taken.
    """
    gaps = _gaps(span, set(taken))
    counts = [0] * len(gaps)
    for _ in range(min(n_slices, sum(gap.n_slices for gap in gaps))):
        free = [number for number, gap in enumerate(gaps) if counts[number] < gap.n_slices]
        counts[max(free, key=lambda number: gaps[number].step(counts[number]))] += 1
    return tuple(
        index for gap, count in zip(gaps, counts, strict=True) for index in (gap.chosen(count) if count else ())
    )


def _gaps(span: tuple[int, int], taken: Collection[int]) -> list[_Gap]:
    gaps, start = [], span[0]
    for index in range(span[0], span[1] + 2):
        if index in taken or index > span[1]:
            if index > start:
                gaps.append(_Gap(start, index - 1, start - 1 in taken, index in taken))
            start = index + 1
    return gaps


def organ_span(n_slices: int, labelled: Collection[int], with_organ: Collection[int]) -> tuple[int, int] | None:
    """Where the organ may be: up to the nearest labelled slices without it on both sides; None if it is on none."""
    if not with_organ:
        return None
    first, last = min(with_organ), max(with_organ)
    return (
        max((index for index in labelled if index < first), default=0),
        min((index for index in labelled if index > last), default=n_slices - 1),
    )


def body_span(image: Num[np.ndarray, "i j k"], axis: AxisName) -> tuple[int, int]:
    """First and last slice that shows the body, or more generally more than a little that is brighter than the rest.

    The threshold is Otsu's (IEEE Trans. Syst. Man Cybern. 9, 1979). All slices of a constant image.
    """
    from skimage.filters import threshold_otsu  # slow to import

    low, high = (float(value) for value in np.percentile(image, _CLIPPED_PERCENTILES))
    if low == high:
        low, high = float(image.min()), float(image.max())
    if low == high:
        return 0, len(to_slices(image, axis)) - 1
    bright = to_slices(image, axis) > threshold_otsu(np.clip(image, low, high))
    area: Bool[np.ndarray, " n"] = np.count_nonzero(bright, axis=(1, 2))
    shown = np.flatnonzero(area >= _BODY_FRACTION * area.max())
    return int(shown[0]), int(shown[-1])
