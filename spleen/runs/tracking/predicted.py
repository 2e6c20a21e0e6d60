"""What is predicted once more for the dashboard: the worst slices, and surface distances of whole test cases."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from spleen.data.loading.batches import CaseSlices, load_images
from spleen.data.store.entry import StoredCase
from spleen.evaluation.metrics.surface import average_surface_distance_mm, hausdorff95_mm, surface_distances
from spleen.imaging.geometry import SHEARED_DEGREES
from spleen.imaging.probabilities import native_prediction
from spleen.runs.tracking.scores import SurfaceScore
from spleen.training.preview import SliceScore

Forward = Callable[[Tensor], Tensor]
"""Maps images (b, c, h, w) to logits."""

_SLICES_AT_ONCE = 16


def worst_slices(scores: Sequence[SliceScore], count: int) -> list[SliceScore]:
    """The `count` worst slices by Dice: first the worst one of each case, worst case first, then the next of each."""
    rank_of_case: dict[int, int] = {}
    ranked: list[tuple[int, float, SliceScore]] = []
    for score in sorted((score for score in scores if not math.isnan(score.dice)), key=lambda score: score.dice):
        rank = rank_of_case.get(score.case_index, 0)
        rank_of_case[score.case_index] = rank + 1
        ranked.append((rank, score.dice, score))
    return [score for *_, score in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def surface_scores(
    parts: Sequence[CaseSlices],
    class_names: Sequence[str],
    context_slices: int,
    forward: Forward,
    budget_seconds: float,
) -> dict[tuple[str, str], SurfaceScore]:
    """Surface distances of the cases, by case_id and class; none if they would take longer than the budget.

    None either unless whole cases were tested: where a block of slices ends, a mask has no surface of its own. Nor for
    sheared grids, whose lengths along the axes do not determine distances.
    """
    if any(len(part.indices) < part.case.n_slices or part.case.shear_degrees > SHEARED_DEGREES for part in parts):
        return {}
    scores: dict[tuple[str, str], SurfaceScore] = {}
    started = time.monotonic()
    for done, part in enumerate(parts):
        if done and (time.monotonic() - started) / done * len(parts) > budget_seconds:
            return {}  # means over some of the cases could not be compared with those of other runs
        case = part.case
        prediction, reference = _predict(case, context_slices, forward), np.asarray(case.reference)
        for index, name in enumerate(class_names, start=1):
            distances = surface_distances(prediction == index, reference == index, case.spacing_mm)
            scores[case.case_id, name] = SurfaceScore(hausdorff95_mm(distances), average_surface_distance_mm(distances))
    return scores


def _predict(case: StoredCase, context_slices: int, forward: Forward) -> np.ndarray:
    """Class indices (n, H, W) of all slices on the native grid."""
    planes = []
    for start in range(0, case.n_slices, _SLICES_AT_ONCE):
        index = np.arange(start, min(start + _SLICES_AT_ONCE, case.n_slices))
        with torch.no_grad():
            logits = forward(torch.from_numpy(load_images(case, index, context_slices)))
        planes.append(native_prediction(logits, case.grid).cpu().numpy())
    return np.concatenate(planes)
