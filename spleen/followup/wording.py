"""Volumes, changes and limits in words."""

from spleen.followup.change import Change, RepeatabilityLimit
from spleen.followup.course import Course, TimePoint
from spleen.reporting.tables import Cell

SUMMARY = "subject", "class", "scans", "first", "last", "change", "per year", "meaning"
"""Headings of `summary_cells`."""


def ml(volume_mm3: float) -> str:
    """A volume in ml with about three digits."""
    volume = volume_mm3 / 1000
    return f"{volume:.{0 if abs(volume) >= 100 else 1 if abs(volume) >= 10 else 2}f}".replace("-", "−")


def volume_text(point: TimePoint) -> str:
    """212 ml (204–221), or why there is none."""
    if point.measured is None:
        return "–"
    ends = "" if point.interval_mm3 is None else f" ({ml(point.interval_mm3[0])}–{ml(point.interval_mm3[1])})"
    return f"{ml(point.measured.volume_mm3)} ml{ends}"


def percent(value: float) -> str:
    """+4.2 %, with a true minus sign."""
    return f"{value:+.1f} %".replace("-", "−")


def interval(ends: tuple[float, float] | None) -> str:
    """−1.2 to +4.8 %; empty without one."""
    return "" if ends is None else f"{percent(ends[0])[:-2]} to {percent(ends[1])}"


def change_text(change: Change | None) -> str:
    """+4.2 % (−1.2 to +9.8 %)."""
    if change is None:
        return "–"
    ends = interval(change.percent_interval)
    return percent(change.percent) + (f" ({ends})" if ends else "")


def annual_text(change: Change | None) -> str:
    """The same per year; a dash within 30 days."""
    if change is None or change.annual_percent is None:
        return "–"
    ends = interval(change.annual_interval)
    return percent(change.annual_percent) + (f" ({ends})" if ends else "")


def verdict(course: Course) -> str:
    """What the change from the first to the last counted scan means."""
    change = course.change
    if change is None:
        return "no two scans to compare"
    if change.is_beyond_limit is None:
        return "no limit to judge by"
    if not change.is_beyond_limit:
        return "within repeatability"
    return "increase" if change.percent > 0 else "decrease"


def limit_text(limit: RepeatabilityLimit | None, no_limit: str) -> str:
    """What a change must exceed, and where that comes from."""
    if limit is None:
        return f"no repeatability limit: {no_limit}"
    low, high = limit.percent
    source = f"{limit.n} test–retest pairs" if limit.source == "test-retest" else f"{limit.n} calibrating cases"
    return f"a change of {percent(low)} to {percent(high)} may be measurement error (95 %, from {source})"


def summary_cells(course: Course) -> list[Cell]:
    """A row of the table of all changes, each from the first to the last counted scan."""
    counted, change = course.counted, course.change
    n_scans = f"{len(counted)} of {len(course.points)}" if len(counted) < len(course.points) else str(len(counted))
    ends = [volume_text(point) for point in (counted[0], counted[-1])] if counted else ["–", "–"]
    return [
        course.subject, course.class_name, n_scans, *ends, change_text(change), annual_text(change), verdict(course)
    ]  # fmt: skip
