"""Fitting: Lightning's trainer with our callbacks, then the scores of the best checkpoint."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from spleen.callbacks import Clock, EpochRecord, EpochRow, Progress, SelfDescribing
from spleen.datamodule import SliceDataModule
from spleen.hardware import Accelerator, LightningPrecision
from spleen.module import SegmentationModule
from spleen.recipe import Recipe


@dataclass(frozen=True)
class FitSettings:
    """How long and on what a module is fitted."""

    epochs: int
    val_every_epochs: int
    early_stopping_patience: int | None
    gradient_clip: float | None
    ema_decay: float | None
    accelerator: Accelerator
    devices: int | list[int]
    precision: LightningPrecision
    compile: bool
    progress: bool


@dataclass(frozen=True)
class Fitted:
    """What fitting gives: the best checkpoint, whose weights and scores the module now holds, and what it cost."""

    best_checkpoint: Path
    rows: list[EpochRow]
    slices_per_second: float
    seconds_to_first_step: float
    forward: Callable[[Tensor], Tensor]
    """Logits of slices, computed as in the tests: same device, same precision."""


def fit(
    module: SegmentationModule,
    data: SliceDataModule,
    settings: FitSettings,
    run_folder: Path,
    started: float,
    recipe: Recipe,
    hand_on: Callable[[Mapping[str, float], int], None],
) -> Fitted:
    """Train the module, then validate and test it with its best checkpoint.

    Writes metrics.csv and checkpoints/ into `run_folder`. `started` is the job's start in seconds since the epoch;
    `recipe` goes into the checkpoints; `hand_on` receives every epoch's metrics.
    """
    quieten()
    if settings.compile:
        module.network.compile()
    clock, epochs = Clock(started), EpochRecord(run_folder / "metrics.csv", hand_on)
    best_only, last = _checkpoints(run_folder / "checkpoints")
    callbacks = [clock, epochs, SelfDescribing(recipe), best_only, last, *_optional_callbacks(settings, epochs)]
    trainer = make_trainer(settings, run_folder, callbacks)
    trainer.fit(module, data)
    best = Path(best_only.best_model_path)
    # Without the callbacks: weight averaging would put the weights before averaging back when it loads a checkpoint.
    scorer = make_trainer(settings, run_folder, [])
    scorer.validate(module, data, ckpt_path=best, weights_only=True, verbose=False)
    scorer.test(module, data, ckpt_path=best, weights_only=True, verbose=False)
    return Fitted(best, epochs.rows, clock.slices_per_second, clock.seconds_to_first_step, _forward(scorer, module))


def _checkpoints(folder: Path) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """best.ckpt by per-case Dice, and last.ckpt of every epoch.

    Two callbacks: with save_last, a single one would only renew last.ckpt when the score improves.
    """
    best = ModelCheckpoint(folder, "best", monitor="val/dice", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return best, last


def make_trainer(settings: FitSettings, run_folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's trainer, with nothing of its own on the terminal or on disk."""
    return pl.Trainer(
        max_epochs=settings.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        gradient_clip_val=settings.gradient_clip,
        check_val_every_n_epoch=settings.val_every_epochs,
        callbacks=callbacks,
        default_root_dir=run_folder,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        benchmark=True,
    )


def _optional_callbacks(settings: FitSettings, epochs: EpochRecord) -> list[Callback]:
    callbacks: list[Callback] = []
    if settings.progress:
        callbacks.append(Progress(epochs))
    if settings.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.early_stopping_patience is not None:
        callbacks.append(EarlyStopping("val/dice", mode="max", patience=settings.early_stopping_patience))
    return callbacks


def _forward(trainer: pl.Trainer, module: SegmentationModule) -> Callable[[Tensor], Tensor]:
    device = trainer.strategy.root_device

    def forward(image: Tensor) -> Tensor:
        module.to(device).eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            logits: Tensor = module(image.to(device))
        return logits

    return forward


def quieten() -> None:
    """Keep Lightning's announcements off the terminal: the run tells what matters itself."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
