"""Which cases of a set to show: those with errors, outliers, and typical ones for comparison."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from spleen.exploration.explore import Exploration
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.outliers import Outlier
from spleen.reporting.numbers import format_number

_SHOW_ALL = 6
_MOST_FAULTY, _MOST_OUTLIERS, _N_TYPICAL = 4, 6, 2


@dataclass(frozen=True)
class ShownCase:
    """A case to show, and why."""

    case: CaseFacts
    reasons: tuple[str, ...]


def shown_cases(exploration: Exploration) -> list[ShownCase]:
    """All cases of a small set; of a large one some with errors, the farthest outliers, and the most typical."""
    reasons = _reasons(exploration)
    cases = {case.case_id: case for case in exploration.cases if case.intensity is not None}
    if len(cases) <= _SHOW_ALL:
        return [ShownCase(case, tuple(reasons[case_id])) for case_id, case in cases.items()]
    faulty = [case_id for case_id, case in cases.items() if not case.is_sound][:_MOST_FAULTY]
    outlying = [case_id for case_id in _farthest(exploration.outliers) if case_id in cases and case_id not in faulty]
    outlying = outlying[:_MOST_OUTLIERS]
    ordered = [*_typical(exploration), *faulty, *outlying]
    return [ShownCase(cases[case_id], tuple(reasons[case_id])) for case_id in dict.fromkeys(ordered)]


def _reasons(exploration: Exploration) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for number, case_id in enumerate(_typical(exploration)):
        reasons[case_id].append("the most typical case" if number == 0 else "a typical case")
    for case in exploration.cases:
        reasons[case.case_id] += [f"{f.severity}: {f.topic}" for f in case.findings if f.severity == "error"]
    for outlier in exploration.outliers:
        z = "" if outlier.robust_z is None else f"; robust z {format_number(round(outlier.robust_z, 1))}"
        text = f"outlier in {outlier.quantity}: {outlier.shown} ({outlier.usual}{z})"
        reasons[outlier.case_id].append(text)
    return reasons


def _farthest(outliers: Sequence[Outlier]) -> list[str]:
    """Outliers: first the farthest of each quantity, then the others."""
    first = {outlier.quantity: outlier.case_id for outlier in reversed(outliers)}
    return list(dict.fromkeys([*reversed(first.values()), *(outlier.case_id for outlier in outliers)]))


def _typical(exploration: Exploration) -> list[str]:
    """The case of the suggestion, and those whose organ volume is nearest to its own."""
    if exploration.suggestion is None:
        return []
    first = next(case for case in exploration.cases if case.case_id == exploration.suggestion.case_id)
    outlying = {outlier.case_id for outlier in exploration.outliers}
    others = [
        case for case in exploration.cases if case is not first and case.is_sound and case.case_id not in outlying
    ]
    others.sort(key=lambda case: abs(case.organ_volume_mm3 - first.organ_volume_mm3))
    return [first.case_id, *(case.case_id for case in others[: _N_TYPICAL - 1])]
