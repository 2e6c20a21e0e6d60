"""Intensity normalisation by modality, and the windows through which images are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Num

from spleen.errors import InputError
from spleen.types import VolumeArray

# In a CT whose offset was applied twice only dense bone and metal lie above -500 HU.
_LARGEST_DENSE_FRACTION = 0.02


@dataclass(frozen=True)
class CtWindow:
    """A CT window in Hounsfield units: level ± width / 2 is mapped to -1 … 1 and clipped there."""

    window_level: float
    window_width: float


@dataclass(frozen=True)
class MrPercentiles:
    """Robust MR range: two percentiles of each volume's non-zero voxels are mapped to -1 … 1."""

    low_percentile: float
    high_percentile: float


@dataclass(frozen=True)
class ZScore:
    """Zero mean and unit variance over all voxels of each volume, clipped at `clip` standard deviations."""

    clip: float


Intensity = CtWindow | MrPercentiles | ZScore


@dataclass(frozen=True)
class IntensityMap:
    """Normalisation of one volume: clip((intensity - centre) × scale, -limit, limit)."""

    centre: float
    scale: float
    limit: float

    def __call__(self, image: Num[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Normalise intensities of any shape."""
        shifted = (image - np.float32(self.centre)).astype(np.float32, copy=False) * np.float32(self.scale)
        clipped: Float32[np.ndarray, "*shape"] = np.clip(shifted, np.float32(-self.limit), np.float32(self.limit))
        return clipped


@dataclass(frozen=True)
class DisplayWindow:
    """What is black and what is white on a screen: level ± half the width, in the image's own units."""

    level: float
    width: float
    name: str | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The intensities shown black and white."""
        return self.level - self.width / 2, self.level + self.width / 2


_CT_PRESETS = {"abdomen": (50.0, 400.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0), "brain": (40.0, 80.0)}
CT_PRESETS: Mapping[str, DisplayWindow] = {name: DisplayWindow(*each, name) for name, each in _CT_PRESETS.items()}
"""By name, in HU (https://radiopaedia.org/articles/windowing-ct)."""


def fit_intensity(image: VolumeArray, intensity: Intensity, name: str) -> IntensityMap:
    """Fit the normalisation to one volume of integers or floats; `name` is for messages.

    Raises InputError if the volume is constant.
    """
    smallest, largest = float(image.min()), float(image.max())
    if smallest == largest:
        raise InputError(f"{name}: every voxel has the intensity {smallest:g}; a constant image cannot be normalised")
    if isinstance(intensity, CtWindow):
        return IntensityMap(intensity.window_level, 2 / intensity.window_width, 1.0)
    if isinstance(intensity, MrPercentiles):
        signal = image[image != 0]
        low, high = (float(p) for p in np.percentile(signal, [intensity.low_percentile, intensity.high_percentile]))
        if low == high:
            low, high = smallest, largest
        return IntensityMap((low + high) / 2, 2 / (high - low), 1.0)
    mean = float(image.mean(dtype=np.float64))
    # Plane by plane: squares of a whole volume in double precision would need a multiple of its memory.
    squares = (float(np.square(image[..., k] - mean).sum(dtype=np.float64)) for k in range(image.shape[-1]))
    variance = sum(squares) / image.size
    return IntensityMap(mean, variance**-0.5, intensity.clip)


def implausible_units(channels: Sequence[VolumeArray], intensity: Intensity) -> str | None:
    """Why the intensities of an image are implausible for the intensity setting; None if they are plausible.

    With several channels, the message names the first implausible one by number.
    """
    if not isinstance(intensity, CtWindow):
        return None
    for number, channel in enumerate(channels):
        low, high = float(channel.min()), float(channel.max())
        if reason := _not_hounsfield(low, high) or _offset_twice(channel, low):
            return reason if len(channels) == 1 else f"channel {number}: {reason}"
    return None


def _offset_twice(image: VolumeArray, low: float) -> str | None:
    """A body shifted by -1024 HU; the padding of some scanners is as low, but then the body is where it should be."""
    if low > -1500 or np.count_nonzero(image > -500) > _LARGEST_DENSE_FRACTION * image.size:
        return None
    return (
        f"intensities from {low:g} with next to nothing above -500 HU: the offset of -1024 to Hounsfield units seems "
        "to be applied twice; add 1024 to the image"
    )


def _not_hounsfield(low: float, high: float) -> str | None:
    if low >= 0:
        reason = "no voxel is negative, but air (-1000 HU) and fat (-100 HU) should be"
    elif high > 33_000 or low < -33_000:
        reason = "Hounsfield units stay within ±33,000"
    elif high - low < 100:
        reason = "air and soft tissue alone are 1,000 HU apart"
    else:
        return None
    return f"intensities from {low:g} to {high:g} cannot be Hounsfield units ({reason})"
