"""The LightningModule: network, loss, scores and optimiser, independent of the configuration."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from spleen.data.augmentation.augment import augment_batch
from spleen.data.augmentation.crop import CropSettings, crop_batch
from spleen.data.augmentation.patches import augment_patches
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.loading.batches import ScoredBatch, SliceBatch
from spleen.data.loading.on_device import StepNumbers, SteppedBatches, slices_for
from spleen.evaluation.metrics.per_case import OVERLAP_SCORES, CaseScore, class_means, mean_scores
from spleen.imaging.probabilities import with_regions_on_top
from spleen.models.factory import channels_last
from spleen.models.patches import PatchWindows
from spleen.training.on_device.averaging import averaged_weights
from spleen.training.on_device.counts import count_steps, share_step_counts, total_steps
from spleen.training.on_device.steps import Steps, StepSettings
from spleen.training.optimiser import OptimiserSettings, lr_factor, lr_factor_by_time, parameter_groups
from spleen.training.preview import SliceScore, slice_dice
from spleen.training.scores import ScoredSplit, SplitScores
from spleen.training.slice_counts import SliceCount, count_slices
from spleen.training.strategy import all_gather
from spleen.training.surface_scores import SurfaceAccumulator
from spleen.training.timing.deadline import deadline_of
from spleen.types import AxisName, ImageBatch, LabelBatch, LabelPlanes

# Larger than any seed of rank 0.
_SEEDS_PER_RANK = 2**53


def seed_global_state(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed the global random states of torch, NumPy and Python, which networks use for example in dropout."""
    for_torch, for_numpy, for_python = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    torch.manual_seed(int(for_torch))
    np.random.seed(for_numpy)
    random.seed(int(for_python))


