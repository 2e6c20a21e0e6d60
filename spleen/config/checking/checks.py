"""Checks of all values and their combinations, before anything heavy is imported."""

from collections.abc import Iterator, Mapping
from typing import Any

from spleen.config.checking.data import data_problems
from spleen.config.checking.ranges import between, is_whole, one_of
from spleen.config.schema import CtConfig, MrConfig, TrainConfig, ZScoreConfig, process_count
from spleen.errors import InputError

AXES = ("sagittal", "coronal", "axial")
_SIZES = range(16, 4097)


def check(config: TrainConfig) -> None:
    """Raise an InputError that lists all invalid values."""
    problems = [
        *_top_level(config),
        *data_problems(config),
        *_intensity(config),
        *_training(config),
        *_logger(config),
    ]
    if problems:
        raise InputError("\n".join(problems))


def _top_level(config: TrainConfig) -> Iterator[str]:
    yield from one_of("axis", config.axis, AXES)
    yield from one_of("resize", config.resize, ("keep_aspect", "stretch"))
    yield from one_of("precision", config.precision, ("auto", "32", "bf16", "16"))
    yield from between("lr", config.lr, 0, 10, low_included=False)
    yield from _img_size(config)
    yield from _crop_size(config)
    yield from between("batch_size", config.batch_size, 1, 4096, unit="slices")
    yield from between("epochs", config.epochs, 1, 1_000_000)
    if config.max_minutes is not None:
        yield from between("max_minutes", config.max_minutes, 0, 1_000_000, low_included=False, unit="minutes")
    yield from between("seed", config.seed, 0, 2**32 - 1)
    yield from between("context_slices", config.context_slices, 0, 32, unit="slices per side")
    yield from between("grid_tolerance_mm", config.grid_tolerance_mm, 0, 10, unit="mm")
    yield from _warm_start(config)
    yield from _roi(config)
    if config.study in ("", ".", "..") or "/" in config.study:
        yield f"study must be a folder name without '/'; got {config.study!r}"


def _crop_size(config: TrainConfig) -> Iterator[str]:
    size, multiple = config.crop_size, config.model.size_multiple
    yield from one_of("model.dimensions", config.model.dimensions, (2, 3))
    if size is None:
        return
    if config.model.dimensions == 3:
        if not (isinstance(size, list) and len(size) == 3 and all(is_whole(side) and side >= 1 for side in size)):
            yield (
                "crop_size of a 3D network must be three whole numbers [slices,height,width], such as [16,96,96], or "
                f"null to choose them from the data; got {size}"
            )
    elif not is_whole(size):
        hint = "; patches of several slices need a 3D network, such as model=unet3d" if isinstance(size, list) else ""
        yield f"crop_size must be a whole number of pixels, or null for whole slices; got {size}{hint}"
    else:
        yield from between("crop_size", size, _SIZES.start, _SIZES[-1], unit="pixels")
        if size % max(1, multiple):
            yield (
                f"crop_size must be a multiple of {multiple} (model.size_multiple), or each window is padded; "
                f"got {size}"
            )


def _warm_start(config: TrainConfig) -> Iterator[str]:
    yield from between("init_lr_factor", config.init_lr_factor, 0, 1, low_included=False)
    if config.freeze is not None:
        yield from one_of("freeze", config.freeze, ("encoder",))
    without_effect = {"freeze": config.freeze is not None, "init_lr_factor": config.init_lr_factor != 1}
    given = [name for name in (config.init_from, config.model.encoder_weights_file) if name is not None]
    for name in [name for name, is_set in without_effect.items() if is_set and not given]:
        yield f"{name}={getattr(config, name)} needs the weights of another run: set init_from=RUN"
    if len(given) == 2:
        yield "init_from has the weights of an encoder already; use it without model.encoder_weights_file"
    if config.model.network.get("encoder_weights") is not None:
        yield (
            f"model.network.encoder_weights must be null, as nothing is downloaded; got "
            f"'{config.model.network['encoder_weights']}'. Give a local file: model.encoder_weights_file=FILE"
        )


def _roi(config: TrainConfig) -> Iterator[str]:
    yield from between("roi_margin_mm", config.roi_margin_mm, 0, 1000, unit="mm")
    classes = config.roi_classes
    if classes is None:
        return
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        yield f"roi_classes must be a list of classes of the coarse run, such as [pancreas], or null; got '{classes}'"
    elif config.roi_from is None:
        yield f"roi_classes={classes} needs a coarse run: set roi_from=RUN"


def _img_size(config: TrainConfig) -> Iterator[str]:
    size = config.img_size
    if size == "native":
        if config.resize == "stretch":
            yield "img_size=native keeps the voxel grid, so resize=stretch has no effect; leave it at keep_aspect"
    elif not is_whole(size):
        yield f"img_size must be a whole number of pixels, or native to keep the voxel grid; got '{size}'"
    else:
        yield from between("img_size", size, _SIZES.start, _SIZES[-1], unit="pixels")


def _intensity(config: TrainConfig) -> Iterator[str]:
    intensity = config.intensity
    if isinstance(intensity, CtConfig):
        yield from between("intensity.window_level", intensity.window_level, -1e5, 1e5, unit="HU")
        yield from between("intensity.window_width", intensity.window_width, 0, 1e5, low_included=False, unit="HU")
    if isinstance(intensity, MrConfig):
        low, high = intensity.low_percentile, intensity.high_percentile
        if not 0 <= low < high <= 100:
            yield (
                "intensity.low_percentile must be below intensity.high_percentile, both within 0 … 100; "
                f"got {low:g} and {high:g}"
            )
    if isinstance(intensity, ZScoreConfig):
        yield from between("intensity.clip", intensity.clip, 0, 1000, low_included=False)


