"""The final scores of a run as flat values by name (test/dice, test/liver/dice, …) and as rows of tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean

from spleen.evaluation.metrics.per_case import OVERLAP_SCORES, CaseScore, MeanScores, class_means, mean_scores
from spleen.records.surfaces import SurfaceScore

_MM3_PER_ML = 1000.0
SCORE_NAMES = tuple(OVERLAP_SCORES)
_COUNTS = tuple(field.name for field in fields(MeanScores) if field.name not in SCORE_NAMES)
_VOLUMES = ("volume_prediction_ml", "volume_reference_ml", "volume_difference_ml")
_SURFACE = ("hausdorff95_mm", "average_surface_distance_mm")
CASE_COLUMNS = ("case_id", "class", *SCORE_NAMES, *_VOLUMES, *_SURFACE)


SurfacesByCase = Mapping[tuple[str, str], SurfaceScore]
"""By case_id and class; empty if they were not computed."""


def mean_values(split: str, cases: Sequence[CaseScore], surfaces: SurfacesByCase | None = None) -> dict[str, float]:
    """Means over the cases, and with several classes also those of each class; what is NaN is left out.

    Volumes are those of all classes together.
    """
    groups = {split: list(cases)}
    names = dict.fromkeys(case.class_name for case in cases)
    if len(names) > 1:
        groups |= {f"{split}/{name}": [case for case in cases if case.class_name == name] for name in names}
    values: dict[str, float] = {}
    for prefix, members in groups.items():
        means = mean_scores(members)
        of_group = {name: getattr(means, name) for name in SCORE_NAMES}
        of_group |= _mean_volumes_ml(members) | _mean_surfaces(members, surfaces or {})
        values |= {f"{prefix}/{name}": value for name, value in of_group.items() if not math.isnan(value)}
    return values


def case_counts(split: str, cases: Sequence[CaseScore]) -> dict[str, int]:
    """The numbers of cases: scored, with both masks empty, with an organ that was missed."""
    means = mean_scores(cases)
    return {f"{split}/{name}": getattr(means, name) for name in _COUNTS}


def case_rows(cases: Sequence[CaseScore], surfaces: SurfacesByCase) -> list[list[str | float | None]]:
    """A row of CASE_COLUMNS for each case and class; None where a score is not defined."""
    rows: list[list[str | float | None]] = []
    for case in cases:
        surface = surfaces.get((case.case_id, case.class_name))
        numbers = [
            *(getattr(case, name) for name in SCORE_NAMES),
            *_volumes_ml(case),
            *(math.nan if surface is None else getattr(surface, name) for name in _SURFACE),
        ]
        rows.append([case.case_id, case.class_name, *map(_or_none, numbers)])
    return rows


CLASS_COLUMNS = ("split", "class", *SCORE_NAMES, *_COUNTS)


def class_rows(split: str, cases: Sequence[CaseScore]) -> list[list[str | float | None]]:
    """A row of CLASS_COLUMNS for each class: means over the cases."""
    return [
        [split, name, *(_or_none(getattr(means, score)) for score in (*SCORE_NAMES, *_COUNTS))]
        for name, means in class_means(cases).items()
    ]


def _volumes_ml(case: CaseScore) -> tuple[float, float, float]:
    predicted, expected = case.volume_prediction_mm3 / _MM3_PER_ML, case.volume_reference_mm3 / _MM3_PER_ML
    return predicted, expected, predicted - expected


def _mean_volumes_ml(cases: Sequence[CaseScore]) -> dict[str, float]:
    cases = [case for case in cases if case.is_labelled]
    n_cases = len({case.case_id for case in cases})
    if not n_cases:
        return {}
    totals = [math.fsum(volumes) for volumes in zip(*map(_volumes_ml, cases), strict=True)]
    return {name: total / n_cases for name, total in zip(_VOLUMES, totals, strict=True)}


def _mean_surfaces(cases: Sequence[CaseScore], surfaces: SurfacesByCase) -> dict[str, float]:
    """Means over classes and cases without NaN; inf if an organ was missed."""
    found = [surfaces[key] for case in cases if (key := (case.case_id, case.class_name)) in surfaces]
    return {name: _mean([getattr(surface, name) for surface in found]) for name in _SURFACE}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
