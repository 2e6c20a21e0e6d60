"""The configuration as typed records: the schema of all keys.

Imports nothing heavy: `spleen train --help` must be instant.
"""

from dataclasses import dataclass, field
from typing import Any


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
    ignore_value: int | None = None  # older records lack it
    regions_class_order: Any = None  # as well


@dataclass
class CasesData:
    """The settings common to all kinds of data with many cases."""

    kind: str
    organ: str
    label_values: Any
    channels: int | None
    groups: str | None
    skip_bad: bool
    background_values: Any = field(default=None, kw_only=True)  # older records lack it
    ignore_value: int | None = field(default=None, kw_only=True)  # as well
    labelled_classes: Any = field(default=None, kw_only=True)  # as well
    regions_class_order: Any = field(default=None, kw_only=True)  # as well


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
    """split: one volume by blocks of slices, many cases by case. Older records lack the keys with defaults."""

    val_fraction: float
    test_fraction: float
    test_blocks: int
    guard_mm: float
    seed: int
    folds: int = 5
    splits_file: str | None = None
    test_cases: str | None = None


@dataclass
class LoaderConfig:
    """loader: how slices become batches. Older records lack the key with a default."""

    slices_per_epoch: int | None
    foreground_fraction: float
    num_workers: int
    on_device: Any = "auto"  # or a boolean


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
    """intensity=auto: CT or MR according to the data's own files; replaced by `complete`."""

    kind: str


@dataclass
class ModelConfig:
    """model: any network, by `_target_`. Older records lack the key with a default."""

    name: str
    size_multiple: int
    in_channels_argument: str
    out_channels_argument: str
    network: dict[str, Any]
    dimensions: int = 2
    encoder_weights_file: str | None = None


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
    warmup_fraction: float
    power: float
    final_factor: float


@dataclass
class TrainerConfig:
    """trainer: hardware and stopping. Older records lack the keys with defaults."""

    accelerator: str
    devices: Any
    early_stopping_patience: int | None
    val_every_epochs: int
    progress: bool
    strategy: str = "auto"
    num_nodes: int = 1


@dataclass
class LoggerConfig:
    """logger: wandb, or none. Older records lack the keys with defaults."""

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
    upload_last_checkpoint: bool = False
    log_console: bool = True
    log_code: bool = True


@dataclass
class TrainConfig:
    """The complete configuration of one training run; conf/train.yaml explains every value."""

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
    search: Any  # None, or the trial of a search that this run is (spleen.runs.sweeps.search)
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
    fold: Any = None  # None, a number from 0, or "all"
    max_minutes: float | None = None
    score_test: bool = True
    crop_size: Any = None  # pixels, or in 3D [slices, height, width]
    verify: bool = False
    report: bool = True
    init_from: str | None = None
    init_lr_factor: float = 1.0
    freeze: str | None = None
    allow_seen_test: bool = False
    roi_from: str | None = None
    roi_margin_mm: float = 20.0
    roi_classes: Any = None  # None for all, or a list of names


DATA: dict[str, type] = {
    "phantom": PhantomData,
    "nifti": NiftiData,
    "decathlon": DatasetData,
    "nnunet": DatasetData,
    "folder": FolderData,
    "table": TableData,
}


INTENSITIES: dict[str, type] = {"ct": CtConfig, "mr": MrConfig, "zscore": ZScoreConfig, "auto": AutoIntensity}


def size_text(img_size: int | str) -> str:
    """The slice size as text."""
    return "native grid" if img_size == "native" else f"{img_size} px"


def processes_per_node(trainer: TrainerConfig) -> int:
    """Number of processes per node."""
    return len(trainer.devices) if isinstance(trainer.devices, list) else int(trainer.devices)


def process_count(trainer: TrainerConfig) -> int:
    """Total number of training processes."""
    return processes_per_node(trainer) * trainer.num_nodes
