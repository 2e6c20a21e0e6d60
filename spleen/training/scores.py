"""Scores of the validation and test splits, accumulated slice by slice."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int64, Integer
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from spleen.data.loading.batches import CaseSlices, ScoredBatch
from spleen.data.store.entry import StoredCase
from spleen.evaluation.metrics.overlap import count_confusion, labelled_part
from spleen.evaluation.metrics.per_case import CaseScore, case_scores
from spleen.imaging.classes import Regions
from spleen.imaging.probabilities import native_prediction
from spleen.types import LabelPlanes, Logits


class PerCaseCounts(Metric):
    """Confusion counts per case and foreground class, summed over batches and processes.

    Counts are additive, so a case may be spread over any number of batches and processes.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor

    def __init__(self, n_cases: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_state("counts", torch.zeros(n_cases, n_classes - 1, 4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        prediction: Integer[Tensor, "b H W"],
        reference: Integer[Tensor, "b H W"],
        case_index: int,
        regions: Regions | None = None,
    ) -> None:
        """Add slices of one case, both on the native grid; with `regions`, the classes overlap."""
        self.counts[case_index] += count_confusion(prediction, reference, self.n_classes, regions)

    def compute(self) -> Int64[Tensor, "case organ 4"]:
        """The counts of all processes: true positive, false positive, false negative, true negative."""
        return self.counts


_STEP_BYTES = 256 * 2**20
"""Upper bound for the float32 probabilities of one step on the native grid."""

ScoredSplit = Literal["val", "test"]


SCORED_SPLITS: tuple[ScoredSplit, ...] = ("val", "test")


def counts_outside(parts: Sequence[CaseSlices], n_organs: int) -> Int64[Tensor, "case organ 4"]:
    """The counts beyond the boxes in the slices of a split: false negatives of the organ, and true negatives."""
    counts = torch.zeros(len(parts), n_organs, 4, dtype=torch.int64)
    for case_index, part in enumerate(parts):
        if (outside := part.case.outside_of(part.indices)) is not None:
            missed = torch.from_numpy(outside.sum(axis=0))
            counts[case_index, :, 2] = missed[1:]
            counts[case_index, :, 3] = missed[0] - missed[1:]
    return counts


def _predicted(logits: Logits, case: StoredCase) -> LabelPlanes:
    """Class indices on the native planes, a few slices at a time: a 3D network gives those of a whole volume."""
    height, width = case.grid.native
    step = max(1, _STEP_BYTES // (4 * logits.shape[1] * height * width))
    parts = [native_prediction(part, case.grid, case.regions) for part in logits.split(step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class SplitScores(nn.Module):
    """Accumulates loss and per-case counts of one split; `cases` are in the order of the batches' case_index.

    `outside` are the counts beyond the boxes of the cases (`counts_outside`), where nothing is predicted.
    """

    outside: Tensor

    def __init__(
        self,
        cases: Sequence[StoredCase],
        class_names: tuple[str, ...],
        outside: Int64[Tensor, "case organ 4"] | None = None,
    ) -> None:
        super().__init__()
        self.cases = tuple(cases)
        self.class_names = class_names
        self.loss = MeanMetric(nan_strategy="disable")  # a check would wait for the device at every batch
        self.counts = PerCaseCounts(len(self.cases), len(class_names) + 1)
        nothing = torch.zeros(len(self.cases), len(class_names), 4, dtype=torch.int64)
        self.register_buffer("outside", nothing if outside is None else outside, persistent=False)

    def add(self, logits: Logits, loss: Tensor, batch: ScoredBatch) -> LabelPlanes:
        """Add one batch; returns its class indices on the native planes, those that the case labels."""
        case = self.cases[batch.case_index]
        prediction = labelled_part(_predicted(logits, case), case.unlabelled)
        self.counts.update(prediction, batch.reference, batch.case_index, case.regions)
        self.loss.update(loss, len(logits))
        return prediction

    def finish(self) -> tuple[Tensor, list[CaseScore]]:
        """Mean loss and the scores of every case and class; resets the accumulators."""
        loss, counts = self.loss.compute(), self.counts.compute()
        scores = case_scores(
            counts + self.outside.to(counts.device),
            [case.case_id for case in self.cases],
            self.class_names,
            [case.voxel_volume_mm3 for case in self.cases],
            [case.unlabelled for case in self.cases],
        )
        self.loss.reset()
        self.counts.reset()
        return loss, scores
