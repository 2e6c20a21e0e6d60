"""From the configuration to the objects and values of a run. Past this module nobody sees a configuration."""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from torch import nn

from spleen.augment import AugmentSettings
from spleen.build_model import build_classes, build_network, build_part
from spleen.cases import Case, case_from_files
from spleen.config import NiftiData, PhantomData, TrainConfig
from spleen.datamodule import LoaderSettings
from spleen.errors import InputError
from spleen.folds import SplitSettings
from spleen.loggers import WandbSettings
from spleen.module import OptimiserSettings
from spleen.phantom_case import phantom_case
from spleen.wandb_mode import WandbMode, resolve_mode


def build_case(config: TrainConfig) -> Case:
    """The labelled volume that the configuration names; a phantom is computed here if the cache lacks it."""
    data = config.data
    if isinstance(data, PhantomData):
        return phantom_case(Path(config.cache_dir), data.matrix, data.n_slices, data.seed, data.noise_hu)
    assert isinstance(data, NiftiData)
    assert data.image is not None
    assert data.label is not None
    return case_from_files(Path(data.image), Path(data.label))


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


def try_out(config: TrainConfig) -> None:
    """Build once what needs no data, so that a wrong setting is told before any file is read."""
    build_augment_settings(config)
    build_loss(config)
    build_network(config, len(build_classes(config).names))
    resolve_mode(build_wandb_settings(config).mode)


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
    """Name, group and mode of the wandb run: the name tells axis, size and rate, the group is the study."""
    logger = config.logger
    return WandbSettings(
        project=logger.project,
        mode=cast(WandbMode, logger.mode),
        name=logger.name
        or f"{config.axis} {config.img_size}px lr={config.lr:g} {config.model.name} seed={config.seed}",
        group=logger.group or config.study,
        tags=(*logger.tags, config.axis, config.model.name),
        entity=logger.entity,
        log_images=logger.log_images,
        upload_checkpoint=logger.upload_checkpoint,
        init_timeout_seconds=logger.init_timeout_seconds,
        finish_timeout_seconds=logger.finish_timeout_seconds,
    )