class SegmentationModule(pl.LightningModule):
    """Trains a network on slices, or on patches of slices, and scores it per case on the native grid.

    `network` maps (b, c, h, w) to logits (b, 1 + classes, h, w), and `PatchWindows` also patches; `loss` maps logits
    and class indices (b, 1, h, w) to a scalar. With `crop`, training uses random windows of the slices.
    `swapped_classes` are the class indices after mirroring along left_right; empty if none changes. With
    `steps_on_device` the module makes the optimiser steps, and clips gradients to the norm `gradient_clip`; otherwise
    the trainer does both. `frozen` are submodules of the network that are not trained.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimiser: OptimiserSettings,
        augment: AugmentSettings,
        split_scores: dict[ScoredSplit, SplitScores],
        axis: AxisName,
        seed: int,
        crop: CropSettings | None = None,
        swapped_classes: Sequence[int] = (),
        steps_on_device: bool = False,
        gradient_clip: float | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._frozen = tuple(frozen)
        self.set_network(network)
        self.loss = loss
        self._optimiser = optimiser
        self._augment = augment
        self._axis = axis
        self._seed = seed
        self._crop = crop
        self._swapped_classes = tuple(swapped_classes)
        self._random = torch.Generator()
        self.automatic_optimization = not steps_on_device
        self._gradient_clip = gradient_clip
        self._steps: Steps | None = None
        self._val, self._test = split_scores["val"], split_scores["test"]
        self.scores: dict[ScoredSplit, list[CaseScore]] = {}
        self.test_slices: list[SliceScore] = []
        self.test_surfaces = SurfaceAccumulator(self._test.cases, self._test.class_names)
        self.slice_counts: dict[ScoredSplit, list[SliceCount]] = {}
        """Of the best checkpoint: counted in the scoring after the fit, not in its validations."""

    def set_network(self, network: nn.Module) -> None:
        """Take this network in place of the present one."""
        self.network = channels_last(network)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (b, classes, h, w) of slices (b, c, h, w)."""
        logits: Tensor = self.network(image.contiguous(memory_format=torch.channels_last))
        return logits

    def on_train_epoch_start(self) -> None:
        """Seed everything random in an epoch from seed, epoch and rank only; keep frozen parts in evaluation mode."""
        self._random.manual_seed(self._seed * 1_000_003 + self.current_epoch + self.global_rank * _SEEDS_PER_RANK)
        seed_global_state(self._seed, self.current_epoch, self.global_rank)
        for name in self._frozen:
            # Otherwise batch normalisation would go on updating its statistics, so that the frozen weights would not
            # compute the same any more, and dropout would only add noise.
            self.network.get_submodule(name).eval()

    def on_train_start(self) -> None:
        """Put the slices on the device, if the steps are made there."""
        if self.automatic_optimization:
            return
        loader, averages = self.trainer.train_dataloader, averaged_weights(self.trainer)
        assert isinstance(loader, SteppedBatches)
        slices = slices_for(loader.table, loader.sampler.batch_size, self.trainer.strategy.root_device)
        after_step = None if averages is None else partial(averages.update, self)
        settings = StepSettings(
            augment=self._augment,
            axis=self._axis,
            swapped_classes=self._swapped_classes,
            crop=self._crop,
            gradient_clip=self._gradient_clip,
            uses_bf16=self.trainer.precision == "bf16-mixed",
        )
        self._steps = Steps(self._loss_of, self.trainer.optimizers[0], slices, settings, after_step)

    def on_train_end(self) -> None:
        """Free the device's memory for the scoring."""
        self._steps = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the number of steps also from a training that made its steps in the other way."""
        share_step_counts(checkpoint["loops"])

    def training_step(self, batch: SliceBatch | StepNumbers) -> Tensor | dict[str, Any]:
        """One step on augmented slices; of numbers of slices, as many steps as they are for."""
        if isinstance(batch, StepNumbers):
            return self._train_steps(batch)
        augment = augment_patches if isinstance(self.network, PatchWindows) else augment_batch
        image, label = augment(batch.image, batch.label, self._augment, self._axis, self._random, self._swapped_classes)
        if self._crop is not None:
            crop = self._crop
            image, label = crop_batch(image, label, crop.size, crop.foreground_fraction, self._random, crop.n_classes)
        return self._loss_of(image, label)

    def _loss_of(self, image: ImageBatch, label: LabelBatch) -> Tensor:
        if isinstance(self.network, PatchWindows):
            # The channels of an image are those of its slices; a loss sees the slices of a patch one below the other.
            patch = image.unflatten(1, (label.shape[1], -1)).transpose(1, 2)
            logits, label = self.network(patch).flatten(2, 3), label.flatten(1, 2).unsqueeze(1)
        else:
            logits = self(image)
        loss: Tensor = self.loss(logits, label)
        return loss

    def _train_steps(self, batch: StepNumbers) -> dict[str, Any]:
        assert self._steps is not None
        scheduler = cast(LRScheduler, self.lr_schedulers())
        losses, rates = [], []
        for numbers in batch.steps:
            of_groups = [float(rate) for rate in scheduler.get_last_lr()]
            rates.append(of_groups[0])
            losses.append(self._steps.step(numbers, of_groups, self._random))
            scheduler.step()
        count_steps(self.trainer, batch.n_steps)
        return {"loss": losses[-1], "losses": torch.stack(losses), "lrs": rates}

    def validation_step(self, batch: ScoredBatch) -> None:
        """Score one batch of validation slices."""
        prediction = self._score(batch, self._val)
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._count_slices("val", prediction, batch)

    def test_step(self, batch: ScoredBatch) -> None:
        """Score one batch of test slices, and keep each slice's Dice for the figures."""
        prediction = self._score(batch, self._test)
        self._count_slices("test", prediction, batch)
        self.test_surfaces.add(prediction, batch)
        reference = with_regions_on_top(batch.reference, self._test.cases[batch.case_index].regions)
        self.test_slices += [
            SliceScore(batch.case_index, int(index), dice)
            for index, dice in zip(batch.slice_index, slice_dice(prediction, reference), strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        self._gather_slice_counts("val")
        self._log_scores("val", self._val)

    def on_test_epoch_end(self) -> None:
        """Log the test scores, and gather the slice scores of all processes."""
        self.test_slices = sorted(all_gather(self.test_slices), key=lambda score: (score.case_index, score.slice_index))
        self._gather_slice_counts("test")
        self._log_scores("test", self._test)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate follows the schedule step by step, or with a deadline by the clock."""
        settings = self._optimiser
        optimiser = torch.optim.AdamW(
            parameter_groups(self.network, settings),
            settings.lr,
            settings.betas,
            weight_decay=settings.weight_decay,
            fused=self._can_fuse_optimiser(),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._lr_factors())
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factors(self) -> Callable[[int], float]:
        """The factor of the learning rate at each optimiser step, by the step or, with a deadline, by the time."""
        settings, trainer, deadline = self._optimiser, self.trainer, deadline_of(self.trainer)
        shape = settings.schedule, settings.power, settings.final_factor
        if deadline is not None:
            return lambda step: lr_factor_by_time(deadline.progress_at(step, trainer), settings.warmup_fraction, *shape)
        total = total_steps(trainer)
        assert total is not None
        warmup = round(settings.warmup_fraction * total)
        return lambda step: lr_factor(step, total, warmup, *shape)

    def _can_fuse_optimiser(self) -> bool:
        """Whether one kernel may update all weights: not sharded ones, nor if it would unscale before clipping."""
        sharded_or_scaled = isinstance(self.trainer.strategy, FSDPStrategy) or self.trainer.precision == "16-mixed"
        weights = list(self.network.parameters())
        return not sharded_or_scaled and all(
            weight.device.type in ("cpu", "cuda") and weight.is_floating_point() for weight in weights
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient, even if it is sharded over processes (FSDP)."""
        if gradient_clip_val is None:
            return
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self.trainer.strategy.model.clip_grad_norm_(gradient_clip_val)  # type: ignore[union-attr,operator]
        elif self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:  # Lightning does not clip for a fused optimiser, which could unscale gradients; here none are scaled
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def _score(self, batch: ScoredBatch, scores: SplitScores) -> LabelPlanes:
        logits = self(batch.image)
        if batch.scored is not None:
            logits = logits[batch.scored]
        return scores.add(logits, self.loss(logits, batch.label), batch)

    def _count_slices(self, split: ScoredSplit, prediction: LabelPlanes, batch: ScoredBatch) -> None:
        n_classes = 1 + len(self._test.class_names)
        scored = self._val if split == "val" else self._test
        regions = scored.cases[batch.case_index].regions
        counts = count_slices(prediction, batch.reference, n_classes, batch.case_index, batch.slice_index, regions)
        self.slice_counts.setdefault(split, []).extend(counts)

    def _gather_slice_counts(self, split: ScoredSplit) -> None:
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.slice_counts[split] = sorted(all_gather(self.slice_counts.get(split, [])))

    def _log_scores(self, split: ScoredSplit, scores: SplitScores) -> None:
        loss, cases = scores.finish()
        self.scores[split] = cases
        self.log(f"{split}/loss", loss)
        means = mean_scores(cases)
        for name in OVERLAP_SCORES:
            self.log(f"{split}/{name}", getattr(means, name))
        if len(scores.class_names) > 1:
            for name, means in class_means(cases).items():
                self.log(f"{split}/{name}/dice", means.dice)
