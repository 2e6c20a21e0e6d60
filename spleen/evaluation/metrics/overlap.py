"""Overlap scores from the four counts of a confusion table, voxel by voxel, one class against all others.

Empty masks: both empty → NaN (excluded from means, counted as empty); only one of them empty → Dice and Jaccard 0.
Formulas: Taha & Hanbury 2015, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64, Integer
from torch import Tensor

from spleen.imaging.classes import Regions, in_class
from spleen.imaging.labels import IGNORED

Labels = Integer[Tensor, "*voxels"]
Score = Float64[Tensor, "case organ"]


@dataclass(frozen=True)
class ConfusionCounts:
    """Voxel counts per case and foreground class."""

    true_positive: Int64[Tensor, "case organ"]
    false_positive: Int64[Tensor, "case organ"]
    false_negative: Int64[Tensor, "case organ"]
    true_negative: Int64[Tensor, "case organ"]


def count_confusion(
    prediction: Labels, reference: Labels, n_classes: int, regions: Regions | None = None
) -> Int64[Tensor, "organ 4"]:
    """Counts (TP, FP, FN, TN) of each foreground class 1 … n_classes - 1 in two label maps of the same shape.

    Voxels whose reference is `IGNORED` are not counted. With `regions`, the classes overlap.
    """
    if regions is not None:
        known = reference != IGNORED
        return torch.stack([_count_region(prediction, reference, known, n, regions) for n in range(1, n_classes)])
    # Each reference class has a row, and IGNORED, above all of them, the last one.
    joint = reference.flatten().clamp_max(n_classes).long() * n_classes + prediction.flatten().long()
    size = (n_classes + 1) * n_classes
    if joint.is_cuda:  # bincount would wait for the device
        table = torch.zeros(size, dtype=torch.int64, device=joint.device)
        table.scatter_add_(0, joint, torch.ones_like(joint))
    else:
        table = torch.bincount(joint, minlength=size)
    table = table.reshape(n_classes + 1, n_classes)[:-1]
    hits = table.diagonal()
    false_positive, false_negative = table.sum(0) - hits, table.sum(1) - hits
    true_negative = table.sum() - hits - false_positive - false_negative
    return torch.stack([hits, false_positive, false_negative, true_negative], dim=1)[1:]


def _count_region(
    prediction: Labels, reference: Labels, known: Bool[Tensor, "*voxels"], number: int, regions: Regions
) -> Int64[Tensor, "4"]:
    predicted, expected = in_class(prediction, number, regions) & known, in_class(reference, number, regions)
    hits, n_predicted, n_expected = (predicted & expected).sum(), predicted.sum(), expected.sum()
    others = known.sum() - n_predicted - n_expected + hits
    return torch.stack([hits, n_predicted - hits, n_expected - hits, others])


def without_ignored(prediction: Labels, reference: Labels) -> tuple[Labels, Labels]:
    """Both label maps, with background where the reference is `IGNORED`."""
    ignored = reference == IGNORED
    return prediction.masked_fill(ignored, 0), reference.masked_fill(ignored, 0)


def labelled_part(prediction: Labels, unlabelled: Collection[int]) -> Labels:
    """A label map with background in place of the classes that its reference does not label."""
    if not unlabelled:
        return prediction
    kept = torch.arange(IGNORED + 1, dtype=prediction.dtype)
    kept[list(unlabelled)] = 0
    return kept.to(prediction.device)[prediction.long()]


def dice(counts: ConfusionCounts) -> Score:
    """2 TP / (2 TP + FP + FN), from 0 to 1 (Dice 1945); NaN where both masks are empty."""
    return _ratio(2 * counts.true_positive, 2 * counts.true_positive + counts.false_positive + counts.false_negative)


def jaccard(counts: ConfusionCounts) -> Score:
    """TP / (TP + FP + FN), from 0 to 1 (Jaccard 1912); NaN where both masks are empty."""
    return _ratio(counts.true_positive, counts.true_positive + counts.false_positive + counts.false_negative)


def sensitivity(counts: ConfusionCounts) -> Score:
    """TP / (TP + FN): the fraction of the organ that was found; NaN where the reference is empty."""
    return _ratio(counts.true_positive, counts.true_positive + counts.false_negative)


def specificity(counts: ConfusionCounts) -> Score:
    """TN / (TN + FP): the fraction of the background that was kept; NaN where the organ fills everything."""
    return _ratio(counts.true_negative, counts.true_negative + counts.false_positive)


def precision(counts: ConfusionCounts) -> Score:
    """TP / (TP + FP): the fraction of the prediction that is organ; 0 for a missed organ, NaN if both are empty."""
    predicted = counts.true_positive + counts.false_positive
    missed = (predicted == 0) & (counts.false_negative > 0)
    return _ratio(counts.true_positive, predicted).masked_fill(missed, 0.0)


def _ratio(numerator: Int64[Tensor, "case organ"], denominator: Int64[Tensor, "case organ"]) -> Score:
    """Quotient in double precision; 0 / 0 is NaN."""
    return numerator.double() / denominator.double()
