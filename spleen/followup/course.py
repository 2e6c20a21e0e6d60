"""The course of one class in one subject: a volume for each scan, and what changed since the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spleen.followup.change import Change, RepeatabilityLimit, change_between, limit_of_errors, limit_of_pairs
from spleen.followup.scans import Scan
from spleen.inference.calibration.calibration import ClassCalibration, ExpectedDice
from spleen.inference.confidence import REVIEW_BELOW


@dataclass(frozen=True)
class Measured:
    """What was predicted for one class of one scan."""

    volume_mm3: float
    confidence_score: float
    reference_mm3: float | None = None
    """Volume of the expert's mask, where there is one."""
    dice: float | None = None
    """Against the expert's mask; None where both are empty, too."""


@dataclass(frozen=True)
class TimePoint:
    """One class in one scan."""

    scan: Scan
    measured: Measured | None
    """None where the scan could not be predicted."""
    interval_mm3: tuple[float, float] | None
    """Calibrated 95 % interval of the volume."""
    expected_dice: ExpectedDice | None
    not_counted: str
    """Why it is shown but not counted; empty if it is counted."""
    change: Change | None = None
    """Since the first counted scan."""
    latest_change: Change | None = None
    """Since the counted scan before."""


@dataclass(frozen=True)
class Course:
    """One class of one subject, by date."""

    subject: str
    class_name: str
    points: tuple[TimePoint, ...]
    limit: RepeatabilityLimit | None

    @property
    def counted(self) -> tuple[TimePoint, ...]:
        """The time points that count."""
        return tuple(point for point in self.points if not point.not_counted)

    @property
    def change(self) -> Change | None:
        """From the first to the last counted scan."""
        return self.counted[-1].change if self.counted else None


def make_course(
    class_name: str,
    scans: Sequence[Scan],
    measured: Mapping[Scan, Measured],
    failures: Mapping[Scan, str],
    calibration: ClassCalibration | None,
    limit: RepeatabilityLimit | None,
    has_scores: bool = True,
) -> Course:
    """Put the scans of one subject in order, leave out those of low confidence, and compare the others.

    `has_scores` says whether the calibration holds for the confidence scores, too.
    """
    points: list[TimePoint] = []
    first: TimePoint | None = None
    latest: TimePoint | None = None
    for scan in scans:
        point = _point(scan, measured.get(scan), failures.get(scan, "it was not predicted"), calibration, has_scores)
        if not point.not_counted:
            point = _compared(point, first, latest, limit)
            first, latest = first or point, point
        points.append(point)
    return Course(scans[0].subject, class_name, tuple(points), limit)


def repeatability_limit(
    pairs: Sequence[tuple[Measured, Measured]] | None, calibration: ClassCalibration | None, has_scores: bool = True
) -> RepeatabilityLimit | None:
    """From test–retest pairs where enough are given, otherwise from the calibrating cases that pass the gate.

    Pairs with a scan of low confidence, which would not be counted, are left out.
    """
    if pairs is not None:
        gated = calibration if has_scores else None
        passing = [pair for pair in pairs if not any(_reason_not_to_count(each, gated) for each in pair)]
        if (limit := limit_of_pairs([(first.volume_mm3, second.volume_mm3) for first, second in passing])) is not None:
            return limit
    if calibration is None:
        return None
    return limit_of_errors(calibration.passing_log_errors if has_scores else calibration.log_errors)


def _point(
    scan: Scan, measured: Measured | None, failure: str, calibration: ClassCalibration | None, has_scores: bool
) -> TimePoint:
    if measured is None:
        return TimePoint(scan, None, None, None, failure)
    interval = None if calibration is None else calibration.volume_interval(measured.volume_mm3)
    gated = calibration if has_scores else None
    expected = None if gated is None else gated.expected_dice(measured.confidence_score)
    return TimePoint(scan, measured, interval, expected, _reason_not_to_count(measured, gated))


def _reason_not_to_count(measured: Measured, calibration: ClassCalibration | None) -> str:
    if measured.volume_mm3 <= 0:
        return "nothing was found"
    score = measured.confidence_score
    if calibration is None:
        return "" if score >= REVIEW_BELOW else f"confidence {score:.2f} is below {REVIEW_BELOW:.2f}"
    if calibration.gate is None:
        return "too few calibrating cases for a gate"
    return (
        "" if score > calibration.gate else f"confidence {score:.2f} does not pass the gate of {calibration.gate:.2f}"
    )


def _compared(
    point: TimePoint, first: TimePoint | None, latest: TimePoint | None, limit: RepeatabilityLimit | None
) -> TimePoint:
    def since(other: TimePoint | None) -> Change | None:
        if other is None:
            return None
        (from_day, before), (to_day, after) = (
            (each.scan.day, each.measured.volume_mm3 if each.measured else 0.0) for each in (other, point)
        )
        return change_between((from_day, before), (to_day, after), limit)

    return TimePoint(
        point.scan, point.measured, point.interval_mm3, point.expected_dice, "", since(first), since(latest)
    )
