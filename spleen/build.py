"""From the configuration to the objects and values of a run. Past this module nobody sees a configuration."""

from dataclasses import fields
from typing import Any, cast

from torch import nn

from spleen.augment import AugmentSettings
from spleen.build_model import build_spec
from spleen.config import TrainConfig, size_text
from spleen.datamodule import LoaderSettings
from spleen.errors import InputError
from spleen.folds import SplitSettings
from spleen.loggers import WandbSettings
from spleen.models.factory import build_network, build_part
from spleen.module import OptimiserSettings
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


def try_out(config: TrainConfig) -> None:
    """Build once what needs no data, so that a wrong setting is told before any file is read."""
    build_augment_settings(config)
    build_loss(config)
    build_network(build_spec(config))
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
