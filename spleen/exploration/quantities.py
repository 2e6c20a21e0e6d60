"""The numbers by which the cases of a set are compared."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from spleen.exploration.facts.case import CaseFacts
from spleen.imaging.slicing import AXES
from spleen.reporting.numbers import format_number
from spleen.types import AxisName

_MOST_VALUES = 12  # label values that are compared one by one


@dataclass(frozen=True)
class Quantity:
    """One number per case, NaN where a case has none."""

    name: str
    unit: str
    is_ratio: bool
    """Never negative, and compared by its logarithm."""
    values: Float64[np.ndarray, " n"]
    is_comparable: bool = True
    """Whether it can make a case an outlier; an MR's intensity has no scale that cases share."""

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        """Which cases have it."""
        known: Bool[np.ndarray, " n"] = np.isfinite(self.values)
        return known

    def format(self, value: float) -> str:
        """The number with four digits, or all digits before the point."""
        return format_number(value)

    def with_unit(self, value: float) -> str:
        """The number with its unit."""
        return f"{format_number(value)} {self.unit}".strip()


def quantities(cases: Sequence[CaseFacts]) -> list[Quantity]:
    """Everything by which cases are compared: geometry, intensities, contrast, and volume per label value."""
    found = [_geometry(cases, axis) for axis in AXES]
    return [quantity for pair in zip(*found, strict=True) for quantity in pair] + _intensities(cases) + _volumes(cases)


def _geometry(cases: Sequence[CaseFacts], axis: AxisName) -> tuple[Quantity, Quantity]:
    def spacing(case: CaseFacts) -> float | None:
        geometry = case.image_header.geometry if case.image_header is not None else None
        return geometry.plane(axis).spacing_mm if geometry is not None else None

    def length(case: CaseFacts) -> float | None:
        geometry = case.image_header.geometry if case.image_header is not None else None
        plane = geometry.plane(axis) if geometry is not None else None
        return plane.n_slices * plane.spacing_mm if plane is not None else None

    return (
        _quantity(f"{axis} spacing", "mm", True, cases, spacing),
        _quantity(f"{axis} extent", "mm", True, cases, length),
    )


def _intensities(cases: Sequence[CaseFacts]) -> list[Quantity]:
    """A CT's values are compared as they are; of anything else only ratios, for its scale differs from case to case."""
    modalities = Counter(case.intensity.modality for case in cases if case.intensity is not None)
    if modalities and modalities.most_common(1)[0][0] == "CT":
        return [
            _quantity("body median", "HU", False, cases, _body_median),
            _quantity("body 99.5 %", "HU", False, cases, _body_bright),
            _quantity("organ median", "HU", False, cases, _organ_median),
        ]
    median = _quantity("body median", "", True, cases, _body_median)
    return [
        replace(median, is_comparable=False),
        _quantity("body 99.5 % ÷ median", "", True, cases, _ratio_to_body(_body_bright)),
        _quantity("organ ÷ body median", "", True, cases, _ratio_to_body(_organ_median)),
    ]


def _ratio_to_body(read: Callable[[CaseFacts], float | None]) -> Callable[[CaseFacts], float | None]:
    def ratio(case: CaseFacts) -> float | None:
        value, body = read(case), _body_median(case)
        return value / body if value is not None and body is not None and body > 0 else None

    return ratio


def _body_median(case: CaseFacts) -> float | None:
    return case.intensity.body.median if case.intensity is not None else None


def _body_bright(case: CaseFacts) -> float | None:
    return case.intensity.body.p99_5 if case.intensity is not None else None


def _organ_median(case: CaseFacts) -> float | None:
    organ = case.intensity.organ if case.intensity is not None else None
    return organ.median if organ is not None else None


def _volumes(cases: Sequence[CaseFacts]) -> list[Quantity]:
    """Volume of each label value, of the most frequent ones."""
    found = [value for case in cases if case.labels is not None for value in case.labels.values]
    titles = {value.value: value.title for value in found}
    values = sorted(value for value, _ in Counter(value.value for value in found).most_common(_MOST_VALUES))

    def volume_of(wanted: int) -> Callable[[CaseFacts], float | None]:
        return lambda case: next(_volumes_in(case, wanted), None)

    return [_quantity(f"{titles[value]} volume", "mm³", True, cases, volume_of(value)) for value in values]


def _volumes_in(case: CaseFacts, wanted: int) -> Iterator[float]:
    for value in case.labels.values if case.labels is not None else ():
        if value.value == wanted:
            yield value.volume_mm3


def _quantity(
    name: str, unit: str, is_ratio: bool, cases: Sequence[CaseFacts], read: Callable[[CaseFacts], float | None]
) -> Quantity:
    read_values = [read(case) for case in cases]
    values = np.array([math.nan if value is None else value for value in read_values], dtype=np.float64)
    return Quantity(name, unit, is_ratio, values)