def _training(config: TrainConfig) -> Iterator[str]:
    loader, optimiser, schedule, trainer = config.loader, config.optimiser, config.schedule, config.trainer
    if loader.slices_per_epoch is not None and loader.slices_per_epoch < config.batch_size:
        yield (
            f"loader.slices_per_epoch={loader.slices_per_epoch} is less than one batch (batch_size="
            f"{config.batch_size}); increase it, or use null for one pass over the training slices"
        )
    yield from between("loader.foreground_fraction", loader.foreground_fraction, 0, 1)
    yield from between("loader.num_workers", loader.num_workers, 0, 256)
    if loader.on_device != "auto" and not isinstance(loader.on_device, bool):
        yield f"loader.on_device must be auto, true or false; got {loader.on_device}"
    yield from between("model.size_multiple", config.model.size_multiple, 1, 512, unit="pixels")
    yield from _target("model.network", config.model.network)
    yield from _target("loss", config.loss)
    yield from between("optimiser.weight_decay", optimiser.weight_decay, 0, 100)
    for name in ("beta1", "beta2"):
        yield from between(f"optimiser.{name}", getattr(optimiser, name), 0, 0.999999)
    if optimiser.gradient_clip is not None:
        yield from between("optimiser.gradient_clip", optimiser.gradient_clip, 0, 1e6, low_included=False)
    if optimiser.ema_decay is not None:
        yield from between("optimiser.ema_decay", optimiser.ema_decay, 0, 0.999999, low_included=False)
    yield from one_of("schedule.kind", schedule.kind, ("cosine", "polynomial", "constant", "one_cycle"))
    yield from between("schedule.warmup_fraction", schedule.warmup_fraction, 0, 0.9)
    yield from between("schedule.final_factor", schedule.final_factor, 0, 1)
    yield from between("schedule.power", schedule.power, 0, 10, low_included=False)
    yield from one_of("trainer.accelerator", trainer.accelerator, ("auto", "cpu", "gpu", "mps"))
    yield from _processes(config)
    most_epochs = max(1, config.epochs) if config.max_minutes is None else 1_000_000
    yield from between("trainer.val_every_epochs", trainer.val_every_epochs, 1, most_epochs)
    if trainer.early_stopping_patience is not None:
        yield from between("trainer.early_stopping_patience", trainer.early_stopping_patience, 1, 1_000_000)


def _logger(config: TrainConfig) -> Iterator[str]:
    yield from one_of("logger.mode", config.logger.mode, ("auto", "online", "offline", "disabled"))
    for name in ("init_timeout_seconds", "finish_timeout_seconds"):
        yield from between(f"logger.{name}", getattr(config.logger, name), 1, 86_400, unit="seconds")
    if not config.logger.project:
        yield "logger.project must be a name; it is empty"


def _processes(config: TrainConfig) -> Iterator[str]:
    trainer = config.trainer
    yield from one_of("trainer.strategy", trainer.strategy, ("auto", "ddp", "fsdp"))
    yield from between("trainer.num_nodes", trainer.num_nodes, 1, 1024, unit="nodes")
    devices = trainer.devices
    numbers = devices if isinstance(devices, list) else [devices]
    if not (
        all(is_whole(number) and number >= 0 for number in numbers)
        and numbers
        and len(set(numbers)) == len(numbers)
        and devices != 0
    ):
        yield f"trainer.devices must be 1, or the number of one GPU in brackets such as [0]; got {devices}"
        return
    count = process_count(trainer)
    if count > 1 and trainer.strategy == "auto":
        yield (
            "trainer.devices must be 1, or the number of one GPU in brackets such as [0]; got "
            f"{devices}{f' on {trainer.num_nodes} nodes' if trainer.num_nodes > 1 else ''}. For several processes use "
            f"trainer.strategy=ddp trainer.devices={devices}"
        )
    if config.batch_size % max(1, count):
        yield (
            f"batch_size={config.batch_size} cannot be divided equally among {count} processes "
            f"(trainer.devices × trainer.num_nodes); use a multiple of {count}"
        )
    if count > 1 and trainer.accelerator == "mps":
        yield "trainer.accelerator=mps is a single device; several processes need cpu or gpu"
    if count > 1 and trainer.strategy == "fsdp":
        yield from _fsdp(config)


def _fsdp(config: TrainConfig) -> Iterator[str]:
    if config.trainer.accelerator == "cpu":
        yield "trainer.strategy=fsdp needs GPUs; on a CPU use trainer=ddp"
    if config.freeze is not None or config.init_lr_factor != 1:
        # FSDP flattens the weights of layers into one, which cannot be trained in part.
        yield "freeze and init_lr_factor do not work with trainer.strategy=fsdp; use trainer=ddp, or leave them out"
    if config.optimiser.ema_decay is not None:
        yield "optimiser.ema_decay does not work with trainer.strategy=fsdp; use trainer=ddp, or null"
    if config.img_size == "native" and config.crop_size is not None:
        # Predicting a window is a collective operation, and cases of different sizes have different numbers of windows.
        yield "crop_size with img_size=native does not work with trainer.strategy=fsdp; use trainer=ddp"


def _target(name: str, setting: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(setting.get("_target_"), str):
        yield f"{name} needs a _target_: the full Python name of the class to build"
