"""Preview slices of a run: best, median and worst test slice by Dice."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spleen.data.loading.batches import load_images
from spleen.data.store.entry import StoredCase
from spleen.evaluation.metrics.overlap import labelled_part, without_ignored
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
    agree = ((prediction == reference) & (reference > 0)).sum((1, 2)).double()
    size = ((prediction > 0).sum((1, 2)) + (reference > 0).sum((1, 2))).double()
    dice: list[float] = (2 * agree / size).tolist()
    return dice


def choose(scores: Sequence[SliceScore]) -> list[tuple[str, SliceScore]]:
    """The best, median and worst slice by Dice; with fewer than three slices, all of them."""
    ranked = sorted((s for s in scores if not math.isnan(s.dice)), key=lambda s: -s.dice)
    if len(ranked) < 3:
        return [("slice", score) for score in ranked]
    return [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])]


def show(score: SliceScore, case: StoredCase, context_slices: int, forward: Callable[[Tensor], Tensor]) -> SliceView:
    """Predict a slice again for plotting, without what is not scored; `forward` maps images (b, c, h, w) to logits."""
    index = np.array([score.slice_index])
    images = load_images(case, index, context_slices)
    with torch.no_grad():
        prediction = native_prediction(forward(torch.from_numpy(images)), case.grid, case.regions)[0].cpu()
    height, width = case.grid.resampled
    shown = images[0, context_slices * case.n_channels, :height, :width]
    low, high = float(shown.min()), float(shown.max())
    prediction = labelled_part(prediction, case.unlabelled)
    expected = with_regions_on_top(torch.from_numpy(case.reference[score.slice_index][None]), case.regions)[0]
    prediction, expected = without_ignored(prediction, expected)
    reference = expected.numpy()
    return SliceView(
        case_id=case.case_id,
        axis=case.axis,
        slice_index=score.slice_index,
        image=(shown - low) / max(high - low, 1e-6),
        prediction=prediction.numpy(),
        reference=reference,
        size_mm=(reference.shape[0] * case.spacing_mm[1], reference.shape[1] * case.spacing_mm[2]),
        dice=score.dice,
    )
