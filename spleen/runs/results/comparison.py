"""Is the best arm better than the next one? Their test Dice, paired by run and case."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spleen.evaluation.metrics.statistics import FEWEST_PAIRS, Interval, bootstrap_mean_interval, wilcoxon_p
from spleen.records.cases import CaseRow, mean_of_known, read_cases, slices_of_test
from spleen.records.reading import BrokenRunError, FinishedRun
from spleen.runs.results.arms import Arm
from spleen.runs.results.statistics import t_interval

Unit = Literal["case", "run"]
Verdict = Literal["distinguishable", "not distinguishable", "too few pairs", "no pairs"]


@dataclass(frozen=True)
class ArmComparison:
    """The best arm by validation against the next one.

    `difference` is the mean paired difference in test Dice, the best minus the next, over `n_pairs` pairs of cases or
    of runs (whichever is larger; the other is averaged first). `interval` is its 95 % interval: bootstrap for six or
    more cases, otherwise Student's t, None below two pairs. `p_value` is from Wilcoxon's signed-rank test, None below
    six pairs. `same_slices` is False if the two were tested on different slices of a volume.
    """

    best: Arm
    following: Arm
    difference: float
    interval: Interval | None
    p_value: float | None
    n_pairs: int
    unit: Unit
    verdict: Verdict
    same_slices: bool


def compare_arms(best: Arm, following: Arm) -> ArmComparison:
    """Compare the test Dice of two arms on the classes and cases that both scored, paired by seed and fold."""
    matched = [(run, following.runs[repeat]) for repeat, run in best.runs.items() if repeat in following.runs]
    by_run = [differences for run, other in matched if (differences := _differences(run, other))]
    by_case: dict[str, list[float]] = {}
    for differences in by_run:
        for case_id, difference in differences.items():
            by_case.setdefault(case_id, []).append(difference)
    unit: Unit = "case" if len(by_case) >= len(by_run) else "run"
    pairs = [mean_of_known(list(each)) for each in (by_case.values() if unit == "case" else map(_values, by_run))]
    enough = len(pairs) >= FEWEST_PAIRS
    interval = bootstrap_mean_interval(pairs) if enough and unit == "case" else t_interval(pairs)
    p_value = wilcoxon_p(pairs) if enough else None
    return ArmComparison(
        best=best,
        following=following,
        difference=mean_of_known(pairs),
        interval=interval,
        p_value=p_value,
        n_pairs=len(pairs),
        unit=unit,
        verdict=_verdict(len(pairs), interval, p_value),
        same_slices=all(slices_of_test(run.folder) == slices_of_test(other.folder) for run, other in matched),
    )


def _values(differences: Mapping[str, float]) -> list[float]:
    return list(differences.values())


def _differences(run: FinishedRun, other: FinishedRun) -> dict[str, float]:
    """Difference in test Dice of each case, mean over the classes that both scored."""
    try:
        ours, theirs = _test_dice(read_cases(run.folder)), _test_dice(read_cases(other.folder))
    except BrokenRunError:
        return {}
    by_case: dict[str, list[float]] = {}
    for (case_id, class_name), dice in ours.items():
        difference = dice - theirs.get((case_id, class_name), math.nan)
        if not math.isnan(difference):
            by_case.setdefault(case_id, []).append(difference)
    return {case_id: mean_of_known(differences) for case_id, differences in by_case.items()}


def _test_dice(rows: tuple[CaseRow, ...]) -> dict[tuple[str, str], float]:
    return {(row.case_id, row.class_name): row.dice for row in rows if row.split == "test"}


def _verdict(n_pairs: int, interval: Interval | None, p_value: float | None) -> Verdict:
    """Interval and signed-rank test must both indicate a difference."""
    if not n_pairs:
        return "no pairs"
    if interval is None or p_value is None:
        return "too few pairs"
    apart = interval.low > 0 or interval.high < 0
    return "distinguishable" if apart and p_value < 0.05 else "not distinguishable"
