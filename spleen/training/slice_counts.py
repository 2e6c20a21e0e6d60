"""Voxel counts of each scored slice, from which errors along the axis are drawn."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from spleen.evaluation.metrics.overlap import without_ignored
from spleen.imaging.classes import Regions, in_class


@dataclass(frozen=True, order=True)
class SliceCount:
    """Voxels of one class in one slice, on the native grid; `class_index` counts from 1, as in a label map."""

    case_index: int
    slice_index: int
    class_index: int
    reference_voxels: int
    prediction_voxels: int
    overlap_voxels: int


def count_slices(
    prediction: Integer[Tensor, "b H W"],
    reference: Integer[Tensor, "b H W"],
    n_classes: int,
    case_index: int,
    slice_index: Int64[Tensor, " b"],
    regions: Regions | None = None,
) -> list[SliceCount]:
    """The counts of a batch of slices of one case; `n_classes` includes the background. With `regions`, the classes
    overlap.

    A class that neither label map has in a slice is left out: volumes are mostly background. Voxels whose reference is
    `IGNORED` are not counted.
    """
    prediction, reference = without_ignored(prediction, reference)
    if regions is not None:
        return _count_regions(prediction, reference, n_classes, case_index, slice_index, regions)
    n_slices = len(reference)
    offset = n_classes * torch.arange(n_slices, device=reference.device)[:, None, None]

    def voxels(labels: Integer[Tensor, "b H W"]) -> list[list[int]]:
        counts = torch.bincount((labels.long() + offset).flatten(), minlength=n_classes * n_slices)
        return [list(map(int, row)) for row in counts.reshape(n_slices, n_classes).tolist()]

    overlap = torch.where(prediction == reference, reference, 0)
    counts = zip(slice_index.tolist(), voxels(reference), voxels(prediction), voxels(overlap), strict=True)
    return [
        SliceCount(case_index, index, number, expected[number], predicted[number], common[number])
        for index, expected, predicted, common in counts
        for number in range(1, n_classes)
        if expected[number] or predicted[number]
    ]


def _count_regions(
    prediction: Integer[Tensor, "b H W"],
    reference: Integer[Tensor, "b H W"],
    n_classes: int,
    case_index: int,
    slice_index: Int64[Tensor, " b"],
    regions: Regions,
) -> list[SliceCount]:
    counts: list[SliceCount] = []
    for number in range(1, n_classes):
        predicted, expected = (in_class(labels, number, regions) for labels in (prediction, reference))
        voxels = [mask.sum((1, 2)).tolist() for mask in (expected, predicted, predicted & expected)]
        of_slices = zip(slice_index.tolist(), *voxels, strict=True)
        counts += [SliceCount(case_index, index, number, *of_slice) for index, *of_slice in of_slices if any(of_slice)]
    return counts
