"""Which scans count, and what changed between them."""

import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from spleen.followup.change import RepeatabilityLimit
from spleen.followup.course import Measured, make_course, repeatability_limit
from spleen.followup.group import group_change
from spleen.followup.scans import Scan
from spleen.inference.calibration.calibration import CalibratingCase, ClassCalibration

LIMIT = RepeatabilityLimit(math.log(1.1), "calibration", 40)


def scan(day: str, subject: str = "a") -> Scan:
    return Scan(subject, date.fromisoformat(day), (Path(f"{subject}_{day}.nii.gz"),))


def calibration(n: int = 40) -> ClassCalibration:
    """Half of the cases have confidence 0.5 and Dice 0.6, the others 0.9 and 0.9 and errors of ±2 %."""
    good = [CalibratingCase(100.0, 100 * math.exp(0.02 * (-1) ** i), 0.9, 0.9) for i in range(n // 2)]
    bad = [CalibratingCase(100.0, 160.0, 0.5, 0.6) for _ in range(n // 2)]
    return ClassCalibration("spleen", (1,), (*good, *bad))


def course(volumes: dict[str, tuple[float, float]], calibrated: ClassCalibration | None = None, subject: str = "a"):
    """Of volume and confidence by date."""
    scans = {scan(day, subject): Measured(*each) for day, each in volumes.items()}
    return make_course("spleen", list(scans), scans, {}, calibrated, LIMIT)


def test_a_scan_of_low_confidence_is_shown_but_neither_a_baseline_nor_compared() -> None:
    result = course(
        {
            "2024-01-01": (90.0, 0.5),
            "2024-02-01": (100.0, 0.9),
            "2024-03-01": (300.0, 0.84),
            "2024-04-01": (120.0, 0.86),
        }
    )
    assert [point.not_counted for point in result.points] == [
        "confidence 0.50 is below 0.85", "", "confidence 0.84 is below 0.85", "",
    ]  # fmt: skip
    changes = [point.change for point in result.points]
    assert changes[:3] == [None, None, None]
    assert changes[3] is not None
    assert changes[3].percent == pytest.approx(20)
    assert changes[3].is_beyond_limit
    assert result.change == changes[3] == result.points[3].latest_change


def test_changes_are_since_the_first_and_since_the_one_before() -> None:
    result = course({"2024-01-01": (100.0, 0.9), "2024-02-01": (150.0, 0.9), "2024-03-01": (120.0, 0.9)})
    last = result.points[2]
    assert last.change is not None
    assert last.latest_change is not None
    assert (last.change.percent, last.latest_change.percent) == (pytest.approx(20), pytest.approx(-20))


def test_the_gate_of_a_calibration_decides_and_its_intervals_are_shown() -> None:
    calibrated = calibration()
    assert calibrated.gate == pytest.approx(0.5)  # above it, no calibrating case has a Dice below 0.8
    result = course({"2024-01-01": (100.0, 0.7), "2024-02-01": (100.0, 0.5)}, calibrated)
    first, second = result.points
    assert (first.not_counted, second.not_counted) == ("", "confidence 0.50 does not pass the gate of 0.50")
    assert first.interval_mm3 == calibrated.volume_interval(100.0)
    assert first.expected_dice == calibrated.expected_dice(0.7)


def test_a_scan_that_failed_or_shows_nothing_says_so() -> None:
    scans = [scan("2024-01-01"), scan("2024-02-01")]
    result = make_course("spleen", scans, {scans[1]: Measured(0.0, 0.0)}, {scans[0]: "damaged"}, None, None)
    assert [point.not_counted for point in result.points] == ["damaged", "nothing was found"]
    assert result.change is None


def test_the_limit_comes_from_pairs_else_from_the_cases_that_pass_the_gate() -> None:
    from_cases = repeatability_limit(None, calibration())
    assert from_cases is not None
    assert (from_cases.source, from_cases.n) == ("calibration", 20)
    # Errors of ±0.02: deviation 0.02·√(20/19); t with 19 degrees of freedom is 2.0930.
    assert from_cases.log_ratio == pytest.approx(2.0930241 * math.sqrt(2) * 0.02 * math.sqrt(20 / 19), rel=1e-6)
    good = (Measured(100.0, 0.9), Measured(105.0, 0.9))
    from_pairs = repeatability_limit([good, good, good, (Measured(1.0, 0.2), Measured(9.0, 0.9))], calibration())
    assert from_pairs is not None
    assert (from_pairs.source, from_pairs.n) == ("test-retest", 3)  # the pair of low confidence would not count
    assert repeatability_limit(None, None) is None


def test_fewer_than_three_pairs_leave_the_limit_to_the_calibration() -> None:
    two = [(Measured(100.0, 0.9), Measured(105.0, 0.9))] * 2
    limit = repeatability_limit(two, calibration())
    assert limit is not None
    assert (limit.source, limit.n) == ("calibration", 20)  # the half of the 40 cases that passes the gate
    assert repeatability_limit(two, None) is None


@pytest.fixture
def three():
    """Three subjects that grow by 10, 20 and 30 % in log volume over exactly 365.25 days (2023-01-01 12:00 …)."""
    return [
        course({"2023-01-01": (100.0, 0.9), "2027-01-01": (100 * math.exp(4 * rate), 0.9)}, subject=name)
        for name, rate in (("a", 0.1), ("b", 0.2), ("c", 0.3))
    ]


def test_the_mean_of_subjects_by_hand(three, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spleen.followup.group.find_spec", lambda _: None)
    group = group_change(three)
    assert group is not None
    # Rates per year 0.1, 0.2, 0.3 (four years of 365.25 days): mean 0.2, standard error 0.1/√3, t of 2 is 4.3027.
    half = 4.3026527 * 0.1 / math.sqrt(3)
    assert group.annual_percent == pytest.approx(100 * math.expm1(0.2))
    assert group.interval == pytest.approx((100 * math.expm1(0.2 - half), 100 * math.expm1(0.2 + half)))
    assert (group.method, group.n_subjects, group.n_scans) == ("mean of subjects", 3, 6)
    assert (group.n_decreased, group.n_increased) == (0, 3)


def test_the_mixed_effects_model_of_a_balanced_design_is_the_mean_slope() -> None:
    pytest.importorskip("statsmodels")
    rng = np.random.default_rng(1)
    days = ("2020-01-01", "2021-01-01", "2022-01-01", "2023-01-01")
    slopes, courses = [], []
    for number in range(8):
        years = np.array([(date.fromisoformat(day) - date(2020, 1, 1)).days / 365.25 for day in days])
        logs = 5 + 0.3 * rng.normal() + 0.08 * years + 0.02 * rng.normal(size=4)
        slopes.append(np.polyfit(years, logs, 1)[0])
        volumes = {day: (math.exp(each), 0.9) for day, each in zip(days, logs, strict=True)}
        courses.append(course(volumes, subject=f"s{number}"))
    group = group_change(courses)
    assert group is not None
    assert group.method == "mixed-effects model"
    assert group.annual_percent == pytest.approx(100 * math.expm1(np.mean(slopes)), rel=1e-4)
    low, high = group.interval
    assert low < 100 * math.expm1(0.08) < high


def test_two_subjects_are_no_group(three) -> None:
    assert group_change(three[:2]) is None
