"""Intensities of the whole image, the body and the organ.

The voxels are sorted once; every percentile, histogram, fraction and threshold is then a look-up in the sorted values.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Num

from spleen.data.modality import Modality, guess_modality

SortedValues = Num[np.ndarray, " _"]

CT_BODY_HU = -500.0
_BINS = 64
_MOST_LEVELS = 10_000  # more different values than this are not taken for steps
_MOST_TISSUE = 0.95
_MOST_STEPS = 50  # a few suffice; a cycle between two values ends here
_CHUNK = 1 << 20  # values converted to float64 at once


@dataclass(frozen=True)
class Spread:
    """How the intensities of some voxels are distributed."""

    n_voxels: int
    minimum: float
    p0_5: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    p99_5: float
    maximum: float
    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Histogram:
    """Voxels in bins of equal width from `low` to `high`; what lies beyond is not counted."""

    low: float
    high: float
    counts: tuple[int, ...]

    @property
    def bin_width(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / len(self.counts)


@dataclass(frozen=True)
class IntensityFacts:
    """Intensities of one image, after scl_slope and scl_inter."""

    n_not_finite: int
    whole: Spread
    whole_histogram: Histogram
    """From the smallest to the largest voxel."""
    body: Spread
    body_rule: str
    body_threshold: float
    body_histogram: Histogram
    organ: Spread | None
    organ_histogram: Histogram | None
    modality: Modality
    modality_reason: str
    n_distinct: int | None
    """How many values occur, where all are whole numbers and span at most 255; None elsewhere."""


def intensity_facts(
    image: Num[np.ndarray, "i j k"], organ_values: Num[np.ndarray, " m"] | None
) -> IntensityFacts | None:
    """Facts of an image and of its intensities within the organ; None where no voxel is finite.

    The body is every voxel above −500 HU in a CT (the table included), and above `clip_level` elsewhere.
    """
    values = _finite(np.sort(image, axis=None))
    if not len(values):
        return None
    modality, reason = guess_modality(values)
    if modality == "CT":
        threshold, rule = CT_BODY_HU, f"> {CT_BODY_HU:g} HU".replace("-", "−")
    else:
        threshold = clip_level(values)
        rule = f"> {threshold:.4g} (half its median)".replace("-", "−")
    body = values[np.searchsorted(values, threshold, side="right") :]
    if not len(body):  # a constant image
        body, rule = values, "all voxels"
    spread = spread_of(body)
    low, high = spread.p0_5, spread.p99_5
    organ = _finite(np.sort(organ_values)) if organ_values is not None else values[:0]
    if len(organ):
        low, high = min(low, percentile(organ, 0.5)), max(high, percentile(organ, 99.5))
    edges = bin_edges(body, low, high)
    return IntensityFacts(
        n_not_finite=image.size - len(values),
        whole=spread_of(values),
        whole_histogram=histogram(values, full_edges(values, edges)),
        body=spread,
        body_rule=rule,
        body_threshold=threshold,
        body_histogram=histogram(body, edges),
        organ=spread_of(organ) if len(organ) else None,
        organ_histogram=histogram(organ, edges) if len(organ) else None,
        modality=modality,
        modality_reason=reason,
        n_distinct=_count_distinct(values),
    )


def _finite(values: SortedValues) -> SortedValues:
    """Without −Inf at the start, and Inf and NaN at the end."""
    first = np.searchsorted(values, -np.inf, side="right")
    return values[first : np.searchsorted(values, np.inf, side="left")]


def spread_of(values: SortedValues) -> Spread:
    """Summarise sorted values; at least one."""
    mean, standard_deviation = _moments(values)
    return Spread(
        n_voxels=len(values),
        minimum=float(values[0]),
        p0_5=percentile(values, 0.5),
        p5=percentile(values, 5),
        p25=percentile(values, 25),
        median=percentile(values, 50),
        p75=percentile(values, 75),
        p95=percentile(values, 95),
        p99_5=percentile(values, 99.5),
        maximum=float(values[-1]),
        mean=mean,
        standard_deviation=standard_deviation,
    )


def percentile(values: SortedValues, percent: float) -> float:
    """Percentile of sorted values, linear between neighbours as numpy.percentile has it."""
    position = percent / 100 * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return float(values[low]) + (position - low) * (float(values[high]) - float(values[low]))


def _moments(values: SortedValues) -> tuple[float, float]:
    """Mean and standard deviation in float64, a chunk at a time to spare memory."""
    mean = float(values.mean(dtype=np.float64))
    chunks = (values[start : start + _CHUNK].astype(np.float64) for start in range(0, len(values), _CHUNK))
    return mean, math.sqrt(sum(float(np.square(chunk - mean).sum()) for chunk in chunks) / len(values))


def histogram(values: SortedValues, edges: Float64[np.ndarray, " e"]) -> Histogram:
    """Count sorted values between edges of equal distance; the last bin holds its upper edge, too (numpy.histogram)."""
    with np.errstate(over="ignore"):  # an edge beyond the largest float is infinite
        places = np.searchsorted(values, edges.astype(values.dtype), side="left")
    places[-1] = np.searchsorted(values, edges[-1], side="right")
    return Histogram(float(edges[0]), float(edges[-1]), tuple(int(count) for count in np.diff(places)))


def bin_edges(values: SortedValues, low: float, high: float, most: int = _BINS) -> Float64[np.ndarray, " e"]:
    """Edges of at most `most` bins around `low` and `high`.

    Where the intensities are whole numbers, or multiples of another step, a bin holds a whole number of steps: else
    bins with one step more than their neighbours would look like peaks.
    """
    inner = values[np.searchsorted(values, low, side="left") : np.searchsorted(values, high, side="right")]
    levels = inner[np.flatnonzero(np.diff(inner, prepend=-np.inf))].astype(np.float64)
    if not 2 <= len(levels) <= _MOST_LEVELS:
        half = 0.5 if low == high else 0.0
        return np.linspace(low - half, high + half, most + 1)
    step = float(np.median(np.diff(levels)))
    width = step * max(1, math.ceil(round((high - low) / step + 1, 3) / most))
    n_bins = math.ceil(round((high - low + step) / width, 3))
    edges: Float64[np.ndarray, " e"] = low - step / 2 + width * np.arange(n_bins + 1)
    return edges


def full_edges(values: SortedValues, inner: Float64[np.ndarray, " e"]) -> Float64[np.ndarray, " n"]:
    """Edges of at most 64 bins that hold every value, and each of them a whole number of the inner bins."""
    low, high = float(values[0]), float(values[-1])
    inner_width = float(inner[-1] - inner[0]) / (len(inner) - 1) or max(1.0, abs(high)) * 1e-6
    width = inner_width * max(1, math.ceil((high - low) / inner_width / (_BINS - 2)))
    first = float(inner[0]) + inner_width * math.floor((low - float(inner[0])) / inner_width)
    edges: Float64[np.ndarray, " n"] = first + width * np.arange(math.floor((high - first) / width) + 2)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)  # but for rounding they are beyond
    return edges


def clip_level(values: SortedValues) -> float:
    """The intensity that is half the median of everything above it: tissue lies above, air and its noise below.

    The rule of AFNI's 3dClipLevel (Cox); unlike Otsu's threshold it does not cut through the tissue of an image that
    holds no air. Where values are negative, it counts from the smallest one.
    """
    floor = min(float(values[0]), 0.0)
    # The first guess leaves the brightest out: a few vessels could pull it above all other tissue.
    threshold = float(values[: math.ceil(_MOST_TISSUE * len(values))].mean(dtype=np.float64))
    for _ in range(_MOST_STEPS):
        above = values[np.searchsorted(values, threshold, side="right") :]
        if not len(above):
            break
        lower = floor + (percentile(above, 50) - floor) / 2
        if lower == threshold:
            break
        threshold = lower
    return threshold


def _count_distinct(values: SortedValues) -> int | None:
    low, high = float(values[0]), float(values[-1])
    if high - low > 255 or low != math.floor(low):
        return None
    candidates = np.arange(low, high + 1)
    first = np.searchsorted(values, candidates, side="left")
    count = np.searchsorted(values, candidates, side="right") - first
    return int(np.count_nonzero(count)) if count.sum() == len(values) else None
