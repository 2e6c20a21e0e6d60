"""What `spleen followup` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spleen.followup.wording import SUMMARY, interval, limit_text, percent, summary_cells
from spleen.reporting.tables import Column, render_table

if TYPE_CHECKING:
    from spleen.followup.result import FollowUp

_MOST_SUBJECTS = 12


def to_text(result: "FollowUp") -> str:
    """A table of the changes, the limit, the group, and what to be careful about."""
    columns = [Column(name, is_name=name in ("subject", "class"), may_go=name == "per year") for name in SUMMARY]
    subjects = result.subjects[:_MOST_SUBJECTS]
    rows = [summary_cells(course) for subject in subjects for course in subject.courses]
    parts = [render_table("", columns, rows).rstrip("\n")]
    if len(subjects) < len(result.subjects):
        parts.append(f"{len(result.subjects)} subjects, of which the first {len(subjects)} are shown")
    parts += [f"{name}: {limit_text(limit, result.no_limit)}" for name, limit in result.limits.items()]
    if result.uncalibrated:
        parts.append(result.uncalibrated)
    for group in result.groups:
        parts.append(
            f"{group.class_name}, {group.n_subjects} subjects with {group.n_scans} scans: "
            f"{percent(group.annual_percent)} per year ({interval(group.interval)}, {group.method}); beyond the limit "
            f"{group.n_decreased} decreased, {group.n_increased} increased"
        )
    return "\n".join([*parts, *_cautions(result)])


def _cautions(result: "FollowUp") -> Iterator[str]:
    for subject in result.subjects:
        for scan in subject.scans:
            where = f"{subject.name}, {scan.day.isoformat()}"
            reasons = {
                point.not_counted: None
                for course in subject.courses
                for point in course.points
                if point.scan is scan and point.not_counted
            }
            for reason in reasons:
                yield f"{where}: not counted: {reason}"
            if scan in subject.not_aligned:
                yield f"{where}: not aligned: {subject.not_aligned[scan]}"
            if told := subject.warnings.get(scan):
                yield f"{where}: differs from the first scan: {'; '.join(told)}"
