"""Fitting with Lightning's trainer and our callbacks, then scoring the best checkpoint."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from spleen.data.loading.datamodule import SliceDataModule
from spleen.data.loading.patches import check_divisible
from spleen.models.checkpoint import network_weights, read_checkpoint
from spleen.models.factory import build_network
from spleen.models.spec import ModelSpec
from spleen.records.folder import RunFolder
from spleen.records.progress import ProgressFile
from spleen.system.hardware import Accelerator, LightningPrecision
from spleen.system.signals import StopRequest
from spleen.training.callbacks import Clock, EpochRecord, EpochRow, SelfDescribing
from spleen.training.checkpoints import SELECTING_SCORE, EpochCheckpoints, WholeCheckpoints, best_row
from spleen.training.module import SegmentationModule
from spleen.training.on_device.averaging import AveragedWeights
from spleen.training.progress import Progress
from spleen.training.ranks import FIRST, ProcessRank
from spleen.training.scores import SCORED_SPLITS
from spleen.training.stopping import ResumableEarlyStopping, StopOnNonFiniteLoss, StopOnSignal
from spleen.training.strategy import lightning_strategy
from spleen.training.timing.deadline import Deadline
from spleen.training.timing.scored_work import scored_passes


@dataclass(frozen=True)
class FitSettings:
    """Duration and hardware of the fit."""

    epochs: int | None
    """None: until `max_seconds` are over."""
    max_seconds: float | None
    """Seconds that the whole run may take, from the start of its process to the end of its report."""
    score_test: bool
    """Whether the best checkpoint is scored on the test split, if there is one."""
    val_every_epochs: int
    early_stopping_patience: int | None
    gradient_clip: float | None
    ema_decay: float | None
    accelerator: Accelerator
    devices: int | list[int]
    precision: LightningPrecision
    compile: bool
    progress: bool
    strategy: str = "auto"
    num_nodes: int = 1
    steps_on_device: bool = False
    """Whether the module makes the optimiser steps itself."""


@dataclass(frozen=True)
class Attempt:
    """One process's segment of a run: all of it, or what remains after earlier processes were killed."""

    run_folder: Path
    started: float
    """Start of the process's job in seconds since the epoch."""
    checkpoint: Path | None
    """The checkpoint to resume from; None starts from scratch."""
    stop: StopRequest
    process_rank: ProcessRank = FIRST
    """Rank of this process; only rank 0 writes and prints anything."""
    progress: ProgressFile | None = None
    """Where this process says what it is doing."""


_SILENCED = (
    ".*sync_dist=True.*",  # torchmetrics has already reduced the values
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*callbacks used to create the checkpoint need.*",
    ".*GPU available but not used.*",
)
"""Warnings of Lightning that say nothing to a user of this package."""


