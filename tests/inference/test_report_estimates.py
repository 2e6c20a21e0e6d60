"""Volumes and Dice in words, from predictions.csv and from a score in memory."""

import math
from dataclasses import replace

import pytest

from spleen.inference.confidence import ClassConfidence
from spleen.inference.report.estimates import (
    dice_text,
    estimate_text,
    has_intervals,
    interval_text,
    row_of,
    volume_text,
)

NAN = math.nan


NAMES = ("volume_low_mm3", "volume_high_mm3", "expected_dice", "dice_low", "dice_high")


def score(volume_mm3: float, *calibrated: float) -> ClassConfidence:
    plain = ClassConfidence("spleen", volume_mm3, 1, 1.0, 0.9, NAN, 1.0, 0.9, False, "")
    return replace(plain, **dict(zip(NAMES, calibrated, strict=False)))


def test_a_calibrated_volume_is_told_with_its_intervals() -> None:
    row = row_of(score(212_123.0, 204_400.0, 220_600.0, 0.949, 0.921, 0.968))
    assert estimate_text(row) == "212 ml (95 %: 204–221), expected Dice 0.95 (0.92–0.97)"
    assert (volume_text(row), interval_text(row), dice_text(row)) == ("212 (204–221)", "204–221", "0.95 (0.92–0.97)")
    assert has_intervals(row)


@pytest.mark.parametrize(
    ("volume_mm3", "text"),
    [(99_960.0, "100.0 (90.0–110.0)"), (9_876.0, "9.88 (8.89–10.86)"), (123.0, "0.123 (0.111–0.135)")],
)
def test_small_volumes_have_more_digits(volume_mm3: float, text: str) -> None:
    assert volume_text(row_of(score(volume_mm3, 0.9 * volume_mm3, 1.1 * volume_mm3))) == text


def test_what_is_not_calibrated_is_left_out() -> None:
    plain = row_of(score(212_123.0))
    assert (estimate_text(plain), interval_text(plain), dice_text(plain)) == ("212 ml", None, None)
    assert not has_intervals(plain)
    assert estimate_text(row_of(score(212_123.0, 204_400.0, 220_600.0))) == "212 ml (95 %: 204–221)"
    edited = {name: str(value) for name, value in plain.items()} | {"volume_low_mm3": "?"}
    assert estimate_text(edited) == "212 ml"
