"""The configuration as typed records: the schema that every key must fit, and its way from Hydra's tree.

Nothing heavy is imported here: `spleen train --help` must answer at once.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from spleen.effect import DATA_PATHS
from spleen.errors import InputError
from spleen.system.resources import train_command


@dataclass
class PhantomData:
    """data=phantom."""

    kind: str
    organ: str
    label_values: Any
    matrix: int
    n_slices: int
    noise_hu: float
    seed: int


@dataclass
class NiftiData:
    """data=nifti."""

    kind: str
    organ: str
    label_values: Any
    image: str | None
    label: str | None


@dataclass
class CasesData:
    """What every kind of data with many cases has."""

    kind: str
    organ: str
    label_values: Any
    channels: int | None
    groups: str | None
    skip_bad: bool


@dataclass
class DatasetData(CasesData):
    """data=decathlon and data=nnunet: a folder with a dataset.json."""

    root: str | None


@dataclass
class FolderData(CasesData):
    """data=folder: images and labels paired by name."""

    images: str | None
    labels: str | None


@dataclass
class TableData(CasesData):
    """data=table: a CSV with one row for each case."""

    table: str | None


@dataclass
class SplitConfig:
    """split: how one volume is cut into blocks, and many cases into parts. Earlier runs knew one volume alone."""

    val_share: float
    test_share: float
    test_blocks: int
    guard_mm: float
    seed: int
    folds: int = 5
    splits_file: str | None = None
    test_cases: str | None = None


@dataclass
class LoaderConfig:
    """loader: how slices become batches."""

    slices_per_epoch: int | None
    foreground_share: float
    num_workers: int


@dataclass
class CtConfig:
    """intensity=ct."""

    kind: str
    window_level: float
    window_width: float


@dataclass
class MrConfig:
    """intensity=mr."""

    kind: str
    low_percentile: float
    high_percentile: float


@dataclass
class ZScoreConfig:
    """intensity=zscore."""

    kind: str
    clip: float


@dataclass
class AutoIntensity:
    """intensity=auto: what the data's files say of their modality; `complete` puts one of the others in its place."""

    kind: str


@dataclass
class ModelConfig:
    """model: any network, by `_target_`."""

    name: str
    size_multiple: int
    in_channels_argument: str
    out_channels_argument: str
    network: dict[str, Any]


@dataclass
class OptimiserConfig:
    """optimiser: AdamW."""

    weight_decay: float
    beta1: float
    beta2: float
    gradient_clip: float | None
    ema_decay: float | None


@dataclass
class ScheduleConfig:
    """schedule: the learning rate over the steps."""

    kind: str
    warmup_share: float
    power: float
    final_factor: float


@dataclass
class TrainerConfig:
    """trainer: hardware and stopping. Runs recorded before there were several processes had one."""

    accelerator: str
    devices: Any
    early_stopping_patience: int | None
    val_every_epochs: int
    progress: bool
    strategy: str = "auto"
    num_nodes: int = 1


@dataclass
class LoggerConfig:
    """logger: wandb, or nothing."""

    mode: str
    project: str
    entity: str | None
    name: str | None
    group: str | None
    tags: list[str]
    log_images: bool
    upload_checkpoint: bool
    init_timeout_seconds: float
    finish_timeout_seconds: float


@dataclass
class TrainConfig:
    """The whole configuration of one training run; conf/train.yaml explains every value."""

    study: str
    lr: float
    img_size: Any  # pixels, or "native"
    axis: str
    batch_size: int
    epochs: int
    seed: int
    context_slices: int
    resize: str
    precision: str
    compile: bool
    grid_tolerance_mm: float
    output_dir: str
    cache_dir: str
    debug: bool
    search: Any  # None, or which trial of which search this run is (spleen.search)
    data: Any  # one of DATA
    split: SplitConfig
    loader: LoaderConfig
    intensity: Any  # one of INTENSITIES
    model: ModelConfig
    loss: dict[str, Any]
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    augment: dict[str, Any]
    trainer: TrainerConfig
    logger: LoggerConfig
    fold: Any = None  # None, a number from 0 on, or "all"
    crop_size: int | None = None


DATA: dict[str, type] = {
    "phantom": PhantomData,
    "nifti": NiftiData,
    "decathlon": DatasetData,
    "nnunet": DatasetData,
    "folder": FolderData,
    "table": TableData,
}
INTENSITIES: dict[str, type] = {"ct": CtConfig, "mr": MrConfig, "zscore": ZScoreConfig, "auto": AutoIntensity}
# The values that are paths, which are seen from the caller's folder.


def parse(tree: DictConfig) -> TrainConfig:
    """Check Hydra's tree against the schema, and return it as typed records.

    Raises InputError for a key that the schema lacks (also one added with `+`), a value of the wrong type, or a value
    without which nothing can start.
    """
    schema = OmegaConf.structured(TrainConfig)
    for group, kinds in (("data", DATA), ("intensity", INTENSITIES)):
        kind = OmegaConf.select(tree, f"{group}.kind")
        if kind not in kinds:
            raise InputError(f"{group}.kind must be one of {', '.join(kinds)}; got {kind!r}")
        schema[group] = OmegaConf.structured(kinds[kind])
    try:
        merged = OmegaConf.merge(schema, tree)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    return _with_absolute_paths(cast(TrainConfig, config))


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Paths as seen from the caller's folder, so that the recorded configuration can be repeated from anywhere."""
    config.output_dir, config.cache_dir = _absolute(config.output_dir), _absolute(config.cache_dir)
    for part, keys in ((config.data, DATA_PATHS), (config.split, ("splits_file", "test_cases"))):
        for key in keys:
            if path := getattr(part, key, None):
                setattr(part, key, _absolute(path))
    return config


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def explain(error: OmegaConfBaseException) -> str:
    """A configuration error in one line, without the library's inner terms."""
    key = error.full_key or ""
    if isinstance(error, ConfigKeyError):
        return unknown_key(key)
    return f"{key}: {str(error.msg or error).splitlines()[0]}".removeprefix(": ")


def unknown_key(key: str) -> str:
    """The message for a key that does not exist, with the nearest ones that do."""
    for group, options in (("data", DATA), ("intensity", INTENSITIES)):
        having = [name for name, option in options.items() if key in {f"{group}.{f.name}" for f in fields(option)}]
        if having:
            return f"'{key}' belongs to {group}={having[0]}, which is not chosen; add {group}={having[0]} to use it"
    known = sorted(set(_keys(TrainConfig)) | {f"data.{f}" for f in _option_keys(DATA)})
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.6)
    near += [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.7)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ";"
    return f"unknown key '{key}'{hint} `{train_command()} --help` explains the keys, `--cfg job` lists them all"


def _option_keys(options: dict[str, type]) -> Iterator[str]:
    for option in options.values():
        yield from (field.name for field in fields(option))


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for field in fields(schema):
        yield f"{prefix}{field.name}"
        if is_dataclass(field.type):
            yield from _keys(cast(type, field.type), f"{prefix}{field.name}.")


def size_text(img_size: int | str) -> str:
    """The slice size in words."""
    return "native grid" if img_size == "native" else f"{img_size} px"
