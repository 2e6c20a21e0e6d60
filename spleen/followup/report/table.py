"""followup.csv: a row for each class of each scan."""

from collections.abc import Iterator

from spleen.followup.change import Change
from spleen.followup.course import Course, TimePoint
from spleen.followup.result import FollowUp, Subject
from spleen.reporting.numbers import Value, csv_text

_CHANGE = (
    "change_ml", "change_ml_low", "change_ml_high", "change_percent", "change_percent_low", "change_percent_high",
    "annual_percent", "annual_percent_low", "annual_percent_high", "beyond_limit",
)  # fmt: skip
COLUMNS = (
    "subject", "date", "class_name", "image", "volume_ml", "volume_ml_low", "volume_ml_high", "confidence_score",
    "expected_dice", "dice_low", "dice_high", "counted", "not_counted_because", "reference_ml", "dice",
    *_CHANGE, *(f"{name}_since_previous" for name in _CHANGE),
    "limit_percent_low", "limit_percent_high", "limit_source", "limit_n",
    "gain_ml", "loss_ml", "rotation_degrees", "shift_mm", "warnings",
)  # fmt: skip


def to_csv_text(result: FollowUp) -> str:
    """The whole table; what is not known is empty."""
    rows = [row for subject in result.subjects for course in subject.courses for row in _rows(subject, course)]
    return csv_text(COLUMNS, rows)


def _rows(subject: Subject, course: Course) -> Iterator[list[Value]]:
    limit = course.limit
    limits: list[Value] = [None] * 4 if limit is None else [*limit.percent, limit.source, limit.n]
    for point in course.points:
        yield [
            subject.name,
            point.scan.day.isoformat(),
            course.class_name,
            ";".join(map(str, point.scan.images)),
            *_measured(point),
            *_change(point.change),
            *_change(point.latest_change),
            *limits,
            *_voxelwise(subject, course, point),
        ]


def _measured(point: TimePoint) -> list[Value]:
    counted = "no" if point.not_counted else "yes"
    if point.measured is None:
        return [*[None] * 7, counted, point.not_counted, None, None]
    low, high = point.interval_mm3 or (None, None)
    expected = point.expected_dice
    reference = point.measured.reference_mm3
    return [
        point.measured.volume_mm3 / 1000,
        None if low is None else low / 1000,
        None if high is None else high / 1000,
        point.measured.confidence_score,
        *([None] * 3 if expected is None else [expected.dice, expected.low, expected.high]),
        counted,
        point.not_counted,
        None if reference is None else reference / 1000,
        point.measured.dice,
    ]


def _change(change: Change | None) -> list[Value]:
    if change is None:
        return [None] * len(_CHANGE)
    absolute = change.absolute_interval_mm3
    return [
        change.absolute_mm3 / 1000,
        *([None] * 2 if absolute is None else [end / 1000 for end in absolute]),
        change.percent,
        *(change.percent_interval or (None, None)),
        change.annual_percent,
        *(change.annual_interval or (None, None)),
        None if change.is_beyond_limit is None else "yes" if change.is_beyond_limit else "no",
    ]


def _voxelwise(subject: Subject, course: Course, point: TimePoint) -> list[Value]:
    found = subject.voxelwise.get(point.scan)
    told = [*subject.warnings.get(point.scan, ())]
    if point.scan in subject.not_aligned:
        told.append(f"not aligned: {subject.not_aligned[point.scan]}")
    if found is None:
        return [None, None, None, None, "; ".join(told)]
    gain, loss, moves = found.gain_ml.get(course.class_name), found.loss_ml.get(course.class_name), found.motion
    turned, shifted = (None, None) if moves is None else (moves.rotation_degrees, moves.distance_mm)
    return [gain, loss, turned, shifted, "; ".join(told)]
