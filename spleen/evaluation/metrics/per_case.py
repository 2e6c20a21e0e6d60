"""Per-case scores: a torchmetrics class that accumulates counts per case, and the score records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from spleen.evaluation.metrics.overlap import (
    ConfusionCounts,
    dice,
    jaccard,
    precision,
    sensitivity,
    specificity,
)

OVERLAP_SCORES = {
    "dice": dice,
    "jaccard": jaccard,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
}


@dataclass(frozen=True)
class CaseScore:
    """Scores of one class in one case; volumes in mm³."""

    case_id: str
    class_name: str
    dice: float
    jaccard: float
    sensitivity: float
    specificity: float
    precision: float
    volume_prediction_mm3: float
    volume_reference_mm3: float


def case_scores(
    table: Int64[Tensor, "case organ 4"],
    case_ids: Sequence[str],
    class_names: Sequence[str],
    voxel_volumes_mm3: Sequence[float],
) -> list[CaseScore]:
    """One record per case and foreground class, from the counts of `PerCaseCounts`."""
    counts = ConfusionCounts(*table.cpu().unbind(-1))
    scores = {name: score(counts) for name, score in OVERLAP_SCORES.items()}
    predicted = counts.true_positive + counts.false_positive
    expected = counts.true_positive + counts.false_negative
    return [
        CaseScore(
            case_id=case_id,
            class_name=class_name,
            **{name: float(values[case, organ]) for name, values in scores.items()},
            volume_prediction_mm3=int(predicted[case, organ]) * voxel_volumes_mm3[case],
            volume_reference_mm3=int(expected[case, organ]) * voxel_volumes_mm3[case],
        )
        for case, case_id in enumerate(case_ids)
        for organ, class_name in enumerate(class_names)
    ]


@dataclass(frozen=True)
class MeanScores:
    """Means over cases, NaN excluded; `n_empty`: both masks empty, `n_missed`: reference but no prediction."""

    dice: float
    jaccard: float
    sensitivity: float
    specificity: float
    precision: float
    n_cases: int
    n_empty: int
    n_missed: int


def mean_scores(scores: Sequence[CaseScore]) -> MeanScores:
    """Average each score over the classes of a case first, then over the cases."""
    by_case: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, []).append(score)
    means = {
        name: _mean([_mean([getattr(score, name) for score in case]) for case in by_case.values()])
        for name in OVERLAP_SCORES
    }
    missed = [s for s in scores if s.volume_reference_mm3 > 0 and s.volume_prediction_mm3 == 0]
    return MeanScores(
        **means,
        n_cases=len(by_case),
        n_empty=sum(math.isnan(score.dice) for score in scores),
        n_missed=len(missed),
    )


def class_means(scores: Sequence[CaseScore]) -> dict[str, MeanScores]:
    """Mean scores of each class over the cases, in the order of the classes."""
    names = dict.fromkeys(score.class_name for score in scores)
    return {name: mean_scores([score for score in scores if score.class_name == name]) for name in names}


def _mean(values: Sequence[float]) -> float:
    """Mean of the non-NaN values; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
