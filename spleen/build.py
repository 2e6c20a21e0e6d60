"""From the configuration to the objects and values of a run. Past this module nobody sees a configuration."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from spleen.augment import AugmentSettings
from spleen.cases import Case, case_from_files
from spleen.config import (
    CtConfig,
    MrConfig,
    NiftiData,
    PhantomData,
    TrainConfig,
    ZScoreConfig,
)
from spleen.datamodule import LoaderSettings
from spleen.errors import InputError
from spleen.folds import SplitSettings
from spleen.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.labels import ClassMap, parse_label_values
from spleen.loggers import WandbMode, WandbSettings, resolve_mode
from spleen.models.padding import PadToMultiple
from spleen.module import OptimiserSettings
from spleen.phantom_case import phantom_case
from spleen.slicing import Resize
from spleen.store import StoreSettings
from spleen.types import AxisName


def build_case(config: TrainConfig) -> Case:
    """The labelled volume that the configuration names; a phantom is computed here if the cache lacks it."""
    data = config.data
    if isinstance(data, PhantomData):
        return phantom_case(Path(config.cache_dir), data.matrix, data.n_slices, data.seed, data.noise_hu)
    assert isinstance(data, NiftiData)
    assert data.image is not None
    assert data.label is not None
    return case_from_files(Path(data.image), Path(data.label))


def axis_of(config: TrainConfig) -> AxisName:
    """The slicing axis, which `check` has found to be a known one."""
    return cast(AxisName, config.axis)


def build_classes(config: TrainConfig) -> ClassMap:
    """The foreground classes."""
    return parse_label_values(config.data.label_values, config.data.organ)


def build_store_settings(config: TrainConfig, classes: ClassMap) -> StoreSettings:
    """How slices are cut, resampled and normalised."""
    return StoreSettings(
        axis=axis_of(config),
        img_size=config.img_size,
        resize=cast(Resize, config.resize),
        size_multiple=config.model.size_multiple,
        intensity=_intensity(config.intensity),
        classes=classes,
        grid_tolerance_mm=config.grid_tolerance_mm,
    )


def _intensity(config: CtConfig | MrConfig | ZScoreConfig) -> Intensity:
    match config:
        case CtConfig():
            return CtWindow(config.window_level, config.window_width)
        case MrConfig():
            return MrPercentiles(config.low_percentile, config.high_percentile)
        case ZScoreConfig():
            return ZScore(config.clip)


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


def build_network(config: TrainConfig, n_foreground: int) -> nn.Module:
    """The network, its input and output channels filled in, accepting slices of any size."""
    model = config.model
    channels = {
        model.in_channels_argument: 1 + 2 * config.context_slices,
        model.out_channels_argument: 1 + n_foreground,
    }
    network = _instantiate("model.network", {**model.network, **channels})
    return PadToMultiple(network, model.size_multiple)


def build_loss(config: TrainConfig) -> nn.Module:
    """The loss, called as loss(logits, class indices)."""
    return _instantiate("loss", config.loss)


def _instantiate(name: str, setting: Mapping[str, Any]) -> nn.Module:
    try:
        built = instantiate(dict(setting))
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from error
        reason = str(error).splitlines()[0]
        cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) not in reason else ""
        raise InputError(f"{name} cannot be built: {reason}{cause}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{name}: {setting['_target_']} gives {type(built).__name__}, not a torch.nn.Module")
    return built


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
