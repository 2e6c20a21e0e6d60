"""From a scanner's intensities to the network's input range, by modality."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from spleen.errors import InputError

log = logging.getLogger(__name__)

ImageVolume = Float32[np.ndarray, "i j k"]


@dataclass(frozen=True)
class CtWindow:
    """A CT window in Hounsfield units: level ± width / 2 is mapped to -1 … 1 and clipped there."""

    window_level: float
    window_width: float


@dataclass(frozen=True)
class MrPercentiles:
    """Robust MR range: two percentiles of the non-zero voxels of each volume are mapped to -1 … 1."""

    low_percentile: float
    high_percentile: float


@dataclass(frozen=True)
class ZScore:
    """Zero mean and unit variance over all voxels of each volume, clipped at `clip` standard deviations."""

    clip: float


Intensity = CtWindow | MrPercentiles | ZScore


def normalise(image: ImageVolume, intensity: Intensity, name: str) -> ImageVolume:
    """Normalise one volume; `name` stands in the messages.

    Raises InputError if the volume is constant.
    """
    if image.min() == image.max():
        raise InputError(f"{name}: every voxel has the intensity {image.flat[0]:g}; there is nothing to see in it")
    if isinstance(intensity, CtWindow):
        _warn_unless_hounsfield(image, name)
        half = intensity.window_width / 2
        return _rescale(image, intensity.window_level - half, intensity.window_level + half)
    if isinstance(intensity, MrPercentiles):
        signal = image[image != 0]
        low, high = np.percentile(signal, [intensity.low_percentile, intensity.high_percentile])
        if low == high:
            low, high = float(image.min()), float(image.max())
        return _rescale(image, float(low), float(high))
    standardised = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    clipped: ImageVolume = np.clip(standardised, -intensity.clip, intensity.clip).astype(np.float32)
    return clipped


def _rescale(image: ImageVolume, low: float, high: float) -> ImageVolume:
    scaled = (image - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    clipped: ImageVolume = np.clip(scaled, np.float32(-1), np.float32(1))
    return clipped


def _warn_unless_hounsfield(image: ImageVolume, name: str) -> None:
    low, high = float(image.min()), float(image.max())
    if low >= 0:
        reason = "no voxel is negative, while air (-1000 HU) and fat (-100 HU) are"
    elif high > 33_000 or low < -33_000:
        reason = "Hounsfield units stay within ±33,000"
    elif high - low < 100:
        reason = "air and soft tissue alone lie 1,000 HU apart"
    else:
        return
    log.warning(
        "%s: intensities from %g to %g cannot be Hounsfield units (%s); is this a CT? For MR use intensity=mr",
        name, low, high, reason,
    )  # fmt: skip
