"""The LightningModule: network, loss, scores and optimiser, independent of the configuration."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from spleen.assemble import native_prediction
from spleen.augment import AugmentSettings, augment_batch
from spleen.crop import CropSettings, crop_batch
from spleen.dataset import ScoredBatch, SliceBatch
from spleen.distributed import gathered
from spleen.gallery import SliceScore, slice_dice
from spleen.metrics.per_case import OVERLAP_SCORES, CaseScore, PerCaseCounts, case_scores, class_means, mean_scores
from spleen.schedule import lr_factor
from spleen.stored_case import StoredCase
from spleen.types import AxisName, LabelPlanes, Logits

ScoredStage = Literal["val", "test"]
# Larger than any seed of rank 0.
_SEEDS_PER_RANK = 2**53
SCORED_STAGES: tuple[ScoredStage, ...] = ("val", "test")


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW (Loshchilov & Hutter 2019) and the learning rate schedule."""

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    schedule: str
    warmup_share: float
    power: float
    final_factor: float


def seed_global_state(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed the global random states of torch, NumPy and Python, which networks use for example in dropout."""
    for_torch, for_numpy, for_python = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    torch.manual_seed(int(for_torch))
    np.random.seed(for_numpy)
    random.seed(int(for_python))


class StageScores(nn.Module):
    """Accumulates loss and per-case counts of one split; `cases` are in the order of the batches' case_index."""

    def __init__(self, cases: Sequence[StoredCase], class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.cases = tuple(cases)
        self.class_names = class_names
        self.loss = MeanMetric()
        self.counts = PerCaseCounts(len(self.cases), len(class_names) + 1)

    def add(self, logits: Logits, loss: Tensor, batch: ScoredBatch) -> LabelPlanes:
        """Add one batch; returns its class indices on the native planes."""
        prediction = native_prediction(logits, self.cases[batch.case_index].grid)
        self.counts.update(prediction, batch.reference, batch.case_index)
        self.loss.update(loss, len(logits))
        return prediction

    def finish(self) -> tuple[Tensor, list[CaseScore]]:
        """Mean loss and the scores of every case and class; resets the accumulators."""
        loss, counts = self.loss.compute(), self.counts.compute()
        scores = case_scores(
            counts.clone(),
            [case.case_id for case in self.cases],
            self.class_names,
            [case.voxel_volume_mm3 for case in self.cases],
        )
        self.loss.reset()
        self.counts.reset()
        return loss, scores


class SegmentationModule(pl.LightningModule):
    """Trains a network on slices and scores it per case on the native grid.

    `network` maps (b, c, h, w) to logits (b, 1 + classes, h, w); `loss` maps logits and class indices (b, 1, h, w) to a
    scalar. With `crop`, training uses random windows of the slices.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimiser: OptimiserSettings,
        augment: AugmentSettings,
        stages: dict[ScoredStage, StageScores],
        axis: AxisName,
        seed: int,
        crop: CropSettings | None = None,
    ) -> None:
        super().__init__()
        self.set_network(network)
        self.loss = loss
        self._optimiser = optimiser
        self._augment = augment
        self._axis = axis
        self._seed = seed
        self._crop = crop
        self._random = torch.Generator()
        self._val, self._test = stages["val"], stages["test"]
        self.scores: dict[ScoredStage, list[CaseScore]] = {}
        self.test_slices: list[SliceScore] = []

    def set_network(self, network: nn.Module) -> None:
        """Take this network in place of the present one."""
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (b, classes, h, w) of slices (b, c, h, w)."""
        logits: Tensor = self.network(image.contiguous(memory_format=torch.channels_last))
        return logits

    def on_train_epoch_start(self) -> None:
        """Seed everything random in an epoch from seed, epoch and rank only, so that the epoch is reproducible."""
        self._random.manual_seed(self._seed * 1_000_003 + self.current_epoch + self.global_rank * _SEEDS_PER_RANK)
        seed_global_state(self._seed, self.current_epoch, self.global_rank)

    def training_step(self, batch: SliceBatch) -> Tensor:
        """One step on augmented slices."""
        image, label = augment_batch(batch.image, batch.label, self._augment, self._axis, self._random)
        if self._crop is not None:
            image, label = crop_batch(image, label, self._crop.size, self._crop.foreground_share, self._random)
        loss: Tensor = self.loss(self(image), label)
        return loss

    def validation_step(self, batch: ScoredBatch) -> None:
        """Score one batch of validation slices."""
        self._score(batch, self._val)

    def test_step(self, batch: ScoredBatch) -> None:
        """Score one batch of test slices, and keep each slice's Dice for the figures."""
        prediction = self._score(batch, self._test)
        self.test_slices += [
            SliceScore(batch.case_index, int(index), dice)
            for index, dice in zip(batch.slice_index, slice_dice(prediction, batch.reference), strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        self._log_scores("val", self._val)

    def on_test_epoch_end(self) -> None:
        """Log the test scores, and gather the slice scores of all processes."""
        self.test_slices = sorted(gathered(self.test_slices), key=lambda score: (score.case_index, score.slice_index))
        self._log_scores("test", self._test)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate follows the schedule step by step."""
        settings = self._optimiser
        optimiser = torch.optim.AdamW(
            self.network.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        warmup = round(settings.warmup_share * total)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: lr_factor(step, total, warmup, settings.schedule, settings.power, settings.final_factor),
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient, even if it is sharded over processes (FSDP)."""
        if gradient_clip_val is not None and isinstance(self.trainer.strategy, FSDPStrategy):
            self.trainer.strategy.model.clip_grad_norm_(gradient_clip_val)  # type: ignore[union-attr,operator]
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _score(self, batch: ScoredBatch, scores: StageScores) -> LabelPlanes:
        logits = self(batch.image)
        return scores.add(logits, self.loss(logits, batch.label), batch)

    def _log_scores(self, stage: ScoredStage, scores: StageScores) -> None:
        loss, cases = scores.finish()
        self.scores[stage] = cases
        self.log(f"{stage}/loss", loss)
        means = mean_scores(cases)
        for name in OVERLAP_SCORES:
            self.log(f"{stage}/{name}", getattr(means, name))
        if len(scores.class_names) > 1:
            for name, means in class_means(cases).items():
                self.log(f"{stage}/{name}/dice", means.dice)
