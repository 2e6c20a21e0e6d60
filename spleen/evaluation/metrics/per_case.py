"""Per-case scores: a torchmetrics class that accumulates counts per case, and the score records."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
    """Scores of one class in one case; volumes in mm³. All are NaN if the case does not label the class."""

    case_id: str
    class_name: str
    dice: float
    jaccard: float
    sensitivity: float
    specificity: float
    precision: float
    volume_prediction_mm3: float
    volume_reference_mm3: float

    @property
    def is_labelled(self) -> bool:
        """Whether the case labels the class."""
        return not math.isnan(self.volume_reference_mm3)


def case_scores(
    table: Int64[Tensor, "case organ 4"],
    case_ids: Sequence[str],
    class_names: Sequence[str],
    voxel_volumes_mm3: Sequence[float],
    unlabelled: Sequence[Collection[int]] = (),
) -> list[CaseScore]:
    """One record per case and foreground class, from the counts of `PerCaseCounts`.

    `unlabelled` are the class indices that each case does not label.
    """
    counts = ConfusionCounts(*table.cpu().unbind(-1))
    scores = {name: score(counts) for name, score in OVERLAP_SCORES.items()}
    predicted = counts.true_positive + counts.false_positive
    expected = counts.true_positive + counts.false_negative
    volumes = torch.tensor(voxel_volumes_mm3, dtype=torch.float64)[:, None]
    values = {**scores, "volume_prediction_mm3": predicted * volumes, "volume_reference_mm3": expected * volumes}
    for case, classes in enumerate(unlabelled):
        for column in values.values():
            column[case, [number - 1 for number in classes]] = math.nan
    return [
        CaseScore(
            case_id=case_id,
            class_name=class_name,
            **{name: float(column[case, organ]) for name, column in values.items()},
        )
        for case, case_id in enumerate(case_ids)
        for organ, class_name in enumerate(class_names)
    ]


@dataclass(frozen=True)
class MeanScores:
    """Means over cases, NaN excluded.

    `n_cases`: cases that label the class, or any class; `n_empty`: both masks empty; `n_missed`: reference but no
    prediction.
    """

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
    scores = [score for score in scores if score.is_labelled]
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
