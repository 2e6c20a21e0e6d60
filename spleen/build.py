"""From the configuration to the objects and values of a run. Past this module nobody sees a configuration."""

from dataclasses import dataclass, fields
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn

from spleen.augment import AugmentSettings
from spleen.build_model import build_spec
from spleen.config import TrainConfig, size_text
from spleen.crop import CropSettings
from spleen.datamodule import LoaderSettings, SliceDataModule
from spleen.errors import InputError
from spleen.fit import FitSettings
from spleen.folds import SplitSettings
from spleen.hardware import choose_accelerator, choose_precision
from spleen.launched import process_count
from spleen.loggers import WandbSettings
from spleen.models.factory import build_network, build_part
from spleen.models.spec import ModelSpec
from spleen.module import SCORED_STAGES, OptimiserSettings, SegmentationModule, StageScores
from spleen.wandb_mode import WandbMode, resolve_mode


def build_split_settings(config: TrainConfig) -> SplitSettings:
    """How one volume is split."""
    split = config.split
    return SplitSettings(split.val_share, split.test_share, split.test_blocks, split.guard_mm, split.seed)


def build_loader_settings(config: TrainConfig) -> LoaderSettings:
    """How slices become batches."""
    return LoaderSettings(
        batch_size=config.batch_size,
        slices_per_epoch=config.loader.slices_per_epoch,
        foreground_share=config.loader.foreground_share,
        num_workers=config.loader.num_workers,
        context_slices=config.context_slices,
        seed=config.seed,
    )


def build_loss(config: TrainConfig) -> nn.Module:
    """The loss, called as loss(logits, class indices)."""
    return build_part("loss", config.loss)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that need no data; the network and the loss are the ones that are trained."""

    spec: ModelSpec
    """Without what is read from the training cases."""
    network: nn.Module
    loss: nn.Module
    augment: AugmentSettings


def build_parts(config: TrainConfig) -> Parts:
    """Seed all random number generators and build the parts, so that a wrong setting fails before any image is read.

    Nothing else may draw from the seeded generators before the training, which continues with their state.
    """
    spec, augment = build_spec(config), build_augment_settings(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    return Parts(spec, build_network(spec), build_loss(config), augment)


def build_module(config: TrainConfig, parts: Parts, data: SliceDataModule) -> SegmentationModule:
    """The untrained module for these data."""
    preprocessing = parts.spec.preprocessing
    names = preprocessing.classes.names
    return SegmentationModule(
        network=parts.network,
        loss=parts.loss,
        optimiser=build_optimiser_settings(config),
        augment=parts.augment,
        stages={stage: StageScores([part.case for part in data.slices(stage)], names) for stage in SCORED_STAGES},
        axis=preprocessing.axis,
        seed=config.seed,
        crop=CropSettings(config.crop_size, config.loader.foreground_share) if config.crop_size else None,
    )


def build_optimiser_settings(config: TrainConfig) -> OptimiserSettings:
    """AdamW and the schedule of the learning rate."""
    optimiser, schedule = config.optimiser, config.schedule
    return OptimiserSettings(
        lr=config.lr,
        weight_decay=optimiser.weight_decay,
        betas=(optimiser.beta1, optimiser.beta2),
        schedule=schedule.kind,
        warmup_share=schedule.warmup_share,
        power=schedule.power,
        final_factor=schedule.final_factor,
    )


def build_augment_settings(config: TrainConfig) -> AugmentSettings:
    """Strength of the augmentation."""
    known = [field.name for field in fields(AugmentSettings)]
    unknown = [name for name in config.augment if name not in known]
    if unknown:
        raise InputError(f"unknown key 'augment.{unknown[0]}'; known are {', '.join(known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.augment.items()
    }
    return AugmentSettings(**values)


def build_wandb_settings(config: TrainConfig) -> WandbSettings:
    """Name, group and mode of the wandb run: the name tells axis, size and rate, the group is the study.

    Raises InputError for a mode that needs an API key where there is none.
    """
    logger = config.logger
    return WandbSettings(
        project=logger.project,
        mode=resolve_mode(cast(WandbMode, logger.mode)),
        name=logger.name
        or " ".join(
            [
                f"{config.axis} {size_text(config.img_size)} lr={config.lr:g} {config.model.name} seed={config.seed}",
                *([f"fold={config.fold}"] if config.fold is not None else []),
            ]
        ),
        group=logger.group or config.study,
        tags=(*logger.tags, config.axis, config.model.name),
        entity=logger.entity,
        log_images=logger.log_images,
        upload_checkpoint=logger.upload_checkpoint,
        init_timeout_seconds=logger.init_timeout_seconds,
        finish_timeout_seconds=logger.finish_timeout_seconds,
    )


def build_fit_settings(config: TrainConfig) -> FitSettings:
    """How long and on what to fit; raises InputError for hardware that is not there."""
    trainer, optimiser = config.trainer, config.optimiser
    accelerator = choose_accelerator(trainer.accelerator, trainer.devices)
    strategy = trainer.strategy if process_count(trainer) > 1 else "auto"
    if strategy == "fsdp" and accelerator != "gpu":
        raise InputError("trainer.strategy=fsdp needs CUDA GPUs, and this machine shows none; use trainer=ddp")
    return FitSettings(
        epochs=config.epochs,
        val_every_epochs=trainer.val_every_epochs,
        early_stopping_patience=trainer.early_stopping_patience,
        gradient_clip=optimiser.gradient_clip,
        ema_decay=optimiser.ema_decay,
        accelerator=accelerator,
        devices=trainer.devices,
        precision=choose_precision(config.precision, accelerator),
        compile=config.compile,
        progress=trainer.progress,
        strategy=strategy,
        num_nodes=trainer.num_nodes,
    )
