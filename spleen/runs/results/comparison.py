"""Is the best arm better than the next one? Their test Dice, paired by run and case."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spleen.evaluation.metrics.statistics import FEWEST_PAIRS, Interval, bootstrap_mean_interval, wilcoxon_p
from spleen.records.cases import CaseRow, mean_of_known, read_cases, slices_of_test
from spleen.records.reading import BrokenRunError, FinishedRun
from spleen.records.settings import setting_text
from spleen.runs.results.arms import Arm
from spleen.runs.results.statistics import t_interval

Unit = Literal["case", "run"]
Verdict = Literal["distinguishable", "not distinguishable", "too few pairs", "no pairs"]


@dataclass(frozen=True)
class Pair:
    """The test Dice of both arms for one case, or for one run, over the classes that both scored."""

    name: str
    """The case_id, or the run's values of the settings in which the runs of an arm differ."""
    best: float
    following: float
    difference: float
    """Best minus following."""


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
    pairs: tuple[Pair, ...]

    @property
    def wins(self) -> int:
        """Number of pairs in which the best arm has the higher test Dice."""
        return sum(pair.difference > 0 for pair in self.pairs)

    @property
    def losses(self) -> int:
        """Number of pairs in which the following arm has the higher test Dice."""
        return sum(pair.difference < 0 for pair in self.pairs)


def compare_arms(best: Arm, following: Arm) -> ArmComparison:
    """Compare the test Dice of two arms on the classes and cases that both scored, paired by seed and fold."""
    matched = [(repeat, run, following.runs[repeat]) for repeat, run in best.runs.items() if repeat in following.runs]
    by_run = {repeat: found for repeat, run, other in matched if (found := _pairs_of(run, other))}
    by_case: dict[str, list[Pair]] = {}
    for found in by_run.values():
        for pair in found:
            by_case.setdefault(pair.name, []).append(pair)
    unit: Unit = "case" if len(by_case) >= len(by_run) else "run"
    if unit == "case":
        pairs = [_mean(case_id, found) for case_id, found in by_case.items()]
    else:
        pairs = [_mean(", ".join(map(setting_text, repeat)), found) for repeat, found in by_run.items()]
    differences = [pair.difference for pair in pairs]
    enough = len(pairs) >= FEWEST_PAIRS
    interval = bootstrap_mean_interval(differences) if enough and unit == "case" else t_interval(differences)
    p_value = wilcoxon_p(differences) if enough else None
    return ArmComparison(
        best=best,
        following=following,
        difference=mean_of_known(differences),
        interval=interval,
        p_value=p_value,
        n_pairs=len(pairs),
        unit=unit,
        verdict=_verdict(len(pairs), interval, p_value),
        same_slices=all(slices_of_test(run.folder) == slices_of_test(other.folder) for _, run, other in matched),
        pairs=tuple(pairs),
    )


def _mean(name: str, pairs: Sequence[Pair]) -> Pair:
    return Pair(
        name=name,
        best=mean_of_known([pair.best for pair in pairs]),
        following=mean_of_known([pair.following for pair in pairs]),
        difference=mean_of_known([pair.difference for pair in pairs]),
    )


def _pairs_of(run: FinishedRun, other: FinishedRun) -> list[Pair]:
    """The cases of two runs, each a mean over the classes that both scored."""
    try:
        ours, theirs = _test_dice(read_cases(run.folder)), _test_dice(read_cases(other.folder))
    except BrokenRunError:
        return []
    by_case: dict[str, list[Pair]] = {}
    for (case_id, class_name), dice in ours.items():
        other_dice = theirs.get((case_id, class_name), math.nan)
        if not math.isnan(dice - other_dice):
            by_case.setdefault(case_id, []).append(Pair(case_id, dice, other_dice, dice - other_dice))
    return [_mean(case_id, pairs) for case_id, pairs in by_case.items()]


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
