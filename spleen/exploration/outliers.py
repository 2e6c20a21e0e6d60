"""Outliers of a set of cases, by a fixed rule, and duplicates."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.quantities import Quantity, quantities

MIN_CASES = 5
"""With fewer cases nothing can be called unusual."""
CUT_OFF = 3.5
_EXACT_TOLERANCE = 0.05
_ROUNDING = 1e-4
"""Relative differences that say nothing: affines of one spacing differ by the rounding of 32-bit numbers."""
_MAJORITY = 0.8
RULE = (
    f"a case is an outlier if its robust z-score, 0.6745 × (value − median) ÷ MAD, exceeds {CUT_OFF} in magnitude "
    "(Iglewicz and Hoaglin, 1993; spacings, sizes, volumes and ratios as logarithms). If more than half of "
    "the cases share one value, the MAD is 0, and every value more than 5 % away is an outlier"
)


@dataclass(frozen=True)
class Distribution:
    """One quantity over all cases that have it."""

    name: str
    unit: str
    is_ratio: bool
    """Never negative, and compared by its logarithm."""
    n_cases: int
    minimum: float
    p25: float
    median: float
    p75: float
    maximum: float
    values: tuple[tuple[str, float], ...]
    """(case_id, value), in the order of the cases."""


@dataclass(frozen=True)
class Outlier:
    """One case that is an outlier in one quantity."""

    case_id: str
    quantity: str
    value: float | str
    shown: str
    """The value with its unit."""
    usual: str
    """What it is in half of the cases or more."""
    robust_z: float | None
    """None where the rule is another than the z-score."""


@dataclass(frozen=True)
class Duplicates:
    """Cases whose voxels are the same, whatever their files are called and however they are stored or compressed."""

    what: Literal["image", "label"]
    case_ids: tuple[str, ...]


def distributions(cases: Sequence[CaseFacts]) -> tuple[Distribution, ...]:
    """Every quantity that at least one case has, summarised."""
    return tuple(_distribution(quantity, cases) for quantity in quantities(cases) if quantity.known.any())


def _distribution(quantity: Quantity, cases: Sequence[CaseFacts]) -> Distribution:
    values = quantity.values[quantity.known]
    minimum, p25, median, p75, maximum = (float(value) for value in np.percentile(values, [0, 25, 50, 75, 100]))
    named = zip([case.case_id for case in cases], quantity.values.tolist(), strict=True)
    pairs = tuple((case_id, value) for case_id, value in named if math.isfinite(value))
    return Distribution(
        quantity.name, quantity.unit, quantity.is_ratio, len(values), minimum, p25, median, p75, maximum, pairs
    )


def outliers(cases: Sequence[CaseFacts]) -> tuple[Outlier, ...]:
    """Outliers by `RULE`, the farthest first, then those that differ in kind from nearly all others."""
    found = [outlier for quantity in quantities(cases) for outlier in _in_quantity(quantity, cases)]
    found.sort(key=lambda outlier: -abs(outlier.robust_z or math.inf))
    return (*found, *_in_kind(cases))


def _in_quantity(quantity: Quantity, cases: Sequence[CaseFacts]) -> list[Outlier]:
    if not quantity.is_comparable or np.count_nonzero(quantity.known) < MIN_CASES:
        return []
    values = quantity.values[quantity.known]
    lowest, median, highest = np.percentile(values, [25, 50, 75])
    scores, rule = robust_scores(quantity.values, quantity.is_ratio)
    usual = f"half: {quantity.format(lowest)} … {quantity.with_unit(highest)}"
    if rule == "share one value":
        usual = f"most: {quantity.with_unit(median)}"
    found = []
    for case, value, score in zip(cases, quantity.values.tolist(), scores.tolist(), strict=True):
        if abs(score) > CUT_OFF:
            z = score if math.isfinite(score) else None
            found.append(Outlier(case.case_id, quantity.name, value, quantity.with_unit(value), usual, z))
    return found


def robust_scores(
    values: Float64[np.ndarray, " n"], is_ratio: bool
) -> tuple[Float64[np.ndarray, " n"], Literal["z-score", "share one value"]]:
    """Robust z-score of each value (of its logarithm if `is_ratio`); NaN stays NaN.

    Where the MAD is 0, but for the rounding of headers: infinite for what lies more than 5 % off the shared value, else
    0.
    """
    scaled = values
    if is_ratio:
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(values > 0, np.log10(values), np.nan)
    median = np.nanmedian(scaled)
    difference = scaled - median
    mad = float(np.nanmedian(np.abs(difference)))
    tolerance = math.log10(1 + _EXACT_TOLERANCE) if is_ratio else _EXACT_TOLERANCE * abs(float(median))
    if mad > max(1e-9, _ROUNDING if is_ratio else _ROUNDING * abs(float(median))):
        return 0.6745 * difference / mad, "z-score"
    off = np.where(np.abs(difference) > tolerance, np.copysign(np.inf, difference), 0.0)
    return np.where(np.isnan(scaled), np.nan, off), "share one value"


def _in_kind(cases: Sequence[CaseFacts]) -> list[Outlier]:
    """Cases whose orientation, modality or label values differ from those of four fifths of the cases."""
    found = []
    for name, kinds in kinds_of(cases).items():
        if name == "data type":
            continue  # how numbers are stored says nothing about the patient
        counts = Counter(kinds.values())
        usual, count = counts.most_common(1)[0] if counts else ("", 0)
        if len(kinds) < MIN_CASES or count < _MAJORITY * len(kinds):
            continue
        found += [
            Outlier(case_id, name, kind, kind, f"{count} of {len(kinds)}: {usual}", None)
            for case_id, kind in kinds.items()
            if kind != usual
        ]
    return found


def kinds_of(cases: Sequence[CaseFacts]) -> dict[str, dict[str, str]]:
    """What has no number: kind → case_id → value, for the cases of which it is known."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        if case.image_header is not None:
            kinds["data type"][case.case_id] = case.image_header.data_type
            if case.image_header.geometry is not None:
                kinds["orientation"][case.case_id] = case.image_header.geometry.orientation
        if case.intensity is not None:
            kinds["modality"][case.case_id] = case.intensity.modality
        if case.labels is not None:
            kinds["label values"][case.case_id] = ", ".join(str(value.value) for value in case.labels.values) or "none"
    return dict(kinds)


def duplicates(cases: Sequence[CaseFacts]) -> tuple[Duplicates, ...]:
    """Groups of cases with the same image, and groups with the same label on different images."""
    images, labels = defaultdict(list), defaultdict(list)
    for case in cases:
        if case.image_fingerprint is not None:
            images[case.image_fingerprint].append(case)
        if case.label_fingerprint is not None and case.labels is not None and case.labels.values:
            labels[case.label_fingerprint].append(case)
    found = [Duplicates("image", tuple(case.case_id for case in group)) for group in images.values() if len(group) > 1]
    for group in labels.values():
        if len({case.image_fingerprint for case in group}) > 1:
            found.append(Duplicates("label", tuple(case.case_id for case in group)))
    return tuple(found)
