"""Change of one class over all subjects: by a mixed-effects model, or from the first to the last scan of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np

from spleen.followup.change import DAYS_PER_YEAR, LEAST_DAYS, student_t
from spleen.followup.course import Course

LEAST_SUBJECTS = 3


@dataclass(frozen=True)
class GroupChange:
    """Mean change per year over subjects, with its 95 % interval."""

    class_name: str
    n_subjects: int
    n_scans: int
    annual_percent: float
    interval: tuple[float, float]
    method: Literal["mixed-effects model", "mean of subjects"]
    n_decreased: int
    """Subjects whose change from the first to the last scan is beyond the repeatability limit, and negative."""
    n_increased: int


def group_change(courses: Sequence[Course]) -> GroupChange | None:
    """Of the counted scans of one class in several subjects; None for fewer than three with 30 days between them.

    With statsmodels: log volume over years with a random intercept for each subject, fitted by REML (Laird and Ware
    1982, Biometrics 38:963). Otherwise the mean of the subjects' log ratios per year, with Student's t.
    """
    usable = [course for course in courses if _years(course) * DAYS_PER_YEAR >= LEAST_DAYS]
    if len(usable) < LEAST_SUBJECTS:
        return None
    model = _mixed_effects(usable) if find_spec("statsmodels") else None
    rate, half_width = model or _mean_of_subjects(usable)
    beyond = [course.change.percent for course in usable if course.change and course.change.is_beyond_limit]
    return GroupChange(
        usable[0].class_name,
        len(usable),
        sum(len(course.counted) for course in usable),
        100 * math.expm1(rate),
        (100 * math.expm1(rate - half_width), 100 * math.expm1(rate + half_width)),
        "mixed-effects model" if model else "mean of subjects",
        sum(percent < 0 for percent in beyond),
        sum(percent > 0 for percent in beyond),
    )


def _years(course: Course) -> float:
    days = [point.scan.day for point in course.counted]
    return (days[-1] - days[0]).days / DAYS_PER_YEAR if days else 0.0


def _log_volumes(course: Course) -> list[tuple[float, float]]:
    """Years since the first counted scan, and log volume, of each."""
    start = course.counted[0].scan.day
    return [
        ((point.scan.day - start).days / DAYS_PER_YEAR, math.log(point.measured.volume_mm3))
        for point in course.counted
        if point.measured is not None
    ]


def _mean_of_subjects(courses: Sequence[Course]) -> tuple[float, float]:
    """Mean log ratio per year, and the half width of its 95 % interval."""
    rates = []
    for course in courses:
        (_, first), *_, (years, last) = _log_volumes(course)
        rates.append((last - first) / years)
    error = float(np.std(rates, ddof=1)) / math.sqrt(len(rates))
    return float(np.mean(rates)), student_t(len(rates) - 1) * error


def _mixed_effects(courses: Sequence[Course]) -> tuple[float, float] | None:
    """The same from a model with a random intercept; None where it does not converge."""
    import warnings

    from statsmodels.regression.mixed_linear_model import MixedLM

    rows = [(number, *each) for number, course in enumerate(courses) for each in _log_volumes(course)]
    groups, years, logs = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a variance of 0 is at the boundary, which is a result, too
            fitted = MixedLM(logs, np.column_stack([np.ones_like(years), years]), groups).fit(reml=True)
        rate, error = float(fitted.fe_params[1]), float(fitted.bse_fe[1])
    except (np.linalg.LinAlgError, ValueError):
        return None
    return (rate, 1.959964 * error) if fitted.converged and math.isfinite(error) and error > 0 else None
