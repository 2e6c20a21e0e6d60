"""The page of a follow-up: trend, scans side by side, gain and loss in colour."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spleen.evaluation.scan.pictures import Picture
from spleen.followup.course import Course, TimePoint
from spleen.followup.pictures import COLOURS
from spleen.followup.result import FollowUp, Subject
from spleen.followup.wording import (
    SUMMARY,
    change_text,
    interval,
    limit_text,
    ml,
    percent,
    summary_cells,
    verdict,
    volume_text,
)
from spleen.reporting.html import render_page
from spleen.reporting.numbers import format_number
from spleen.reporting.plots import Dots, Line, Plot, PlotDrawing, Rule, draw_plot
from spleen.reporting.tables import Cell

_DAYS_PER_MONTH = 365.25 / 12
_PARENTHESES = re.compile(r"\([^)]*\)| %")
_MOST_PICTURED = 60
"""Subjects with pictures, which keeps the page below about 25 MB."""
_COLUMNS = (
    "date", "volume", "confidence", "expected Dice", "since the first", "since the one before", "gain (ml)",
    "loss (ml)", "counted",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A scan in the row of pictures of a course."""

    caption: str
    pictures: tuple[Picture, ...]
    is_counted: bool


@dataclass(frozen=True)
class Section:
    """One class of one subject, as the page shows it."""

    anchor: str
    title: str
    meaning: str
    level: str
    """How the meaning is coloured: "warning" for a change beyond the limit, otherwise "note"."""
    trend: PlotDrawing | None
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figures: Sequence[Figure]
    cautions: Sequence[str]


def to_page(result: FollowUp) -> str:
    """The whole page as text: no other file, no network."""
    sections = [
        _section(subject, course, number, has_pictures=number < _MOST_PICTURED)
        for number, subject in enumerate(result.subjects)
        for course in subject.courses
    ]
    return render_page(
        "followup.html.jinja",
        kind="follow-up",
        title=f"Follow-up of {', '.join(result.limits)}",
        about=_about(result),
        limits=[(name, limit_text(limit, result.no_limit)) for name, limit in result.limits.items()],
        uncalibrated=result.uncalibrated,
        group_columns=["class", "subjects", "scans", "change per year", "method", "decreased", "increased"],
        groups=list(_groups(result)),
        columns=SUMMARY,
        summary=[
            (section.anchor, _unbroken(summary_cells(course)))
            for section, (subject, course) in zip(sections, _courses(result), strict=True)
        ],
        sections=sections,
        colours=COLOURS,
        n_pictured=min(_MOST_PICTURED, len(result.subjects)),
        n_subjects=len(result.subjects),
    )


def _courses(result: FollowUp) -> Iterator[tuple[Subject, Course]]:
    for subject in result.subjects:
        for course in subject.courses:
            yield subject, course


def _about(result: FollowUp) -> str:
    n_scans = sum(len(subject.scans) for subject in result.subjects)
    first = min(scan.day for subject in result.subjects for scan in subject.scans)
    last = max(scan.day for subject in result.subjects for scan in subject.scans)
    count = len(result.subjects)
    return f"{count} subject{'s' * (count != 1)}, {n_scans} scans from {first.isoformat()} to {last.isoformat()}"


def _groups(result: FollowUp) -> Iterator[list[Cell]]:
    for group in result.groups:
        change = f"{percent(group.annual_percent)} ({interval(group.interval)})"
        yield [
            group.class_name, group.n_subjects, group.n_scans, change, group.method, group.n_decreased,
            group.n_increased,
        ]  # fmt: skip


def _section(subject: Subject, course: Course, number: int, has_pictures: bool) -> Section:
    several = len(subject.courses) > 1
    return Section(
        anchor=f"s{number}-{course.class_name}",
        title=f"{subject.name}, {course.class_name}" if several else subject.name,
        level="warning" if course.change and course.change.is_beyond_limit else "note",
        meaning=f"{change_text(course.change)}: {verdict(course)}" if course.change else verdict(course),
        trend=_trend(course),
        columns=_COLUMNS,
        rows=[_unbroken(_row(subject, course, point)) for point in course.points],
        figures=list(_figures(subject, course)) if has_pictures else [],
        cautions=list(_cautions(subject)),
    )