@dataclass(frozen=True)
class Fitted:
    """Result of a fit: the best checkpoint, whose weights and scores the module now has, the epochs and the timing."""

    best_checkpoint: Path
    rows: list[EpochRow]
    clock: Clock
    forward: Callable[[Tensor], Tensor]
    """Logits of slices, on the device and with the precision of the test."""
    best_row: EpochRow | None
    """The epoch of the best checkpoint."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages: the run prints the relevant ones itself."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _SILENCED:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@quiet()
def fit(
    module: SegmentationModule,
    data: SliceDataModule,
    settings: FitSettings,
    part: Attempt,
    spec: ModelSpec,
    recorded_settings: Mapping[str, Any],
    on_epoch: Callable[[EpochRow], None] = lambda _: None,
) -> Fitted:
    """Train the module, from the beginning or from a checkpoint, then validate and test it with its best checkpoint.

    Writes metrics.csv and checkpoints/ into the run folder. `spec` is stored in all checkpoints, `recorded_settings` in
    last.ckpt. `on_epoch` receives the row of every epoch once it is saved, including those of earlier segments.
    Raises InputError for a non-finite loss, and Interrupted after a signal.
    """
    if settings.compile:
        module.network.compile()
    files = RunFolder(part.run_folder)
    first = part.process_rank.global_rank == 0
    # Without the organ, the validation scores depend only on false positives.
    can_select = any(slices.case.foreground[slices.indices].any() for slices in data.slices("val"))
    if not can_select:
        settings = replace(settings, early_stopping_patience=None)
    clock, stop = Clock(part.started), StopOnSignal(part.stop)
    epochs = EpochRecord(files.metrics if first else None)
    bad_loss = StopOnNonFiniteLoss([slices.case.case_id for slices in data.slices("train")])
    callbacks = [
        clock,
        epochs,
        bad_loss,
        SelfDescribing(spec, recorded_settings),
        *([Progress(epochs, clock, part.progress, settings.progress, settings.compile)] if first else []),
        *_deadline(settings, clock, data, module.network),
        *_optional_callbacks(settings),
    ]
    callbacks += [EpochCheckpoints(files.checkpoints, epochs, spec, on_epoch, can_select), stop]
    trainer = make_trainer(settings, part.run_folder, callbacks, part.process_rank, validates=bool(data.slices("val")))
    if data.settings.patch_depth is not None and settings.score_test:
        check_divisible(data.slices("test"), trainer.world_size)  # now, and not after the training
    with _deferring_signals(part.stop):
        trainer.fit(module, data, ckpt_path=part.checkpoint, weights_only=True)
    # Without those callbacks: weight averaging would restore the unaveraged weights when it loads a checkpoint.
    scorer = make_trainer(settings, part.run_folder, [stop], part.process_rank)
    part.stop.position = "while the best checkpoint was scored"
    if part.progress is not None:
        part.progress.begin("scoring", seconds_left=0.0)
    with _deferring_signals(part.stop):
        if data.slices("val"):
            load_best(module, spec, files.best_checkpoint, settings)
            scorer.validate(module, data, verbose=False)
        if data.slices("test") and settings.score_test:
            load_best(module, spec, files.best_checkpoint, settings)
            scorer.test(module, data, verbose=False)
    load_best(module, spec, files.best_checkpoint, settings)
    best = best_row(epochs.rows, can_select)
    return Fitted(files.best_checkpoint, epochs.rows, clock, _forward(scorer, module), best)


def load_best(module: SegmentationModule, spec: ModelSpec, best: Path, settings: FitSettings) -> None:
    """Give the module the weights of best.ckpt, with FSDP in a new network, since it has sharded the trained one.

    Raises InputError: see `read_checkpoint`.
    """
    if settings.strategy == "fsdp":
        module.set_network(build_network(spec))
        if settings.compile:
            module.network.compile()
    module.network.load_state_dict(network_weights(read_checkpoint(best)))


@contextmanager
def _deferring_signals(stop: StopRequest) -> Iterator[None]:
    """Like `stop.deferred`, also if Lightning itself exits on a SIGTERM between our checks."""
    with stop.deferred():
        try:
            yield
        except SIGTERMException:
            stop.check()
            raise


def make_trainer(
    settings: FitSettings,
    run_folder: Path,
    callbacks: list[Callback],
    process_rank: ProcessRank = FIRST,
    validates: bool = True,
) -> pl.Trainer:
    """Lightning's trainer, without its own output on the terminal or on disk."""
    return pl.Trainer(
        max_epochs=-1 if settings.epochs is None else settings.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=lightning_strategy(settings.strategy, process_rank),
        sync_batchnorm=settings.strategy == "ddp" and settings.accelerator == "gpu",
        precision=settings.precision,
        gradient_clip_val=None if settings.steps_on_device else settings.gradient_clip,
        check_val_every_n_epoch=settings.val_every_epochs,
        limit_val_batches=None if validates else 0,
        callbacks=callbacks,
        default_root_dir=run_folder,
        plugins=[WholeCheckpoints()],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        benchmark=True,
    )


def _deadline(settings: FitSettings, clock: Clock, data: SliceDataModule, network: nn.Module) -> list[Callback]:
    if settings.max_seconds is None:
        return []
    passes = {split: scored_passes(network, data.slices(split)) for split in SCORED_SPLITS}
    n_test = passes["test"] if settings.score_test else 0
    return [Deadline(settings.max_seconds, lambda: clock.wall_seconds, passes["val"], n_test)]


def _optional_callbacks(settings: FitSettings) -> list[Callback]:
    callbacks: list[Callback] = []
    if settings.ema_decay is not None:
        callbacks.append(AveragedWeights(settings.ema_decay))
    if settings.early_stopping_patience is not None:
        callbacks.append(ResumableEarlyStopping(SELECTING_SCORE, mode="max", patience=settings.early_stopping_patience))
    return callbacks


def _forward(trainer: pl.Trainer, module: SegmentationModule) -> Callable[[Tensor], Tensor]:
    device = trainer.strategy.root_device

    def forward(image: Tensor) -> Tensor:
        module.to(device).eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            logits: Tensor = module(image.to(device))
        return logits

    return forward
