"""The summary table of `spleen predict` fits on one screen."""

import math
from pathlib import Path

import pytest

from spleen.inference.confidence import ClassConfidence
from spleen.inference.predict import PredictedCase, PredictionReport
from spleen.inference.report.table import print_predictions


def report(n_cases: int) -> PredictionReport:
    """Cases whose confidence decreases from 0.99 in steps of 0.001; that of the last case is NaN."""
    cases = []
    for number in range(n_cases):
        confidence = math.nan if number == n_cases - 1 else 0.99 - 0.001 * number
        score = ClassConfidence(
            class_name="organ",
            volume_mm3=1000.0,
            n_components=1,
            largest_component_fraction=1.0,
            soft_dice_confidence=0.9,
            agreement=math.nan,
            volume_to_training=1.0,
            confidence_score=confidence,
            review=number % 2 == 0,
            reasons="",
        )
        cases.append(PredictedCase(f"case{number:03d}", Path("out", f"{number}.nii.gz"), (score,), None, 0.0, False))
    return PredictionReport(tuple(cases), (), 0, 0, 10, 1.0)


def test_with_many_cases_the_worst_ten_are_shown_and_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(report(300))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    shown = [line.split()[0] for line in lines if line.strip().startswith("case0") or line.strip().startswith("case2")]
    assert shown == ["case299", *(f"case{number}" for number in range(298, 289, -1))]
    assert any(line.startswith("300 masks, of which the 10") and "150 of all need a review" in line for line in lines)


def test_few_cases_are_all_shown_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(report(12))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "case0" in line] == [f"case{number:03d}" for number in range(12)]
    assert not any("lowest confidence" in line for line in lines)