def _unbroken(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with lines that break only before an interval, not within it."""
    return [_PARENTHESES.sub(_joined, cell) if isinstance(cell, str) else cell for cell in cells]


def _joined(interval: re.Match[str]) -> str:
    no_break_space, word_joiner = "\u00a0", "\u2060"
    return interval[0].replace(" ", no_break_space).replace("–", f"{word_joiner}–{word_joiner}")


def _trend(course: Course) -> PlotDrawing | None:
    """Volume over months with 95 % intervals; the scans that do not count are dots of their own."""
    start = course.points[0].scan.day

    def months(point: TimePoint) -> float:
        return (point.scan.day - start).days / _DAYS_PER_MONTH

    measured = [point for point in course.points if point.measured is not None]
    if not measured:
        return None
    points = {point: (months(point), point.measured.volume_mm3 / 1000) for point in measured if point.measured}
    titles = {point: f"{point.scan.day.isoformat()}: {volume_text(point)}" for point in points}
    counted = [(*points[point], titles[point]) for point in course.counted]
    others = [(*points[point], titles[point]) for point in measured if point.not_counted]
    bars = [
        Line("", [(months(point), end / 1000, "") for end in point.interval_mm3], has_markers=False)
        for point in course.counted
        if point.interval_mm3 is not None
    ]
    rules = []
    if course.limit is not None and counted:
        rules = [
            Rule("y", counted[0][1] * (1 + end / 100), f"{percent(end)}") for end in course.limit.percent
        ]  # fmt: skip
    return draw_plot(
        Plot(
            f"Volume of {course.class_name} in {course.subject}",
            "months since the first scan",
            "volume (ml)",
            lines=[Line("counted, with its 95 % interval" if bars else "counted", counted), *bars],
            dots=[Dots("not counted", others, 1)] if others else [],
            rules=rules,
            width=400,
            height=250,
            right_margin=64,
        )
    )


def _row(subject: Subject, course: Course, point: TimePoint) -> list[Cell]:
    name, found = course.class_name, subject.voxelwise.get(point.scan)
    gain, loss = (None, None) if found is None else (found.gain_ml.get(name), found.loss_ml.get(name))
    expected = point.expected_dice
    return [
        point.scan.day.isoformat(),
        volume_text(point),
        None if point.measured is None else round(point.measured.confidence_score, 2),
        None if expected is None else f"{expected.dice:.2f} ({expected.low:.2f}–{expected.high:.2f})",
        change_text(point.change),
        change_text(point.latest_change),
        None if gain is None else ml(1000 * gain),
        None if loss is None else ml(1000 * loss),
        f"no: {point.not_counted}" if point.not_counted else "yes",
    ]


def _figures(subject: Subject, course: Course) -> Iterator[Figure]:
    for point in course.points:
        if found := subject.voxelwise.get(point.scan):
            caption = f"{point.scan.day.isoformat()}: {volume_text(point)}"
            yield Figure(caption, tuple(found.pictures[course.class_name]), not point.not_counted)


def _cautions(subject: Subject) -> Iterator[str]:
    for scan in subject.scans:
        day = scan.day.isoformat()
        if told := subject.warnings.get(scan):
            yield f"{day} differs from the first scan: {'; '.join(told)}"
        if scan in subject.not_aligned:
            yield f"{day} could not be aligned: {subject.not_aligned[scan]}"
        found = subject.voxelwise.get(scan)
        if found is not None and found.motion is not None:
            turned = f"{format_number(round(found.motion.rotation_degrees, 1))}°"
            moved = f"shifted by {format_number(round(found.motion.distance_mm, 1))} mm and turned by {turned}"
            yield f"{day} was {moved} to match the other scans"
