"""Preview slices of a run: best, median and worst test slice by Dice."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spleen.data.loading.batches import CaseSlices, load_images
from spleen.data.loading.patches import runs
from spleen.evaluation.metrics.overlap import labelled_part, without_ignored
from spleen.imaging.labels import IGNORED
from spleen.imaging.probabilities import native_prediction, with_regions_on_top
from spleen.reporting.overlays import SliceView


@dataclass(frozen=True)
class SliceScore:
    """Dice of one slice over all foreground classes; NaN if reference and prediction are both empty."""

    case_index: int
    slice_index: int
    dice: float


def slice_dice(prediction: Tensor, reference: Tensor) -> list[float]:
    """Dice of each slice of a batch (b, H, W), over all foreground classes together, without ignored voxels."""
    prediction, reference = without_ignored(prediction, reference)
    agree = ((prediction == reference) & (reference > 0)).sum((1, 2)).cpu().double()
    size = ((prediction > 0).sum((1, 2)) + (reference > 0).sum((1, 2))).cpu().double()
    dice: list[float] = (2 * agree / size).tolist()
    return dice


def choose(scores: Sequence[SliceScore]) -> list[tuple[str, SliceScore]]:
    """The best, median and worst slice by Dice; with fewer than three slices, all of them."""
    ranked = sorted((s for s in scores if not math.isnan(s.dice)), key=lambda s: -s.dice)
    if len(ranked) < 3:
        return [("slice", score) for score in ranked]
    return [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])]


def show(
    score: SliceScore, part: CaseSlices, context_slices: int, is_3d: bool, forward: Callable[[Tensor], Tensor]
) -> SliceView:
    """Predict a slice again for plotting, without what is not scored; `forward` maps images (b, c, h, w) to logits.

    A 3D network predicts it with all slices among which it was scored.
    """
    case, index, place = part.case, np.array([score.slice_index]), 0
    if is_3d:
        run = next(run for run in runs(part) if run.start <= score.slice_index < run.stop)
        index, place = np.arange(run.start, run.stop), score.slice_index - run.start
    images = load_images(case, index, 0 if is_3d else context_slices)
    with torch.no_grad():
        logits = forward(torch.from_numpy(images))[place : place + 1]
        prediction = native_prediction(logits, case.grid, case.regions)[0].cpu()
    height, width = case.grid.resampled
    shown = images[place, 0 if is_3d else context_slices * case.n_channels, :height, :width]
    low, high = float(shown.min()), float(shown.max())
    prediction = labelled_part(prediction, case.unlabelled)
    reference = torch.from_numpy(case.reference[case.in_volume(score.slice_index)])
    expected = with_regions_on_top(reference[None], case.regions)[0]
    unlabelled = expected.numpy() == IGNORED
    prediction, expected = without_ignored(prediction, expected)
    return SliceView(
        case_id=case.case_id,
        axis=case.axis,
        slice_index=score.slice_index + case.first_slice,
        image=(shown - low) / max(high - low, 1e-6),
        prediction=prediction.numpy(),
        reference=expected.numpy(),
        size_mm=(expected.shape[0] * case.spacing_mm[1], expected.shape[1] * case.spacing_mm[2]),
        dice=score.dice,
        unlabelled=unlabelled if unlabelled.any() else None,
    )
