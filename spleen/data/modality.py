"""Guess the modality from the intensities."""

from typing import Literal

import numpy as np
from jaxtyping import Num

Modality = Literal["CT", "MR", "unknown"]

_AIR_HU, _SOFT_LOW_HU, _SOFT_HIGH_HU = -850.0, -200.0, 300.0


def guess_modality(values: Num[np.ndarray, " n"]) -> tuple[Modality, str]:
    """Guess from sorted, finite intensities, and say why.

    CT is known by its fixed scale: air at −1000 HU, water at 0. MR has no negative values and no scale; so do PET and
    ultrasound, which is why the reason comes along.
    """
    low, high = float(values[0]), float(values[-1])
    soft = _fraction(values, _SOFT_LOW_HU, _SOFT_HIGH_HU)
    if low == high:
        return "unknown", f"every voxel has the intensity {low:g}"
    if low < -500 and high - low > 500 and soft > 0.05:
        air = _fraction(values, low, _AIR_HU)
        fractions = f"{100 * air:.0f} % of the voxels are air (below −850 HU) and {100 * soft:.0f} % soft tissue"
        return "CT", f"{fractions} (−200 … 300 HU)"
    if low <= -50 and high >= 100 and soft > 0.6:
        reason = (
            f"values from {_signed(low)} to {_signed(high)}, {100 * soft:.0f} % of them soft tissue (−200 … 300 HU)"
        )
        return "CT", f"{reason}: a CT that was cropped or clipped"
    return _without_fixed_scale(values, low, high)


def _without_fixed_scale(values: Num[np.ndarray, " n"], low: float, high: float) -> tuple[Modality, str]:
    bright = float(values[int(0.995 * (len(values) - 1))])
    shot = _fraction(values, low, np.nextafter(0.0, -1.0)) if low < 0 else 0.0
    if low < 0 and (shot > 0.05 or -low > 0.25 * bright):
        return "unknown", (
            f"values from {_signed(low)} to {_signed(high)}, {100 * shot:.0f} % negative, but no air near −1000: "
            "perhaps normalised already"
        )
    if low >= 0 and high <= 1:
        return "unknown", f"values from {low:g} to {high:g}: perhaps normalised already"
    if _is_ct_with_offset(values, high):
        return "unknown", (
            "two peaks about 1,000 apart, near 0 and near 1,024: perhaps a CT stored 1,024 too high; "
            "subtract that, and it is in HU"
        )
    few = f"but for {100 * shot:.1f} % of interpolation overshoot " if low < 0 else ""
    return "MR", (
        f"no voxel is negative {few}and values up to {high:,.6g} follow no fixed scale, as in MR "
        "(PET and ultrasound look the same from here)"
    )


def _is_ct_with_offset(values: Num[np.ndarray, " n"], high: float) -> bool:
    air, between, soft = _fraction(values, 0, 150), _fraction(values, 150, 824), _fraction(values, 824, 1324)
    return high > 1400 and air > 0.1 and soft > 0.1 and between < min(air, soft)


def _fraction(values: Num[np.ndarray, " n"], low: float, high: float) -> float:
    """Fraction of the values from `low` to `high`, both included."""
    first = np.searchsorted(values, low, side="left")
    return float(np.searchsorted(values, high, side="right") - first) / len(values)


def _signed(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−")
